"""What is fetched, from whom and how much of it; test_lies.py has what is refused and who pays."""

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, trio_test

from rewards.question import Answer, Question, Verdict
from rewards.verifier import VerifierBroken
from swarm.fetch import MAX_REPLY_BYTES
from swarm.gossip import FetchFailed
from swarm.intake import IntakeLimits
from swarm.judge import ScriptedJudge
from swarm.offers import Offer, Offers
from swarm.protocol import MAX_FETCH_HASHES
from swarm.wanted import Wanted

LONG = 100.0


def watch_fetches(node: Any) -> list[tuple[str, int]]:
    """Whom the node asks from now on, and for how many rollouts."""
    asked: list[tuple[str, int]] = []
    fetch = node.gossip.fetch

    async def watched(node_id: str, hashes: Any, max_bytes: int) -> dict[bytes, bytes]:
        asked.append((node_id, len(hashes)))
        assert max_bytes <= MAX_REPLY_BYTES
        return await fetch(node_id, hashes, max_bytes)

    node.gossip.fetch = watched
    return asked


async def offer_many(peer: Any, num: int, first: int = 0) -> None:
    for start in range(first, first + num, 24):
        indices = range(start, min(start + 24, first + num))
        entries = []
        for index in indices:
            record = peer.serve(peer.rollout(index, (str(index), peer.node_id[-8:])))
            entries.append(peer.entry(record, index))
        await peer.announce(*entries)


