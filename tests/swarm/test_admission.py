"""Checks in their order, and their bounded memories; the lies themselves are in test_lies.py."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from trio.testing import trio_test

from rewards.question import Judged, Question
from swarm.admission import Admission, Refusal, Refused, Seen
from swarm.budget import Budget
from swarm.claims import MAX_FRESH_CHECKS, Claims
from swarm.gossip import Received
from swarm.heard import Heard
from swarm.judge import ScriptedJudge
from swarm.manifest import Rules
from swarm.offers import Offer
from swarm.rollout import Announcement, Rollout
from swarm.wire import SEAL_BYTES, open_rollout

SWARM_ID = "5" * 64


@pytest.fixture
def make_admission(rules: Rules, clock: Any) -> Callable[..., Admission]:
    async def find_known(hash: bytes, rollout: Rollout) -> Refusal | None:
        return None

    def make(node_id: str = "me", judge: ScriptedJudge | None = None) -> Admission:
        admission = Admission(
            *(SWARM_ID, node_id, rules, judge or ScriptedJudge(), find_known),
            *(lambda entry: entry.is_informative, clock),
        )
        admission.judged_tasks = ("sums",)
        admission.claims.deterministic = ("sums",)
        return admission

    return make


def hear(admission: Admission, record: bytes) -> Refusal | None:
    heard = admission.hear(Received(record, "carrier"))
    return heard.reason if isinstance(heard, Refused) else None


def test_announcements_are_checked_in_order(
    make_admission: Callable[..., Admission], maker: Any, clock: Any
) -> None:
    admission = make_admission()
    entry = maker.entry(maker.rollout())
    other_swarm = {"swarm_id": "6" * 64}
    late = {"created": clock() - 10_000}
    record = maker.announcement(entry)
    assert hear(admission, bytes(10_000)) is Refusal.TOO_LARGE
    assert hear(admission, record[:-1]) is Refusal.MALFORMED
    assert hear(admission, record[:20] + b"\x00" + record[21:]) is Refusal.BAD_SIGNATURE
    assert hear(admission, maker.announcement(entry, **other_swarm, **late)) is Refusal.WRONG_SWARM
    assert hear(make_admission(maker.node_id), record) is Refusal.OWN
    assert hear(admission, maker.announcement(entry, **late)) is Refusal.EXPIRED
    assert hear(admission, record) is None
    assert hear(admission, record) is Refusal.REPEATED
    assert hear(admission, maker.announcement(entry, **late)) is Refusal.EXPIRED
    early = maker.announcement(entry, created=clock() + 601)
    assert hear(admission, early) is Refusal.FROM_THE_FUTURE
    assert hear(admission, maker.announcement(entry, entry)) is Refusal.EQUIVOCATION
    clock.now += 10_000
    assert hear(admission, record) is Refusal.REPEATED


def test_wrong_clocks_within_ten_minutes_are_listened_to(
    make_admission: Callable[..., Admission], maker: Any, clock: Any, rules: Rules
) -> None:
    admission = make_admission()
    entry = maker.entry(maker.rollout())
    for number, created in enumerate((clock() + 600, clock() - rules.lifetime_s - 599)):
        record = maker.announcement(entry, sequence=number + 1, created=created)
        assert isinstance(admission.hear(Received(record, "carrier")), Announcement)


def test_older_sequences_are_listened_to(
    make_admission: Callable[..., Admission], maker: Any
) -> None:
    admission = make_admission()
    entry = maker.entry(maker.rollout())
    for sequence in (9, 5, 7, 1):
        assert hear(admission, maker.announcement(entry, sequence=sequence)) is None


def test_refused_announcements_are_counted_at_who_can_have_caused_them(
    make_admission: Callable[..., Admission], maker: Any, clock: Any
) -> None:
    admission = make_admission()
    entry = maker.entry(maker.rollout())
    first, second = maker.announcement(entry), maker.announcement(entry, entry)
    admission.hear(Received(first, "x"))
    assert admission.hear(Received(first, "x")) == Refused(Refusal.REPEATED, "x")
    equivocation = Refused(Refusal.EQUIVOCATION, maker.node_id, (first, second))
    assert admission.hear(Received(second, "x")) == equivocation
    for record in (second, first, maker.announcement(entry, entry, entry)):
        assert admission.hear(Received(record, "x")) == Refused(Refusal.REPEATED, "x")


def test_another_signature_under_the_same_words_is_no_equivocation(maker: Any) -> None:
    record = maker.announcement(maker.entry(maker.rollout()))
    resigned = record[:16] + bytes(64) + record[SEAL_BYTES:]
    heard = Heard()
    heard.remember("a", 1, record)
    assert heard.is_repeated("a", 1, resigned)
    assert not heard.is_repeated("a", 2, record) and not heard.is_repeated("b", 1, record)


def test_the_memory_of_what_was_heard_is_bounded() -> None:
    heard = Heard(max_per_author=3, max_bytes=1000)
    for sequence in range(5):
        heard.remember("a", sequence, bytes(100))
    known = [heard.is_repeated("a", sequence, bytes(100)) for sequence in range(5)]
    assert known == [False, False, True, True, True]
    for number in range(50):
        heard.remember(f"minted {number}", 1, bytes(100))
    assert heard._num_bytes <= 1000
    assert not heard.is_repeated("a", 4, bytes(100))
    assert heard.is_repeated("minted 49", 1, bytes(100))


def test_entries_are_checked_in_order(make_admission: Callable[..., Admission], maker: Any) -> None:
    check = make_admission().check_entry
    record = maker.rollout()
    many = {"correct": (True, False) * 5}
    assert check(maker.entry(record, question=Question("no", 1), **many)) is Refusal.UNKNOWN_TASK
    not_here = maker.entry(record, question=Question("code", 1), **many)
    assert check(not_here) is Refusal.TASK_NOT_JUDGED_HERE
    assert check(maker.entry(record, **many)) is Refusal.TOO_MANY_ANSWERS
    assert check(maker.entry(record, correct=(True, True))) is Refusal.NOT_WANTED
    assert check(maker.entry(record)) is None


@trio_test
async def test_a_rollout_above_the_limit_is_not_even_hashed(
    make_admission: Callable[..., Admission], maker: Any, clock: Any
) -> None:
    record = bytes(2**20 + 1)
    offer = Offer(maker.entry(record), maker.node_id, 1, "carrier", b"", clock(), clock() + 1)
    assert await make_admission().admit(offer, record) is Refusal.ROLLOUT_TOO_LARGE


@trio_test
async def test_what_a_check_brought_to_light_is_told_whatever_came_of_it(
    make_admission: Callable[..., Admission], maker: Any, clock: Any
) -> None:
    record = maker.rollout()
    for correct, refusal in (((True, True), Refusal.WRONG_CLAIM), ((True, False), None)):
        entry, seen = maker.entry(record, correct=correct), Seen()
        offer = Offer(entry, maker.node_id, maker.sequence, "c", b"", clock(), clock() + 1)
        found = await make_admission().admit(offer, record, seen)
        assert (found is refusal) == (refusal is not None)
        assert seen.rollout == open_rollout(record)
        assert seen.expansion is not None and seen.expansion.question == Question("sums", 7)
        assert seen.verdicts == [Judged(True), Judged(False)]
    nothing = Seen()
    junk = bytes(500)
    offer = Offer(maker.entry(junk), maker.node_id, 1, "c", b"", clock(), clock() + 1)
    await make_admission().admit(offer, junk, nothing)
    assert nothing == Seen()


@pytest.fixture
def compare(clock: Any, make_maker: Callable[[int], Any]) -> Callable[..., Any]:
    """Compares the claims of author number n, which are wrong or not, by the same Claims."""
    claims = Claims(ScriptedJudge(), Budget(clock=clock), clock)
    claims.deterministic = {"sums"}

    async def compare(number: int, differs: bool) -> tuple[Refusal | None, str]:
        rollout = open_rollout(make_maker(number).rollout())
        own: Sequence[Judged] = (Judged(True), Judged(False))
        claimed = (not differs, False)
        return await claims.compare(rollout, claimed, own), claims.suspicion

    return compare


@trio_test
async def test_a_node_suspects_itself_from_five_authors_on(compare: Any) -> None:
    for number in range(1, 5):
        assert await compare(number, True) == (Refusal.WRONG_CLAIM, "")
    refusal, suspicion = await compare(5, True)
    assert refusal is Refusal.DISAGREEMENT and "5 of 5 authors" in suspicion
    for number in range(6, 10):
        assert await compare(number, False) == (None, suspicion.replace("5 of 5", f"5 of {number}"))
    assert await compare(10, False) == (None, "")


@trio_test
async def test_one_author_alone_makes_no_suspicion(compare: Any, clock: Any) -> None:
    for _ in range(20):
        assert (await compare(1, True))[1] == ""
        clock.now += 10


@trio_test
async def test_five_authors_of_whom_two_lie_make_no_suspicion(compare: Any) -> None:
    outcomes = [await compare(number, number <= 2) for number in range(1, 6)]
    assert outcomes == [(Refusal.WRONG_CLAIM, "")] * 2 + [(None, "")] * 3


@trio_test
async def test_suspicion_ends_when_what_caused_it_is_old(compare: Any, clock: Any) -> None:
    for number in range(1, 6):
        await compare(number, True)
    clock.now += 3601
    assert await compare(6, True) == (Refusal.WRONG_CLAIM, "")


@trio_test
async def test_minted_keys_get_no_more_fresh_workers_than_there_are(
    compare: Any, clock: Any
) -> None:
    for number in range(1, 50):
        await compare(number, False)  # so that what follows is no suspicion
    found = [(await compare(number, True))[0] for number in range(100, 120)]
    assert found.count(Refusal.WRONG_CLAIM) == MAX_FRESH_CHECKS
    clock.now += 61
    assert (await compare(200, True))[0] is Refusal.WRONG_CLAIM
