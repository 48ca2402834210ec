"""What every Gossip must do: the same assertions over memory and over libp2p."""

import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from swarm.catalogue import MAX_REPLY_BYTES as MAX_CATALOGUE_BYTES
from swarm.fetch import MAX_REPLY_BYTES, decode_reply, decode_request, encode_reply, encode_request
from swarm.gossip import FetchFailed, FindRollouts, Gossip, Received
from swarm.identity import Identity
from swarm.inbox import Inbox
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.memory_gossip import MemoryGossip, MemoryNetwork
from swarm.protocol import MAX_ANNOUNCEMENT_BYTES, MAX_FETCH_HASHES
from swarm.wire import ANNOUNCEMENT_MAGIC, rollout_hash
from tests.swarm.until import until

ANYWHERE = "/ip4/127.0.0.1/tcp/0"
ABSENT = Identity(bytes(32)).node_id
BODIES = {rollout_hash(body): body for body in (bytes([i]) * 1000 for i in range(8))}
UNKNOWN = rollout_hash(b"nobody has this")

OpenNodes = Callable[[Sequence[FindRollouts]], AbstractAsyncContextManager[list[Gossip]]]


async def find_bodies(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {one: BODIES[one] for one in hashes if one in BODIES}


async def find_nothing(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {}


async def answer_catalogue(request: bytes) -> tuple[bytes, int] | None:
    """Of a peer that tells whatever it is asked for, but for nothing."""
    reply = bytes(MAX_CATALOGUE_BYTES + 1) if request == b"much" else request[::-1]
    return (reply, 3) if request != b"nonsense" else None


async def find_other_bytes(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict.fromkeys(hashes, b"other bytes")


def record(number: int) -> bytes:
    return ANNOUNCEMENT_MAGIC + number.to_bytes(4, "big") + bytes(range(256)) * 4


@asynccontextmanager
async def open_memory(finds: Sequence[FindRollouts]) -> AsyncIterator[list[Gossip]]:
    network = MemoryNetwork(seed=0)
    yield [
        network.join(f"node {number}", find, answer_catalogue=answer_catalogue)
        for number, find in enumerate(finds)
    ]


@pytest.fixture(params=["memory", "libp2p"])
def open_nodes(request: pytest.FixtureRequest, tmp_path: Path) -> OpenNodes:
    """Opens as many nodes as functions are given, all connected with each other."""

    @asynccontextmanager
    async def open_real(finds: Sequence[FindRollouts]) -> AsyncIterator[list[Gossip]]:
        async with AsyncExitStack() as stack:
            nodes: list[Libp2pGossip] = []
            for number, find in enumerate(finds):
                node = open_libp2p(
                    Identity(secrets.token_bytes(32)),
                    "a swarm",
                    ANYWHERE,
                    find,
                    [address for other in nodes for address in other.addresses()],
                    tmp_path / f"peers{number}.json",
                    max_peers=8,
                    chance=random.Random(number),
                    answer_catalogue=answer_catalogue,
                )
                nodes.append(await stack.enter_async_context(node))
            num_others = len(nodes) - 1
            await until(lambda: all(len(n.router.mesh[n.topics[0]]) == num_others for n in nodes))
            yield list[Gossip](nodes)

    return open_memory if request.param == "memory" else open_real


async def send_past_checks(node: Gossip, data: bytes) -> None:
    """What a node does that does not keep to the rules."""
    if isinstance(node, MemoryGossip):
        for peer in node._network.reachable(node.node_id):
            peer.deliver(data, node.node_id)
    else:
        assert isinstance(node, Libp2pGossip)
        node.pubsub.topic_validators.clear()
        await node.pubsub.publish(node.topics[0], data)


async def receive(node: Gossip, count: int) -> Counter[bytes]:
    return Counter([(await node.received.receive()).record for _ in range(count)])


@trio_test
async def test_everybody_gets_each_announcement_once_and_intact_and_not_its_own(
    open_nodes: OpenNodes,
) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_nothing] * 4) as nodes:
            for number, node in enumerate(nodes):
                for part in range(3):
                    await node.announce(record(10 * number + part))
            for number, node in enumerate(nodes):
                others = [10 * one + part for one in range(4) if one != number for part in range(3)]
                assert await receive(node, 9) == Counter(map(record, others))
            await nodes[0].announce(record(99))
            for node in nodes[1:]:
                assert await receive(node, 1) == Counter([record(99)])
            assert nodes[0].traffic().announcements_sent == 4
            assert nodes[0].traffic().announcements_received == 9


@trio_test
async def test_a_record_that_is_announced_again_is_not_delivered_again(
    open_nodes: OpenNodes,
) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_nothing] * 2) as (first, second):
            for number in (1, 1, 1, 2):
                await first.announce(record(number))
            assert await receive(second, 2) == Counter([record(1), record(2)])
            await second.announce(record(1))
            await second.announce(record(3))
            assert await receive(first, 1) == Counter([record(3)])


