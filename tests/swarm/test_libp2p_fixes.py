"""One test per remedy, each of which fails without it."""

import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io import msgio
from libp2p.io.abc import Reader
from libp2p.io.exceptions import IncompleteReadError
from libp2p.network.connection import swarm_connection
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.pubsub import pubsub as libp2p_pubsub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux import yamux
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils import encode_varint_prefixed
from libp2p.utils import varint as libp2p_varint
from multiaddr import Multiaddr
from trio.testing import MockClock, trio_test

from swarm import libp2p_fixes
from swarm.libp2p_fixes import GOSSIP_PROTOCOL, SwarmPubsub, WrongLibp2p, build_router
from swarm.libp2p_host import ByteCounter, ListenError, build_host, close_listeners, parse_listen
from tests.swarm.until import until

ANYWHERE = Multiaddr("/ip4/127.0.0.1/tcp/0")
TOPIC = "a topic"


@pytest.fixture(autouse=True)
def remedies() -> None:
    libp2p_fixes.apply()


def make_host(max_peers: int = 8) -> IHost:
    return build_host(secrets.token_bytes(32), [ANYWHERE], max_peers, ByteCounter())


@asynccontextmanager
async def running(*hosts: IHost) -> AsyncIterator[None]:
    """Runs hosts; the first is connected to the others."""
    async with AsyncExitStack() as stack:
        for host in hosts:
            await stack.enter_async_context(host.run(listen_addrs=[ANYWHERE]))
        for host in hosts[1:]:
            await dial(hosts[0], host)
        yield


async def dial(host: IHost, other: IHost) -> None:
    network: Any = host.get_network()
    await network.dial_addr(other.get_addrs()[0], other.get_id())


def make_pubsub(host: IHost) -> tuple[SwarmPubsub, list[tuple[bytes, str]]]:
    delivered: list[tuple[bytes, str]] = []
    pubsub = SwarmPubsub(
        host,
        [TOPIC],
        lambda data: data != b"unwanted",
        lambda data, carrier, topic: delivered.append((data, carrier)),
    )
    pubsub.subscribed_topics_receive[TOPIC] = None  # type: ignore[assignment]
    return pubsub, delivered


def signed_message(data: bytes, topics: tuple[str, ...] = (TOPIC,)) -> rpc_pb2.Message:
    pair = create_new_key_pair(secrets.token_bytes(32))
    message = rpc_pb2.Message(
        data=data,
        topicIDs=topics,
        from_id=ID.from_pubkey(pair.public_key).to_bytes(),
        seqno=secrets.token_bytes(8),
    )
    payload = PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString()
    message.signature = pair.private_key.sign(payload)
    return message


CARRIER = ID.from_pubkey(create_new_key_pair(bytes(32)).public_key)


class Dribble(Reader):
    """Gives one byte for each read, and then the end."""

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes([self._data.pop(0)]) if self._data else b""


class Wire:
    """A secured connection that swallows what is written and never has anything to read."""

    is_initiator = True

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.closed = trio.Event()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.frames.append(data)

    async def read(self, n: int | None = None) -> bytes:
        await self.closed.wait()
        return b""

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed.set()


def test_another_version_is_refused_with_what_to_check() -> None:
    with pytest.raises(WrongLibp2p, match=r"libp2p 0\.9\.0 is installed.*check each remedy"):
        libp2p_fixes.check_version("0.9.0")
    libp2p_fixes.check_version("0.8.1")


def test_applying_twice_changes_nothing() -> None:
    before = swarm_connection.SwarmConn._handle_muxed_stream
    libp2p_fixes.apply()
    assert swarm_connection.SwarmConn._handle_muxed_stream is before


def test_row_1_the_mesh_is_kept_every_second() -> None:
    router = build_router()
    assert router.heartbeat_interval == 1
    assert not router.adaptive_gossip_enabled


def test_row_2_no_rate_limit_drops_messages() -> None:
    router = build_router()
    message = rpc_pb2.Message(topicIDs=[TOPIC])
    assert all(router._check_spam_protection(CARRIER, message) for _ in range(100))


def test_row_3_a_restarted_process_numbers_on_from_where_it_was() -> None:
    host = make_host()
    before, _ = make_pubsub(host)
    for _ in range(30):
        before._next_seqno()
    after, _ = make_pubsub(host)
    assert after.counter > before.counter


