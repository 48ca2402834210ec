"""A libp2p host as we want it: TCP, Noise and Yamux only, bytes counted, no limits but our own.

Every connection over TCP passes LimitedTCP, in either direction; who may come and how often is
decided in swarm/connection_limits.py. Every connection, through a relay too, passes GatedNoise,
where it is known who is at the other end: a banned peer gets no further.
"""

import ipaddress
import logging
import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import IHost, IListener, IRawConnection, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.trio import TrioTCPStream
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP, TCPListener
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.bans import IsBanned, nobody
from swarm.connection_limits import ConnectionLimits, IsExempt, Place, is_loopback
from swarm.own_addresses import OwnAddresses
from swarm.seldom import Seldom

logger = logging.getLogger(__name__)
_banned_ended = Seldom(logger, "%d connections with banned peers were ended at their handshake")

MAX_HANDSHAKES = 256
"""Connections beside those of peers that may be in their handshake at once."""
HANDSHAKE_S = 5.0
MAX_PER_ADDRESS, MAX_PER_SUBNET = 8, 32
"""Connections with one IP address and one subnet, unless a setting says otherwise."""


class ListenError(RuntimeError):
    """The node cannot listen where it was told to; the message says what to change."""


@dataclass(slots=True)
class ByteCounter:
    """Bytes on the wire, encryption and protocol overhead included, TCP's own excluded."""

    sent: int = 0
    received: int = 0


def build_limits(
    max_peers: int,
    max_per_address: int = MAX_PER_ADDRESS,
    max_per_subnet: int = MAX_PER_SUBNET,
    is_exempt: IsExempt = is_loopback,
) -> ConnectionLimits:
    """Limits whose total leaves room for handshakes beside the peers; on trio's clock."""
    total = _max_connections(max_peers) + MAX_HANDSHAKES
    return ConnectionLimits(total, max_per_address, max_per_subnet, trio.current_time, is_exempt)


def _max_connections(max_peers: int) -> int:
    return 2 * max_peers  # two that dial each other at once have two for a while


def build_host(
    seed: bytes,
    listen: Sequence[Multiaddr],
    max_peers: int,
    counter: ByteCounter,
    limits: ConnectionLimits | None = None,
    own: OwnAddresses | None = None,
    is_banned: IsBanned = nobody,
) -> IHost:
    """A host that is not running yet.

    Only Noise: the library offers plaintext by default, over which anybody can pose as any node.
    The library's own resource manager, auto-connector and dial retries are off: they refuse, dial
    and wait by rules of their own, of which nobody would hear.
    """
    key_pair = create_new_key_pair(seed)
    noise = GatedNoise(key_pair, noise_privkey=create_new_noise_key_pair().private_key)
    noise.is_banned = is_banned
    max_connections = _max_connections(max_peers)
    host = new_host(
        key_pair=key_pair,
        sec_opt={NOISE: noise},
        muxer_opt={TProtocol(YAMUX): Yamux},
        transports=[LimitedTCP(counter, limits or build_limits(max_peers))],
        listen_addrs=list(listen),
        connection_config=ConnectionConfig(
            max_connections=max_connections,
            high_watermark=max_connections,
            low_watermark=0,
            min_connections=0,
            inbound_upgrade_timeout=HANDSHAKE_S,
            outbound_upgrade_timeout=HANDSHAKE_S,
        ),
    )
    told = own or OwnAddresses(str(host.get_id()), (), reachable_addresses)
    instance: Any = host
    # Not by `addrs_factory`: the library cuts what that gives at the first peer id.
    instance.get_addrs = lambda: told.told(instance.get_transport_addrs())
    network: Any = host.get_network()
    assert isinstance(network, Swarm)
    network.set_resource_manager(None)
    network.retry_config = RetryConfig(max_retries=0)
    network._inbound_limiter = trio.CapacityLimiter(math.inf)  # ours counts whom it refuses
    switch_off_auto_connector(network)
    return host


