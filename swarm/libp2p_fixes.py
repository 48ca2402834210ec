"""Remedies for libp2p 0.8.1: what it loses silently, and what lets one stranger end a node.

Each remedy says what happens without it and has a test that fails without it
(tests/swarm/test_libp2p_fixes.py). `apply` patches the library once per process; `build_router` and
`SwarmPubsub` hold what is a mere argument; swarm/libp2p_host.py chooses transport and security.

Dealt with elsewhere, because they are decisions and not patches:
- messages above 1 MiB vanish: nothing near that is gossiped, `announce` refuses it (swarm/inbox.py)
- asynchronous validators deliver twice: ours is synchronous, and the inbox knows what it had
- peer scores are inert, inverted and forgotten: trust is the ledger's (swarm/ledger.py)
- an invalid message is validated each time, replays pass after 120 s: the validator looks at size
  and magic only, which is cheap; sequences and expiry are admission's (swarm/admission.py)
- there is no "ignore": hence the validator judges form only, and no relay pays for content
"""

import functools
import importlib.metadata
import logging
import socket
import struct
import sys
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from logging.handlers import QueueHandler
from typing import Any

import trio
from libp2p.abc import IHost
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io import utils as io_utils
from libp2p.io.abc import Reader, ReadWriteCloser
from libp2p.io.exceptions import IncompleteReadError
from libp2p.network import swarm as libp2p_swarm
from libp2p.network.connection import swarm_connection
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.peer.id import ID
from libp2p.pubsub import pubsub as libp2p_pubsub
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp import tcp

log = logging.getLogger(__name__)

VERSION = "0.8.1"
GOSSIP_PROTOCOL = TProtocol("/meshsub/1.1.0")
OUTBOUND_QUEUE = 512
"""RPCs that may wait for one peer."""
MAX_STREAMS = 256
"""That a peer may have open on one connection."""
PING_INTERVAL_S, PONG_TIMEOUT_S = 15.0, 15.0

_EMPTY_READS = 100
_applied = False


class WrongLibp2p(RuntimeError):
    """The installed libp2p is not the one that the remedies were made for."""


def apply() -> None:
    """Patches the library; a second call does nothing.

    Raises:
        WrongLibp2p: another version is installed.
    """
    global _applied
    check_version(importlib.metadata.version("libp2p"))
    if _applied:
        return
    _applied = True
    quiet_the_library()
    read_until_complete()
    batch_window_credit()
    end_connections_that_overflow()
    end_connections_without_pong()
    contain_stream_handlers()
    release_inbound_slots()
    lengthen_outbound_queues()
    keep_the_port()


def check_version(installed: str) -> None:
    """Raises WrongLibp2p unless the version is the one that was tested."""
    if installed != VERSION:
        raise WrongLibp2p(
            f"libp2p {installed} is installed, the remedies in swarm/libp2p_fixes.py are for "
            f"{VERSION}: install libp2p=={VERSION}; or check each remedy against the new source "
            "(each test in tests/swarm/test_libp2p_fixes.py must fail without it), then set VERSION"
        )


def build_router() -> GossipSub:
    """GossipSub that keeps its mesh and drops nothing by itself.

    Without it: a heartbeat every 120 s (every 60 s in adaptive mode), so that late peers wait
    minutes; more than 10 messages a second of one forwarder are dropped, own ones included; up to
    1000 whole messages are kept to detect equivocation (we sign records ourselves); IDONTWANT
    doubles the CPU; a peer that prunes us may name strangers whom we would dial; what one peer is
    told of its meshes is told to all after it, too, so that several topics mix; the time of every
    message is kept for ever.
    """
    router = GossipSub(
        protocols=[GOSSIP_PROTOCOL],
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=1,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
    )
    instance: Any = router
    instance._check_equivocation = lambda message: True
    instance._do_px = _ignore_peer_exchange
    instance._emit_control_msgs = functools.partial(_emit_to_each, router._emit_control_msgs)
    instance.recent_message_deliveries = defaultdict(lambda: deque(maxlen=1))
    return router


async def _ignore_peer_exchange(peers: object) -> None:
    await trio.lowlevel.checkpoint()


Control = Mapping[ID, Any]
"""Peer -> what it is to be told."""


async def _emit_to_each(
    emit: Callable[[Any, Any, Any], Awaitable[None]],
    to_graft: Control,
    to_prune: Control,
    to_gossip: Control,
) -> None:
    parts = (to_graft, to_prune, to_gossip)
    for peer in dict.fromkeys(peer for part in parts for peer in part):
        await emit(*({peer: part[peer]} if peer in part else {} for part in parts))


