"""How much a peer may do: counted, dropped or turned away beyond it, and nobody charged."""

import random
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.host.exceptions import StreamFailure
from trio.testing import MockClock, trio_test

from swarm.gossip import FetchFailed, PeerBusy
from swarm.identity import Identity
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.libp2p_fixes import CountedQueue
from swarm.limits import MAX_KEYS, Kind, PeerLimits, Rate, make_rates
from swarm.memory_gossip import MemoryGossip, MemoryNetwork
from swarm.quota import FADE_S, Quota
from swarm.requests import MAX_SERVED_TO_ONE
from swarm.wire import ANNOUNCEMENT_MAGIC, rollout_hash
from tests.swarm.until import until

BODY = b"a rollout" * 1000
HASH = rollout_hash(BODY)
FEW = Rate(0.001, 3)


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def find_body(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {one: BODY for one in hashes if one == HASH}


async def tell(request: bytes) -> tuple[bytes, int]:
    return request, 1


def record(number: int) -> bytes:
    return ANNOUNCEMENT_MAGIC + number.to_bytes(4, "big") + bytes(500)


def test_a_burst_is_allowed_and_then_what_is_forgiven() -> None:
    clock = Seconds()
    limits = PeerLimits({Kind.FETCHES: Rate(2.0, 10)}, clock)
    assert [limits.allows("a", Kind.FETCHES) for _ in range(12)] == [True] * 10 + [False] * 2
    assert limits.allows("b", Kind.FETCHES), "everybody has its own"
    assert limits.num_limited == {"fetches": 2}
    clock.now += 1
    assert [limits.allows("a", Kind.FETCHES) for _ in range(3)] == [True, True, False]
    clock.now += 1000
    assert sum(limits.allows("a", Kind.FETCHES) for _ in range(20)) == 10


def test_bytes_are_counted_when_they_are_known() -> None:
    clock = Seconds()
    limits = PeerLimits({Kind.BYTES: Rate(100.0, 1000)}, clock)
    assert limits.allows_request("a", Kind.FETCHES)
    limits.spend("a", Kind.BYTES, 5000)
    assert not limits.allows_request("a", Kind.FETCHES)
    clock.now += 40
    assert not limits.allows("a", Kind.BYTES)
    clock.now += 0.1
    assert limits.allows("a", Kind.BYTES) and limits.num_limited == {"bytes": 2}


def test_what_has_no_rate_is_not_limited() -> None:
    limits = PeerLimits({}, Seconds())
    assert all(limits.allows("a", kind) for kind in Kind for _ in range(10_000))
    assert limits.num_limited == {} and limits._paid_off == {}


def test_a_tiny_rate_still_lets_one_through() -> None:
    limits = PeerLimits(make_rates(peer_questions_per_s=0.001), Seconds())
    assert [limits.allows("a", Kind.PEERS) for _ in range(2)] == [True, False]


def test_memory_is_bounded_and_whoever_owes_most_is_remembered() -> None:
    clock = Seconds()
    limits = PeerLimits({Kind.FETCHES: Rate(0.001, 5)}, clock)
    while limits.allows("greedy", Kind.FETCHES):
        pass
    for number in range(2 * MAX_KEYS):
        limits.allows(f"peer {number}", Kind.FETCHES)
    assert len(limits._paid_off) == MAX_KEYS
    assert not limits.allows("greedy", Kind.FETCHES)
    clock.now += 10_000
    limits.allows("another", Kind.FETCHES)
    assert len(limits._paid_off) == 1


def test_an_honest_relay_of_a_full_swarm_is_far_below_the_limit() -> None:
    """200 nodes that each announce twice in 10 s, all through one peer; and 50 at once of each of
    20 of them."""
    clock = Seconds()
    limits = PeerLimits(clock=clock)
    for _ in range(600):
        clock.now += 1
        assert all(limits.allows("relay", Kind.ANNOUNCEMENTS) for _ in range(40))
    assert all(limits.allows("relay", Kind.ANNOUNCEMENTS) for _ in range(20 * 50))
    for _ in range(600):
        clock.now += 1
        assert limits.allows("author", Kind.AUTHOR)
    assert all(limits.allows("author", Kind.AUTHOR) for _ in range(50))
    assert not limits.num_limited


class Both:
    """A node with limits and one without, over memory or over libp2p."""

    def __init__(self, limited: Any, other: Any, limits: PeerLimits) -> None:
        self.limited, self.other, self.limits = limited, other, limits


@pytest.fixture(params=["memory", "libp2p"])
def open_both(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    async def open_both(stack: AsyncExitStack, **rates: Rate) -> Both:
        limits = PeerLimits({Kind(name): rate for name, rate in rates.items()})
        if request.param == "memory":
            network = MemoryNetwork()
            one = network.join("a", find_body, answer_catalogue=tell, limits=limits)
            return Both(one, network.join("b", find_body), limits)
        nodes: list[Libp2pGossip] = []
        for number in range(2):
            node = open_libp2p(
                Identity(secrets.token_bytes(32)),
                "a swarm",
                "/ip4/127.0.0.1/tcp/0",
                find_body,
                [address for other in nodes for address in other.addresses()],
                tmp_path / f"peers{number}.json",
                max_peers=8,
                chance=random.Random(number),
                answer_catalogue=tell,
                peer_limits=PeerLimits({}) if number else limits,
            )
            nodes.append(await stack.enter_async_context(node))
        await until(lambda: all(len(node.router.mesh[node.topics[0]]) == 1 for node in nodes))
        return Both(*nodes, limits)

    return open_both


@trio_test
async def test_announcements_over_the_rate_are_dropped_counted_and_forgiven(
    open_both: Any,
) -> None:
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            both = await open_both(stack, announcements=FEW)
            for number in range(10):
                await both.other.announce(record(number))
            await until(lambda: both.limits.num_limited["announcements"] == 7)
            traffic = both.limited.traffic()
            assert traffic.announcements_received == 3 and traffic.announcements_dropped == 0
            assert traffic.limited == {"announcements": 7}
            assert both.limited.connections(), "nothing else happens to the peer"
            for number in range(10, 20):  # own ones are not limited
                await both.limited.announce(record(number))
            assert {(await both.other.received.receive()).record for _ in range(10)}
            both.limits.rates = {}
            await both.other.announce(record(20))
            await until(lambda: both.limited.traffic().announcements_received == 4)


@trio_test
async def test_requests_over_the_rate_are_turned_away_and_counted(open_both: Any) -> None:
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            both = await open_both(stack, fetches=FEW, catalogue=FEW)
            peer, node = both.limited.node_id, both.other
            for _ in range(3):
                assert await node.fetch(peer, [HASH], 20_000) == {HASH: BODY}
                assert await node.ask_catalogue(peer, b"abc") == b"abc"
            for _ in range(2):
                with pytest.raises(FetchFailed):
                    await node.fetch(peer, [HASH], 20_000)
                with pytest.raises(FetchFailed):
                    await node.ask_catalogue(peer, b"abc")
            assert both.limited.traffic().limited == {"fetches": 2, "catalogue": 2}
            assert both.limited.traffic().rollouts_served == 3


@trio_test
async def test_bytes_over_the_rate_are_not_served(open_both: Any) -> None:
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            both = await open_both(stack, bytes=Rate(0.001, 2 * len(BODY)))
            for _ in range(2):
                await both.other.fetch(both.limited.node_id, [HASH], 20_000)
            with pytest.raises(FetchFailed):
                await both.other.fetch(both.limited.node_id, [HASH], 20_000)
            with pytest.raises(FetchFailed):
                await both.other.ask_catalogue(both.limited.node_id, b"abc")
            assert both.limited.traffic().limited == {"bytes": 2}


@trio_test
async def test_who_is_sent_enough_for_now_hears_that_the_node_is_busy_and_is_served_later(
    open_both: Any,
) -> None:
    clock = Seconds()
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            both = await open_both(stack)
            peer, node = both.limited.node_id, both.other
            both.limits.quota = Quota(3 * len(BODY) / FADE_S, clock)
            for _ in range(2):  # half of what is left after the first is less than one
                await node.fetch(peer, [HASH], 20_000)
            with pytest.raises(PeerBusy):
                await node.fetch(peer, [HASH], 20_000)
            with pytest.raises(PeerBusy):
                await node.ask_catalogue(peer, b"abc")
            assert both.limited.traffic().limited == {"all_bytes": 2}
            assert both.limited.traffic().rollouts_served == 2
            assert both.limited.connections(), "nothing else happens to the peer"
            clock.now += FADE_S
            assert await node.fetch(peer, [HASH], 20_000) == {HASH: BODY}


@trio_test
async def test_of_requests_that_are_answered_at_once_no_more_than_one_is_over_the_quota(
    tmp_path: Path,
) -> None:
    """Each is looked at before the others' replies are known."""
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            server, *others = await open_three(stack, tmp_path)
            begun = 0

            async def find_together(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
                nonlocal begun
                begun += 1
                await until(lambda: begun == 8)
                return {HASH: BODY}

            server._requests._find = find_together
            server._peer_limits.quota = Quota(2.5 * len(BODY) / FADE_S, Seconds())
            outcomes: list[str] = []

            async def ask(node: Any) -> None:
                try:
                    await node.fetch(server.node_id, [HASH], 20_000)
                    outcomes.append("served")
                except PeerBusy:
                    outcomes.append("busy")

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(ask, others[number % 2])
            num_served = outcomes.count("served")
            assert num_served in (2, 3) and outcomes.count("busy") == 8 - num_served
            assert server.traffic().rollouts_served == num_served


@trio_test
async def test_questions_for_peers_are_limited(open_both: Any) -> None:
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            both = await open_both(stack, peers=FEW)
            if isinstance(both.other, MemoryGossip):
                return  # its nodes know each other
            for _ in range(9):
                await both.other._requests.ask_for_peers(both.limited.node_id)
            assert both.limited.traffic().limited["peers"] >= 6


@trio_test
async def test_who_announces_more_than_anybody_needs_to_is_not_heard_for_a_while(
    swarm: Any, mock_clock: MockClock
) -> None:
    loud, quiet, node = swarm.peer(), swarm.peer(), swarm.node()
    node.intake._admission._limits.rates = {Kind.AUTHOR: Rate(1.0, 5)}
    async with swarm.running():
        for number in range(20):
            await loud.announce(loud.entry(loud.rollout(number), number, (True, True)))
        await quiet.announce(quiet.entry(quiet.rollout(7), 7, (True, True)))
        await trio.sleep(1)
        assert node.refused_of(loud) == {"not_wanted": 5, "too_often": 15}
        assert node.refused_of(quiet) == {"not_wanted": 1}
        await trio.sleep(10)
        record = await loud.announce(loud.entry(loud.rollout(90), 90, (True, True)))
        await trio.sleep(1)
        assert node.refused_of(loud) == {"not_wanted": 6, "too_often": 15}
    assert node.num_lies == 0 and record
    kept = await node.offload(node.kept.counts)
    assert kept.num == 7, "what was not heard is not told to others"


@trio_test
async def test_nobody_can_use_up_the_rate_of_another_author(
    swarm: Any, mock_clock: MockClock
) -> None:
    author, forger, node = swarm.peer(), swarm.peer(), swarm.node()
    node.intake._admission._limits.rates = {Kind.AUTHOR: Rate(1.0, 5)}
    async with swarm.running():
        for number in range(50):
            good = author.announcement(author.entry(author.rollout(number), number))
            await forger.gossip.announce(good[:-1] + bytes([good[-1] ^ 1]))
        await author.offer()
        await trio.sleep(1)
    assert node.refused_of(author) == {} and await node.num_fresh() == 1


@trio_test
async def test_a_peer_that_opens_streams_and_says_nothing_leaves_others_theirs(
    tmp_path: Path,
) -> None:
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            server, silent, other = await open_three(stack, tmp_path)
            protocol = server._requests._fetch_protocol
            host: Any = silent._host
            server_id = server._host.get_id()
            streams: list[Any] = []
            for _ in range(100):
                with suppress(StreamFailure):
                    streams.append(await host.new_stream(server_id, [protocol]))
            await until(lambda: server.traffic().limited == {"fetches": 100 - MAX_SERVED_TO_ONE})
            assert await other.fetch(server.node_id, [HASH], 20_000) == {HASH: BODY}
            with pytest.raises(FetchFailed):
                await silent.fetch(server.node_id, [HASH], 20_000)
            for stream in streams:
                await stream.reset()
            while True:  # as soon as the server has noticed
                with suppress(FetchFailed):
                    assert await silent.fetch(server.node_id, [HASH], 20_000)
                    break


@trio_test
async def test_of_a_burst_of_50_nothing_is_lost(tmp_path: Path) -> None:
    """With the limits that nodes have, announced all at once."""
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            nodes = await open_three(stack, tmp_path)
            unsent = CountedQueue.num_unsent
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(nodes[0].announce, record(number))
            for node in nodes[1:]:
                heard = {(await node.received.receive()).record for _ in range(50)}
                assert heard == {record(number) for number in range(50)}
                assert node.traffic().announcements_dropped == 0
                assert node.traffic().limited == {}
            assert CountedQueue.num_unsent == unsent == nodes[0].traffic().messages_unsent


@trio_test
async def test_what_a_full_queue_does_not_take_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.libp2p.PACE_S", 0.0)
    num = 1200  # more than a queue holds, and within the receivers' limits
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            sender, *receivers = await open_three(stack, tmp_path)
            before = CountedQueue.num_unsent
            heard = [0, 0]

            async def read(place: int) -> None:
                async for _ in receivers[place].received:
                    heard[place] += 1

            def unsent() -> int:
                return sender.traffic().messages_unsent - before

            async with trio.open_nursery() as nursery:
                for place in range(2):
                    nursery.start_soon(read, place)
                async with trio.open_nursery() as burst:
                    for number in range(num):
                        burst.start_soon(sender.announce, record(number))
                assert unsent() > 0, "the burst is larger than the queues"
                await until(lambda: sum(heard) + unsent() >= 2 * num)
                nursery.cancel_scope.cancel()


async def open_three(stack: AsyncExitStack, directory: Path) -> list[Libp2pGossip]:
    nodes: list[Libp2pGossip] = []
    for number in range(3):
        node = open_libp2p(
            Identity(secrets.token_bytes(32)),
            "a swarm",
            "/ip4/127.0.0.1/tcp/0",
            find_body,
            [address for other in nodes for address in other.addresses()],
            directory / f"peers{number}.json",
            max_peers=8,
            chance=random.Random(number),
        )
        nodes.append(await stack.enter_async_context(node))
    await until(lambda: all(len(node.router.mesh[node.topics[0]]) == 2 for node in nodes))
    return nodes


@trio_test
async def test_a_queue_counts_what_it_does_not_take() -> None:
    queue: Any = CountedQueue(max_size=2)
    before = CountedQueue.num_unsent
    assert [queue.push(object()) for _ in range(5)] == [True, True, False, False, False]
    assert CountedQueue.num_unsent - before == 3
    queue.close()
    assert not queue.push(object()) and CountedQueue.num_unsent - before == 3