def test_row_4_many_rpcs_may_wait_for_a_peer() -> None:
    queue = libp2p_pubsub.RpcQueue()
    assert all(queue.push(rpc_pb2.RPC()) for _ in range(200))


@trio_test
async def test_row_4_a_burst_is_delivered_whole() -> None:
    host = make_host()
    pubsub, delivered = make_pubsub(host)
    async with running(host):
        await pubsub.subscribe(TOPIC)
        for number in range(200):
            await pubsub.push_msg(CARRIER, signed_message(b"%d" % number))
    assert delivered == [(b"%d" % number, str(CARRIER)) for number in range(200)]


@trio_test
async def test_row_6_a_message_that_comes_from_many_at_once_is_delivered_once() -> None:
    pubsub, delivered = make_pubsub(make_host())
    message = signed_message(b"data")
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(pubsub.push_msg, CARRIER, message)
    assert [data for data, _ in delivered] == [b"data"]


@trio_test
async def test_row_7_a_validator_that_raises_costs_one_message() -> None:
    pubsub, delivered = make_pubsub(make_host())
    pubsub._is_wanted = lambda data: 1 / len(data) > 0
    await pubsub.push_msg(CARRIER, signed_message(b""))
    await pubsub.push_msg(CARRIER, signed_message(b"data"))
    assert [data for data, _ in delivered] == [b"data"]
    assert pubsub.num_refused == 1


@trio_test
async def test_row_7_a_malformed_public_key_costs_one_message() -> None:
    pubsub, delivered = make_pubsub(make_host())
    sha256_of_some_key = b"\x12\x20" + bytes(32)
    await pubsub.push_msg(
        CARRIER,
        rpc_pb2.Message(
            data=b"data", topicIDs=[TOPIC], from_id=sha256_of_some_key, key=b"?", signature=b"?"
        ),
    )
    assert (delivered, pubsub.num_refused) == ([], 1)


@trio_test
async def test_row_15_what_one_peer_is_told_of_its_meshes_no_other_is_told() -> None:
    router = build_router()
    told: dict[ID, rpc_pb2.ControlMessage] = {}

    async def note(message: rpc_pb2.ControlMessage, peer: ID) -> None:
        told[peer] = message

    router.emit_control_message = note  # type: ignore[method-assign]
    first, second, third = (ID(bytes([number]) * 8) for number in range(3))
    await router._emit_control_msgs(
        {first: ["a"], second: ["b"]}, {first: ["c"], third: ["d"]}, {second: {"b": [b"x"]}}
    )
    assert {
        peer: (
            [one.topicID for one in message.graft],
            [one.topicID for one in message.prune],
            [one.topicID for one in message.ihave],
        )
        for peer, message in told.items()
    } == {first: (["a"], ["c"], []), second: (["b"], [], ["b"]), third: ([], ["d"], [])}


@trio_test
async def test_row_13_what_has_not_the_form_or_another_topic_beside_is_not_delivered() -> None:
    pubsub, delivered = make_pubsub(make_host())
    await pubsub.push_msg(CARRIER, signed_message(b"unwanted"))
    await pubsub.push_msg(CARRIER, signed_message(b"data", (TOPIC, "another topic")))
    assert delivered == []


@pytest.mark.parametrize("module", [msgio, yamux, libp2p_varint])
@trio_test
async def test_row_8_a_message_may_arrive_byte_by_byte(module: Any) -> None:
    read_exactly: Callable[[Reader, int], Awaitable[bytes]] = module.read_exactly
    data = secrets.token_bytes(1000)
    with trio.fail_after(10):
        assert await read_exactly(Dribble(data), 1000) == data
        with pytest.raises(IncompleteReadError):
            await read_exactly(Dribble(data), 1001)


@trio_test
async def test_row_9_credit_is_given_back_by_half_windows() -> None:
    wire: Any = Wire()
    muxer = yamux.Yamux(wire, CARRIER)
    stream = yamux.YamuxStream(1, muxer, True)
    for _ in range(100):
        stream.recv_window -= 1000
        await stream._auto_tune_and_send_window_update(bytes_read=1000)
    assert wire.frames == []
    for _ in range(1000):
        stream.recv_window -= 1000
        await stream._auto_tune_and_send_window_update(bytes_read=1000)
        assert stream.recv_window > 0
    assert 1 <= len(wire.frames) <= 8


