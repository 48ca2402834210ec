"""Relays on loopback: who may reserve, what a circuit carries, and where it ends. Real NATs:
tests/integration/test_nat.py."""

import dataclasses
import logging
import math
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import base58
import pytest
import trio
from libp2p.abc import INetStream
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, StopMessage
from libp2p.relay.circuit_v2.protocol_buffer import StatusCode
from multiaddr import Multiaddr
from trio.testing import MockClock, trio_test

from swarm import relay as relays
from swarm.circuit import HOP, STOP, CircuitFailed, is_circuit, is_relayed, receive, send
from swarm.dialer import REACH_S, Dialer
from swarm.gossip import Connection
from swarm.hole_punch import MAX_TOLD, _usable
from swarm.identity import Identity
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.libp2p_host import ListenError, parse_listen
from swarm.network_options import NetworkOptions, RelayUse
from swarm.peer_book import split_address
from swarm.relay import Relay
from swarm.relay_client import RelayClient
from swarm.wire import ANNOUNCEMENT_MAGIC, rollout_hash
from tests.swarm.until import until

BODY = b"a rollout" * 1000
HASH = rollout_hash(BODY)
SOMEBODY = Identity(bytes(32)).node_id


async def find_body(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {one: BODY for one in hashes if one == HASH}


@pytest.fixture
def open_node(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Libp2pGossip]]:
    def open_one(
        bootstrap: Sequence[str] = (), relay: RelayUse = "auto", swarm_id: str = "a swarm"
    ) -> AbstractAsyncContextManager[Libp2pGossip]:
        identity = Identity(secrets.token_bytes(32))
        return open_libp2p(
            identity,
            swarm_id,
            "/ip4/127.0.0.1/tcp/0",
            find_body,
            bootstrap,
            tmp_path / f"{identity.node_id}.json",
            max_peers=8,
            chance=random.Random(0),
            options=NetworkOptions(relay=relay, dht=False),
        )

    return open_one


Open = Callable[..., AbstractAsyncContextManager[Libp2pGossip]]


def relay_of(node: Libp2pGossip) -> Relay:
    assert node.reach is not None
    assert node.reach.relay is not None
    return node.reach.relay


def client_of(node: Libp2pGossip) -> RelayClient:
    assert node.reach is not None
    assert node.reach.client is not None
    return node.reach.client


def change(relay: Relay, **limits: Any) -> None:
    relay._limits = dataclasses.replace(relay._limits, **limits)


def circuits_of(node: Libp2pGossip) -> list[str]:
    return [one for one in node.addresses() if is_circuit(one)]


def connection_with(node: Libp2pGossip, other: Libp2pGossip) -> Connection | None:
    return next((one for one in node.connections() if one.node_id == other.node_id), None)


def alone(node: Libp2pGossip) -> None:
    """Nobody is told of the node's own address, and it asks nobody for others'."""
    node._book.to_share = lambda *args: []  # type: ignore[method-assign]


async def hop(node: Libp2pGossip, relay: Libp2pGossip, message: HopMessage) -> HopMessage:
    stream = await open_stream(node, relay, HOP)
    await send(stream, message)
    return await receive(stream, HopMessage)


async def open_stream(node: Libp2pGossip, other: Libp2pGossip, protocol: Any) -> INetStream:
    return await node._host.new_stream(ID.from_string(other.node_id), [protocol])


RESERVE = HopMessage(type=HopMessage.RESERVE)


def connect_to(node_id: str) -> HopMessage:
    return HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=base58.b58decode(node_id)))


@trio_test
async def test_nodes_share_through_a_relay(open_node: Open) -> None:
    with trio.fail_after(60):
        async with open_node(relay="serve") as relay:
            alone(relay)
            async with open_node(relay.addresses(), "use") as behind:
                await until(lambda: circuits_of(behind))
                assert relay_of(relay).reserved() == [behind.node_id]
                async with open_node(circuits_of(behind)) as caller:
                    await until(lambda: behind.node_id in caller.members())
                    await until(lambda: caller.node_id in behind.members())
                    for one, other in ((caller, behind), (behind, caller)):
                        connection = connection_with(one, other)
                        assert connection is not None
                        assert connection.address == split_address(circuits_of(behind)[0])[0]
                        assert await one.fetch(other.node_id, [HASH], 20_000) == {HASH: BODY}
                    await behind.announce(ANNOUNCEMENT_MAGIC + b"1")
                    assert (await caller.received.receive()).record == ANNOUNCEMENT_MAGIC + b"1"
                    assert relay_of(relay).num_bytes > 2 * len(BODY)
                await until(lambda: not connection_with(behind, caller))
                assert relay_of(relay).num_circuits == 0
            await until(lambda: not relay_of(relay).reserved())