def switch_off_auto_connector(network: Any) -> None:
    """Without it the library dials whatever address any peer has told it."""

    async def do_nothing() -> None:
        await trio.lowlevel.checkpoint()

    network.auto_connector.maybe_connect = do_nothing


class GatedNoise(NoiseTransport):
    """Noise that ends connections with banned peers: when their handshake has proven who they are,
    before they can open a stream."""

    is_banned: IsBanned = staticmethod(nobody)
    num_refused = 0

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        """See NoiseTransport. Raises HandshakeFailure for a banned peer."""
        return await self._let_pass(await super().secure_inbound(conn))

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        """See NoiseTransport. Raises HandshakeFailure for a banned peer."""
        return await self._let_pass(await super().secure_outbound(conn, peer_id))

    async def _let_pass(self, conn: ISecureConn) -> ISecureConn:
        node_id = str(conn.get_remote_peer())
        if self.is_banned(node_id):
            self.num_refused += 1
            _banned_ended.note()
            await conn.close()
            raise HandshakeFailure(f"{node_id} is banned")
        return conn


class LimitedTCP(TCP):
    """TCP that counts bytes, and closes connections beyond a limit."""

    def __init__(self, counter: ByteCounter, limits: ConnectionLimits) -> None:
        super().__init__()
        self._counter = counter
        self._limits = limits
        self._listeners: list[TCPListener] = []

    def can_dial(self, maddr: Multiaddr) -> bool:
        """Whether it is an address of a peer itself, not of a relay before it."""
        return "/p2p-circuit" not in str(maddr) and super().can_dial(maddr)

    async def _dial_resolved(
        self, maddr: Multiaddr, source: tuple[str, int] | None = None
    ) -> IRawConnection:
        """Every dial of TCP comes here, with an IP address."""
        host = _ip_of(maddr)
        place = self._limits.enter(host, is_inbound=False)
        if place is None:
            raise OpenConnectionError(f"as many connections with {host} as may be")
        try:
            if source is None:
                connection = await super()._dial_resolved(maddr)
            else:
                connection = await self._dial_from(source, maddr)
        except BaseException:
            place.leave()
            raise
        assert isinstance(connection, RawConnection)
        connection.stream = CountingStream(connection.stream, self._counter, place)
        return connection

    def create_listener(  # type: ignore[override]
        self, handler_function: Callable[[ReadWriteCloser], Awaitable[None]]
    ) -> IListener:
        """See TCP."""

        async def handle(stream: ReadWriteCloser) -> None:
            host, _ = _remote(stream) or ("", 0)
            place = self._limits.enter(host, is_inbound=True)
            if place is None:
                await stream.close()
                return
            try:
                await handler_function(CountingStream(stream, self._counter, place))
            finally:
                place.leave()

        listener = super().create_listener(handle)
        self._listeners.append(listener)
        return listener

    async def _dial_from(self, source: tuple[str, int], maddr: Multiaddr) -> IRawConnection:
        """Dials from a port that this host listens on, which opens a NAT for those who dial it."""
        far = (_ip_of(maddr), int(str(maddr.value_for_protocol("tcp"))))
        plain = socket.socket(socket.AF_INET6 if ":" in far[0] else socket.AF_INET)
        try:
            self._bind_beside_listener(plain, source)
            sock = trio.socket.from_stdlib_socket(plain)
            await sock.connect(far)
        except OSError as error:
            plain.close()
            raise OpenConnectionError(
                f"cannot dial {far} from port {source[1]}: {error}"
            ) from error
        except BaseException:
            plain.close()
            raise
        return RawConnection(TrioTCPStream(trio.SocketStream(sock)), True)

    def _bind_beside_listener(self, sock: socket.socket, source: tuple[str, int]) -> None:
        """The port is shared for the moment of this call only: else another process of the user
        could listen on it, too (libp2p_fixes.keep_the_port)."""
        listening = [
            one.socket
            for listener in self._listeners
            for one in listener.listeners
            if one.socket.getsockname()[1] == source[1]
        ]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            for one in listening:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(source)
        finally:
            for one in listening:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


