"""The side of a node that uses relays: reserves with some, is reached and reaches through them.

A node reserves when nobody can dial it (`swarm.relay = "auto"`), or always (`"use"`), with peers of
its swarm that serve as relays. What it is told of them it announces to its peers.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import base58
import trio
from libp2p.abc import IHost, INetStream
from libp2p.exceptions import BaseLibp2pError
from libp2p.identity.identify_push.identify_push import push_identify_to_peers
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, StopMessage
from libp2p.relay.circuit_v2.protocol_buffer import StatusCode, to_proto_status
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.circuit import (
    HOP,
    MESSAGE_S,
    STOP,
    CircuitFailed,
    as_connection,
    end,
    has_direct,
    is_circuit,
    receive,
    send,
    through,
)
from swarm.own_addresses import OwnAddresses
from swarm.peer_book import PeerBook, WrongAddress, split_address, unpack_address

log = logging.getLogger(__name__)

MAX_RELAYS = 2
"""Reservations that a node holds."""
MAX_PER_RELAY = 16
"""Circuits through one of them that lead here."""
MAX_RELAY_ADDRESSES = 2
"""Of one relay that are announced."""
TICK_S = 1.0
RETRY_S = 60.0
"""Before a relay that refused is asked again."""
LONGEST_S = 86_400.0
"""A reservation for longer is asked for again after half of this."""


@dataclass(slots=True)
class _Reservation:
    again_at: float
    ends_at: float


class RelayClient:
    """Reservations, and circuits of this node in both directions."""

    def __init__(
        self,
        host: IHost,
        own: OwnAddresses,
        members: Callable[[], Collection[str]],
        needs_relay: Callable[[], bool],
        book: PeerBook,
        ask_soon: Callable[[str], None],
    ) -> None:
        """
        Args:
            members: node ids of the connected peers of this swarm.
            needs_relay: whether this node should hold reservations now.
            book: knows under which addresses a relay can be dialled.
            ask_soon: has a relay, by its node id, asked for further peers: others behind it.
        """
        self.num_refused = 0
        """Circuits to this node beyond MAX_PER_RELAY."""
        network: Any = host.get_network()
        self._network = network
        self._host = host
        self._own = own
        self._members = members
        self._needs_relay = needs_relay
        self._book = book
        self._ask_soon = ask_soon
        self._reservations: dict[str, _Reservation] = {}
        self._not_before: dict[str, float] = {}
        self._circuits: Counter[str] = Counter()
        host.set_stream_handler(STOP, self._accept)

    async def run(self) -> None:
        """Keeps reservations, for ever."""
        while True:
            await trio.sleep(TICK_S)
            await self._drop_lost()
            if self._needs_relay():
                for relay in self._due():
                    await self._reserve(relay)

    async def dial(self, address: str) -> None:
        """Connects to a peer through a relay, which is dialled first where it is not connected.

        Raises:
            CircuitFailed: the relay or the peer cannot be reached, or the peer is another.
        """
        before, node_id = split_address(address)
        relay_address = before.removesuffix("/p2p-circuit")
        _, relay = split_address(relay_address)
        if relay == str(self._host.get_id()):
            raise CircuitFailed("the relay is this node")
        try:
            if not self._network.get_connections(ID.from_string(relay)):
                await self._network.dial_addr(Multiaddr(relay_address), ID.from_string(relay))
            stream = await self._host.new_stream(ID.from_string(relay), [HOP])
        except BaseLibp2pError as error:
            raise CircuitFailed(f"relay {relay} cannot be asked") from error
        try:
            wanted = PeerId(id=base58.b58decode(node_id))
            await send(stream, HopMessage(type=HopMessage.CONNECT, peer=wanted))
            answer = await receive(stream, HopMessage)
            if int(answer.status) != StatusCode.OK:
                raise CircuitFailed(f"relay {relay} refused: {_name(answer.status)}")
            connection = as_connection(stream, before, is_initiator=True)
            await self._network.upgrade_outbound_raw_conn(connection, ID.from_string(node_id))
        except BaseLibp2pError as error:
            await end(stream)
            raise CircuitFailed(f"{node_id} behind {relay}: {error}") from error
        except BaseException:
            await end(stream)
            raise

    def _due(self) -> list[str]:
        """Relays to ask now: those held that expire, then others while there are too few."""
        now = trio.current_time()
        again = [one for one, held in self._reservations.items() if held.again_at <= now]
        missing = MAX_RELAYS - len(self._reservations)
        fresh = [
            one
            for one in self._members()
            if one not in self._reservations
            and self._not_before.get(one, 0.0) <= now
            and has_direct(self._network, ID.from_string(one))
            and self._serves(one)
        ]
        return again + fresh[: max(0, missing)]

    def _serves(self, node_id: str) -> bool:
        try:
            known = self._host.get_peerstore().get_protocols(ID.from_string(node_id))
        except PeerStoreError:
            return False
        return HOP in known

    async def _reserve(self, relay: str) -> None:
        now = trio.current_time()
        try:
            stream = await self._host.new_stream(ID.from_string(relay), [HOP])
            try:
                await send(stream, HopMessage(type=HopMessage.RESERVE))
                answer = await receive(stream, HopMessage)
            finally:
                await end(stream)
            if int(answer.status) != StatusCode.OK:
                raise CircuitFailed(_name(answer.status))
        except (BaseLibp2pError, CircuitFailed) as error:
            log.info("relay %s gives no reservation: %s", relay, error)
            if len(self._not_before) > 1000:
                self._not_before.clear()
            self._not_before[relay] = now + RETRY_S
            return
        lasts_s = min(max(answer.reservation.expire - time.time(), 2 * TICK_S), LONGEST_S)
        is_new = relay not in self._reservations
        self._reservations[relay] = _Reservation(now + lasts_s / 2, now + lasts_s)
        if is_new:
            told = [_unpack(packed, relay) for packed in answer.reservation.addrs[:8]]
            addresses = list(dict.fromkeys([*self._book.addresses(relay), *filter(None, told)]))
            usable = [through(one) for one in addresses if _is_usable(one)]
            self._own.add_relay(relay, usable[:MAX_RELAY_ADDRESSES])
            log.info("peers can reach this node through relay %s", relay)
            await self._tell()
            self._ask_soon(relay)

    async def _drop_lost(self) -> None:
        now = trio.current_time()
        lost = [
            relay
            for relay, held in self._reservations.items()
            if held.ends_at <= now or not self._network.get_connections(ID.from_string(relay))
        ]
        for relay in lost:
            del self._reservations[relay]
            self._own.drop_relay(relay)
            log.info("no longer reached through relay %s", relay)
        if lost:
            await self._tell()

    async def _tell(self) -> None:
        """Tells connected peers the new addresses."""
        with trio.move_on_after(MESSAGE_S):
            await push_identify_to_peers(self._host)

    async def _accept(self, stream: INetStream) -> None:
        """A circuit to this node; the far end proves who it is in the handshake that follows."""
        relay = str(stream.muxed_conn.peer_id)
        try:
            message = await receive(stream, StopMessage)
            status = StatusCode.OK
            if message.type != StopMessage.CONNECT:
                status = StatusCode.UNEXPECTED_MESSAGE
            elif relay not in self._reservations:
                status = StatusCode.PERMISSION_DENIED
            elif self._circuits[relay] >= MAX_PER_RELAY:
                status = StatusCode.RESOURCE_LIMIT_EXCEEDED
                self.num_refused += 1
            answer = StopMessage(type=StopMessage.STATUS, status=to_proto_status(status))
            self._circuits[relay] += 1
            try:
                await send(stream, answer)
                if status is StatusCode.OK:
                    await self._take(stream, relay)
            finally:
                self._circuits[relay] -= 1
                self._circuits += Counter()
        except (BaseLibp2pError, CircuitFailed) as error:
            log.debug("a circuit through %s failed: %s", relay, error)
        finally:
            await end(stream)

    async def _take(self, stream: INetStream, relay: str) -> None:
        address = through(next(iter(self._book.addresses(relay)), f"/p2p/{relay}"))
        connection = as_connection(stream, address, is_initiator=False)
        muxed = await self._network.upgrade_inbound_raw_conn(connection, Multiaddr(address))
        await muxed.event_closed.wait()


def _name(status: int) -> str:
    return StatusCode(status).name.lower() if status in set(StatusCode) else f"status {status}"


def _unpack(packed: bytes, relay: str) -> str:
    """An address that a relay tells of itself, or nothing where it is of another or malformed."""
    address = unpack_address(packed)
    if address and "/p2p/" not in address:
        address = f"{address}/p2p/{relay}"
    return address if address.endswith(f"/p2p/{relay}") else ""


def _is_usable(address: str) -> bool:
    try:
        split_address(address)
    except WrongAddress:
        return False
    return not is_circuit(address)
