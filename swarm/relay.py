"""A relay: nodes that nobody can dial are reached through it (`swarm.relay = "serve"`).

A peer of this swarm that is connected may reserve; whoever is connected may then ask for a circuit
to it. The relay carries bytes that it cannot read: both ends secure the circuit with their keys.
Bounded: reservations, circuits of each peer and in total, bytes and seconds of each circuit, and
bytes a second of all (`quota.relayed_mib_per_s`), of which each direction of each circuit gets the
same, a piece at a time. What is beyond is refused or waits, and is counted.

Not covered: circuits over other relays; vouchers, which nobody checks.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import base58
import trio
from libp2p.abc import IHost, INetStream
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, PeerId, StopMessage
from libp2p.relay.circuit_v2.protocol_buffer import StatusCode, to_proto_status
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.circuit import HOP, STOP, CircuitFailed, end, is_circuit, is_relayed, receive, send
from swarm.network_options import RELAYED_BYTES_PER_S
from swarm.seldom import Seldom

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What a relay gives."""

    reservations: int = 64
    reservation_s: float = 1800.0
    """Asked for again at half of it."""
    circuits: int = 256
    circuits_per_peer: int = 16
    """Of one peer, from it and to it."""
    circuit_s: float = 3600.0
    circuit_bytes: int = 256 * 2**20
    """Both directions together; then it ends, and the peers may ask for another one."""
    bytes_per_s: float = RELAYED_BYTES_PER_S
    """Of all circuits together; faster ones wait. math.inf is no bound."""


DEFAULTS = RelayLimits()
CHUNK_BYTES = 16_384
_SLOWED = "%d pieces of circuits waited: all together have their rate (quota.relayed_mib_per_s)"
CALL_S = 5.0
"""For a peer to take a circuit, or to read an answer."""