@trio_test
async def test_row_10_nothing_is_kept_of_messages_that_passed() -> None:
    host = make_host()
    pubsub, delivered = make_pubsub(host)
    async with running(host):
        for _ in range(5):
            await pubsub.push_msg(CARRIER, signed_message(b"data"))
    assert [data for data, _ in delivered] == [b"data"] * 5
    router = pubsub.gossip_router
    assert router.equivocation_detection == {}
    assert sum(map(len, router.recent_message_deliveries.values())) <= 1


@trio_test
async def test_row_11_only_version_1_1_is_offered_and_no_stranger_is_dialled() -> None:
    host, stranger = make_host(), make_host()
    pubsub, _ = make_pubsub(host)
    router = pubsub.gossip_router
    assert router.get_protocols() == [GOSSIP_PROTOCOL] == ["/meshsub/1.1.0"]
    with trio.fail_after(20):
        async with running(host), running(stranger):
            host.get_peerstore().add_addrs(stranger.get_id(), stranger.get_addrs(), 100)
            told = rpc_pb2.ControlPrune(
                topicID=TOPIC, peers=[rpc_pb2.PeerInfo(peerID=stranger.get_id().to_bytes())]
            )
            await router.handle_prune(told, CARRIER)
            assert host.get_connected_peers() == []


@trio_test
async def test_a_handler_that_raises_costs_one_stream() -> None:
    async def raise_error(stream: INetStream) -> None:
        await stream.read(1)
        raise LookupError

    async def answer(stream: INetStream) -> None:
        await stream.write(b"here")

    client, server = make_host(), make_host()
    server.set_stream_handler(TProtocol("/raise/1"), raise_error)
    server.set_stream_handler(TProtocol("/answer/1"), answer)
    with trio.fail_after(20):
        async with running(client, server):
            broken = await client.new_stream(server.get_id(), [TProtocol("/raise/1")])
            await broken.write(b"?")
            with pytest.raises(Exception):  # noqa: B017 - of whichever kind
                await broken.read(1)
            stream = await client.new_stream(server.get_id(), [TProtocol("/answer/1")])
            assert await stream.read(4) == b"here"


@pytest.mark.parametrize(
    "rpc",
    [
        b"\xff\xff\xff\xff no protobuf",
        rpc_pb2.RPC(publish=[rpc_pb2.Message(topicIDs=[TOPIC], from_id=b"?")]).SerializeToString(),
        b"\xff" * 20,
    ],
    ids=["garbage", "no author", "more garbage"],
)
@trio_test
async def test_a_malformed_rpc_does_not_end_the_host(rpc: bytes) -> None:
    client, server = make_host(), make_host()
    pubsub, _ = make_pubsub(server)
    with trio.fail_after(20):
        async with running(client, server), background_trio_service(pubsub):
            stream = await client.new_stream(server.get_id(), [GOSSIP_PROTOCOL])
            await stream.write(encode_varint_prefixed(rpc))
            again = await client.new_stream(server.get_id(), [GOSSIP_PROTOCOL])
            message = rpc_pb2.RPC(publish=[rpc_pb2.Message(topicIDs=[TOPIC])])
            await again.write(encode_varint_prefixed(message.SerializeToString()))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert pubsub.manager.is_running
            assert client.get_id() in server.get_connected_peers()


@trio_test
async def test_the_streams_of_one_peer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_fixes, "MAX_STREAMS", 5)
    num_open = 0

    async def stay(stream: INetStream) -> None:
        nonlocal num_open
        num_open += 1
        await trio.sleep_forever()

    client, server = make_host(), make_host()
    server.set_stream_handler(TProtocol("/stay/1"), stay)
    num_refused = 0
    with trio.fail_after(20):
        async with running(client, server):
            for _ in range(10):
                try:
                    await client.new_stream(server.get_id(), [TProtocol("/stay/1")])
                except Exception:  # noqa: BLE001 - of whichever kind
                    num_refused += 1
    assert num_open <= 5
    assert num_refused >= 5


@trio_test
async def test_an_inbound_connection_that_ends_gives_its_slot_back() -> None:
    client, server = make_host(), make_host()
    network: Any = server.get_network()
    with trio.fail_after(20):
        async with running(client, server):
            assert network._inbound_limiter.borrowed_tokens == 1
            await client.disconnect(server.get_id())
            await until(lambda: network._inbound_limiter.borrowed_tokens == 0)
            await dial(client, server)
            assert server.get_connected_peers() == [client.get_id()]


