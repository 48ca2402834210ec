"""Who is asked for rollouts when their author is gone, silent or slow; and that nobody is kept out
by others who are."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, trio_test

from swarm.gossip import Connection, FetchFailed
from swarm.intake import IntakeLimits
from swarm.sources import SourceLimits, Sources

LONG = 100.0
REAL = IntakeLimits(num_holders=3, max_visits=2, deadline_s=300, patience_s=5)


def watch(node: Any) -> list[tuple[float, str, int]]:
    """When the node asks whom for how many rollouts."""
    asked: list[tuple[float, str, int]] = []
    fetch = node.gossip.fetch

    async def watched(node_id: str, hashes: Any, max_bytes: int) -> dict[bytes, bytes]:
        asked.append((trio.current_time(), node_id, len(hashes)))
        found: dict[bytes, bytes] = await fetch(node_id, hashes, max_bytes)
        return found

    node.gossip.fetch = watched
    return asked


def offers_of(author: Any, indices: Sequence[int], holders: Sequence[Any]) -> bytes:
    """An announcement by an author whose rollouts are at the holders."""
    entries = []
    for index in indices:
        record = author.rollout(index, (str(index), author.node_id[-8:]))
        for holder in holders:
            holder.serve(record)
        entries.append(author.entry(record, index))
    author.sequence += 1
    announcement: bytes = author.announcement(*entries)
    return announcement


def take_all(peer: Any, reply: Any) -> None:
    """Makes a peer answer fetches as a test wants."""
    peer.gossip._find = reply


async def silent(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    await trio.sleep_forever()
    return {}


@trio_test
async def test_what_author_and_carrier_do_not_have_is_asked_of_others_in_one_request(
    swarm: Any, mock_clock: MockClock, make_maker: Any
) -> None:
    author = make_maker(77)  # not connected
    peers = [swarm.peer() for _ in range(4)]
    node = swarm.node(fresh_target=20, max_from_one_author=20, limits=REAL)
    asked = watch(node)
    async with swarm.running():
        record = offers_of(author, range(10), peers[1:2])
        node.gossip.deliver(record, peers[0].node_id)
        await trio.sleep(1)
        num_held_out = node.refused.get("held_out", 0)
        assert await node.num_fresh() + num_held_out == 10
    assert asked[0][1:] == (peers[0].node_id, 10), "the carrier first"
    assert {num for _, _, num in asked} == {10} and len(asked) <= 4
    assert len({node_id for _, node_id, _ in asked}) == len(asked), "each once"
    assert node.num_lies == 0


@trio_test
async def test_an_author_that_is_connected_is_asked_first_and_holders_when_it_fails(
    swarm: Any, mock_clock: MockClock
) -> None:
    author, holder = swarm.peer(), swarm.peer()
    node = swarm.node(limits=REAL)
    asked = watch(node)
    async with swarm.running():
        await author.gossip.announce(offers_of(author, [7], [holder]))
        await trio.sleep(1)
        assert [node_id for _, node_id, _ in asked] == [author.node_id, holder.node_id]
        assert await node.num_fresh() == 1


@trio_test
async def test_holders_are_not_asked_where_that_is_off(swarm: Any, mock_clock: MockClock) -> None:
    author, holder = swarm.peer(), swarm.peer()
    node = swarm.node()
    asked = watch(node)
    async with swarm.running():
        await author.gossip.announce(offers_of(author, [7], [holder]))
        await trio.sleep(LONG)
    assert {node_id for _, node_id, _ in asked} == {author.node_id} and len(asked) == 3


def disconnect(node: Any, *peers: Any) -> None:
    """Peers that can be asked, but have to be connected first."""
    gone = {peer.node_id for peer in peers}
    connections = node.gossip.connections

    def others() -> list[Connection]:
        return [one for one in connections() if one.node_id not in gone]

    node.gossip.connections = others


@trio_test
async def test_an_author_that_is_not_connected_is_visited_before_holders_are_asked(
    swarm: Any, mock_clock: MockClock
) -> None:
    author, carrier, holder = swarm.peer(), swarm.peer(), swarm.peer()
    node = swarm.node(limits=REAL)
    asked = watch(node)
    disconnect(node, author)
    async with swarm.running():
        node.gossip.deliver(offers_of(author, [7], [author]), carrier.node_id)
        node.gossip.deliver(offers_of(author, [11], [holder]), carrier.node_id)
        await trio.sleep(1)
        ids = [node_id for _, node_id, _ in asked]
        assert ids[:2] == [carrier.node_id, author.node_id]
        assert holder.node_id in ids[2:], "for what the author has no more"
        assert await node.num_fresh() == 2


@trio_test
async def test_visits_leave_places_for_those_who_are_connected(
    swarm: Any, mock_clock: MockClock
) -> None:
    authors, carrier = [swarm.peer() for _ in range(12)], swarm.peer()
    node = swarm.node(fresh_target=20, limits=replace(REAL, num_holders=1))
    asked = watch(node)
    disconnect(node, *authors)
    for author in authors:
        take_all(author, silent)
    async with swarm.running():
        for author in authors:
            node.gossip.deliver(offers_of(author, [7], [author]), carrier.node_id)
        await trio.sleep(1)
        ids = {author.node_id for author in authors}
        assert sum(node_id in ids for _, node_id, _ in asked) == REAL.max_visits
        await carrier.gossip.announce(offers_of(carrier, [11], [carrier]))
        await trio.sleep(1)
        assert await node.num_fresh() == 1


@trio_test
async def test_whoever_was_cut_off_is_asked_again_as_soon_as_it_is_back(
    swarm: Any, mock_clock: MockClock
) -> None:
    author = swarm.peer()
    node = swarm.node(limits=replace(REAL, max_visits=0))
    serve = author.gossip._find

    async def cut(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        take_all(author, serve)
        swarm.network.partition([author.node_id], [node.node_id])
        raise FetchFailed("the connection ended")

    take_all(author, cut)
    async with swarm.running():
        await author.gossip.announce(offers_of(author, [7], [author]))
        await trio.sleep(1)
        assert author.gossip._find is serve, "it was asked once"
        swarm.network.heal()
        node.intake.wake()
        await trio.sleep(1)
        assert await node.num_fresh() == 1


@trio_test
async def test_whoever_could_not_be_visited_and_comes_is_not_paused(
    mock_clock: MockClock, swarm: Any, make_sources: Any
) -> None:
    sources, (peer, *others) = make_sources(2)
    swarm.network.partition([peer], [sources._gossip.node_id, *others])
    sources.begin(peer)
    sources.failed(peer)
    sources.end(peer)
    sources.look()
    assert peer in sources._paused and peer in sources._troubled
    swarm.network.heal()
    sources.look()
    assert peer not in sources._paused and peer not in sources._troubled


@trio_test
async def test_who_ends_connections_always_is_paused_longer_each_time(
    mock_clock: MockClock, swarm: Any, make_sources: Any
) -> None:
    sources, (peer, *others) = make_sources(2)
    pauses = []
    for _ in range(4):
        sources.begin(peer)
        swarm.network.partition([peer], [sources._gossip.node_id, *others])
        sources.failed(peer)
        sources.end(peer)
        swarm.network.heal()
        pauses.append(sources._paused[peer] - trio.current_time())
    assert pauses == [0, 10, 20, 40]


@trio_test
async def test_what_nobody_has_is_given_up_after_a_few_rounds_and_nobody_pays(
    swarm: Any, mock_clock: MockClock
) -> None:
    author, *_ = [swarm.peer() for _ in range(9)]
    node = swarm.node(limits=REAL)
    asked = watch(node)
    async with swarm.running():
        await author.gossip.announce(offers_of(author, [7], []))
        await trio.sleep(LONG)
        assert node.refused == {"fetch_failed": 1} and node.intake.stats().offers == 0
        await trio.sleep(1000)
    assert Counter(node_id for _, node_id, _ in asked)[author.node_id] == 3
    assert len(asked) == 3 * (1 + 3), "in each round the author and three others"
    assert node.refused_of(author) == {"fetch_failed": 1} and node.num_lies == 0
    starts = [when for when, node_id, _ in asked if node_id == author.node_id]
    assert 5 <= starts[1] - starts[0] < 7 and 10 <= starts[2] - starts[1] < 12


@trio_test
async def test_an_offer_has_a_deadline(swarm: Any, mock_clock: MockClock, make_maker: Any) -> None:
    """Its author never comes back, and nobody else is connected for long."""
    limits = IntakeLimits(num_holders=3, deadline_s=60, patience_s=5)
    peer, node = swarm.peer(), swarm.node(limits=limits)
    author = make_maker(77)
    async with swarm.running():
        node.gossip.deliver(offers_of(author, [7], []), peer.node_id)
        await trio.sleep(1)
        swarm.network.leave(peer.node_id)
        node.intake.wake()
        await trio.sleep(50)
        assert node.intake.stats().offers == 1
        await trio.sleep(20)
        assert node.intake.stats().offers == 0 and node.refused == {"fetch_failed": 1}


@trio_test
async def test_silent_peers_with_many_offers_do_not_keep_others_out(
    swarm: Any, mock_clock: MockClock
) -> None:
    hostile, honest = [swarm.peer() for _ in range(8)], [swarm.peer() for _ in range(2)]
    node = swarm.node(fresh_target=8, max_from_one_author=4, limits=REAL)
    for peer in hostile:
        take_all(peer, silent)
    first: dict[str, float] = {}
    took = node.ledger.count_admitted

    def count_admitted(author: str) -> None:
        first.setdefault(author, trio.current_time())
        took(author)

    node.ledger.count_admitted = count_admitted
    async with swarm.running():
        for peer in hostile:
            await peer.gossip.announce(offers_of(peer, range(24), []))
        for peer in honest:
            await peer.gossip.announce(offers_of(peer, range(24), [peer]))
        num_most = 0
        while trio.current_time() < 600:
            await trio.sleep(0.7)
            num_most = max(num_most, len(node.intake._sources._asked))
        assert await node.num_fresh() >= 8 and 4 < num_most <= 8
    assert set(first) == {peer.node_id for peer in honest}
    assert max(first.values()) < 60, "not after 8 silent peers, 30 s each, 4 at once"
    assert node.num_lies == 0 and not {
        name for peer in hostile for name in node.refused_of(peer)
    } & {"malformed", "bad_signature"}


@trio_test
async def test_what_a_silent_peer_owes_is_asked_of_others_meanwhile(
    swarm: Any, mock_clock: MockClock
) -> None:
    """All that is wanted is under way, and does not come."""
    hostile, honest = swarm.peer(), swarm.peer()
    node = swarm.node(fresh_target=4, max_from_one_author=4, limits=REAL)
    take_all(hostile, silent)
    async with swarm.running():
        await hostile.gossip.announce(offers_of(hostile, range(10), []))
        await trio.sleep(1)
        await honest.gossip.announce(offers_of(honest, range(10), [honest]))
        await trio.sleep(3)
        assert honest.num_asked == 0, "no more than is wanted"
        await trio.sleep(4)
        assert await node.num_fresh() + node.refused.get("held_out", 0) == 4


@trio_test
async def test_slow_peers_get_half_of_the_places(swarm: Any, mock_clock: MockClock) -> None:
    """They answer, and so never fail; each holds a place for nearly as long as it may."""
    slow, quick = [swarm.peer() for _ in range(6)], swarm.peer()
    node = swarm.node(fresh_target=60, max_from_one_author=40, limits=REAL)
    asked = watch(node)

    async def answer_late(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        await trio.sleep(25)
        return {}

    for peer in slow:
        take_all(peer, answer_late)
    async with swarm.running():
        for peer in slow:
            for start in (0, 24):
                await peer.gossip.announce(offers_of(peer, range(start, start + 24), []))
        await trio.sleep(60)
        for _ in range(20):  # one offer at a time
            index = random.Random(len(asked)).randrange(100, 10**6)
            record = offers_of(quick, [index], [quick])
            before = trio.current_time()
            await quick.gossip.announce(record)
            await trio.sleep(6)
            mine = [when for when, node_id, _ in asked if node_id == quick.node_id]
            assert mine and mine[-1] >= before, "it is asked at once"
        assert await node.num_fresh() + node.refused.get("held_out", 0) >= 20


@trio_test
async def test_one_author_with_many_offers_leaves_room_for_others(
    swarm: Any, mock_clock: MockClock
) -> None:
    loud, quiet = swarm.peer(), [swarm.peer() for _ in range(6)]
    node = swarm.node(fresh_target=12, max_from_one_author=6, limits=REAL)
    async with swarm.running():
        for start in range(0, 240, 24):
            await loud.gossip.announce(offers_of(loud, range(start, start + 24), [loud]))
        for number, peer in enumerate(quiet):
            await peer.gossip.announce(offers_of(peer, [1000 + number], [peer]))
        await trio.sleep(LONG)
        fresh = await node.offload(node.pool.fresh_by_author)
    assert fresh[loud.node_id] == 6 and len(fresh) >= 6


@pytest.fixture
def make_sources(swarm: Any) -> Any:
    def make(num_peers: int, **limits: Any) -> Any:
        peers = [swarm.peer().node_id for _ in range(num_peers)]
        gossip = swarm.peer().gossip
        return Sources(gossip, SourceLimits(**limits), random.Random(1)), sorted(peers)

    return make


@trio_test
async def test_a_peer_in_trouble_is_forgotten_when_it_is_gone(
    swarm: Any, mock_clock: MockClock, make_sources: Any
) -> None:
    sources, peers = make_sources(50)
    for peer in peers:
        sources.begin(peer)
        sources.failed(peer)
        sources.end(peer)
    sources.look()
    assert len(sources._paused) == len(sources._troubled) == 50
    for peer in peers:
        swarm.network.leave(peer)
    await trio.sleep(80)
    sources.look()
    assert len(sources._paused) == len(sources._troubled) == 50, "not in order to be new"
    await trio.sleep(6)
    sources.look()
    assert sources._paused == {} and sources._troubled == {}


@trio_test
async def test_a_peer_that_answers_quickly_again_is_out_of_trouble(
    mock_clock: MockClock, make_sources: Any
) -> None:
    sources, (peer, *_) = make_sources(1)
    sources.begin(peer)
    sources.failed(peer)
    sources.end(peer)
    sources.begin(peer)
    sources.answered(peer)
    assert sources._troubled == {}
    await trio.sleep(11)
    sources.answered(peer)
    assert peer in sources._troubled
