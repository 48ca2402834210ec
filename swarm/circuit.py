"""What both ends of a relay need: addresses through one, messages, a stream as a connection.

Messages are those of libp2p's circuit relay v2, from the library; the library's own services are
not used. Their reservations are taken in anybody's name, so that four messages of one stranger fill
a relay, and two circuits to one node end each other.
"""

from typing import TypeVar

import trio
from google.protobuf.message import DecodeError, Message
from libp2p.abc import IMuxedConn, INetConn, INetStream, INetwork
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr  # type: ignore[import-untyped]

HOP = TProtocol("/libp2p/circuit/relay/0.2.0/hop")
STOP = TProtocol("/libp2p/circuit/relay/0.2.0/stop")
MAX_MESSAGE_BYTES = 4096
MESSAGE_S = 10.0
"""For a message to arrive, or to be on its way."""
CLOSE_S = 2.0

MARK = "/p2p-circuit"

M = TypeVar("M", bound=Message)


class CircuitFailed(RuntimeError):
    """A relay or the peer behind it did not answer, or refused; the message says which."""


def is_circuit(address: str) -> bool:
    """Whether an address leads through a relay."""
    return MARK in address


def is_relayed(connection: INetConn | IMuxedConn) -> bool:
    """Whether a connection leads through a relay."""
    return any(is_circuit(str(one)) for one in connection.get_transport_addresses())


def has_direct(network: INetwork, peer_id: ID) -> bool:
    """Whether there is a connection to a peer that leads through no relay."""
    return any(not is_relayed(one) for one in network.get_connections(peer_id))


def through(relay_address: str) -> str:
    """The transport part of addresses of peers behind a relay.

    Args:
        relay_address: of the relay, its id included.
    """
    return f"{relay_address}{MARK}"


def relay_of(address: str) -> str:
    """The node id of the relay that an address leads through."""
    return address.partition(MARK)[0].rpartition("/p2p/")[2]


async def send(stream: INetStream, message: Message) -> None:
    """Sends one message.

    Raises:
        CircuitFailed: it did not go out in time.
    """
    try:
        with trio.fail_after(MESSAGE_S):
            await stream.write(encode_varint_prefixed(message.SerializeToString()))
    except (BaseLibp2pError, trio.TooSlowError) as error:
        raise CircuitFailed(f"cannot send: {type(error).__name__}") from error


async def receive(stream: INetStream, kind: type[M]) -> M:
    """The next message.

    Raises:
        CircuitFailed: none came in time, or it is malformed or too long.
    """
    try:
        with trio.fail_after(MESSAGE_S):
            packed = await read_varint_prefixed_bytes_limited(stream, MAX_MESSAGE_BYTES)
        message = kind()
        message.ParseFromString(packed)
    except (BaseLibp2pError, DecodeError, trio.TooSlowError) as error:
        raise CircuitFailed(f"no answer: {type(error).__name__}") from error
    return message


async def end(stream: INetStream) -> None:
    """Closes a stream in both directions, whatever the other end does."""
    with trio.move_on_after(CLOSE_S) as scope:
        scope.shield = True
        for leave in (stream.close, stream.reset):
            try:
                await leave()
            except BaseLibp2pError:  # ended already
                continue


class CircuitStream(ReadWriteCloser):
    """A stream through a relay, which a connection is built upon."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        """See ReadWriteCloser."""
        return await self._stream.read(n)

    async def write(self, data: bytes) -> None:
        """See ReadWriteCloser."""
        await self._stream.write(data)

    async def close(self) -> None:
        """See ReadWriteCloser."""
        await end(self._stream)

    def get_remote_address(self) -> tuple[str, int] | None:
        """None: who is behind a relay has no address here."""
        return None


def as_connection(stream: INetStream, address: str, is_initiator: bool) -> RawConnection:
    """A connection that is to be secured.

    Args:
        address: of the far end, through the relay.
    """
    return RawConnection(
        CircuitStream(stream),
        is_initiator,
        connection_type=ConnectionType.RELAYED,
        addresses=[Multiaddr(address)],
    )