Deliver = Callable[[bytes, str, str], None]
"""Takes the data of a message, the node id of the peer that brought it, and the topic."""

_carrier: ContextVar[ID] = ContextVar("carrier")


class SwarmPubsub(Pubsub):
    """Pubsub that gives messages to a function, without the library's channel of 32."""

    def __init__(
        self,
        host: IHost,
        topics: Collection[str],
        is_wanted: Callable[[bytes], bool],
        deliver: Deliver,
        is_welcome: Callable[[str, bytes], bool] = lambda carrier, data: True,
    ) -> None:
        """
        Args:
            topics: the only ones that may be joined, and that peers may subscribe to.
            is_wanted: looks at the form of a message's data; what it refuses is not passed on.
            is_welcome: asked of carrier and data where the form is right: whether it is taken. What
                is not is neither delivered nor passed on, and costs the carrier nothing.
        """
        self.gossip_router = build_router()
        super().__init__(host, self.gossip_router, allowed_topics=set(topics))
        self.num_refused = 0
        """Messages of peers that were not taken, for whatever reason."""
        self._topics = frozenset(topics)
        self._is_wanted = is_wanted
        self._deliver = deliver
        self._is_welcome = is_welcome
        self.counter = first_sequence()
        for topic in topics:
            self.set_topic_validator(topic, self._validate, is_async_validator=False)

    def _validate(self, carrier: ID, message: rpc_pb2.Message) -> bool:
        topics = list(message.topicIDs)
        has_form = len(topics) == 1 and topics[0] in self._topics and self._is_wanted(message.data)
        return has_form and self._is_welcome(str(carrier), message.data)

    def members(self) -> set[ID]:
        """Peers that have joined one of the topics."""
        return set().union(*(self.peer_topics.get(one, set()) for one in self._topics))

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Takes a message, and survives it.

        Without it, whatever a message raises ends pubsub and host: a validator's error, but also a
        malformed public key, which any peer can send.
        """
        _carrier.set(msg_forwarder)
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception:
            if msg_forwarder == self.my_id:
                raise
            self.num_refused += 1
            log.debug("refused a message brought by %s", msg_forwarder, exc_info=True)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Delivers at once. Without it a burst of 200 gives 32: the channel drops the rest."""
        topic = publish_message.topicIDs[0]
        self._deliver(publish_message.data, str(_carrier.get()), topic)


def first_sequence() -> int:
    """Where a process starts to number its messages.

    Without it numbers start at the Unix time in seconds: after a restart with the same key, peers
    take new messages for old ones until as many were sent as before.
    """
    return time.time_ns()


def lengthen_outbound_queues() -> None:
    """Without it the 33rd RPC that waits for a peer is dropped, and nobody counts it."""
    module: Any = libp2p_pubsub
    module.RpcQueue = functools.partial(CountedQueue, max_size=OUTBOUND_QUEUE)


class CountedQueue(RpcQueue):
    """What waits for one peer."""

    num_unsent = 0
    """RPCs that full queues did not take, of all queues of this process."""

    def push(self, rpc: rpc_pb2.RPC, priority: bool = False) -> bool:
        """See RpcQueue."""
        is_taken = super().push(rpc, priority)
        CountedQueue.num_unsent += not (is_taken or self.closed)
        return is_taken


def read_until_complete() -> None:
    """Without it a message that arrives in more than 100 pieces ends its connection."""
    stock = io_utils.read_exactly
    for name, module in list(sys.modules.items()):
        if name.startswith("libp2p") and getattr(module, "read_exactly", None) is stock:
            module.read_exactly = read_exactly  # type: ignore[attr-defined]


async def read_exactly(reader: Reader, n: int, retry_count: int = _EMPTY_READS) -> bytes:
    """The next `n` bytes. Gives up after so many empty reads in a row, which is how an end shows.

    Raises:
        IncompleteReadError: the reader ended before.
    """
    buffer = bytearray()
    num_empty = 0
    while len(buffer) < n:
        piece = await reader.read(n - len(buffer))
        buffer += piece
        num_empty = 0 if piece else num_empty + 1
        if num_empty > retry_count:
            raise IncompleteReadError(
                f"{len(buffer)} bytes instead of {n}",
                expected_bytes=n,
                received_bytes=len(buffer),
            )
    return bytes(buffer)


