import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from node.rollout_log import OwnRollouts, RolloutLog
from node.rollout_view import PREVIEW_CHARS, Fate, Kind
from node.status import ForeignFate, ForeignGroup, RoundReport
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable
from swarm.admission import Seen
from swarm.database import Database, MemoryDatabase, open_database
from swarm.identity import Identity
from swarm.intake import Outcome
from swarm.offers import Offer
from swarm.pool import Pool
from swarm.refusal import Refusal
from swarm.rollout import Entry, Rollout
from swarm.wire import rollout_hash, seal

PEER = Identity(b"p" * 32)
NOW = 2000.0
ANSWERS = (Answer("7", True, 3, -0.5), Answer("<b>8", False, 5, -0.7))


class Box:
    """A log with its pool."""

    def __init__(
        self, database: Database | None = None, max_bytes: int = 1 << 20, max_rows: int = 100
    ) -> None:
        database = database or MemoryDatabase()
        self.pool = Pool(database, 1000.0, 1 << 20, clock=lambda: self.now)
        self.log = RolloutLog(database, self.pool, max_bytes, max_rows, lambda: self.now)
        self.now = NOW

    def take(
        self,
        index: int,
        refusal: Refusal | None = None,
        num_verdicts: int = 2,
        is_made: bool = True,
        answers: tuple[Answer, ...] = ANSWERS,
    ) -> bytes:
        """A peer's rollout as the intake tells of it; its hash."""
        question = Question("sums", index)
        rollout = Rollout("ab" * 32, PEER.node_id, 9, question, answers, "tiny", 4, NOW - 10)
        record = seal(rollout, PEER)
        hash = rollout_hash(record)
        expansion = Expansion(question, f"say {index}", str(index)) if is_made else None
        verdicts = [Judged(True), Judged(False)][:num_verdicts]
        if refusal is None:
            assert expansion is not None
            self.pool.add_foreign(record, rollout, expansion, (True, False), NOW)
        entry = Entry(hash, question, len(record), (True, True), 4)
        offer = Offer(entry, PEER.node_id, 9, PEER.node_id, b"", NOW - 5, NOW + 1000)
        self.log.add_foreign(Outcome(offer, Seen(rollout, expansion, list(verdicts)), refusal))
        return hash

    def fates(self, kind: Kind = Kind.FOREIGN) -> list[tuple[int, Fate]]:
        return [(one.index, one.fate) for one in self.log.newest(kind, 100)]


def report(number: int, *foreign: ForeignGroup) -> RoundReport:
    return RoundReport(
        number, 0.5, 0.5, 0.0, 1, 2, 0, 10, 1.0, 1.0, None, 0.0, 1.0, 1e-4, 0.0, {},
        foreign=foreign,
    )  # fmt: skip


def group(hash: bytes, fate: ForeignFate) -> ForeignGroup:
    return ForeignGroup(PEER.node_id, hash, "sums", fate, 4, 1.0)


def test_a_peers_rollout_is_shown_with_verdicts_and_claims_side_by_side() -> None:
    box = Box()
    hash = box.take(7)
    found = box.log.find(hash)
    assert found is not None
    assert (found.kind, found.author, found.sequence) == (Kind.FOREIGN, PEER.node_id, 9)
    assert (found.question, found.truth) == ("say 7", "7")
    assert (found.policy_round, found.created, found.age_s) == (4, NOW - 10, 5.0)
    assert [one.text for one in found.answers] == ["7", "<b>8"]
    assert [one.correct for one in found.answers] == [True, False]
    assert [one.claimed for one in found.answers] == [True, True]
    assert (found.num_answers, found.num_judged, found.num_correct) == (2, 2, 1)
    assert (found.fate, found.reason) == (Fate.IN_POOL, None)
    assert box.log.find(bytes(32)) is None


