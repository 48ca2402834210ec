"""Lookups: one bootstrap node is enough, and an answer is bounded whatever a peer asks or tells."""

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import base58
import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr
from trio.testing import trio_test

from swarm import kademlia
from swarm.identity import Identity
from swarm.kademlia import MAX_ANSWER_BYTES, MAX_TOLD, Kademlia, _addresses, distance
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.network_options import NetworkOptions
from swarm.peer_book import MAX_ADDRESSES, MAX_KNOWN
from swarm.protocol import KADEMLIA_PROTOCOL
from tests.swarm.until import until

SWARM = "a swarm"
PROTOCOL = TProtocol(KADEMLIA_PROTOCOL.format(swarm_id=SWARM))
IDS = [Identity(number.to_bytes(32)).node_id for number in range(60)]


async def find_nothing(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {}


@asynccontextmanager
async def star(directory: Path, num: int, dht: bool = True) -> AsyncIterator[list[Libp2pGossip]]:
    """Nodes that know the first one only."""
    async with AsyncExitStack() as stack:
        nodes: list[Libp2pGossip] = []
        for _ in range(num):
            identity = Identity(secrets.token_bytes(32))
            node = open_libp2p(
                identity,
                SWARM,
                "/ip4/127.0.0.1/tcp/0",
                find_nothing,
                nodes[0].addresses() if nodes else [],
                directory / f"{identity.node_id}.json",
                max_peers=8,
                chance=random.Random(len(nodes)),
                options=NetworkOptions(dht=dht),
            )
            nodes.append(await stack.enter_async_context(node))
        yield nodes


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are not asked for further peers in the other way."""
    monkeypatch.setattr("swarm.dialer.ASK_FIRST_S", 1e9)


@pytest.mark.usefixtures("without_exchange")
@trio_test
async def test_by_lookups_alone_the_leaves_of_one_bootstrap_node_find_each_other(
    tmp_path: Path,
) -> None:
    with trio.fail_after(60):
        async with star(tmp_path, 5) as nodes:
            await until(lambda: all(len(node.connections()) == 4 for node in nodes))


@pytest.mark.usefixtures("without_exchange")
@trio_test
async def test_a_node_without_lookups_answers_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(60):
        async with star(tmp_path, 2, dht=False) as (node, other):
            await until(lambda: bool(node.connections() and other.connections()))
            assert node.kademlia is None
            with pytest.raises(BaseLibp2pError):
                await other._host.new_stream(ID.from_string(node.node_id), [PROTOCOL])


async def ask(asker: Libp2pGossip, node: Libp2pGossip, question: bytes) -> bytes:
    stream = await asker._host.new_stream(ID.from_string(node.node_id), [PROTOCOL])
    await stream.write(question)
    return await read_varint_prefixed_bytes_limited(stream, MAX_ANSWER_BYTES)


def find_node(key: bytes) -> bytes:
    question = Message(type=Message.MessageType.FIND_NODE, key=key)
    return encode_varint_prefixed(question.SerializeToString())


@trio_test
async def test_an_answer_names_the_closest_peers_and_not_the_asker(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with star(tmp_path, 2) as (node, asker):
            await until(lambda: asker.node_id in node.members())
            known = [asker.node_id, *IDS]
            assert node.kademlia is not None
            node.kademlia._members = lambda: known
            for one in known:
                node._book.connected(one, [f"/ip4/192.0.2.{port}/tcp/1" for port in range(9)])
            answer = Message.FromString(await ask(asker, node, find_node(b"a key")))
            told = [base58.b58encode(peer.id).decode() for peer in answer.closerPeers]
            assert told == sorted(IDS, key=lambda one: distance(b"a key", one))[:MAX_TOLD]
            assert {len(peer.addrs) for peer in answer.closerPeers} == {MAX_ADDRESSES}


@pytest.mark.parametrize(
    "question",
    [
        b"\x05hello",
        b"\xff" * 20,
        encode_varint_prefixed(bytes(5000)),
        encode_varint_prefixed(
            Message(type=Message.MessageType.PUT_VALUE, key=b"k").SerializeToString()
        ),
    ],
    ids=["garbage", "endless length", "too long", "a value"],
)
@trio_test
async def test_any_other_question_gets_no_answer_and_service_goes_on(
    tmp_path: Path, question: bytes
) -> None:
    with trio.fail_after(60):
        async with star(tmp_path, 2) as (node, asker):
            await until(lambda: asker.node_id in node.members())
            with pytest.raises(BaseLibp2pError):
                await ask(asker, node, question)
            assert Message.FromString(await ask(asker, node, find_node(b"")))


def test_what_a_peer_tells_is_bounded_and_nonsense_is_left_out(tmp_path: Path) -> None:
    answer = Message()
    for node_id in IDS:
        peer = answer.closerPeers.add(id=base58.b58decode(node_id))
        peer.addrs.extend([b"\xff\xff", b"", Multiaddr("/ip4/192.0.2.1/tcp/1").to_bytes()] * 9)
    answer.closerPeers[0].id = bytes(1000)
    told = _addresses(answer)
    assert f"/ip4/192.0.2.1/tcp/1/p2p/{IDS[1]}" in told
    assert len(told) <= MAX_TOLD * MAX_ADDRESSES
    assert not any(IDS[number] in line for line in told for number in (0, *range(20, 60)))


@trio_test
async def test_a_peer_that_invents_nodes_fills_no_more_than_the_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not asked for ever, however much it tells."""
    lie = Message(type=Message.MessageType.FIND_NODE)
    asked = 0

    def invent(self: Kademlia, key: bytes, asker: str) -> Message:
        nonlocal asked
        asked += 1
        del lie.closerPeers[:]
        for _ in range(MAX_TOLD):
            peer = lie.closerPeers.add(
                id=base58.b58decode(Identity(secrets.token_bytes(32)).node_id)
            )
            peer.addrs.append(Multiaddr("/ip4/127.0.0.1/tcp/1").to_bytes())
        return lie

    monkeypatch.setattr(Kademlia, "_found", invent)
    monkeypatch.setattr(kademlia, "FIRST_S", 0.01)
    with trio.fail_after(60):
        async with star(tmp_path, 2) as (node, other):
            await until(lambda: asked >= 2 * kademlia.MAX_QUICK)
            await trio.testing.wait_all_tasks_blocked(0.2)
            assert asked <= 2 * (kademlia.MAX_QUICK + 1)
            assert len(node._book._known) <= MAX_KNOWN
            assert other.node_id in node.members()
