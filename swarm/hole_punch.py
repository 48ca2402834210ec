"""Makes a direct connection of one through a relay: libp2p's DCUtR over TCP.

The node that a circuit led to first dials the addresses that the peer names. If that fails, both
tell each other under which addresses they are seen, and dial each other at the same moment from
the port that they listen on: each one's first packet opens its own NAT for the other's. On success
the circuit is closed.

Whether it works is the NATs' choice. It needs both to keep the port (or one of them to be none),
and to drop what comes unasked, not to answer it. docs/network.md says what was seen.

The library's DCUtRProtocol is not used: both ends start it at once and then disagree who secures
the connection, and it dials as many addresses as fit 4 KiB, three times, for any peer that asks.
"""

import ipaddress
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.rcmgr import Direction
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.circuit import CircuitFailed, end, has_direct, is_circuit, is_relayed, receive, send
from swarm.peer_book import unpack_address

log = logging.getLogger(__name__)

PROTOCOL = TProtocol("/libp2p/dcutr")
MAX_TOLD = 8
"""Addresses of one peer that are dialled."""
MAX_AT_ONCE = 4
"""Peers that may ask for it at once."""
TICK_S = 1.0
RETRY_S = (0.0, 10.0, 60.0)
"""Before each attempt; LAST_RETRY_S before any further one."""
LAST_RETRY_S = 900.0
DIAL_S = 3.0
NUM_ROUNDS, ROUND_S, PAUSE_S = 3, 4.0, 0.5
"""Dials of both ends at the same time, and how long each may take."""
NO_SOURCE: Mapping[str, tuple[str, int]] = {}
MAX_WAIT_S = 2.0
"""Half of a round trip at most, whatever the peer makes of it."""


@dataclass(slots=True)
class _Attempts:
    num: int
    next_at: float