@trio_test
async def test_a_peer_that_answers_no_ping_is_given_up(autojump_clock: MockClock) -> None:
    wire: Any = Wire()
    muxer = yamux.Yamux(wire, CARRIER)
    with trio.fail_after(60):
        await muxer.start()
    assert muxer.is_closed
    assert wire.closed.is_set()


@trio_test
async def test_a_peer_that_ignores_its_window_is_disconnected() -> None:
    async def stay(stream: INetStream) -> None:
        await trio.sleep_forever()

    client, server = make_host(), make_host()
    server.set_stream_handler(TProtocol("/stay/1"), stay)
    with trio.fail_after(20):
        async with running(client, server):
            stream: Any = await client.new_stream(server.get_id(), [TProtocol("/stay/1")])
            stream.muxed_stream.send_window = 2**30
            with pytest.raises(Exception):  # noqa: B017 - of whichever kind
                while True:
                    await stream.write(bytes(60_000))
            await until(lambda: server.get_connected_peers() == [])


@trio_test
async def test_a_stream_carries_more_than_its_window_in_both_directions() -> None:
    async def echo(stream: INetStream) -> None:
        while data := await stream.read(50_000):
            await stream.write(data)

    async def write(stream: INetStream, data: bytes) -> None:
        for start in range(0, len(data), 40_000):
            await stream.write(data[start : start + 40_000])

    client, server = make_host(), make_host()
    server.set_stream_handler(TProtocol("/echo/1"), echo)
    data = secrets.token_bytes(3_000_000)
    with trio.fail_after(30):
        async with running(client, server):
            stream = await client.new_stream(server.get_id(), [TProtocol("/echo/1")])
            back = bytearray()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, stream, data)
                while len(back) < len(data):
                    back += await stream.read(70_000)
            assert bytes(back) == data


@trio_test
async def test_only_encrypted_connections_are_taken() -> None:
    pair = create_new_key_pair(secrets.token_bytes(32))
    impostor = new_host(
        key_pair=pair,
        sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)},
        listen_addrs=[ANYWHERE],
    )
    server = make_host()
    with trio.fail_after(20):
        async with running(server), running(impostor):
            with pytest.raises(SwarmException):
                await dial(impostor, server)
            assert server.get_connected_peers() == []


@trio_test
async def test_the_library_dials_and_refuses_nobody_by_itself() -> None:
    host, other = make_host(), make_host()
    network: Any = host.get_network()
    assert network._resource_manager is None
    with trio.fail_after(20):
        async with running(host), running(other):
            host.get_peerstore().add_addrs(other.get_id(), other.get_addrs(), 100)
            await network.auto_connector.maybe_connect()
            assert host.get_connected_peers() == []


@trio_test
async def test_a_port_is_not_shared_and_is_free_after_leaving() -> None:
    first, second = make_host(), make_host()
    with trio.fail_after(20):
        async with first.run(listen_addrs=[ANYWHERE]):
            address = first.get_transport_addrs()[0]
            with pytest.raises(ListenError, match="Address already in use"):
                parse_listen([str(address)])
            async with second.run(listen_addrs=[address]):
                assert second.get_transport_addrs() == []
            await dial_and_leave(first)
            await close_listeners(first)
        assert parse_listen([str(address)]) == [address]


async def dial_and_leave(server: IHost) -> None:
    client = make_host()
    async with running(client):
        await dial(client, server)


def test_a_port_held_by_another_program_is_refused() -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        said = r"^swarm\.listen: .*Address already in use; .*0 for a free one$"
        with pytest.raises(ListenError, match=said):
            parse_listen([f"/ip4/127.0.0.1/tcp/{holder.getsockname()[1]}"])


def test_the_library_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("libp2p.transport.tcp.tcp", "libp2p.network.auto_connector", "libp2p.later"):
        logging.getLogger(name).error("a peer left")
    swarm_connection.logging.warning("a peer left")
    assert caplog.records == []


@trio_test
async def test_bytes_on_the_wire_are_counted_at_both_ends() -> None:
    counters = [ByteCounter(), ByteCounter()]
    client, server = (build_host(secrets.token_bytes(32), [ANYWHERE], 8, one) for one in counters)
    with trio.fail_after(20):
        async with running(client, server):
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert counters[0].sent == counters[1].received > 200
            assert counters[1].sent == counters[0].received > 200
