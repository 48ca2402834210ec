"""What only a network does: restarts, dead peers, strangers, full tables, saved addresses."""

import json
import logging
import random
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from swarm import dialer
from swarm.gossip import FetchFailed, FindRollouts
from swarm.identity import Identity
from swarm.libp2p import Libp2pDied, Libp2pGossip, open_libp2p
from swarm.libp2p_host import ListenError
from swarm.network_options import NetworkOptions
from swarm.peer_book import (
    LOST_AFTER,
    MAX_ADDRESSES,
    MAX_KNOWN,
    PeerBook,
    WrongAddress,
    split_address,
)
from swarm.wire import ANNOUNCEMENT_MAGIC, rollout_hash
from tests.swarm.until import until

ANYWHERE = "/ip4/127.0.0.1/tcp/0"
BODY = b"a rollout" * 100
HASH = rollout_hash(BODY)
SOMEBODY = Identity(bytes(32)).node_id


async def find_body(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {one: BODY for one in hashes if one == HASH}


def record(number: int) -> bytes:
    return ANNOUNCEMENT_MAGIC + number.to_bytes(4, "big")


class Nodes:
    """Opens nodes whose peer files are kept in one directory, by identity."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(
        self,
        bootstrap: Sequence[str] = (),
        identity: Identity | None = None,
        listen: str = ANYWHERE,
        swarm_id: str = "a swarm",
        max_peers: int = 8,
        find: FindRollouts = find_body,
        options: NetworkOptions | None = None,
    ) -> AbstractAsyncContextManager[Libp2pGossip]:
        identity = identity or Identity(secrets.token_bytes(32))
        return open_libp2p(
            identity,
            swarm_id,
            listen,
            find,
            bootstrap,
            self.file(identity),
            max_peers,
            random.Random(0),
            options=options or NetworkOptions(),
        )

    def file(self, identity: Identity) -> Path:
        return self.directory / f"{identity.node_id}.json"


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def knows(node: Libp2pGossip, *others: Libp2pGossip) -> Callable[[], bool]:
    return lambda: {one.node_id for one in node.connections()} >= {one.node_id for one in others}


def meshed(*nodes: Libp2pGossip) -> Callable[[], bool]:
    return lambda: all(len(node.router.mesh[node.topics[0]]) == len(nodes) - 1 for node in nodes)


def listening(node: Libp2pGossip) -> str:
    return split_address(node.addresses()[0])[0]


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"


async def hears(listener: Libp2pGossip, speaker: Libp2pGossip, number: int) -> None:
    await speaker.announce(record(number))
    await gets(listener, number)


async def gets(listener: Libp2pGossip, number: int) -> None:
    """Waits for a record; a peer that is new may get those of the last seconds before."""
    while (await listener.received.receive()).record != record(number):
        pass


@trio_test
async def test_the_node_id_is_that_of_the_key(nodes: Nodes) -> None:
    identity = Identity(secrets.token_bytes(32))
    with trio.fail_after(30):
        async with nodes.open(identity=identity) as node:
            assert node.node_id == identity.node_id
            assert split_address(node.addresses()[0])[1] == identity.node_id


@trio_test
async def test_after_a_restart_with_the_same_key_announcements_still_arrive(nodes: Nodes) -> None:
    identity = Identity(secrets.token_bytes(32))
    with trio.fail_after(30):
        async with nodes.open() as stays:
            for start in (0, 30):
                async with nodes.open(stays.addresses(), identity) as restarts:
                    await until(meshed(stays, restarts))
                    for number in range(start, start + 30):
                        await hears(stays, restarts, number)
                await until(lambda: not stays.connections())


@trio_test
async def test_a_peer_that_restarts_is_dialled_again(nodes: Nodes) -> None:
    identity, listen = Identity(secrets.token_bytes(32)), free_address()
    with trio.fail_after(30):
        async with nodes.open([f"{listen}/p2p/{identity.node_id}"]) as client:
            for start in (0, 10):
                async with nodes.open(identity=identity, listen=listen) as server:
                    await until(meshed(client, server))
                    await hears(client, server, start + 1)
                    await hears(server, client, start + 2)
                    assert await client.fetch(server.node_id, [HASH], 2000) == {HASH: BODY}
                await until(lambda: not client.connections())


@trio_test
async def test_saved_peers_are_enough_when_every_bootstrap_node_is_dead(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.dialer.SAVE_S", 0.1)
    first, second = Identity(secrets.token_bytes(32)), Identity(secrets.token_bytes(32))
    with trio.fail_after(60):
        async with nodes.open() as bootstrap:
            addresses = bootstrap.addresses()
            async with (
                nodes.open(addresses, first) as one,
                nodes.open(addresses, second) as two,
            ):
                await until(lambda: knows(one, two)() and knows(two, one)())
                listen_one, listen_two = listening(one), listening(two)
                await until(lambda: listen_one in nodes.file(second).read_text())
                await until(lambda: listen_two in nodes.file(first).read_text())
        async with (
            nodes.open(addresses, first, listen_one) as one,
            nodes.open(addresses, second, listen_two) as two,
        ):
            await until(meshed(one, two))
            await hears(one, two, 1)


@trio_test
async def test_leaves_of_a_bootstrap_node_find_each_other_and_fetch(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with (
            nodes.open() as hub,
            nodes.open(hub.addresses()) as one,
            nodes.open(hub.addresses()) as two,
        ):
            await until(knows(one, hub, two))
            assert await one.fetch(two.node_id, [HASH], 2000) == {HASH: BODY}
            assert await two.fetch(one.node_id, [HASH], 2000) == {HASH: BODY}


@trio_test
async def test_a_late_peer_hears_the_next_announcement(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with nodes.open() as early, nodes.open(early.addresses()) as other:
            await until(meshed(early, other))
            await hears(other, early, 1)
            async with nodes.open(early.addresses()) as late:
                await until(knows(late, early))
                await early.announce(record(2))
                await gets(late, 2)


@trio_test
async def test_a_node_without_peers_announces_to_nobody(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with nodes.open() as alone:
            await alone.announce(record(1))
            assert alone.traffic().announcements_sent == 1
            assert alone.connections() == []


@trio_test
async def test_a_node_of_another_swarm_hears_nothing_and_cannot_fetch(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with (
            nodes.open() as hub,
            nodes.open(hub.addresses()) as friend,
            nodes.open(hub.addresses(), swarm_id="another swarm") as stranger,
        ):
            await until(lambda: meshed(hub, friend)() and knows(stranger, hub)())
            await hears(friend, hub, 1)
            with pytest.raises(FetchFailed):
                await stranger.fetch(hub.node_id, [HASH], 2000)
            await stranger.announce(record(2))
            await hears(hub, friend, 3)
            assert stranger.traffic().announcements_received == 0
            assert hub.traffic().announcements_received == 1


@trio_test
async def test_a_peer_of_another_swarm_is_let_go(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.dialer.SUBSCRIBE_S", 1.0)
    with trio.fail_after(30):
        async with (
            nodes.open() as hub,
            nodes.open(hub.addresses()) as friend,
            nodes.open(hub.addresses(), swarm_id="another swarm") as stranger,
        ):
            await until(knows(hub, friend, stranger))
            await until(lambda: not knows(hub, stranger)())
            assert knows(hub, friend)()


@trio_test
async def test_silent_and_garbage_connections_do_not_stop_the_service(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with nodes.open() as server:
            port = int(listening(server).rpartition("/")[2])
            silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(50)]
            for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(100_000), secrets.token_bytes(5000)):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                with suppress(trio.BrokenResourceError):  # the node had enough of it
                    await stream.send_all(garbage)
                silent.append(stream)
            async with nodes.open(server.addresses()) as client:
                await until(meshed(server, client))
                await hears(client, server, 1)
            for stream in silent:
                await stream.aclose()


@trio_test
async def test_a_full_node_keeps_to_its_peers(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with (
            nodes.open(max_peers=2) as full,
            nodes.open(full.addresses()) as one,
            nodes.open(full.addresses()) as two,
        ):
            await until(meshed(full, one, two))
            async with nodes.open(full.addresses()) as three:
                await until(lambda: three.traffic().bytes_received > 0)
                await until(lambda: not knows(three, full)())
                await hears(one, full, 1)
                assert {one.node_id for one in full.connections()} == {one.node_id, two.node_id}


@trio_test
async def test_a_newcomer_that_knows_only_a_full_node_finds_its_peers(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with nodes.open(max_peers=1) as full, nodes.open(full.addresses()) as one:
            await until(knows(full, one))
            async with nodes.open(full.addresses()) as newcomer:
                await until(lambda: knows(newcomer, one)() and not knows(newcomer, full)())
                await hears(newcomer, one, 1)
                assert [peer.node_id for peer in full.connections()] == [one.node_id]


@trio_test
async def test_few_newcomers_at_once_may_stay_at_a_full_node(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer, "MAX_PASSING", 1)
    monkeypatch.setattr(dialer, "PASS_S", 60.0)
    with trio.fail_after(30):
        async with (
            nodes.open(max_peers=2) as full,
            nodes.open(full.addresses()) as one,
            nodes.open(full.addresses()) as two,
            AsyncExitStack() as stack,
        ):
            await until(knows(full, one, two))
            for _ in range(3):
                await stack.enter_async_context(nodes.open(full.addresses()))
            await until(lambda: full.traffic().connections_refused >= 3)
            await until(lambda: len(full._dialer._passing) == 1)
            assert {one.node_id for one in full.connections()} == {one.node_id, two.node_id}


@trio_test
async def test_a_node_does_not_dial_itself(nodes: Nodes) -> None:
    identity, listen = Identity(secrets.token_bytes(32)), free_address()
    with trio.fail_after(30):
        async with (
            nodes.open([f"{listen}/p2p/{identity.node_id}"], identity, listen=listen) as node,
            nodes.open(node.addresses()) as other,
        ):
            await until(knows(node, other))
            assert [one.node_id for one in node.connections()] == [other.node_id]


@trio_test
async def test_a_node_leaves_with_messages_in_flight(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with nodes.open() as stays:
            async with nodes.open(stays.addresses()) as leaves:
                await until(meshed(stays, leaves))
                async with trio.open_nursery() as nursery:
                    for number in range(40):
                        nursery.start_soon(leaves.announce, record(number))
                        nursery.start_soon(stays.announce, record(100 + number))
            async for one in leaves.received:  # it ends
                assert one.carrier == stays.node_id
            await stays.announce(record(1000))


@trio_test
async def test_leaving_under_cancellation_saves_the_peers(nodes: Nodes) -> None:
    identity = Identity(secrets.token_bytes(32))
    with trio.fail_after(30):
        async with nodes.open() as stays:
            with trio.CancelScope() as scope:
                async with nodes.open(stays.addresses(), identity) as leaves:
                    await until(knows(leaves, stays))
                    scope.cancel()
                    await trio.sleep_forever()
            assert json.loads(nodes.file(identity).read_text()) == stays.addresses()


@trio_test
async def test_an_error_of_the_block_leaves_it_as_it_is(nodes: Nodes) -> None:
    with trio.fail_after(30), pytest.raises(ZeroDivisionError):
        async with nodes.open():
            _ = 1 / 0


@trio_test
@pytest.mark.parametrize("part", ["pubsub", "router", "network"])
async def test_a_part_that_dies_ends_the_block(nodes: Nodes, part: str) -> None:
    with trio.fail_after(30):
        with pytest.raises(ExceptionGroup) as caught:
            async with nodes.open() as node:
                services = {
                    "pubsub": node.pubsub,
                    "router": node.router,
                    "network": node._host.get_network(),
                }
                services[part].manager.cancel()
                await trio.sleep_forever()
        assert caught.group_contains(Libp2pDied)


@trio_test
async def test_an_error_of_find_ends_the_block(nodes: Nodes) -> None:
    async def find(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        raise OSError("the disk is gone")

    with trio.fail_after(30):
        async with nodes.open() as client:
            with pytest.raises(ExceptionGroup) as caught:
                async with nodes.open(client.addresses(), find=find) as server:
                    await until(meshed(client, server))
                    with pytest.raises(FetchFailed):
                        await client.fetch(server.node_id, [HASH], 2000)
                    await trio.sleep_forever()
            assert caught.group_contains(OSError, match="the disk is gone")


@trio_test
async def test_a_malformed_request_is_refused_and_service_goes_on(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with nodes.open() as server, nodes.open(server.addresses()) as client:
            await until(meshed(server, client))
            requests = client._requests
            for request in (b"\xff" * 100, b"\x90", bytes(60_000)):
                with pytest.raises(FetchFailed):
                    await requests._ask(server.node_id, requests._fetch_protocol, request, 2000)
            assert await client.fetch(server.node_id, [HASH], 2000) == {HASH: BODY}


@trio_test
async def test_the_log_tells_of_peers_and_of_nothing_else(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dead = f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}"
    with trio.fail_after(30):
        async with nodes.open([dead]) as stays:
            async with nodes.open(stays.addresses()) as leaves:
                await until(meshed(stays, leaves))
                await hears(stays, leaves, 1)
            await until(lambda: not stays.connections())
    lines = [one.getMessage().split(" at ")[0].split()[2:] for one in caplog.records]
    assert sorted(lines) == [["connected"], ["connected"], ["lost"], ["lost"]]


@pytest.mark.parametrize("address", ["", "/ip4/127.0.0.1", "127.0.0.1:80", "/dns4/localhost/tcp/1"])
def test_an_address_that_cannot_be_listened_on_is_named(nodes: Nodes, address: str) -> None:
    with pytest.raises(ListenError, match="write /ip4/ADDRESS/tcp/PORT"):
        trio.run(nodes.open(listen=address).__aenter__)


@pytest.mark.parametrize(
    "address", ["", "/ip4/127.0.0.1/tcp/1", f"/ip4/127.0.0.1/udp/1/p2p/{SOMEBODY}"]
)
def test_a_bootstrap_address_that_cannot_be_dialled_is_named(nodes: Nodes, address: str) -> None:
    with pytest.raises(WrongAddress, match="write /ip4/ADDRESS/tcp/PORT/p2p/PEER_ID"):
        trio.run(nodes.open([address]).__aenter__)


@trio_test
async def test_any_interface_is_shown_as_an_address_that_can_be_dialled(nodes: Nodes) -> None:
    with trio.fail_after(30):
        async with nodes.open(listen="/ip4/0.0.0.0/tcp/0") as node:
            assert "/0.0.0.0/" not in node.addresses()[0]
            assert "/tcp/0/" not in node.addresses()[0]


@trio_test
async def test_addresses_that_the_operator_names_are_told_instead(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.dialer._is_public", lambda address: "/127.9." in address)
    options = NetworkOptions(announce=("/ip4/127.9.0.1/tcp/99", "/ip4/127.9.0.2/tcp/98"))
    identity = Identity(secrets.token_bytes(32))
    told = [f"{one}/p2p/{identity.node_id}" for one in options.announce]
    with trio.fail_after(30):
        async with (
            nodes.open() as hub,
            nodes.open(hub.addresses(), identity, options=options) as named,
            nodes.open(hub.addresses()) as third,
        ):
            assert named.addresses() == told
            await until(lambda: set(hub._book.addresses(named.node_id)[:2]) == set(told))
            await until(lambda: bool({*told} & {*third._book.addresses(named.node_id)}))


@pytest.mark.parametrize(
    ("announce", "message"),
    [
        (["203.0.113.7:8421"], "swarm.announce: .*: write /ip4/ADDRESS/tcp/PORT"),
        (["/ip4/203.0.113.7/tcp/1"] * 5, "swarm.announce: 4 addresses at most"),
        ([f"/ip4/203.0.113.7/tcp/1/p2p/{SOMEBODY}"], "is of another node"),
    ],
)
def test_an_address_that_cannot_be_announced_is_named(
    nodes: Nodes, announce: list[str], message: str
) -> None:
    options = NetworkOptions(announce=tuple(announce))
    with pytest.raises(WrongAddress, match=message):
        trio.run(nodes.open(options=options).__aenter__)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "{}",
        "[" * 100_000,
        '["/ip4/127.0.0.1/tcp/1", 7, null, {}, "/ip4/999.0.0.1/tcp/1/p2p/x"]',
        '["' + "a" * 2_000_000 + '"]',
    ],
    ids=range(6),
)
def test_a_broken_peer_file_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "peers.json").write_text(text)
    book = PeerBook("own", [], tmp_path / "peers.json", random.Random(0))
    assert book.due(0.0, ()) == []


def identities(count: int) -> list[str]:
    return [Identity(number.to_bytes(32, "big")).node_id for number in range(count)]


def address_of(node_id: str, port: int = 1) -> str:
    return f"/ip4/192.0.2.1/tcp/{port}/p2p/{node_id}"


def test_saved_peers_are_read_again_the_last_one_first(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    book = PeerBook("own", [], file, random.Random(0))
    ids = identities(3)
    for node_id in ids:
        book.connected(node_id, ["/ip4/192.0.2.1/tcp/1"])
    book.hear([address_of(SOMEBODY, 2)])
    book.save()
    assert json.loads(file.read_text()) == [address_of(one) for one in reversed(ids)]
    again = PeerBook(ids[0], [], file, random.Random(0))
    assert set(again.due(0.0, ())) == {ids[1], ids[2]}  # not the own one, not the one only heard of
    assert [one.name for one in tmp_path.iterdir()] == ["peers.json"]


def test_what_is_known_of_peers_is_bounded_and_keeps_the_proven_ones(tmp_path: Path) -> None:
    ids = identities(MAX_KNOWN + 50)
    book = PeerBook("own", [address_of(ids[0])], tmp_path / "peers.json", random.Random(0))
    book.connected(ids[1], ["/ip4/192.0.2.1/tcp/1"])
    book.hear(address_of(one) for one in ids[2:])
    due = book.due(0.0, ())
    assert len(due) == MAX_KNOWN
    assert {ids[0], ids[1]} <= set(due)
    for port in range(2, 100):
        book.connected(ids[1], [f"/ip4/192.0.2.1/tcp/{port}"])
    assert len(book.addresses(ids[1])) == 4
    assert book.addresses(ids[1])[0] == address_of(ids[1], 99)


def test_strangers_cannot_change_the_addresses_of_known_peers(tmp_path: Path) -> None:
    book = PeerBook("own", [], tmp_path / "peers.json", random.Random(0))
    book.connected(SOMEBODY, ["/ip4/192.0.2.1/tcp/1"])
    book.hear([address_of(SOMEBODY, 2), "nonsense", "/ip4/1.2.3.4/tcp/1/p2p/nobody"])
    assert book.addresses(SOMEBODY) == [address_of(SOMEBODY)]


def test_a_peer_is_tried_ever_later_and_soon_after_it_was_lost(tmp_path: Path) -> None:
    book = PeerBook("own", [address_of(SOMEBODY)], tmp_path / "peers.json", random.Random(0))
    now, waits = 0.0, []
    for _ in range(10):
        book.failed(SOMEBODY, now)
        start = now
        while not book.due(now, ()):
            now += 0.25
        waits.append(now - start)
    assert waits[0] <= 1.5
    assert 30 <= waits[-1] <= 90.25
    book.lost(SOMEBODY, now, lasted_s=1.0)
    assert book.due(now + 20, ()) == []
    book.lost(SOMEBODY, now + 100, lasted_s=60.0)
    assert book.due(now + 101.5, ()) == [SOMEBODY]
    assert book.due(now + 101.5, {SOMEBODY}) == []


def test_a_lost_peer_is_looked_for_where_others_say_it_is(tmp_path: Path) -> None:
    """It may have moved: that is listened to only when its own addresses have failed for long."""
    book = PeerBook("own", [], tmp_path / "peers.json", random.Random(0))
    book.connected(SOMEBODY, [f"/ip4/192.0.2.1/tcp/{port}" for port in (1, 2, 3, 4)])
    for number in range(LOST_AFTER):
        book.hear([address_of(SOMEBODY, 9)])
        assert address_of(SOMEBODY, 9) not in book.addresses(SOMEBODY), number
        book.failed(SOMEBODY, 0.0)
    book.hear([address_of(SOMEBODY, 9)])
    assert book.addresses(SOMEBODY) == [address_of(SOMEBODY, port) for port in (1, 2, 3, 9)]


def test_news_of_an_address_is_tried_at_once_but_not_for_ever(tmp_path: Path) -> None:
    book = PeerBook("own", [], tmp_path / "peers.json", random.Random(0))
    num_tries = 0
    for port in range(1, 50):
        book.hear([address_of(SOMEBODY, port)])
        if book.due(0.0, ()):
            num_tries += 1
            book.failed(SOMEBODY, 0.0)
    assert num_tries == MAX_ADDRESSES


def test_peers_are_told_the_best_address_one_through_a_relay_and_their_own(tmp_path: Path) -> None:
    book = PeerBook("own", [], tmp_path / "peers.json", random.Random(0))
    relay, node, asker = identities(3)
    through = f"/ip4/192.0.2.9/tcp/1/p2p/{relay}/p2p-circuit"
    book.connected(node, ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2", through])
    book.connected(asker, ["/ip4/192.0.2.2/tcp/1"])
    told = [address_of(node), f"{through}/p2p/{node}", f"/ip4/192.0.2.2/tcp/1/p2p/{asker}"]
    assert book.to_share([node, asker], asker, 10) == told
    assert book.to_share([node, asker], asker, 2) == [told[0], told[2]]
    assert split_address(told[1]) == (through, node)


@pytest.mark.parametrize("transport", ["", "/p2p-circuit", "/ip4/192.0.2.1/tcp/1/p2p-circuit"])
def test_an_address_through_no_relay_in_particular_is_refused(transport: str) -> None:
    with pytest.raises(WrongAddress):
        split_address(f"{transport}/p2p/{SOMEBODY}")