@trio_test
async def test_the_carrier_of_an_announcement_is_named(open_nodes: OpenNodes) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_nothing] * 2) as (first, second):
            await first.announce(record(1))
            assert await second.received.receive() == Received(record(1), first.node_id, 0)


@trio_test
async def test_a_burst_of_200_announcements_arrives_complete(open_nodes: OpenNodes) -> None:
    with trio.fail_after(60):
        async with open_nodes([find_nothing] * 3) as nodes:
            for number in range(200):
                await nodes[0].announce(record(number))
            for node in nodes[1:]:
                assert await receive(node, 200) == Counter(map(record, range(200)))
                assert node.traffic().announcements_dropped == 0


@trio_test
async def test_a_fetch_returns_exactly_what_the_peer_has(open_nodes: OpenNodes) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_bodies, find_nothing]) as (rich, poor):
            assert await poor.fetch(rich.node_id, [*BODIES, UNKNOWN], 10_000) == BODIES
            assert await poor.fetch(rich.node_id, [UNKNOWN], 10_000) == {}
            assert await rich.fetch(poor.node_id, list(BODIES), 10_000) == {}
            assert poor.traffic().rollouts_fetched == 8
            assert rich.traffic().rollouts_served == 8
            assert poor.traffic().fetches_failed == 0
            assert poor.traffic().bytes_received > 8000


@trio_test
async def test_both_ends_of_a_connection_can_fetch_at_once(open_nodes: OpenNodes) -> None:
    results: list[dict[bytes, bytes]] = []

    async def fetch(asker: Gossip, server: Gossip) -> None:
        results.append(await asker.fetch(server.node_id, list(BODIES), 10_000))

    with trio.fail_after(30):
        async with open_nodes([find_bodies] * 2) as (one, two), trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fetch, one, two)
                nursery.start_soon(fetch, two, one)
    assert results == [BODIES] * 10


@trio_test
async def test_a_fetch_from_an_absent_peer_fails(open_nodes: OpenNodes) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_nothing] * 2) as (node, _):
            for nobody in (ABSENT, "no id at all", node.node_id):
                with pytest.raises(FetchFailed, match="not connected"):
                    await node.fetch(nobody, [UNKNOWN], 1000)
            assert node.traffic().fetches_failed == 3


@trio_test
async def test_a_reply_that_is_too_large_fails(open_nodes: OpenNodes) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_bodies, find_nothing]) as (rich, poor):
            with pytest.raises(FetchFailed):
                await poor.fetch(rich.node_id, list(BODIES), 7999)
            assert await poor.fetch(rich.node_id, list(BODIES)[:1], 7999)


@trio_test
async def test_bytes_of_another_hash_fail(open_nodes: OpenNodes) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_other_bytes, find_nothing]) as (liar, node):
            with pytest.raises(FetchFailed, match="another hash"):
                await node.fetch(liar.node_id, [UNKNOWN], 1000)


@trio_test
async def test_a_peer_is_asked_what_was_missed(open_nodes: OpenNodes) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_nothing] * 2) as (server, node):
            assert isinstance(node, MemoryGossip | Libp2pGossip)
            assert await node.ask_catalogue(server.node_id, b"abc") == b"cba"
            for request in (b"nonsense", b"much"):
                with pytest.raises(FetchFailed):
                    await node.ask_catalogue(server.node_id, request)
            for nobody in (ABSENT, "no id at all", node.node_id):
                with pytest.raises(FetchFailed, match="not connected"):
                    await node.ask_catalogue(nobody, b"abc")
            assert server.traffic().announcements_served >= 3
            assert node.traffic().announcements_served == 0


@trio_test
async def test_what_is_no_announcement_is_neither_sent_nor_delivered(
    open_nodes: OpenNodes,
) -> None:
    too_long = ANNOUNCEMENT_MAGIC + bytes(MAX_ANNOUNCEMENT_BYTES)
    with trio.fail_after(30):
        async with open_nodes([find_nothing] * 2) as (rude, node):
            for data in (too_long, b"something else"):
                with pytest.raises(ValueError, match="no announcement"):
                    await rude.announce(data)
                await send_past_checks(rude, data)
            await rude.announce(record(1))
            assert await receive(node, 1) == Counter([record(1)])


@trio_test
async def test_connections_show_the_peers(open_nodes: OpenNodes) -> None:
    with trio.fail_after(30):
        async with open_nodes([find_nothing] * 3) as nodes:
            everybody = {node.node_id for node in nodes}
            for node in nodes:
                assert {one.node_id for one in node.connections()} == everybody - {node.node_id}
                assert all(one.address.startswith("/") for one in node.connections())
                assert all(one.since > 1.7e9 for one in node.connections())
                assert all(address.endswith(node.node_id) for address in node.addresses())