@trio_test
async def test_no_more_is_fetched_than_is_missing(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node(fresh_target=5)
    asked = watch_fetches(node)
    async with swarm.running():
        await offer_many(peer, 40)
        await trio.sleep(LONG)
        assert sum(num for _, num in asked) == 5 + node.refused.get("held_out", 0)
        assert await node.num_fresh() == 5
        drawn = await node.offload(node.pool.draw, 3, 3, random.Random(0))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 2, "nobody told it that some were drawn"
        node.intake.wake()
        await trio.sleep(LONG)
        assert len(drawn) == 3 and await node.num_fresh() == 5
    assert node.intake.stats().num_admitted == 8


@trio_test
async def test_one_author_does_not_fill_the_pool(swarm: Any, mock_clock: MockClock) -> None:
    loud, quiet = swarm.peer(), swarm.peer()
    node = swarm.node(fresh_target=10, max_from_one_author=4)
    async with swarm.running():
        await offer_many(loud, 60)
        await offer_many(quiet, 2, first=2)
        await trio.sleep(LONG)
        fresh = await node.offload(node.pool.fresh_by_author)
    assert fresh == {loud.node_id: 4, quiet.node_id: 2}


@trio_test
async def test_several_offers_go_into_one_request(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node(fresh_target=40, max_from_one_author=40)
    asked = watch_fetches(node)
    async with swarm.running():
        await offer_many(peer, 40)
        await trio.sleep(LONG)
        assert await node.num_fresh() + node.refused.get("held_out", 0) == 40
    assert [num for _, num in asked] == [16, 16, 8] and MAX_FETCH_HASHES == 16


@trio_test
async def test_what_the_mixing_rule_has_no_use_for_is_not_fetched(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        await peer.offer(texts=("7", "7"), correct=(True, True))
        await trio.sleep(LONG)
    assert peer.num_asked == 0 and node.refused == {"not_wanted": 1}


@trio_test
async def test_a_node_that_takes_nothing_fetches_nothing(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node(fresh_target=0)
    async with swarm.running():
        await peer.offer()
        await trio.sleep(LONG)
    assert peer.num_asked == 0 and node.intake.stats().offers == 1


@trio_test
async def test_a_node_that_wants_nothing_forgets_what_it_hears(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    node.intake.want(Wanted())
    async with swarm.running():
        await peer.offer()
        await trio.sleep(LONG)
    assert peer.num_asked == node.intake.stats().offers == 0
    assert node.refused == {"not_wanted": 1}


@trio_test
async def test_an_offer_is_fetched_when_it_gets_a_weight(swarm: Any, mock_clock: MockClock) -> None:
    weights = {7: 0.0, 8: 1.0}
    peer = swarm.peer()
    node = swarm.node(fresh_target=1, weigh=lambda question, *_: weights[question.index])
    async with swarm.running():
        await peer.offer(7)
        await trio.sleep(LONG)
        assert peer.num_asked == 0 and node.intake.stats().offers == 1
        await peer.offer(8, ("8", "no"))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
        weights.update({7: 1.0, 8: 0.0})
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1, "nobody told it"
        node.intake.wake()
        await trio.sleep(LONG)
        assert await node.num_fresh() == 2, "what has no weight is not at hand"


@trio_test
async def test_what_is_being_judged_and_not_wanted_any_more_is_not_at_hand(
    swarm: Any, mock_clock: MockClock
) -> None:
    weights = {7: 1.0, 8: 1.0}
    first, second = swarm.peer(), swarm.peer()
    node = swarm.node(
        ScriptedJudge(delay_s=1000),
        fresh_target=1,
        weigh=lambda question, *_: weights[question.index],
    )
    async with swarm.running():
        await first.offer(7)
        await trio.sleep(1)
        await second.offer(8, ("8", "no"))
        await trio.sleep(LONG)
        assert (first.num_asked, second.num_asked) == (1, 0)
        weights[7] = 0.0
        node.intake.wake()
        await trio.sleep(1)
        assert second.num_asked == 1


@trio_test
async def test_what_was_judged_before_a_restart_is_not_fetched_again(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        good = await peer.offer(7)
        bad = await peer.offer(8, ("8", "no"), correct=(False, True))
        await trio.sleep(LONG)
        assert node.intake.stats().num_admitted == 1
    num_asked = peer.num_asked
    again = swarm.restart(node)
    async with swarm.running():
        await peer.announce(peer.entry(good), peer.entry(bad, 8, correct=(False, True)))
        await trio.sleep(LONG)
        assert await again.num_fresh() == 1
    assert peer.num_asked == num_asked and again.lies_of(peer) == 1
    assert again.refused == {"wrong_claim": 1, "seen": 2}


@trio_test
async def test_waiting_for_more_ends_with_the_next_rollout(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        await peer.offer(7)
        await trio.sleep(LONG)
        await node.intake.wait_for_more()  # it came before the call, and is not missed
        with trio.move_on_after(LONG) as waiting:
            await node.intake.wait_for_more()
        assert waiting.cancelled_caught
        await peer.offer(8, ("8", "no"))
        await node.intake.wait_for_more()
        assert await node.num_fresh() == 2


@trio_test
async def test_the_way_to_the_pool_is_measured(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node(ScriptedJudge(delay_s=1))
    assert node.intake.stats().announced_to_pool_s is None
    async with swarm.running():
        record = await peer.offer()
        await trio.sleep(LONG)
    stats = node.intake.stats()
    assert stats.announced_to_pool_s == pytest.approx(3.0, abs=0.1)  # a question and two answers
    assert (stats.fetched_bytes, stats.offers, stats.num_admitted) == (len(record), 0, 1)


@trio_test
async def test_a_verifier_that_is_broken_ends_the_intake(swarm: Any, mock_clock: MockClock) -> None:
    class Broken(ScriptedJudge):
        async def judge(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
            raise VerifierBroken("no worker can be started")

    peer, node = swarm.peer(), swarm.node(Broken())
    with pytest.RaisesGroup(VerifierBroken, flatten_subgroups=True):
        async with swarm.running():
            await peer.offer()
            await trio.sleep(LONG)
    assert node.ledger.peers()


@trio_test
async def test_the_end_of_gossip_ends_the_intake_and_writes_the_counts(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.intake.run)
        await peer.offer()
        await trio.sleep(1)
        swarm.network.leave(node.node_id)
    rows = await node.offload(lambda: node.database.execute("SELECT * FROM peers").fetchall())
    assert len(rows) == 1


@trio_test
async def test_failures_are_tried_again_later_and_elsewhere(
    swarm: Any, mock_clock: MockClock
) -> None:
    author, carrier = swarm.peer(), swarm.peer()
    node = swarm.node(limits=IntakeLimits(retry_s=5, max_attempts=4))
    asked: list[tuple[str, float]] = []

    async def fail(node_id: str, hashes: Any, max_bytes: int) -> dict[bytes, bytes]:
        asked.append((node_id, trio.current_time()))
        raise FetchFailed("broken off")

    node.gossip.fetch = fail
    start = trio.current_time()
    async with swarm.running():
        record = author.announcement(author.entry(author.rollout()))
        node.gossip.deliver(record, carrier.node_id)
        await trio.sleep(1000)
    assert [node_id for node_id, _ in asked] == [author.node_id, carrier.node_id] * 2
    waits = [round(when - start) for _, when in asked]
    assert waits[0] == 0 and 5 <= waits[1] <= 11 and 15 <= waits[2] <= 25 and 35 <= waits[3] <= 50
    assert node.refused == {"fetch_failed": 1} and node.num_lies == 0


@trio_test
async def test_a_fetch_has_a_time_limit(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node(limits=IntakeLimits(fetch_timeout_s=30, max_attempts=1))
    node.gossip.fetch = lambda *_: trio.sleep_forever()
    async with swarm.running():
        await peer.offer()
        await trio.sleep(29)
        assert node.refused == {} and node.intake.stats().offers == 1
        await trio.sleep(2)
        assert node.refused == {"fetch_failed": 1} and node.intake.stats().offers == 0


@trio_test
async def test_few_peers_are_asked_at_once(swarm: Any, mock_clock: MockClock) -> None:
    peers = [swarm.peer() for _ in range(10)]
    node = swarm.node(fresh_target=100, limits=IntakeLimits(max_fetches=3, max_attempts=1))
    at_once: list[int] = [0, 0]

    async def slow(node_id: str, hashes: Any, max_bytes: int) -> dict[bytes, bytes]:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await trio.sleep(5)
        at_once[0] -= 1
        return {}

    node.gossip.fetch = slow
    async with swarm.running():
        for number, peer in enumerate(peers):
            await peer.offer(number, (str(number), "no"))
        await trio.sleep(LONG)
    assert at_once == [0, 3] and node.refused == {"fetch_failed": 10}


@trio_test
async def test_a_peer_that_failed_is_left_alone_for_a_while(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node(fresh_target=1)
    asked: list[float] = []

    async def fail(node_id: str, hashes: Any, max_bytes: int) -> dict[bytes, bytes]:
        asked.append(trio.current_time())
        raise FetchFailed("broken off")

    node.gossip.fetch = fail
    async with swarm.running():
        await offer_many(peer, 20)
        await trio.sleep(60)
    waits = [after - before for before, after in pairwise(asked)]
    assert all(5 * 2**n <= wait < 5 * 2**n + 1 for n, wait in enumerate(waits)) and len(waits) == 3


@trio_test
async def test_what_is_under_way_is_not_fetched_twice(swarm: Any, mock_clock: MockClock) -> None:
    author, thief, node = swarm.peer(), swarm.peer(), swarm.node(ScriptedJudge(delay_s=5))
    asked = watch_fetches(node)
    async with swarm.running():
        record = thief.serve(await author.offer())
        await trio.sleep(1)
        await thief.announce(thief.entry(record))
        await author.announce(author.entry(record))
        await trio.sleep(1)
        assert asked == [(author.node_id, 1)]
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
    assert node.refused_of(author) == {"seen": 1}
    assert node.refused_of(thief) == {"not_the_announcers": 1}


@trio_test
async def test_what_is_being_judged_counts_as_at_hand(swarm: Any, mock_clock: MockClock) -> None:
    peers = [swarm.peer() for _ in range(6)]
    node = swarm.node(ScriptedJudge(delay_s=5), fresh_target=3)
    asked = watch_fetches(node)
    async with swarm.running():
        for number, peer in enumerate(peers):
            await peer.offer(number, (str(number), "no"))
            await trio.sleep(1)
        assert len(asked) == 3
        await trio.sleep(LONG)
        assert await node.num_fresh() == 3


@trio_test
async def test_offers_in_memory_are_bounded(swarm: Any, mock_clock: MockClock) -> None:
    loud, quiet = swarm.peer(), swarm.peer()
    limits = IntakeLimits(offers_per_author=20, max_offers=25)
    node = swarm.node(fresh_target=0, limits=limits)
    async with swarm.running():
        await offer_many(quiet, 8)
        await offer_many(loud, 48)
        await trio.sleep(LONG)
        assert node.intake.stats().offers == 25
    assert node.refused_of(loud) == {"crowded_out": 48 - 17} and node.refused_of(quiet) == {}


@trio_test
async def test_the_trio_loop_never_touches_the_disk(swarm: Any, mock_clock: MockClock) -> None:
    """The database refuses to be used from it: everything above would have failed."""
    node = swarm.node()
    with pytest.raises(RuntimeError, match="block the trio loop"):
        node.pool.counts()


def alike_offer(offer: Offer) -> float:
    return 1.0


@pytest.fixture
def make_offer(make_maker: Any, clock: Any) -> Any:
    def make(number: int, index: int, num_bytes: int = 500) -> Offer:
        maker = make_maker(number)
        entry = maker.entry(maker.rollout(index), index, num_bytes=num_bytes)
        return Offer(entry, maker.node_id, 1, "carrier", b"", clock(), clock() + 100)

    return make


def have_four(source: str, others: Collection[str]) -> bool:
    return len(others) < 4


def test_offers_are_taken_uniformly(make_offer: Any) -> None:
    taken: Counter[int] = Counter()
    for seed in range(300):
        offers = Offers()
        for index in range(6):
            offers.add(make_offer(1, index))
        groups = offers.take(
            2, Counter(), 9, lambda offer: "peer", alike_offer, have_four, random.Random(seed)
        )
        assert len(offers) == 4
        taken.update(offer.entry.question.index for offer in groups["peer"])
    assert all(70 < taken[index] < 130 for index in range(6))


def test_offers_are_taken_by_weight_whatever_the_order_in_which_they_came(
    make_offer: Any,
) -> None:
    made = [make_offer(author, index) for author in (1, 2) for index in range(4)]
    for seed in range(20):
        taken = []
        for order in (made, made[::-1]):
            offers = Offers()
            for offer in order:
                offers.add(offer)
            groups = offers.take(
                9,
                Counter(),
                9,
                lambda offer: "peer",
                lambda offer: 10.0 ** (5 * offer.entry.question.index) - 1,
                have_four,
                random.Random(seed),
            )
            taken.append([offer.key for offer in groups["peer"]])
            assert len(offers) == 2, "those without a weight stay"
            indices = [offer.entry.question.index for offer in groups["peer"]]
            assert indices == [3, 3, 2, 2, 1, 1]
        assert taken[0] == taken[1]


def test_drawn_are_the_newest_of_each_author_that_are_wanted(make_offer: Any) -> None:
    seen: set[int] = set()
    for seed in range(50):
        seen |= set(newest_taken(make_offer, seed))
    assert seen == {5, 7, 9, 11, 13, 15, 17, 19}


def newest_taken(make_offer: Any, seed: int) -> list[int]:
    offers = Offers()
    for index in range(20):
        offers.add(replace(make_offer(1, index), first_seen=float(index)))
    groups = offers.take(
        3,
        Counter(),
        99,
        lambda offer: "peer",
        lambda offer: float(offer.entry.question.index % 2),
        have_four,
        random.Random(seed),
    )
    assert len(offers) == 17, "the others wait"
    return [offer.entry.question.index for offer in groups["peer"]]


def test_who_offers_most_is_not_drawn_most(make_offer: Any) -> None:
    taken: Counter[str] = Counter()
    for seed in range(100):
        offers = Offers()
        for index in range(8):
            offers.add(make_offer(1, index))
        for index in range(60):
            offers.add(make_offer(2, index))
        groups = offers.take(
            4, Counter(), 9, lambda offer: "peer", alike_offer, have_four, random.Random(seed)
        )
        taken.update(offer.author for offer in groups["peer"])
    assert all(150 < num < 250 for num in taken.values()) and taken.total() == 400


def test_a_request_is_bounded_in_number_and_bytes(make_offer: Any) -> None:
    offers = Offers()
    for index in range(40):
        offers.add(make_offer(1 + index // 8, index))
    for index in range(8):
        offers.add(make_offer(9, index, num_bytes=2**20))
    groups = offers.take(
        99,
        Counter(),
        99,
        lambda offer: "large" if offer.entry.num_bytes == 2**20 else "small",
        alike_offer,
        have_four,
        random.Random(0),
    )
    assert {name: len(group) for name, group in groups.items()} == {"small": 16, "large": 3}


def test_the_same_hash_is_not_taken_twice(make_offer: Any, make_maker: Any, clock: Any) -> None:
    offers = Offers()
    first = make_offer(1, 7)
    offers.add(first)
    thief = make_maker(2).node_id
    offers.add(Offer(first.entry, thief, 1, "carrier", b"", clock(), clock() + 100))
    groups = offers.take(
        9, Counter(), 9, lambda offer: offer.author, alike_offer, have_four, random.Random(0)
    )
    assert sum(map(len, groups.values())) == 1 and len(offers) == 1


def test_expired_offers_are_taken_out(make_offer: Any, clock: Any) -> None:
    offers = Offers()
    offer = make_offer(1, 7)
    offers.add(offer)
    assert offers.take_expired(clock() + 99) == [] and offer.key in offers
    assert offers.take_expired(clock() + 100) == [offer] and offer.key not in offers
    assert len(offers) == 0 and list(offers) == []