class CountingStream(ReadWriteCloser):
    """A stream whose bytes are counted, whose far end is known over IPv6, too, and whose place is
    free when it is closed."""

    def __init__(self, stream: ReadWriteCloser, counter: ByteCounter, place: Place) -> None:
        self._stream = stream
        self._counter = counter
        self._place = place
        self._remote = _remote(stream)

    async def read(self, n: int | None = None) -> bytes:
        """See ReadWriteCloser."""
        data = await self._stream.read(n)
        self._counter.received += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """See ReadWriteCloser."""
        await self._stream.write(data)
        self._counter.sent += len(data)

    async def close(self) -> None:
        """See ReadWriteCloser."""
        self._place.leave()
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the far end."""
        return self._remote


def _remote(stream: ReadWriteCloser) -> tuple[str, int] | None:
    if not isinstance(stream, TrioTCPStream):
        return stream.get_remote_address()
    try:
        host, port = stream.stream.socket.getpeername()[:2]
    except OSError:  # gone already
        return None
    return str(host), int(port)


def parse_listen(addresses: Sequence[str]) -> list[Multiaddr]:
    """Addresses to listen on.

    Raises:
        ListenError: one is no TCP address, or its port is taken.
    """
    parsed = []
    for address in addresses:
        try:
            multiaddr = Multiaddr(address)
            host, port = _host_and_port(multiaddr)
        except ValueError as error:
            raise ListenError(
                f"swarm.listen: {address!r}: write /ip4/ADDRESS/tcp/PORT ({error})"
            ) from None
        _check_is_free(host, port)
        parsed.append(multiaddr)
    if not parsed:
        raise ListenError("no address to listen on; write /ip4/0.0.0.0/tcp/PORT")
    return parsed


def check_listening(host: IHost, addresses: Sequence[Multiaddr]) -> None:
    """Raises ListenError unless a running host listens on all of the addresses."""
    network: Any = host.get_network()
    if missing := [str(one) for one in addresses if str(one) not in network.listeners]:
        raise ListenError(f"cannot listen on {missing[0]}")


async def close_listeners(host: IHost) -> None:
    """Frees the ports. Without it they stay taken until the process ends: the library's own
    shutdown is cancelled before it comes to them."""
    network: Any = host.get_network()
    for listener in list(network.listeners.values()):
        await listener.close()


def _host_and_port(address: Multiaddr) -> tuple[str, int]:
    names = [protocol.name for protocol in address.protocols()]
    if names not in (["ip4", "tcp"], ["ip6", "tcp"]):
        raise ValueError("not an IP address and a TCP port")
    return str(address.value_for_protocol(names[0])), int(str(address.value_for_protocol("tcp")))


def _ip_of(address: Multiaddr) -> str:
    return str(next(value for one, value in address.items() if one.name in ("ip4", "ip6")))


def _check_is_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ListenError(
                f"swarm.listen: cannot listen on {host} port {port}: {error.strerror}; is another "
                "node running? Choose another port, or 0 for a free one"
            ) from None


def reachable_addresses(listening: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Listening addresses with "any interface" replaced by the address that a packet to the world
    would leave from: what a peer in the same network can dial. Behind a NAT it is not enough."""
    return [_replace_any(address) for address in listening]


def _replace_any(address: Multiaddr) -> Multiaddr:
    host, port = _host_and_port(address)
    if not ipaddress.ip_address(host).is_unspecified:
        return address
    name = "ip6" if ":" in host else "ip4"
    return Multiaddr(f"/{name}/{_outward_ip(name == 'ip6')}/tcp/{port}")


def _outward_ip(is_ip6: bool) -> str:
    """Nothing is sent: connecting a UDP socket only asks the routing table."""
    family, beyond, loopback = (
        (socket.AF_INET6, "2001:db8::1", "::1")
        if is_ip6
        else (socket.AF_INET, "192.0.2.1", "127.0.0.1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((beyond, 9))
        except OSError:
            return loopback
        return str(probe.getsockname()[0])