def batch_window_credit() -> None:
    """Without it every read sends a window update: 3.3 encrypted frames more per message."""

    async def send_half_windows(self: yamux.YamuxStream, *, bytes_read: int = 0) -> None:
        async with self.window_lock:
            buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
            owed = self.target_recv_window - (self.recv_window + buffered)
            if owed < self._grow_threshold():
                return
            increment = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        await self.send_window_update(increment)

    stream_class: Any = yamux.YamuxStream
    stream_class._auto_tune_and_send_window_update = send_half_windows


def end_connections_that_overflow() -> None:
    """Without it a peer that ignores its window fills the memory: the library only warns."""

    def get(self: Any) -> int:
        return int(self._recv_window)

    def put(self: Any, window: int) -> None:
        self._recv_window = window
        if window < 0:
            self.conn.event_shutting_down.set()
            raise ValueError("the peer sent more than its window")

    stream_class: Any = yamux.YamuxStream
    stream_class.recv_window = property(get, put)


def end_connections_without_pong() -> None:
    """Without it a peer that vanished (power, network) stays connected forever: pings are sent,
    and their answers not missed. Noticed within PING_INTERVAL_S + PONG_TIMEOUT_S."""

    async def ping_until_silent(self: yamux.Yamux) -> None:
        await trio.sleep(0.5)
        while not self.event_shutting_down.is_set():
            with trio.move_on_after(PONG_TIMEOUT_S) as patience:
                self._ping_id += 1
                self._ping_event = trio.Event()
                self._ping_sent_time = trio.current_time()
                try:
                    await self._write_frame(_ping(self._ping_id))
                except BaseLibp2pError:  # the reader sees that it ended
                    return
                await self._ping_event.wait()
            if patience.cancelled_caught:
                await self.secured_conn.close()
                return
            with trio.move_on_after(PING_INTERVAL_S):
                await self.event_shutting_down.wait()

    muxer_class: Any = yamux.Yamux
    muxer_class._measure_rtt_loop = ping_until_silent


def _ping(number: int) -> bytes:
    return struct.pack(
        yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, number % 2**32
    )


def contain_stream_handlers() -> None:
    """Without it whatever a stream's handler raises ends the host: one malformed RPC of a peer is
    enough. Bounds the streams of one connection, too."""
    stock: Callable[[SwarmConn, Any], Awaitable[None]] = SwarmConn._handle_muxed_stream

    async def contained(self: SwarmConn, muxed_stream: Any) -> None:
        try:
            if len(self.streams) < MAX_STREAMS:
                await stock(self, muxed_stream)
                return
        except Exception:
            log.debug("a stream of %s failed", self.muxed_conn.peer_id, exc_info=True)
        await muxed_stream.reset()

    connection_class: Any = SwarmConn
    connection_class._handle_muxed_stream = contained


def release_inbound_slots() -> None:
    """Without it an accepted connection keeps its slot until the host ends: after 250 of them
    nobody can connect any more."""

    async def handle(
        self: libp2p_swarm.Swarm, stream: ReadWriteCloser, address: Any, event: object
    ) -> None:
        connection = RawConnection(stream, False)
        try:
            muxed: Any = await self.upgrade_inbound_raw_conn(connection, address)
            await muxed.event_closed.wait()
        except Exception:
            log.debug("an inbound connection failed", exc_info=True)
        finally:
            with trio.CancelScope(shield=True):
                await connection.close()

    swarm_class: Any = libp2p_swarm.Swarm
    swarm_class._do_handle_inbound_connection = handle


def keep_the_port() -> None:
    """Without it two processes may listen on one port, and each gets half of the connections."""

    def reuse_address_only(sock: trio.socket.SocketType) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    module: Any = tcp
    module._set_reuse_flags = reuse_address_only


def quiet_the_library() -> None:
    """Without it every failed dial and every peer that leaves is an error on the terminal.

    A part that dies raises (swarm/libp2p.py), so nothing that matters is lost. Whoever sets
    LIBP2P_DEBUG keeps the library's own logging.
    """
    top = logging.getLogger("libp2p")
    if any(isinstance(handler, QueueHandler) for handler in top.handlers):
        return
    top.propagate = True
    children = [name for name in logging.root.manager.loggerDict if name.startswith("libp2p.")]
    for name in ("libp2p", *children):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    module: Any = swarm_connection
    module.logging = logging.getLogger("libp2p.network.connection")
