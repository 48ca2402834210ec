"""One key on two machines: proven by a handshake or a signature, never by a replay."""

import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import trio_test

from rewards.question import Question
from swarm import twin
from swarm.identity import Identity, TwinFound
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.network_options import NetworkOptions
from swarm.peer_book import MAX_ADDRESSES, PeerBook, split_address
from swarm.rollout import Announcement, Entry
from swarm.wire import WireError, open_announcement, seal
from tests.swarm.until import until

SWARM = "5" * 64
NOW = 1_000_000
ENTRY = Entry(bytes(32), Question("sums", 1), 100, (True, False), 3)
OWN, OTHER = Identity(bytes([1] * 32)), Identity(bytes([2] * 32))


async def find_nothing(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {}


@pytest.fixture
def open_node(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Libp2pGossip]]:
    def open_one(
        bootstrap: Sequence[str] = (),
        identity: Identity | None = None,
        listen: str = "/ip4/127.0.0.1/tcp/0",
    ) -> AbstractAsyncContextManager[Libp2pGossip]:
        return open_libp2p(
            identity or Identity(secrets.token_bytes(32)),
            SWARM,
            listen,
            find_nothing,
            bootstrap,
            tmp_path / f"{secrets.token_hex(4)}.json",
            max_peers=8,
            chance=random.Random(0),
            options=NetworkOptions(dht=False),
        )

    return open_one


Open = Callable[..., AbstractAsyncContextManager[Libp2pGossip]]


@trio_test
async def test_a_node_that_meets_its_key_at_the_end_of_a_dial_stops(open_node: Open) -> None:
    with trio.fail_after(60):
        async with open_node(identity=OWN) as stays:
            with pytest.raises(ExceptionGroup) as caught:
                async with open_node(stays.addresses(), OWN):
                    await trio.sleep_forever()
            assert caught.group_contains(TwinFound, match=f"this node.*{OWN.node_id}.*it answers")
            assert stays.connections() == []
            async with open_node(stays.addresses()) as other:
                await until(lambda: other.members() and stays.members())


@trio_test
async def test_peers_tell_a_node_where_else_its_key_is(open_node: Open) -> None:
    """Neither of the two knows of the other but through a peer of both."""
    with trio.fail_after(60):
        async with open_node() as peer:
            ended = trio.Event()

            async def run_until_found() -> None:
                try:
                    async with open_node(peer.addresses(), OWN):
                        await trio.sleep_forever()
                except* TwinFound:
                    ended.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_until_found)
                await until(lambda: peer._book.addresses(OWN.node_id))
                nursery.start_soon(run_until_found)
                await ended.wait()
                nursery.cancel_scope.cancel()


@trio_test
async def test_a_node_that_dials_itself_goes_on(open_node: Open) -> None:
    with trio.fail_after(60):
        async with open_node(listen="/ip4/0.0.0.0/tcp/0") as node:
            dialled = trio.Event()
            visit = node.twins._visit

            async def note(address: str) -> None:
                await visit(address)
                dialled.set()

            node.twins._visit = note  # type: ignore[method-assign]
            port = split_address(node.addresses()[0])[0].rpartition("/")[2]
            heard = [f"/ip4/127.0.0.2/tcp/{port}/p2p/{node.node_id}"]
            node._book.hear(heard)
            await dialled.wait()
            assert node.twins._found is None
            assert node.connections() == []
            async with open_node(node.addresses()) as other:
                await until(lambda: other.members() and node.members())


def announcement(identity: Identity = OWN, **changes: object) -> bytes:
    news = Announcement(SWARM, identity.node_id, NOW, NOW, 1e9, (ENTRY,))
    return seal(msgspec.structs.replace(news, **changes), identity)


def forged() -> bytes:
    record = bytearray(announcement(incarnation=NOW + 1))
    record[-1] ^= 1
    return bytes(record)


def test_all_but_the_forgery_are_valid() -> None:
    assert open_announcement(announcement(OTHER, incarnation=NOW + 1))
    with pytest.raises(WireError):
        open_announcement(forged())


@trio_test
async def test_a_newer_incarnation_that_signs_stops_the_node(open_node: Open) -> None:
    with trio.fail_after(60):
        async with open_node() as peer:
            with pytest.raises(ExceptionGroup) as caught:
                async with open_node(peer.addresses(), OWN) as node:
                    node.twins.incarnation = NOW
                    await until(lambda: peer.router.mesh[peer.topics[0]])
                    await peer.announce(announcement(incarnation=NOW + 1))
                    await trio.sleep_forever()
            assert caught.group_contains(TwinFound, match="started after this node")


@pytest.mark.parametrize(
    "record",
    [
        announcement(),
        announcement(incarnation=NOW - 1),
        announcement(incarnation=NOW - 1, sequence=NOW + 10**6),
        announcement(incarnation=NOW + 1, swarm_id="6" * 64),
        announcement(OTHER, incarnation=NOW + 1),
        forged(),
    ],
    ids=["this one", "earlier", "earlier, later sequence", "another swarm", "another", "forged"],
)
@trio_test
async def test_replays_and_forgeries_do_not_stop_it(
    open_node: Open, record: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "TICK_S", 0.01)
    with trio.fail_after(60):
        async with open_node() as peer, open_node(peer.addresses(), OWN) as node:
            node.twins.incarnation = NOW
            heard: list[bytes] = []
            hear = node.twins.hear

            def note(data: bytes) -> None:
                hear(data)
                heard.append(data)

            node.twins.hear = note  # type: ignore[method-assign]
            await until(lambda: peer.router.mesh[peer.topics[0]])
            await peer.announce(record)
            await until(lambda: record in heard)
            assert node.twins._found is None


def test_where_the_own_id_is_said_to_be_is_bounded(tmp_path: Path) -> None:
    book = PeerBook(OWN.node_id, [], tmp_path / "peers.json", random.Random(0))
    for port in range(1, 50):
        book.hear([f"/ip4/192.0.2.1/tcp/{port}/p2p/{OWN.node_id}"] * 2)
    assert len(book.own_heard) == MAX_ADDRESSES
    assert book.due(0.0, ()) == []
