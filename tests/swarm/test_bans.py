"""Bans: kept over restarts, of whoever signed, and of nobody else."""

import random
import secrets
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, trio_test

from swarm import bans as bans_module
from swarm.bans import Bans, TooManyBans
from swarm.catalogue import MAX_REPLY_BYTES
from swarm.catch_up import CatchUpLimits
from swarm.circuit import CircuitFailed, is_circuit
from swarm.database import Database, MemoryDatabase
from swarm.identity import Identity
from swarm.judge import ScriptedJudge
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.network_options import NetworkOptions, RelayUse
from swarm.wire import claimed_author
from tests.swarm.until import until

LONG = 100.0
ANYWHERE = "/ip4/127.0.0.1/tcp/0"
X, Y = (Identity(bytes([one]) * 32).node_id for one in (1, 2))


# --- what is kept ---


def test_bans_survive_a_restart_and_end_when_they_said(database: Database, clock: Any) -> None:
    bans = Bans(database, clock=clock)
    for_good, for_a_while = bans.ban(X, "why \x1b", None), bans.ban(Y, "", 60.0)
    assert (for_good.until, for_a_while.until) == (None, clock.now + 60)
    again = Bans(database, clock=clock)
    assert again.bans() == (for_good, for_a_while)
    assert again.is_banned(X) and again.is_banned(Y)
    clock.now += 60
    assert again.is_banned(X) and not again.is_banned(Y)
    assert again.bans() == (for_good,)
    assert not Bans(database, clock=clock).is_banned(Y)
    assert again.unban(Y) is False
    assert again.unban(X) is True
    assert Bans(database, clock=clock).bans() == ()


def test_a_second_ban_replaces_the_first(database: Database, clock: Any) -> None:
    bans = Bans(database, clock=clock)
    bans.ban(X, "one", None)
    second = bans.ban(X, "two", 5.0)
    assert bans.bans() == Bans(database, clock=clock).bans() == (second,)


def test_bans_are_bounded_and_none_is_forgotten_for_another(clock: Any) -> None:
    bans = Bans(MemoryDatabase(), max_bans=2, clock=clock)
    bans.ban(X, "", 10.0)
    bans.ban(Y, "", None)
    with pytest.raises(TooManyBans, match="unban some"):
        bans.ban("Z", "", None)
    assert bans.is_banned(X) and bans.is_banned(Y) and not bans.is_banned("Z")
    bans.ban(X, "longer", 20.0)  # no further one
    clock.now += 20
    bans.ban("Z", "", None)  # in place of one that has ended
    assert not bans.is_banned(X) and bans.is_banned("Z")


# --- what is refused ---


async def ban(node: Any, peer: Any) -> int:
    """As the program does it (node/actions.py); returns how many rollouts are purged."""
    await node.offload(node.bans.ban, peer.node_id, "", None)
    node.intake.drop_author(peer.node_id)
    await node.offload(node.kept.purge, peer.node_id)
    purged: int = await node.offload(node.pool.purge, peer.node_id)
    return purged


async def unban(node: Any, peer: Any) -> None:
    await node.offload(node.bans.unban, peer.node_id)
    await node.offload(node.pool.forget_purged, peer.node_id)
    node.intake.hear_again(peer.node_id)
    node.catch_up.ask_again()


@trio_test
async def test_a_banned_author_is_refused_whoever_carries_it_and_nobody_else(
    swarm: Any, mock_clock: MockClock
) -> None:
    bad, carrier, node = swarm.peer(), swarm.peer(), swarm.node()
    async with swarm.running():
        await ban(node, bad)
        record = carrier.serve(bad.rollout(3, ("3", "x")))
        await carrier.gossip.announce(bad.announcement(bad.entry(record, 3)))
        await carrier.offer(5, ("5", "x"))
        await bad.gossip.announce(carrier.announcement(carrier.entry(carrier.rollout(9), 9)))
        await trio.sleep(LONG)
        assert node.refused_of(bad) == {"banned": 1}
        assert "banned" not in node.refused_of(carrier)
        assert await node.offload(node.pool.fresh_by_author) == {carrier.node_id: 1}
        # the second announcement of the honest one came through the banned one, and was heard
        (known,) = [one for one in node.ledger.peers() if one.node_id == carrier.node_id]
        assert known.announcements == 2
    assert node.num_lies == 0


@trio_test
async def test_a_ban_purges_what_is_at_hand_and_what_is_on_its_way(
    swarm: Any, mock_clock: MockClock
) -> None:
    class Slow(ScriptedJudge):
        async def expand(self, question: Any) -> Any:
            if question.index == 8:
                judging.set()
                await trio.sleep(50)
            return await super().expand(question)

    judging = trio.Event()
    bad, good, node = swarm.peer(), swarm.peer(), swarm.node(judge=Slow(), fresh_target=3)
    async with swarm.running():
        await bad.offer(3, ("3", "x"))
        await good.offer(5, ("5", "x"))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 2
        await bad.offer(8, ("8", "x"))
        await judging.wait()
        await bad.offer(11, ("11", "x"))
        await trio.sleep(1)
        assert node.intake.stats().offers == 2
        assert await ban(node, bad) == 1
        await trio.sleep(LONG)
        assert node.intake.stats().offers == 0
        assert node.refused_of(bad) == {"banned": 2}
        assert await node.offload(node.pool.fresh_by_author) == {good.node_id: 1}
        assert (await node.offload(node.kept.counts)).num == 1, "of the good one"