class Relay:
    """Serves reservations and circuits to the connected peers of this swarm."""

    def __init__(
        self,
        host: IHost,
        members: Callable[[], Collection[str]],
        limits: RelayLimits = DEFAULTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            members: node ids of the connected peers of this swarm.
            clock: Unix seconds.
        """
        self.num_circuits = 0
        """Open now."""
        self.num_refused = 0
        """Reservations and circuits."""
        self.num_bytes = 0
        self.num_slowed = 0
        """Pieces that had to wait for the rate of all circuits."""
        self._slowed = Seldom(log, _SLOWED)
        self._host = host
        self._members = members
        self._limits = limits
        self._clock = clock
        self._reserved: dict[str, float] = {}  # node id -> Unix seconds of its end
        self._circuits: Counter[str] = Counter()
        self._free_at = 0.0
        host.set_stream_handler(HOP, self._serve)

    def reserved(self) -> list[str]:
        """Node ids of those who can be reached through this relay now."""
        now, members = self._clock(), self._members()
        self._reserved = {
            node_id: until
            for node_id, until in self._reserved.items()
            if until > now and node_id in members
        }
        return list(self._reserved)

    async def _serve(self, stream: INetStream) -> None:
        asker = str(stream.muxed_conn.peer_id)
        try:
            message = await receive(stream, HopMessage)
            if is_relayed(stream.muxed_conn):
                await self._refuse(stream, StatusCode.PERMISSION_DENIED)
            elif message.type == HopMessage.RESERVE:
                await self._reserve(stream, asker)
            elif message.type == HopMessage.CONNECT:
                await self._connect(stream, asker, base58.b58encode(message.peer.id).decode())
            else:
                await self._refuse(stream, StatusCode.UNEXPECTED_MESSAGE)
        except CircuitFailed as error:
            log.debug("a circuit that %s asked for: %s", asker, error)
        finally:
            await end(stream)

    async def _reserve(self, stream: INetStream, asker: str) -> None:
        """For the one who asks, never for another."""
        reserved = self.reserved()
        if asker not in self._members():
            await self._refuse(stream, StatusCode.PERMISSION_DENIED)
            return
        if asker not in reserved and len(reserved) >= self._limits.reservations:
            await self._refuse(stream, StatusCode.RESERVATION_REFUSED)
            return
        until = self._clock() + self._limits.reservation_s
        self._reserved[asker] = until
        answer = self._status(StatusCode.OK)
        answer.reservation.expire = int(until)
        for address in self._host.get_addrs():
            if not is_circuit(str(address)):
                answer.reservation.addrs.append(Multiaddr(str(address)).to_bytes())
        await send(stream, answer)
        await _wait_for_end(stream)

    async def _connect(self, source: INetStream, asker: str, wanted: str) -> None:
        if wanted not in self.reserved():
            await self._refuse(source, StatusCode.NO_RESERVATION)
            return
        most = self._limits.circuits_per_peer
        if (
            self.num_circuits >= self._limits.circuits
            or self._circuits[asker] >= most
            or self._circuits[wanted] >= most
        ):
            await self._refuse(source, StatusCode.RESOURCE_LIMIT_EXCEEDED)
            return
        self.num_circuits += 1
        self._circuits.update((asker, wanted))
        try:
            await self._carry(source, asker, wanted)
        finally:
            self.num_circuits -= 1
            self._circuits.subtract((asker, wanted))
            self._circuits += Counter()  # forgets those without any

    async def _carry(self, source: INetStream, asker: str, wanted: str) -> None:
        try:
            sink = await self._call(asker, wanted)
        except CircuitFailed:
            await self._refuse(source, StatusCode.CONNECTION_FAILED)
            raise
        try:
            await send(source, self._status(StatusCode.OK))
            left = [self._limits.circuit_bytes]
            with trio.move_on_after(self._limits.circuit_s):
                async with trio.open_nursery() as nursery:
                    for one, other in ((source, sink), (sink, source)):
                        nursery.start_soon(self._copy, one, other, left, nursery.cancel_scope)
        finally:
            await end(sink)

    async def _call(self, asker: str, wanted: str) -> INetStream:
        """A stream to the wanted peer, which has taken the circuit."""
        try:
            with trio.fail_after(CALL_S):
                sink = await self._host.new_stream(ID.from_string(wanted), [STOP])
        except (BaseLibp2pError, trio.TooSlowError) as error:
            raise CircuitFailed(f"{wanted} cannot be asked") from error
        try:
            await send(
                sink,
                StopMessage(
                    type=StopMessage.CONNECT,
                    peer=PeerId(id=base58.b58decode(asker)),
                    limit=self._limit(),
                ),
            )
            if int((await receive(sink, StopMessage)).status) != StatusCode.OK:
                raise CircuitFailed(f"{wanted} refused")
        except BaseException:
            await end(sink)
            raise
        return sink

    async def _copy(
        self, source: INetStream, sink: INetStream, left: list[int], scope: trio.CancelScope
    ) -> None:
        """Until either end, or the bytes of the circuit, are gone; that ends both directions."""
        try:
            while (data := await source.read(CHUNK_BYTES)) and left[0] > 0:
                left[0] -= len(data)
                self.num_bytes += len(data)
                await self._wait_for_turn(len(data))
                await sink.write(data)
        except BaseLibp2pError as error:
            log.debug("a circuit ended: %s", error)
        scope.cancel()

    async def _wait_for_turn(self, num_bytes: int) -> None:
        now = trio.current_time()
        self._free_at = max(self._free_at, now - 1.0) + num_bytes / self._limits.bytes_per_s
        if self._free_at > now:
            self.num_slowed += 1
            self._slowed.note()
        await trio.sleep(max(0.0, self._free_at - now))

    async def _refuse(self, stream: INetStream, status: StatusCode) -> None:
        self.num_refused += 1
        await send(stream, self._status(status))
        await _wait_for_end(stream)

    def _status(self, status: StatusCode) -> HopMessage:
        return HopMessage(
            type=HopMessage.STATUS, status=to_proto_status(status), limit=self._limit()
        )

    def _limit(self) -> Limit:
        return Limit(duration=int(self._limits.circuit_s), data=self._limits.circuit_bytes)


async def _wait_for_end(stream: INetStream) -> None:
    """Gives the peer time to read the answer: a reset would overtake it."""
    with trio.move_on_after(CALL_S):
        try:
            await stream.read(1)
        except BaseLibp2pError:
            return