def test_the_fate_of_an_admitted_one_follows_the_pool_and_the_rounds() -> None:
    box = Box()
    hashes = [box.take(index, answers=(*ANSWERS, Answer(str(index), True))) for index in range(4)]
    assert {fate for _, fate in box.fates()} == {Fate.IN_POOL}
    drawn = [one.hash for one in box.pool.draw(3, 3, random.Random(0))]
    box.log.note_round(
        report(6, group(drawn[0], ForeignFate.USED), group(drawn[1], ForeignFate.TOO_LONG))
    )
    used, left_out, waiting = (box.log.find(hash) for hash in drawn)
    assert used is not None and left_out is not None and waiting is not None
    assert (used.fate, used.round, used.reason) == (Fate.USED, 6, None)
    assert (left_out.fate, left_out.round) == (Fate.REFUSED, 6)
    assert left_out.reason == "too_long_for_model"
    assert waiting.fate is Fate.DRAWN
    (rest,) = set(hashes) - set(drawn)
    box.now += 10_000  # all have expired
    assert box.pool.used(hashes) == {}
    gone = box.log.find(rest)
    assert gone is not None and gone.fate is Fate.GONE
    assert box.log.find(drawn[0]).fate is Fate.USED  # type: ignore[union-attr]


def test_a_refused_one_says_why_and_how_far_it_came() -> None:
    box = Box()
    early = box.log.find(box.take(1, Refusal.COPIED, num_verdicts=0, is_made=False))
    late = box.log.find(box.take(2, Refusal.WRONG_CLAIM, num_verdicts=1))
    assert early is not None and late is not None
    assert (early.fate, early.reason, early.question) == (Fate.REFUSED, "copied", None)
    assert early.preview is None
    assert [one.correct for one in early.answers] == [None, None]
    assert (late.reason, late.question, late.num_judged) == ("wrong_claim", "say 2", 1)
    assert [one.correct for one in late.answers] == [True, None]


def test_what_is_no_rollout_or_known_already_leaves_no_trace() -> None:
    box = Box()
    hash = box.take(7)
    box.take(7, Refusal.SEEN)
    box.take(7, Refusal.OVER_BUDGET)
    found = box.log.find(hash)
    assert found is not None and found.fate is Fate.IN_POOL
    entry = Entry(bytes(32), Question("sums", 1), 10, (True, True), 4)
    offer = Offer(entry, PEER.node_id, 9, PEER.node_id, b"", NOW, NOW + 1000)
    box.log.add_foreign(Outcome(offer, Seen(), Refusal.ROLLOUT_MALFORMED))
    assert len(box.fates()) == 1


def test_one_that_was_refused_and_is_admitted_later_is_shown_as_admitted() -> None:
    box = Box()
    box.take(7, Refusal.OVER_BUDGET, num_verdicts=0)
    box.take(7)
    assert box.fates() == [(7, Fate.IN_POOL)]


def test_pages_go_back_from_the_newest_without_gaps() -> None:
    box = Box()
    for index in range(7):
        box.take(index, Refusal.DISAGREEMENT)
    seen: list[int] = []
    before = None
    while page := box.log.newest(Kind.FOREIGN, 3, before):
        seen += [one.index for one in page]
        before = page[-1].number
        box.take(100 + len(seen), Refusal.DISAGREEMENT)  # what comes meanwhile moves no page
    assert seen == [6, 5, 4, 3, 2, 1, 0]


def test_rollouts_of_one_author_or_task_can_be_asked_for() -> None:
    box = Box()
    box.take(1)
    assert len(box.log.newest(None, 9, author=PEER.node_id, task="sums")) == 1
    assert box.log.newest(None, 9, author="somebody") == []
    assert box.log.newest(None, 9, task="products") == []


