"""Kademlia: a node looks up its own id now and then, so that one bootstrap node is enough.

Messages are those of libp2p's Kademlia (FIND_NODE only), under a protocol id of the swarm's own.
The library's KadDHT is not used: its handler is bound to the public network's protocol id whatever
prefix is given, it keeps 50,000 values of a megabyte each for anybody, and it dials whatever
address it is told. With 24 nodes of one process it took 14 s and 9 CPU seconds until everybody had
6 peers; the exchange of peers (swarm/requests.py) 4 s and 1.6; this: docs/network.md.

There is no routing table: who is connected is what one answers from and asks. What is found is
hearsay in the peer book, dialled when it is due. So a stranger can add what it likes to 256
addresses that are bounded anyway, and nothing else.

A particular node is found by asking connected peers for its id: whoever is connected to it, or was,
tells its addresses. In a swarm whose nodes have 32 peers each, a few questions reach a thousand.

Not covered: values and providers; finding a node that no peer of a peer was ever connected to.
"""

import hashlib
import logging
import random
import secrets
from collections.abc import Callable, Collection, Iterable

import base58
import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.identity import is_node_id
from swarm.peer_book import MAX_ADDRESSES, PeerBook, unpack_address
from swarm.protocol import KADEMLIA_PROTOCOL

log = logging.getLogger(__name__)

ALPHA = 3
"""Peers asked at once."""
MAX_TOLD = 20
"""Peers in an answer: Kademlia's k."""
MAX_ID_BYTES = 64
MAX_QUESTION_BYTES = 1024
MAX_ANSWER_BYTES = 16_384
MAX_ANSWERING = 16
ASK_S = 5.0
FIRST_S, LONGEST_S = 1.0, 120.0
"""Between two lookups: the wait doubles from one to the other while nobody new is heard of."""
MAX_ASKED = 24
"""Peers asked for one particular node."""
MAX_QUICK = 16
"""Lookups that may follow news within FIRST_S; later ones wait QUIET_S at least."""
QUIET_S = 30.0


def distance(key: bytes, node_id: str) -> int:
    """Kademlia's: XOR of the hashes, as a number."""
    return _hash(key) ^ _hash(base58.b58decode(node_id))


class Kademlia:
    """Answers peers' lookups and makes own ones."""

    def __init__(
        self,
        host: IHost,
        swarm_id: str,
        book: PeerBook,
        members: Callable[[], Collection[str]],
        chance: random.Random,
    ) -> None:
        """
        Args:
            members: node ids of the connected peers of this swarm.
        """
        self._host = host
        self._book = book
        self._members = members
        self._chance = chance
        self._protocol = TProtocol(KADEMLIA_PROTOCOL.format(swarm_id=swarm_id))
        self._answering = 0
        self._key = base58.b58decode(str(host.get_id()))
        host.set_stream_handler(self._protocol, self._answer)

    async def run(self) -> None:
        """Looks up the own id and, in between, random ones, for ever."""
        wait_s, num_quick = FIRST_S, 0
        while True:
            await trio.sleep(wait_s * self._chance.uniform(0.75, 1.25))
            if not self._members():
                continue
            num_new = await self.look_up(self._key)
            if not num_new:
                num_new = await self.look_up(secrets.token_bytes(32))
            if num_new:
                num_quick += 1
                wait_s = FIRST_S if num_quick <= MAX_QUICK else QUIET_S
            else:
                wait_s = min(LONGEST_S, 2 * wait_s)

    async def look_up(self, key: bytes) -> int:
        """Asks the connected peers closest to the key for closer ones, until those that are
        connected have been asked; returns how many nodes were new."""
        asked: set[str] = set()
        num_before = self._book.num_heard
        while closest := [
            one for one in self._closest(key, self._members())[:ALPHA] if one not in asked
        ]:
            asked.update(closest)
            await self._ask_all(closest, key)
        return self._book.num_heard - num_before

    async def find(self, node_id: str) -> None:
        """Asks connected peers for a particular node, until the book knows where to dial it."""
        if not is_node_id(node_id):
            return
        peers = sorted(self._members())
        self._chance.shuffle(peers)
        for start in range(0, min(len(peers), MAX_ASKED), ALPHA):
            await self._ask_all(peers[start : start + ALPHA], base58.b58decode(node_id))
            if self._book.addresses(node_id):
                return

    async def _ask_all(self, node_ids: Iterable[str], key: bytes) -> None:
        """At once."""
        async with trio.open_nursery() as nursery:
            for node_id in node_ids:
                nursery.start_soon(self._ask, node_id, key)

    async def _ask(self, node_id: str, key: bytes) -> None:
        question = Message(type=Message.MessageType.FIND_NODE, key=key)
        with trio.move_on_after(ASK_S):
            try:
                stream = await self._host.new_stream(ID.from_string(node_id), [self._protocol])
            except BaseLibp2pError:
                return
            try:
                await stream.write(encode_varint_prefixed(question.SerializeToString()))
                answer = Message.FromString(
                    await read_varint_prefixed_bytes_limited(stream, MAX_ANSWER_BYTES)
                )
                self._book.hear(_addresses(answer))
            except (BaseLibp2pError, DecodeError) as error:
                log.debug("no answer of %s: %s", node_id, error)
            finally:
                await _close(stream)

    async def _answer(self, stream: INetStream) -> None:
        if self._answering >= MAX_ANSWERING:
            await stream.reset()
            return
        self._answering += 1
        try:
            with trio.move_on_after(ASK_S):
                question = Message.FromString(
                    await read_varint_prefixed_bytes_limited(stream, MAX_QUESTION_BYTES)
                )
                if question.type == Message.MessageType.FIND_NODE:
                    answer = self._found(question.key, str(stream.muxed_conn.peer_id))
                    await stream.write(encode_varint_prefixed(answer.SerializeToString()))
        finally:
            self._answering -= 1
            await _close(stream)

    def _found(self, key: bytes, asker: str) -> Message:
        answer = Message(type=Message.MessageType.FIND_NODE, key=key)
        known = set(self._members())
        if len(key) <= MAX_ID_BYTES and self._book.is_proven(one := base58.b58encode(key).decode()):
            known.add(one)
        for node_id in self._closest(key, known - {asker})[:MAX_TOLD]:
            peer = answer.closerPeers.add(id=base58.b58decode(node_id))
            for address in self._book.addresses(node_id):
                peer.addrs.append(Multiaddr(address.rpartition("/p2p/")[0]).to_bytes())
            if answer.ByteSize() > MAX_ANSWER_BYTES:
                del answer.closerPeers[-1]
                break
        return answer

    def _closest(self, key: bytes, node_ids: Iterable[str]) -> list[str]:
        return sorted(node_ids, key=lambda one: distance(key, one))


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest())


def _addresses(answer: Message) -> list[str]:
    """What an answer tells, as text; what is malformed is left out. The book judges the rest."""
    found = []
    for peer in answer.closerPeers[:MAX_TOLD]:
        if len(peer.id) > MAX_ID_BYTES:
            continue
        node_id = base58.b58encode(peer.id).decode()
        for address in filter(None, map(unpack_address, peer.addrs[:MAX_ADDRESSES])):
            found.append(f"{address}/p2p/{node_id}")
    return found


async def _close(stream: INetStream) -> None:
    try:
        await stream.close()
    except BaseLibp2pError:
        await stream.reset()
