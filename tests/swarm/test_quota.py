"""What all peers together are sent: no more than the rate, and each its share."""

import logging
import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, trio_test

from swarm.catch_up import CatchUp, CatchUpLimits
from swarm.gossip import Connection, PeerBusy, Received
from swarm.intake import IntakeLimits
from swarm.limits import Kind, PeerLimits, Rate
from swarm.quota import FADE_S, MAX_PEERS, Quota
from swarm.refusal import Refusal
from swarm.seldom import EVERY_S, Seldom
from swarm.sources import SourceLimits, Sources

RATE = 1000.0
REPLY = 500


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def serve(quota: Quota, clock: Seconds, seconds: int, **every: float) -> dict[str, int]:
    """What peers get that each ask for REPLY bytes at their pace, in a random order."""
    got, rng = dict.fromkeys(every, 0), random.Random(1)
    asks = [
        (number * every_s + rng.random() * every_s, name)
        for name, every_s in every.items()
        for number in range(int(seconds / every_s))
    ]
    for when, name in sorted(asks):
        clock.now = when
        if quota.has_left(name):
            quota.spend(name, REPLY)
            got[name] += REPLY
    return got


def test_all_together_get_the_rate_and_what_fits_at_once_and_no_more() -> None:
    clock = Seconds()
    quota = Quota(RATE, clock)
    got = serve(quota, clock, 600, **{f"peer {number}": 0.2 for number in range(20)})
    total = sum(got.values())
    assert 0.9 * RATE * 600 < total <= RATE * (600 + FADE_S) + REPLY
    assert max(got.values()) < 1.05 * min(got.values()), "each the same"


def test_one_that_asks_all_the_time_leaves_half_and_starves_nobody() -> None:
    clock = Seconds()
    quota = Quota(RATE, clock)
    alone = serve(quota, clock, 600, greedy=0.01)["greedy"]
    assert 0.45 * RATE * 600 < alone < 0.55 * RATE * 600 + RATE * FADE_S
    clock, seldom = Seconds(), 600 // 5 * REPLY
    got = serve(Quota(RATE, clock), clock, 600, greedy=0.01, first=5.0, second=5.0)
    assert got["first"] == got["second"] == seldom, "all that they asked for"


def test_a_crowd_that_asks_all_the_time_starves_nobody_who_asks_now_and_then() -> None:
    clock = Seconds()
    crowd = {f"greedy {number}": 0.1 for number in range(16)}
    got = serve(Quota(RATE, clock), clock, 600, **crowd, seldom=60.0)
    assert got["seldom"] == 10 * REPLY


def test_where_a_share_is_less_than_a_reply_who_asks_again_after_5_s_has_its_turn_too() -> None:
    """The others ask every 0.1 s."""
    clock = Seconds()
    crowd = {f"greedy {number}": 0.1 for number in range(64)}
    assert FADE_S * RATE / 65 < REPLY / 2
    got = serve(Quota(RATE, clock), clock, 3000, **crowd, patient=5.0)
    assert got["patient"] > 0.3 * sum(got.values()) / len(got)


def test_one_reply_longer_than_the_bucket_is_waited_for_and_whoever_had_none_is_next() -> None:
    clock = Seconds()
    quota = Quota(RATE, clock)
    quota.spend("big", 4 * int(FADE_S * RATE))
    while not quota.has_left("other"):
        clock.now += 1
        assert not quota.has_left("big")
    assert 20 < clock.now < 25, "FADE_S times the logarithm of 4"


def test_memory_is_bounded_and_nothing_of_the_sum_is_forgotten() -> None:
    clock = Seconds()
    quota = Quota(RATE, clock)
    quota.spend("greedy", 9000)
    for number in range(3 * MAX_PEERS):
        quota.spend(f"key {number}", 1)
    assert len(quota._had) == MAX_PEERS + 1 and quota.had("greedy") == 9000
    assert quota.had() == 9000 + 3 * MAX_PEERS