@pytest.mark.parametrize(("max_bytes", "max_rows"), [(1 << 20, 3), (4000, 100)])
def test_a_flood_of_one_kind_leaves_the_others_theirs(max_bytes: int, max_rows: int) -> None:
    box = Box(max_bytes=max_bytes, max_rows=max_rows)
    box.take(1)
    add_own(box, 2)
    for index in range(3, 60):
        box.take(index, Refusal.DISAGREEMENT)
    refused = [index for index, fate in box.fates() if fate is Fate.REFUSED]
    assert 1 <= len(refused) <= 5
    assert refused[0] == 59, "the oldest give way"
    assert (1, Fate.IN_POOL) in box.fates()
    assert box.fates(Kind.OWN) == [(2, Fate.NOT_SHARED)]


def test_a_node_may_keep_none() -> None:
    box = Box(max_bytes=0)
    box.take(1)
    add_own(box, 2)
    assert box.log.newest(None, 9) == []


def test_rollouts_survive_the_process_and_a_lower_bound_holds_at_once(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "db")) as database:
        box = Box(database)
        hashes = [box.take(index) for index in range(3)]
        before = box.log.find(hashes[2])
    with closing(open_database(tmp_path / "db")) as database:
        box = Box(database, max_rows=1)
        assert box.log.find(hashes[2]) == before
        assert box.log.find(hashes[0]) is None


def expand(index: int) -> Expansion:
    return Expansion(Question("sums", index), f"say {index} " * 60, str(index))


def add_own(box: Box, index: int, hear: Callable[[OwnRollouts], None] = lambda own: None) -> None:
    own = OwnRollouts("me", "tiny", lambda: box.now)
    own.asked(3, [expand(index)])
    own.judged([(Question("sums", index), ANSWERS)], [(Judged(True), Unscorable(Reason.MEMORY))])
    hear(own)
    box.log.add_own(own.take(3))


def test_an_own_rollout_that_nobody_is_offered_is_shown_too() -> None:
    box = Box()
    add_own(box, 7)
    (summary,) = box.log.newest(Kind.OWN, 9)
    assert summary.preview is not None and len(summary.preview) == PREVIEW_CHARS
    found = box.log.find(summary.hash)
    assert found is not None
    assert (found.fate, found.round, found.policy_round) == (Fate.NOT_SHARED, 3, 2)
    assert (found.author, found.sequence, found.model) == ("me", None, "tiny")
    assert found.question == expand(7).text
    assert [one.correct for one in found.answers] == [True, None]
    assert [one.unscorable for one in found.answers] == [None, "memory"]
    assert [one.claimed for one in found.answers] == [None, None]


def test_an_own_rollout_that_is_shared_is_named_as_peers_know_it() -> None:
    rollout = Rollout("ab" * 32, "me", 12, Question("sums", 7), ANSWERS, "tiny", 2, NOW)
    box = Box()
    add_own(box, 7, lambda own: own.hear_kept(rollout, b"h" * 32))
    found = box.log.find(b"h" * 32)
    assert found is not None
    assert (found.fate, found.sequence, found.created) == (Fate.SHARED, 12, NOW)


def test_only_what_belongs_to_the_round_is_taken() -> None:
    own = OwnRollouts("me", "tiny", lambda: NOW)
    own.asked(3, [expand(1)])
    own.asked(3, [expand(2)])  # further ones of the same round
    exam = Question("sums", 99)
    asked = [Question("sums", 1), Question("sums", 2), exam]
    own.judged([(one, ANSWERS) for one in asked], [(Judged(True),) * 2] * 3)
    assert [summary.index for summary, _ in own.take(3)] == [1, 2]
    assert own.take(3) == []
    own.asked(4, [expand(1)])
    own.judged([(Question("sums", 1), ANSWERS)], [(Judged(True),) * 2])
    own.asked(5, [expand(2)])  # round 4 was abandoned
    assert own.take(4) == []


def test_a_summary_is_part_of_the_whole() -> None:
    box = Box()
    hash = box.take(7)
    (summary,) = box.log.newest(None, 9)
    whole = box.log.find(hash)
    assert whole is not None
    for name, value in msgspec.structs.asdict(summary).items():
        assert getattr(whole, name) == value, name