@trio_test
async def test_a_peer_learns_the_address_behind_the_relay_and_tells_it(open_node: Open) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "use") as behind,
        ):
            await until(lambda: circuits_of(behind))
            circuit = circuits_of(behind)[0]
            await until(lambda: circuit in relay._book.addresses(behind.node_id))
            assert circuit in relay._book.to_share([behind.node_id], SOMEBODY, 8)


@trio_test
async def test_a_reservation_is_for_the_one_who_asks(open_node: Open) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "off") as asker,
        ):
            await until(lambda: asker.node_id in relay.members() and asker.members())
            in_the_name_of = HopMessage(
                type=HopMessage.RESERVE, peer=PeerId(id=base58.b58decode(SOMEBODY))
            )
            answer = await hop(asker, relay, in_the_name_of)
            assert int(answer.status) == StatusCode.OK
            assert relay_of(relay).reserved() == [asker.node_id]


@trio_test
async def test_reservations_are_bounded_and_renewed(open_node: Open) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "off") as one,
            open_node(relay.addresses(), "off") as two,
        ):
            change(relay_of(relay), reservations=1)
            await until(lambda: {one.node_id, two.node_id} <= set(relay.members()))
            await until(lambda: one.members() and two.members())
            assert int((await hop(one, relay, RESERVE)).status) == StatusCode.OK
            refused = await hop(two, relay, RESERVE)
            assert int(refused.status) == StatusCode.RESERVATION_REFUSED
            assert int((await hop(one, relay, RESERVE)).status) == StatusCode.OK
            assert relay.traffic().connections_refused == 1


@trio_test
async def test_nodes_of_another_swarm_cannot_reserve(open_node: Open) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "off", swarm_id="another") as stranger,
        ):
            await until(lambda: connection_with(stranger, relay))
            refused = await hop(stranger, relay, RESERVE)
            assert int(refused.status) == StatusCode.PERMISSION_DENIED
            assert relay_of(relay).reserved() == []


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (connect_to(SOMEBODY), StatusCode.NO_RESERVATION),
        (HopMessage(type=HopMessage.CONNECT), StatusCode.NO_RESERVATION),
        (HopMessage(type=HopMessage.STATUS), StatusCode.UNEXPECTED_MESSAGE),
    ],
)
@trio_test
async def test_a_circuit_leads_to_those_who_reserved(
    open_node: Open, message: HopMessage, status: StatusCode
) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "off") as asker,
        ):
            await until(lambda: asker.node_id in relay.members() and asker.members())
            assert int((await hop(asker, relay, message)).status) == status


@trio_test
async def test_a_malformed_request_is_dropped_and_service_goes_on(open_node: Open) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "off") as asker,
        ):
            await until(lambda: asker.node_id in relay.members() and asker.members())
            for garbage in (b"\x05hello", b"\xff" * 20, b"\xff\xff\x7f" + bytes(5000)):
                stream = await open_stream(asker, relay, HOP)
                await stream.write(garbage)
                with pytest.raises(CircuitFailed):
                    await receive(stream, HopMessage)
            assert int((await hop(asker, relay, RESERVE)).status) == StatusCode.OK


@trio_test
async def test_two_circuits_to_one_node_do_not_end_each_other(open_node: Open) -> None:
    with trio.fail_after(60):
        async with open_node(relay="serve") as relay:
            alone(relay)
            async with open_node(relay.addresses(), "use") as behind:
                alone(behind)
                await until(lambda: circuits_of(behind))
                async with open_node(circuits_of(behind)) as stays:
                    async with open_node(circuits_of(behind)) as leaves:
                        await until(lambda: behind.node_id in stays.members())
                        await until(lambda: behind.node_id in leaves.members())
                        assert relay_of(relay).num_circuits == 2
                    await until(lambda: relay_of(relay).num_circuits == 1)
                    assert await stays.fetch(behind.node_id, [HASH], 20_000) == {HASH: BODY}