@trio_test
async def test_a_copy_of_what_was_purged_is_no_way_around_a_ban(
    swarm: Any, mock_clock: MockClock
) -> None:
    bad, other, node = swarm.peer(), swarm.peer(), swarm.node()
    async with swarm.running():
        await bad.offer(3, ("3", "x"))
        await trio.sleep(LONG)
        assert await ban(node, bad) == 1
        await other.offer(3, ("3", "x"))
        await trio.sleep(LONG)
        assert node.refused_of(other) == {"copied": 1}
        assert await node.num_fresh() == 0


@trio_test
async def test_an_end_of_the_ban_undoes_it(swarm: Any, mock_clock: MockClock) -> None:
    bad, helper, node = swarm.peer(), swarm.node(), swarm.node()
    async with swarm.running(catch_up=True):
        await bad.offer(3, ("3", "x"))
        await trio.sleep(LONG)
        await ban(node, bad)
        await bad.offer(5, ("5", "x"))
        await trio.sleep(CatchUpLimits().repair_s * 2)
        assert await node.num_fresh() == 0
        assert await helper.num_fresh() == 2
        await unban(node, bad)
        await bad.offer(6, ("6", "x"))
        await trio.sleep(LONG)
        assert await node.num_fresh() >= 1
        await trio.sleep(CatchUpLimits().repair_s * 2)
        assert await node.num_fresh() == 3, "those of before, and of the time between, too"


@trio_test
async def test_who_tells_of_a_banned_author_is_asked_on(
    swarm: Any, mock_clock: MockClock, make_maker: Any
) -> None:
    """It is of use to others; a node that left it alone would punish it for a ban of another."""
    authors, helper, node = [make_maker(90 + one) for one in range(6)], swarm.node(), swarm.node()
    async with swarm.running(catch_up=True):
        for bad in authors:
            await ban(node, bad)
        await trio.sleep(LONG)
        for number in range(80):
            for bad in authors:
                bad.sequence += 1
                entries = [bad.entry(bytes([n, number]) + bytes(30), n) for n in range(24)]
                helper.gossip.deliver(bad.announcement(*entries), bad.node_id)
            await trio.sleep(1)
        await trio.sleep(LONG)
        kept = (await helper.offload(helper.kept.counts)).num_bytes
        assert kept > CatchUpLimits().max_useless * MAX_REPLY_BYTES
        await trio.sleep(CatchUpLimits().repair_s * 2)
        assert sum(node.refused_of(bad)["banned"] for bad in authors) == 6 * 80
        assert node.catch_up.stats().num_refused == 0
        assert node.catch_up.stats().num_left == 0


# --- who is connected ---


async def nothing_to_find(hashes: Any) -> dict[bytes, bytes]:
    return {}


class Banned(set[str]):
    def __call__(self, node_id: str) -> bool:
        return node_id in self


def open_node(
    home: Path,
    number: int,
    bootstrap: Any = (),
    banned: Banned | None = None,
    relay: RelayUse = "auto",
) -> AbstractAsyncContextManager[Libp2pGossip]:
    identity = Identity(secrets.token_bytes(32))
    return open_libp2p(
        *(identity, "a swarm", ANYWHERE, nothing_to_find, bootstrap),
        *(home / f"{number}.json", 8, random.Random(0)),
        options=NetworkOptions(relay=relay, dht=False),
        is_banned=banned if banned is not None else Banned(),
    )


def peers_of(node: Libp2pGossip) -> set[str]:
    return {one.node_id for one in node.connections()}


@trio_test
async def test_a_connected_peer_goes_and_neither_comes_nor_is_dialled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    banned = Banned()
    dialled = []
    with trio.fail_after(60):
        async with (
            open_node(tmp_path, 1, banned=banned) as a,
            open_node(tmp_path, 2, a.addresses()) as bad,
            open_node(tmp_path, 3, [*a.addresses(), *bad.addresses()]) as good,
        ):
            await until(lambda: peers_of(a) == {bad.node_id, good.node_id})
            await until(lambda: a._book.is_proven(bad.node_id))
            network: Any = a._host.get_network()
            dial = network.dial_addr

            async def watched(address: Any, peer_id: Any) -> Any:
                dialled.append(str(peer_id))
                return await dial(address, peer_id)

            monkeypatch.setattr(network, "dial_addr", watched)
            banned.add(bad.node_id)
            await a.drop(bad.node_id)
            await until(lambda: peers_of(a) == {good.node_id})
            await until(lambda: a.node_id not in peers_of(bad))
            gate = noise_of(a)
            before = gate.num_refused
            await until(lambda: gate.num_refused >= before + 2)  # it tries, and tries again
            assert not await a._dialer.visit(bad.node_id)
            assert peers_of(a) == {good.node_id}
            assert bad.node_id not in dialled
            assert peers_of(good) == {a.node_id, bad.node_id}, "others are not concerned"
            banned.clear()
            await until(lambda: bad.node_id in peers_of(a))