@trio_test
async def test_what_nobody_takes_is_dropped_and_counted() -> None:
    network = MemoryNetwork(seed=0)
    sender, lazy = network.join("a", find_nothing), network.join("b", find_nothing, capacity=3)
    for number in range(5):
        await sender.announce(record(number))
    assert lazy.traffic().announcements_dropped == 2
    assert await receive(lazy, 3) == Counter(map(record, range(3)))


@trio_test
async def test_a_partition_stops_announcements_and_fetches_until_it_heals() -> None:
    network = MemoryNetwork(seed=0)
    first, second, third = (network.join(name, find_bodies) for name in "abc")
    network.partition({"a"}, {"b"})
    await first.announce(record(1))
    with pytest.raises(FetchFailed, match="not connected"):
        await first.fetch("b", list(BODIES), 10_000)
    assert await first.fetch("c", list(BODIES), 10_000) == BODIES
    network.heal()
    await first.announce(record(2))
    assert await receive(second, 1) == Counter([record(2)])
    assert await receive(third, 2) == Counter([record(1), record(2)])


@trio_test
async def test_a_node_that_left_hears_no_more_and_can_come_back() -> None:
    network = MemoryNetwork(seed=0)
    stays, leaves = network.join("a", find_bodies), network.join("b", find_nothing)
    network.leave("b")
    await stays.announce(record(1))
    assert [one async for one in leaves.received] == []
    with pytest.raises(FetchFailed):
        await leaves.fetch("a", list(BODIES), 10_000)
    back = network.join("b", find_nothing)
    await stays.announce(record(2))
    assert await receive(back, 1) == Counter([record(2)])


@trio_test
async def test_delays_cost_no_time_under_a_mock_clock(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork(seed=0, delay_s=3600)
    first, second = network.join("a", find_bodies), network.join("b", find_nothing)
    start = trio.current_time()
    await first.announce(record(1))
    assert trio.current_time() == start
    assert await receive(second, 1) == Counter([record(1)])
    assert trio.current_time() == start + 3600
    assert await second.fetch("a", list(BODIES), 10_000) == BODIES
    assert trio.current_time() == start + 7200


@trio_test
async def test_losses_are_the_same_for_the_same_seed() -> None:
    async def losses(seed: int) -> int:
        network = MemoryNetwork(seed=seed, loss=0.5)
        first, second = network.join("a", find_nothing), network.join("b", find_nothing)
        for number in range(100):
            await first.announce(record(number))
        return 100 - second.traffic().announcements_received

    assert await losses(1) == await losses(1)
    assert 20 < await losses(1) < 80


def test_the_inbox_forgets_the_oldest_records_first() -> None:
    inbox = Inbox(capacity=10, remembered=2)
    for number in (1, 2, 3, 2, 1):
        inbox.put(record(number), "carrier")
    assert inbox.num_received == 4  # 1 again: it was forgotten


@pytest.mark.parametrize("hashes", [[], [UNKNOWN] * (MAX_FETCH_HASHES + 1), [b"short"]])
def test_a_wrong_request_is_our_own_error(hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="hashes"):
        encode_request(hashes)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\x90",  # no hash
        b"\xdc\xff\xff",  # a list of 65535, cut off
        b"\x91\xc4\x1f" + bytes(31),
        b"\x91\xc4\x20" + bytes(33),
        b"\x91" * 5000,
        encode_request([UNKNOWN])[:-1],
        b"\xdc\x00\x11" + (b"\xc4\x20" + bytes(32)) * 17,
    ],
)
def test_a_malformed_request_is_refused(request_bytes: bytes) -> None:
    assert decode_request(request_bytes) is None


def test_a_request_is_read_as_it_was_written() -> None:
    assert decode_request(encode_request([*BODIES, *BODIES])) == list(BODIES)


def test_a_server_leaves_out_what_does_not_fit() -> None:
    reply, num_records = encode_reply(list(BODIES), BODIES, max_bytes=3500)
    assert (len(reply) <= 3500, num_records) == (True, 3)
    assert decode_reply(reply, list(BODIES), 3500) == dict(list(BODIES.items())[:3])
    assert encode_reply([UNKNOWN], {UNKNOWN: bytes(MAX_REPLY_BYTES)})[1] == 0


@pytest.mark.parametrize("reply", [b"", b"\x91", b"\x91\x01", b"\xdd\xff\xff\xff\xff", b"\xc0"])
def test_a_malformed_reply_fails(reply: bytes) -> None:
    with pytest.raises(FetchFailed, match="malformed"):
        decode_reply(reply, [UNKNOWN], 1000)
