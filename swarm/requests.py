"""What nodes ask each other for over streams of their own: rollouts by hash, announcements that
they missed, and peers' addresses.

Every request is one stream, bounded in bytes and seconds at both ends. A peer that asks for more
than its limits allow (swarm/limits.py) has its stream reset; where all together have had enough for
now, an empty message says that the node is busy.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.request_response import (
    BytesCodec,
    RequestContext,
    RequestResponse,
    RequestResponseConfig,
    RequestResponseError,
)

from swarm import catalogue
from swarm.fetch import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from swarm.gossip import AnswerCatalogue, FetchFailed, FindRollouts, PeerBusy
from swarm.limits import Kind, PeerLimits
from swarm.peer_book import MAX_ADDRESS_CHARS
from swarm.protocol import CATALOGUE_PROTOCOL, FETCH_PROTOCOL, PEERS_PROTOCOL

log = logging.getLogger(__name__)

REQUEST_S = 20.0
"""For one request, at either end."""
MAX_SERVED = 64
"""Requests of one kind that are answered at once; who asks beyond it is turned away."""
MAX_SERVED_TO_ONE = 8
"""Of these, for one peer: one that opens streams and says nothing leaves the others theirs."""
BUSY = b""
"""A reply: nothing else is empty."""
MAX_PEERS_TOLD = 32
MAX_PEERS_BYTES = MAX_PEERS_TOLD * (MAX_ADDRESS_CHARS + 8)

TellPeers = Callable[[str], list[str]]
"""Node id of a peer that asks -> addresses of further ones."""

_encode = msgspec.msgpack.Encoder().encode
_decode_addresses = msgspec.msgpack.Decoder(list[str]).decode


class Requests:
    """Asks connected peers, and answers them."""

    def __init__(
        self,
        host: IHost,
        swarm_id: str,
        find: FindRollouts,
        tell_peers: TellPeers,
        is_connected: Callable[[str], bool],
        answer_catalogue: AnswerCatalogue | None = None,
        limits: PeerLimits | None = None,
    ) -> None:
        """
        Args:
            answer_catalogue: tells peers what they missed; None does not offer that.
            limits: how much each peer may ask for; None takes the defaults.
        """
        self.num_sent: Counter[Kind] = Counter()
        """Rollouts served, and announcements told to peers that had missed them."""
        self.num_fetched = self.num_failed = 0
        """Rollouts, and fetches of which nothing came."""
        self._host = host
        self._is_connected = is_connected
        self._find = find
        self._answer_catalogue = answer_catalogue
        self._tell = tell_peers
        self._limits = limits or PeerLimits()
        self._requests = RequestResponse(host)
        self._fetch_protocol = TProtocol(FETCH_PROTOCOL.format(swarm_id=swarm_id))
        self._peers_protocol = TProtocol(PEERS_PROTOCOL.format(swarm_id=swarm_id))
        self._catalogue_protocol = TProtocol(CATALOGUE_PROTOCOL.format(swarm_id=swarm_id))
        self._crashed = trio.Event()
        self._crash: Exception | None = None
        self._serve(
            self._fetch_protocol,
            Kind.FETCHES,
            self._serve_fetch,
            MAX_REQUEST_BYTES,
            MAX_REPLY_BYTES,
        )
        self._serve(self._peers_protocol, Kind.PEERS, self._tell_peers, 1024, MAX_PEERS_BYTES)
        if answer_catalogue is not None:
            self._serve(
                self._catalogue_protocol,
                Kind.CATALOGUE,
                self._serve_catalogue,
                catalogue.MAX_REQUEST_BYTES,
                catalogue.MAX_REPLY_BYTES,
            )

    async def fetch(
        self, node_id: str, hashes: Sequence[bytes], max_bytes: int
    ) -> dict[bytes, bytes]:
        """See Gossip."""
        request = encode_request(hashes)
        try:
            reply = await self._ask(node_id, self._fetch_protocol, request, max_bytes)
            found = decode_reply(reply, hashes, max_bytes)
        except FetchFailed:
            self.num_failed += 1
            raise
        self.num_fetched += len(found)
        return found

    async def ask_catalogue(self, node_id: str, request: bytes) -> bytes:
        """See AsksCatalogue."""
        most = catalogue.MAX_REPLY_BYTES
        return await self._ask(node_id, self._catalogue_protocol, request, most)

    async def ask_for_peers(self, node_id: str) -> list[str]:
        """Addresses that a peer tells, unchecked; none where it does not answer."""
        try:
            reply = await self._ask(node_id, self._peers_protocol, b"?", MAX_PEERS_BYTES)
            return _decode_addresses(reply)[:MAX_PEERS_TOLD]
        except (FetchFailed, msgspec.MsgspecError):
            return []

    async def wait_for_crash(self) -> None:
        """Raises what a function of ours raised while a peer was served; waits until then."""
        await self._crashed.wait()
        assert self._crash is not None
        raise self._crash

    async def _ask(
        self, node_id: str, protocol: TProtocol, request: bytes, max_bytes: int
    ) -> bytes:
        if not self._is_connected(node_id):
            raise FetchFailed("not connected")
        config = RequestResponseConfig(
            timeout=REQUEST_S,
            max_request_size=max(1, len(request)),
            max_response_size=max(1, max_bytes),
        )
        try:
            reply = await self._requests.send_request(
                ID.from_string(node_id), [protocol], request, BytesCodec(), config
            )
        except RequestResponseError as error:
            raise FetchFailed(f"{type(error).__name__}: {error}") from error
        if reply == BUSY:
            raise PeerBusy("the peer is busy")
        return reply

    def _serve(
        self,
        protocol: TProtocol,
        kind: Kind,
        handler: Callable[[bytes, RequestContext], Awaitable[tuple[bytes, int]]],
        max_request: int,
        max_reply: int,
    ) -> None:
        async def handle_within_limits(request: bytes, context: RequestContext) -> bytes:
            node_id = str(context.peer_id)
            if not self._limits.allows_request(node_id, kind):
                raise RequestResponseError("too many requests")
            if self._limits.is_busy(node_id):
                return BUSY
            reply, num = await handler(request, context)
            if self._limits.is_busy(node_id):  # others came first; nothing is awaited below
                return BUSY
            self._limits.spend_reply(node_id, len(reply))
            self.num_sent[kind] += num
            return reply

        open_streams: Counter[str] = Counter()

        async def take_a_few(stream: INetStream) -> None:
            node_id = str(stream.muxed_conn.peer_id)
            if open_streams[node_id] >= MAX_SERVED_TO_ONE:
                self._limits.count(kind)
                await stream.reset()
                return
            open_streams[node_id] += 1
            try:
                await take(stream)
            finally:
                open_streams[node_id] -= 1
                if not open_streams[node_id]:
                    del open_streams[node_id]

        self._requests.set_handler(
            protocol,
            handle_within_limits,
            BytesCodec(),
            RequestResponseConfig(
                timeout=REQUEST_S,
                max_request_size=max_request,
                max_response_size=max_reply,
                max_concurrent_inbound=MAX_SERVED,
            ),
        )
        take = self._requests._build_stream_handler(protocol)
        self._host.set_stream_handler(protocol, take_a_few)

    async def _serve_fetch(self, request: bytes, context: RequestContext) -> tuple[bytes, int]:
        hashes = decode_request(request)
        if hashes is None:
            raise RequestResponseError("malformed request")
        with self._ending_the_node():
            found = await self._find(hashes)
        return encode_reply(hashes, found)

    async def _serve_catalogue(self, request: bytes, context: RequestContext) -> tuple[bytes, int]:
        assert self._answer_catalogue is not None
        with self._ending_the_node():
            answered = await self._answer_catalogue(request)
        if answered is None:
            raise RequestResponseError("malformed request")
        return answered

    @contextmanager
    def _ending_the_node(self) -> Iterator[None]:
        """What is raised inside is ours, not the peer's: it ends the node, through `run`."""
        try:
            yield
        except Exception as error:
            log.exception("a request could not be served")
            self._crash = error
            self._crashed.set()
            raise

    async def _tell_peers(self, request: bytes, context: RequestContext) -> tuple[bytes, int]:
        await trio.lowlevel.checkpoint()
        told = self._tell(str(context.peer_id))[:MAX_PEERS_TOLD]
        return _encode(told), len(told)