@pytest.mark.parametrize("limit", [{"circuit_bytes": 3000}, {"circuit_s": 0.5}])
@trio_test
async def test_a_circuit_ends_at_its_limit(open_node: Open, limit: dict[str, float]) -> None:
    with trio.fail_after(60):
        async with open_node(relay="serve") as relay:
            change(relay_of(relay), **limit)
            alone(relay)
            async with open_node(relay.addresses(), "use") as behind:
                await until(lambda: circuits_of(behind))
                async with open_node(circuits_of(behind)) as caller:
                    await until(lambda: relay_of(relay).num_circuits)
                    await until(lambda: not relay_of(relay).num_circuits)
                    assert relay_of(relay).num_bytes < 3000 + 2 * relays.CHUNK_BYTES
                    await until(lambda: connection_with(caller, relay))


class NoHost:
    def set_stream_handler(self, protocol: Any, handler: Any) -> None: ...


@trio_test
async def test_circuits_share_the_rate_of_all_and_what_waits_is_counted(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One direction of a circuit, copied a piece at a time, that has much to send gets as much as
    any other."""
    caplog.set_level(logging.INFO)
    limits = relays.RelayLimits(bytes_per_s=1000)
    relay = Relay(NoHost(), lambda: [], limits)  # type: ignore[arg-type]
    carried = [0] * 9

    async def copy(number: int, after_s: float) -> None:
        await trio.sleep(after_s)
        while True:
            await relay._wait_for_turn(100)
            carried[number] += 100

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(copy, number, 0.0)
        nursery.start_soon(copy, 8, 300.0)
        await trio.sleep(300)
        assert 300_000 <= sum(carried) <= 301_000 and max(carried[:8]) - min(carried[:8]) <= 200
        before, carried[:] = relay.num_slowed, [0] * 9
        await trio.sleep(300)
        assert sum(carried) <= 300_100 and max(carried) - min(carried) <= 400, "who came later, too"
        nursery.cancel_scope.cancel()
    assert relay.num_slowed - before >= 2900
    assert caplog.messages and "quota.relayed_mib_per_s" in caplog.messages[0]
    relay = Relay(NoHost(), lambda: [], relays.RelayLimits(bytes_per_s=math.inf))  # type: ignore[arg-type]
    for _ in range(1000):
        await relay._wait_for_turn(10**9)
    assert relay.num_slowed == 0


@pytest.mark.parametrize("limit", [{"circuits": 0}, {"circuits_per_peer": 0}])
@trio_test
async def test_circuits_are_bounded(open_node: Open, limit: dict[str, int]) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "use") as behind,
            open_node(relay.addresses(), "off") as asker,
        ):
            change(relay_of(relay), **limit)
            await until(lambda: circuits_of(behind) and asker.members())
            answer = await hop(asker, relay, connect_to(behind.node_id))
            assert int(answer.status) == StatusCode.RESOURCE_LIMIT_EXCEEDED
            assert relay.traffic().connections_refused == 1


@trio_test
async def test_only_a_relay_that_was_asked_may_bring_circuits(open_node: Open) -> None:
    with trio.fail_after(60):
        async with open_node() as node, open_node(node.addresses(), "off") as stranger:
            await until(lambda: stranger.node_id in node.members() and stranger.members())
            stream = await open_stream(stranger, node, STOP)
            caller = PeerId(id=base58.b58decode(SOMEBODY))
            await send(stream, StopMessage(type=StopMessage.CONNECT, peer=caller))
            answer = await receive(stream, StopMessage)
            assert int(answer.status) == StatusCode.PERMISSION_DENIED


@trio_test
async def test_circuits_to_a_node_are_bounded_by_relay(
    open_node: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.relay_client.MAX_PER_RELAY", 0)
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "use") as behind,
        ):
            await until(lambda: circuits_of(behind))
            async with open_node(relay.addresses()) as caller:
                with pytest.raises(CircuitFailed, match="connection_failed"):
                    await client_of(caller).dial(circuits_of(behind)[0])
                assert behind.traffic().connections_refused >= 1


@trio_test
async def test_whoever_is_behind_a_relay_has_to_prove_its_id(open_node: Open) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "use") as behind,
            open_node(relay.addresses()) as caller,
        ):
            await until(lambda: circuits_of(behind))
            await until(lambda: caller.members())
            relay_of(relay)._reserved[SOMEBODY] = 2e9
            relay_of(relay)._members = lambda: [SOMEBODY, behind.node_id]
            call = relay_of(relay)._call
            relay_of(relay)._call = (  # type: ignore[method-assign]
                lambda asker, wanted: call(asker, behind.node_id)
            )
            lie = circuits_of(behind)[0].replace(f"/p2p/{behind.node_id}", f"/p2p/{SOMEBODY}")
            with pytest.raises(CircuitFailed, match=SOMEBODY):
                await client_of(caller).dial(lie)


@trio_test
async def test_a_node_that_uses_no_relay_dials_through_none(open_node: Open) -> None:
    with trio.fail_after(60):
        async with open_node(relay="serve") as relay:
            alone(relay)
            async with open_node(relay.addresses(), "use") as behind:
                await until(lambda: circuits_of(behind))
                async with open_node(circuits_of(behind), "off") as node:
                    await until(lambda: not node._book.due(trio.current_time(), ()))
                    assert node.reach is not None
                    assert node.reach.client is node.reach.puncher is None
                    assert node.connections() == []


@trio_test
async def test_a_relay_that_is_gone_is_no_longer_announced(
    open_node: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(60):
        async with (
            open_node(relay="serve") as relay,
            open_node(relay.addresses(), "use") as behind,
        ):
            await until(lambda: circuits_of(behind))
            monkeypatch.setattr(behind._dialer, "_dial_due", lambda now, nursery: None)
            await relay._host.disconnect(ID.from_string(behind.node_id))
            await until(lambda: not circuits_of(behind))


class Peer:
    def __init__(self, address: str) -> None:
        self.address = address


@pytest.mark.parametrize(
    ("peers", "came_in", "seems"),
    [
        (["/ip4/5.6.7.8/tcp/1"], set(), True),
        (["/ip4/5.6.7.8/tcp/1"], {False}, True),
        (["/ip4/5.6.7.8/tcp/1"], {True}, False),
        (["/ip4/10.0.0.1/tcp/1"], set(), True),
        (["/ip4/10.0.0.1/tcp/1"], {False}, False),
    ],
)
def test_who_seems_unreachable(peers: list[str], came_in: set[bool], seems: bool) -> None:
    """Where some peers are at public addresses, one from the same network proves nothing."""
    dialer = Dialer.__new__(Dialer)
    dialer._peers = {address: Peer(address) for address in peers}  # type: ignore[misc]
    dialer._came_in = came_in
    clock = MockClock()

    async def ask() -> list[bool]:
        answers = []
        for dialer._member_since in (None, 0.0):
            answers.append(dialer.seems_unreachable())
        clock.jump(REACH_S)
        return [*answers, dialer.seems_unreachable()]

    dialer._member_since = None
    assert trio.run(ask, clock=clock) == [False, False, seems]


def test_addresses_to_punch_are_few_and_not_of_this_machine() -> None:
    texts = [
        "/ip4/127.0.0.1/tcp/1",
        "/ip6/::1/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.1/tcp/1",
        "/dns4/localhost/tcp/1",
        "/ip4/192.0.2.1/udp/1",
        f"/ip4/192.0.2.1/tcp/1/p2p/{SOMEBODY}/p2p-circuit",
        "/ip4/192.0.2.1/tcp/2",
        f"/ip4/192.0.2.1/tcp/2/p2p/{SOMEBODY}",
        "/ip6/2001:db8::1/tcp/3",
    ]
    packed = [b"", b"\xff", *(Multiaddr(one).to_bytes() for one in texts)]
    assert _usable(packed) == ["/ip4/192.0.2.1/tcp/2", "/ip6/2001:db8::1/tcp/3"]
    many = [Multiaddr(f"/ip4/192.0.2.{number}/tcp/1").to_bytes() for number in range(100)]
    assert len(_usable(many)) == MAX_TOLD


@trio_test
async def test_a_dial_may_leave_from_the_port_that_the_node_listens_on(open_node: Open) -> None:
    """And no other node can listen on that port meanwhile."""
    with trio.fail_after(60):
        async with open_node() as node, open_node() as other:
            port = int(split_address(node.addresses()[0])[0].rpartition("/")[2])
            network: Any = node._host.get_network()
            await network.dial_addr(
                Multiaddr(other.addresses()[0]), ID.from_string(other.node_id), ("127.0.0.1", port)
            )
            await until(lambda: connection_with(other, node))
            (connection,) = other._host.get_network().get_connections(ID.from_string(node.node_id))
            assert not is_relayed(connection)
            assert str(connection.get_transport_addresses()[0]) == f"/ip4/127.0.0.1/tcp/{port}"
            with pytest.raises(ListenError, match="in use"):
                parse_listen([f"/ip4/127.0.0.1/tcp/{port}"])