def test_a_quota_that_is_reached_is_counted_and_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Seconds()
    limits = PeerLimits({}, clock, quota=Quota(RATE, clock))
    limits._said[Kind.ALL_BYTES]._clock = clock
    assert not limits.is_busy("a") and not PeerLimits({}).is_busy("a"), "no quota, no limit"
    limits.spend_reply("a", 10**6)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert limits.is_busy("b")
        assert limits.num_limited == {"all_bytes": 5}
        assert len(caplog.messages) == 1 and "1 requests" in caplog.messages[0]
        clock.now += EVERY_S
        limits.quota.spend("a", 10**6) if limits.quota else None
        assert limits.is_busy("b")
    assert "5 requests" in caplog.messages[1] and "busy" in caplog.messages[1]


def test_a_limit_of_one_peer_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    limits = PeerLimits({Kind.FETCHES: Rate(0.001, 1)}, Seconds())
    with caplog.at_level(logging.INFO):
        for _ in range(9):
            limits.allows("a", Kind.FETCHES)
    assert caplog.messages == ["1 times a peer was over its limit: fetches"]


def test_what_did_not_happen_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Seldom(logging.getLogger("a"), "%d times").note(0)
    assert not caplog.messages


class Busy:
    """A peer that is busy until a time, and then tells that it has nothing."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.asked: list[float] = []
        self.others: list[Connection] = []

    def connections(self) -> list[Connection]:
        return [Connection("busy", "", 0.0), *self.others]

    def heard_shards(self) -> frozenset[int]:
        return frozenset()

    async def ask_catalogue(self, node_id: str, request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked.append(trio.current_time())
        if trio.current_time() < self.until:
            raise PeerBusy("busy")
        return bytes.fromhex("9200c400")  # [0, b""]


@trio_test
async def test_a_busy_peer_is_asked_what_was_missed_again_and_not_ever_later(
    swarm: Any, mock_clock: MockClock
) -> None:
    gossip, node, limits = Busy(until=300), swarm.node(), CatchUpLimits()

    async def hear(received: Received) -> Refusal | None:
        raise AssertionError(received)

    catch_up = CatchUp(gossip, node.kept, hear, node.offload, rng=random.Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catch_up.run)
        await trio.sleep(400)
        nursery.cancel_scope.cancel()
    gaps = [after - before for before, after in zip(gossip.asked, gossip.asked[1:], strict=False)]
    assert len(gossip.asked) >= 8 and max(gaps) < 2 * limits.retry_s + limits.others_s
    assert catch_up.stats().num_answered == 1


@trio_test
async def test_a_new_peer_that_is_busy_is_asked_again(swarm: Any, mock_clock: MockClock) -> None:
    gossip, node = Busy(until=0), swarm.node()

    async def hear(received: Received) -> Refusal | None:
        raise AssertionError(received)

    catch_up = CatchUp(gossip, node.kept, hear, node.offload, rng=random.Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catch_up.run)
        await trio.sleep(30)
        gossip.until = 60
        gossip.others = [Connection("new", "", 1.0)]
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    stats = catch_up.stats()
    assert (stats.num_runs, stats.num_newcomers, stats.num_answered) == (1, 3, 2)


@trio_test
async def test_a_busy_source_is_paused_for_the_same_time_ever_and_is_in_no_trouble() -> None:
    sources = Sources(Busy(0), SourceLimits(num_holders=3), random.Random(1))  # type: ignore[arg-type]
    now = trio.current_time()
    for _ in range(5):
        sources.begin("busy")
        assert sources.was_busy("busy"), "it may be asked for the same again"
        sources.end("busy")
    assert not sources._troubled
    assert now < sources._paused["busy"] <= trio.current_time() + SourceLimits().retry_s


@trio_test
async def test_rollouts_of_a_busy_author_are_waited_for_and_it_is_not_a_failure(
    swarm: Any, mock_clock: MockClock
) -> None:
    """For longer than three failures would take."""
    author, node = swarm.peer(), swarm.node(limits=IntakeLimits(num_holders=3, deadline_s=300))
    author.gossip._limits = PeerLimits({}, quota=Quota(1.0))
    author.gossip._limits.quota.spend("somebody", 100)
    async with swarm.running():
        await author.offer()
        await trio.sleep(20)
        assert await node.num_fresh() == 0 and author.num_asked == 0
        assert author.gossip.traffic().limited["all_bytes"] >= 4
        await trio.sleep(20)
        assert await node.num_fresh() == 1
    assert node.refused == {}