class HolePuncher:
    """Tries it for every peer that came through a relay, and answers those that try."""

    def __init__(
        self,
        host: IHost,
        members: Callable[[], Collection[str]],
        punching: set[str],
    ) -> None:
        """
        Args:
            members: node ids of the connected peers of this swarm.
            punching: holds the peers to whom it is being tried, while it is.
        """
        self.num_direct = 0
        """Peers that came through a relay and were then reached without."""
        network: Any = host.get_network()
        self._network = network
        self._host = host
        self._members = members
        self._punching = punching
        self._attempts: dict[str, _Attempts] = {}
        self._answering = 0
        host.set_stream_handler(PROTOCOL, self._answer)

    async def run(self) -> None:
        """Tries for ever, each peer ever more rarely."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(TICK_S)
                now, members = trio.current_time(), set(self._members())
                self._attempts = {
                    one: made for one, made in self._attempts.items() if one in members
                }
                for node_id in members - self._punching:
                    if self._came_through_relay(node_id) and self._is_due(node_id, now):
                        nursery.start_soon(self._try, node_id)

    def _came_through_relay(self, node_id: str) -> bool:
        """Only the node that was dialled starts, so that both do not."""
        connections = self._network.get_connections(ID.from_string(node_id))
        return (
            bool(connections)
            and all(is_relayed(one) for one in connections)
            and any(one.direction is Direction.INBOUND for one in connections)
        )

    def _is_due(self, node_id: str, now: float) -> bool:
        made = self._attempts.setdefault(node_id, _Attempts(0, now + RETRY_S[0]))
        if made.next_at > now:
            return False
        made.num += 1
        made.next_at = now + (RETRY_S[made.num] if made.num < len(RETRY_S) else LAST_RETRY_S)
        return True

    async def _try(self, node_id: str) -> None:
        self._punching.add(node_id)
        try:
            if not await self._dial(node_id, self._named(node_id), DIAL_S):
                await self._start(node_id)
            await self._finish(node_id)
        except CircuitFailed as error:
            log.debug("no hole was punched to %s: %s", node_id, error)
        finally:
            self._punching.discard(node_id)

    async def _start(self, node_id: str) -> None:
        """The end that secures as the one who was dialled: so says the protocol."""
        try:
            stream = await self._host.new_stream(ID.from_string(node_id), [PROTOCOL])
        except BaseLibp2pError as error:
            raise CircuitFailed("the peer does not speak it") from error
        try:
            began = trio.current_time()
            await send(stream, self._seen_as())
            addresses = _usable((await receive(stream, HolePunch)).ObsAddrs)
            half_trip_s = min(MAX_WAIT_S, (trio.current_time() - began) / 2)
            await send(stream, HolePunch(type=HolePunch.SYNC))
            await trio.sleep(half_trip_s)
            await self._punch(node_id, addresses, is_dialled=True)
        finally:
            await end(stream)

    async def _answer(self, stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        node_id = str(peer_id)
        try:
            if (
                self._answering >= MAX_AT_ONCE
                or node_id in self._punching
                or has_direct(self._network, peer_id)
            ):
                return
            self._answering += 1
            self._punching.add(node_id)
            try:
                addresses = _usable((await receive(stream, HolePunch)).ObsAddrs)
                await send(stream, self._seen_as())
                await receive(stream, HolePunch)
                await self._punch(node_id, addresses, is_dialled=False)
                await self._finish(node_id)
            finally:
                self._answering -= 1
                self._punching.discard(node_id)
        except CircuitFailed as error:
            log.debug("no hole was punched to %s: %s", node_id, error)
        finally:
            await end(stream)

    async def _punch(self, node_id: str, addresses: Sequence[str], is_dialled: bool) -> None:
        for _ in range(NUM_ROUNDS):
            if await self._dial(node_id, addresses, ROUND_S, self._sources(), is_dialled):
                return
            await trio.sleep(PAUSE_S)

    async def _dial(
        self,
        node_id: str,
        addresses: Sequence[str],
        longest_s: float,
        sources: Mapping[str, tuple[str, int]] = NO_SOURCE,
        is_dialled: bool = False,
    ) -> bool:
        """Dials all at once until one connection stands or the time is over."""
        peer_id = ID.from_string(node_id)
        with trio.move_on_after(longest_s):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    source = sources.get(address.split("/")[1])
                    nursery.start_soon(self._dial_one, address, peer_id, source, is_dialled)
                while not has_direct(self._network, peer_id) and nursery.child_tasks:
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
        return has_direct(self._network, peer_id)

    async def _dial_one(
        self, address: str, peer_id: ID, source: tuple[str, int] | None, is_dialled: bool
    ) -> None:
        dial = self._network.dial_addr_as_responder if is_dialled else self._network.dial_addr
        try:
            await dial(Multiaddr(address), peer_id, source)
        except BaseLibp2pError as error:
            log.debug("cannot reach %s: %s", address, error)

    async def _finish(self, node_id: str) -> None:
        """Closes the circuits to a peer that is connected directly."""
        peer_id = ID.from_string(node_id)
        if not has_direct(self._network, peer_id):
            return
        self.num_direct += 1
        self._attempts.pop(node_id, None)
        for connection in self._network.get_connections(peer_id):
            if is_relayed(connection):
                await connection.close()

    def _named(self, node_id: str) -> list[str]:
        try:
            listed = self._host.get_peerstore().addrs(ID.from_string(node_id))
        except PeerStoreError:
            return []
        return _usable(one.to_bytes() for one in listed[: 2 * MAX_TOLD])

    def _seen_as(self) -> HolePunch:
        """Where peers see this node, with the port that it listens on, and what it sees itself."""
        host: Any = self._host
        observed = host._observed_addr_manager.addrs(min_observers=1)
        own = [one for one in map(str, host.get_addrs()) if not is_circuit(one)]
        ports = dict.fromkeys(_port(one) for one in map(str, host.get_transport_addrs()))
        seen = [
            f"{str(one).partition('/tcp/')[0]}/tcp/{port}" for one in observed for port in ports
        ]
        told = list(dict.fromkeys([*seen, *(one.partition("/p2p/")[0] for one in own)]))
        return HolePunch(
            type=HolePunch.CONNECT, ObsAddrs=[Multiaddr(one).to_bytes() for one in told[:MAX_TOLD]]
        )

    def _sources(self) -> dict[str, tuple[str, int]]:
        """By ip4 and ip6, the address and port to dial from: those that this node listens on."""
        host: Any = self._host
        found: dict[str, tuple[str, int]] = {}
        for address in map(str, host.get_transport_addrs()):
            _, kind, ip, _, port = address.split("/")[:5]
            found.setdefault(kind, (ip, int(port)))
        return found


def _port(address: str) -> str:
    return address.partition("/tcp/")[2].partition("/")[0]


def _usable(packed: Iterable[bytes]) -> list[str]:
    """Those of a peer's addresses that are IP and TCP and not of this machine itself: few."""
    found: list[str] = []
    for address in map(unpack_address, packed):
        try:
            _, kind, host, tcp, port = address.partition("/p2p/")[0].split("/")
            ip = ipaddress.ip_address(host)
        except ValueError:
            continue
        is_direct = not is_circuit(address) and kind in ("ip4", "ip6") and tcp == "tcp"
        if is_direct and not ip.is_loopback and not ip.is_unspecified and not ip.is_multicast:
            found.append(f"/{kind}/{ip}/tcp/{port}")
    return list(dict.fromkeys(found))[:MAX_TOLD]
