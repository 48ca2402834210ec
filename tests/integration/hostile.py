"""Peers that do what no honest one does: as processes that are members of the swarm, or as sockets.

Said back to whoever started one: how often it did what it does.
"""

import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_uvarint

from bench.light_node import SWARM_ID
from swarm.fetch import encode_request
from swarm.identity import Identity
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.libp2p_fixes import GOSSIP_PROTOCOL
from swarm.protocol import (
    CATALOGUE_PROTOCOL,
    FETCH_PROTOCOL,
    MAX_ANNOUNCEMENT_BYTES,
    MAX_FETCH_HASHES,
)
from swarm.wire import ANNOUNCEMENT_MAGIC, open_announcement

PROTOCOLS = [one.format(swarm_id=SWARM_ID) for one in (FETCH_PROTOCOL, CATALOGUE_PROTOCOL)]


def live_hostile(behaviour: str, home: Path, bootstrap: Sequence[str], orders: Connection) -> None:
    """Is a member of the swarm and misbehaves until it is killed."""
    home.mkdir()
    trio.run(
        _live,
        {"never_reads": never_reads, "oversized": oversized}[behaviour],
        home,
        bootstrap,
        orders,
    )


async def _live(
    misbehave: Callable[[Libp2pGossip, Connection], Awaitable[None]],
    home: Path,
    bootstrap: Sequence[str],
    orders: Connection,
) -> None:
    async def find(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return {}

    async with open_libp2p(
        Identity(secrets.token_bytes(32)),
        SWARM_ID,
        "/ip4/127.0.0.1/tcp/0",
        find,
        bootstrap,
        home / "peers.json",
        32,
    ) as gossip:
        while len(gossip.members()) < len(bootstrap):
            await trio.sleep(0.1)
        await misbehave(gossip, orders)


async def never_reads(gossip: Libp2pGossip, orders: Connection) -> None:
    """Asks everybody for all that was announced, on as many streams as are let in, and reads no
    reply: each fills the window of its stream."""
    host: Any = gossip._host
    hashes: dict[str, list[bytes]] = {}
    num = 0

    async def hear() -> None:
        async for received in gossip.received:
            one = open_announcement(received.record)
            hashes.setdefault(one.author, []).extend(entry.hash for entry in one.entries)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        kept = []
        while True:
            for node_id in gossip.members():
                if wanted := hashes.get(node_id, [])[-MAX_FETCH_HASHES:]:
                    with suppress(Exception):  # turned away: it tries again
                        stream = await host.new_stream(ID.from_string(node_id), [PROTOCOLS[0]])
                        request = encode_request(wanted)
                        await stream.write(encode_uvarint(len(request)) + request)
                        kept.append(stream)
                        num += 1
                        orders.send(num)
            await trio.sleep(0.05)


async def oversized(gossip: Libp2pGossip, orders: Connection) -> None:
    """Frames that are empty words or longer than anybody takes, in every protocol, and
    announcements above the limit."""
    host: Any = gossip._host
    num = 0
    while True:
        for node_id in gossip.members():
            peer_id = ID.from_string(node_id)
            for protocol in (GOSSIP_PROTOCOL, *PROTOCOLS):
                for length in (100, 2**21, 2**31, 2**63):
                    with suppress(Exception):  # reset by the other side, as it should
                        stream = await host.new_stream(peer_id, [protocol])
                        await stream.write(encode_uvarint(length) + bytes(100_000))
                        num += 1
        for size in (MAX_ANNOUNCEMENT_BYTES + 1, 200_000):
            with suppress(Exception):
                filler = secrets.token_bytes(size - len(ANNOUNCEMENT_MAGIC))
                await gossip.pubsub.publish(gossip.topics[0], ANNOUNCEMENT_MAGIC + filler)
                num += 1
        for connections in list(host.get_network().connections.values()):
            for connection in connections:
                with suppress(Exception):  # a frame of yamux that claims 4 GiB, on a stream of ours
                    frame = struct.pack("!BBHII", 0, 0, 1, 2**31 + 1, 2**32 - 1)
                    await connection.muxed_conn._write_frame(frame + bytes(65_000))
                    num += 1
        orders.send(num)
        await trio.sleep(0.2)


def open_silent(num: int, ports: Sequence[int], stack: ExitStack) -> int:
    """Connects so often, in turns, and says nothing until the stack is closed; returns how many
    came through."""
    num_open = 0
    for number in range(num):
        with suppress(OSError):
            stack.enter_context(
                socket.create_connection(("127.0.0.1", ports[number % len(ports)]), timeout=10)
            )
            num_open += 1
    return num_open


def send_garbage(ports: Sequence[int]) -> int:
    """Bytes that are no libp2p; returns to how many connections."""
    hello = b"\x13/multistream/1.0.0\n"
    pieces = (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100_000),
        os.urandom(5_000),
        os.urandom(200_000),
        b"\xff" * 10_000,  # a length without end
        hello + encode_uvarint(2**31) + bytes(1000),
        hello + b"\x07/noise\n" + b"\xff\xff" + os.urandom(65_535),
    )
    num = 0
    for port in ports:
        for piece in pieces:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as stream:
                stream.sendall(piece)
                num += 1
    return num