def noise_of(node: Libp2pGossip) -> Any:
    network: Any = node._host.get_network()
    (noise,) = network.upgrader.security_multistream.transports.values()
    return noise


@trio_test
async def test_a_banned_peer_is_refused_when_it_is_the_one_that_is_dialled(tmp_path: Path) -> None:
    """Whatever dials: the handshake ends it, before a stream can be opened."""
    banned = Banned()
    with trio.fail_after(60):
        async with open_node(tmp_path, 1, banned=banned) as a, open_node(tmp_path, 2) as bad:
            banned.add(bad.node_id)
            with pytest.raises(Exception, match="security"):
                await a._dialer._connect(bad.addresses()[0], bad.node_id)
            assert noise_of(a).num_refused == 1
            assert not peers_of(a)


@trio_test
async def test_who_was_in_a_handshake_when_the_ban_came_is_let_go(tmp_path: Path) -> None:
    """Nobody drops it: it was not there yet."""
    banned = Banned()
    with trio.fail_after(60):
        async with (
            open_node(tmp_path, 1, banned=banned) as a,
            open_node(tmp_path, 2, a.addresses()) as bad,
        ):
            await until(lambda: peers_of(a) == {bad.node_id})
            banned.add(bad.node_id)
            await until(lambda: not peers_of(a))


@trio_test
async def test_a_relay_is_no_way_around_a_ban_and_a_banned_relay_no_way(tmp_path: Path) -> None:
    banned = Banned()
    with trio.fail_after(60):
        async with open_node(tmp_path, 1, relay="serve") as relay:
            relay._book.to_share = lambda *args: []  # type: ignore[method-assign]
            async with (
                open_node(tmp_path, 2, relay.addresses(), banned, relay="use") as behind,
                open_node(tmp_path, 3, relay.addresses()) as bad,
            ):
                await until(lambda: any(map(is_circuit, behind.addresses())))
                await until(lambda: peers_of(bad))
                (circuit,) = filter(is_circuit, behind.addresses())
                banned.add(bad.node_id)
                with pytest.raises(CircuitFailed):
                    await bad._dialer._connect(circuit, behind.node_id)
                assert noise_of(behind).num_refused == 1
                assert peers_of(behind) == {relay.node_id}
                banned.clear()
                await bad._dialer._connect(circuit, behind.node_id)
                await until(lambda: bad.node_id in peers_of(behind))
                bad._dialer._is_banned = lambda one: one == relay.node_id
                with pytest.raises(CircuitFailed, match="the relay is banned"):
                    await bad._dialer._connect(circuit, behind.node_id)


@trio_test
async def test_what_a_banned_author_signed_is_heard_and_not_passed_on(
    tmp_path: Path, make_maker: Any
) -> None:
    bad, good = make_maker(1), make_maker(2)
    banned = Banned({bad.node_id})
    from_bad, from_good = (one.announcement(one.entry(one.rollout())) for one in (bad, good))
    with trio.fail_after(60):
        async with (
            open_node(tmp_path, 1) as left,
            open_node(tmp_path, 2, left.addresses(), banned) as middle,
            open_node(tmp_path, 3, middle.addresses()) as right,
        ):
            banned_right = {left.node_id}  # left and right reach each other through the middle
            right._dialer._is_banned = left._dialer._is_banned = lambda one: (
                one in banned_right | {right.node_id}
            )
            for one in (left, right):
                noise_of(one).is_banned = one._dialer._is_banned
            await until(lambda: len(middle.router.mesh[middle.topics[0]]) == 2)
            await left.announce(from_bad)
            await left.announce(from_good)
            heard = [(await middle.received.receive()).record for _ in range(2)]
            assert set(heard) == {from_bad, from_good}
            assert (await right.received.receive()).record == from_good
            with pytest.raises(trio.WouldBlock):
                right.received.receive_nowait()


def test_a_claimed_author_is_read_from_anything(maker: Any) -> None:
    record = maker.announcement(maker.entry(maker.rollout()))
    assert claimed_author(record) == maker.node_id
    for broken in (b"", record[:-1], record[:90], record + b"\xc1" * 9000, record[1:]):
        assert claimed_author(broken) == ""


def test_the_bound_is_more_than_a_person_bans() -> None:
    assert bans_module.MAX_BANS >= 1000
