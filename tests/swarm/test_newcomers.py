"""A new peer is asked soon, and coming and going all the time gains nobody more than that."""

import random
from typing import Any

import msgspec
import trio
from trio.testing import MockClock, trio_test

from swarm.catalogue import announcement_id
from swarm.catch_up import CatchUp, CatchUpLimits
from swarm.gossip import Connection, Received
from swarm.newcomers import MAX_KEYS, Newcomer, NewcomerLimits, Newcomers
from swarm.protocol import MAX_LISTED
from swarm.refusal import Refusal

LIMITS = NewcomerLimits()
NOBODY: set[str] = set()
pack = msgspec.msgpack.encode


def connected(*names: str, since: float = 0.0) -> list[Connection]:
    return [Connection(name, "", since) for name in names]


def new(limits: NewcomerLimits = LIMITS) -> Newcomers:
    return Newcomers(limits, random.Random(1))


def take_all(newcomers: Newcomers, now: float) -> list[str]:
    taken = []
    while (one := newcomers.take(now, NOBODY)) is not None:
        taken.append(one.node_id)
    return taken


def test_a_peer_is_asked_once_a_little_after_it_came_and_again_when_it_came_again() -> None:
    newcomers = new()
    newcomers.look(connected("a"), 7, 100.0)
    assert newcomers.take(100.0 + LIMITS.wait_s - 0.01, NOBODY) is None
    taken = newcomers.take(100.0 + 2 * LIMITS.wait_s, NOBODY)
    assert isinstance(taken, Newcomer) and (taken.node_id, taken.num_kept) == ("a", 7)
    newcomers.look(connected("a"), 9, 110.0)
    assert take_all(newcomers, 200.0) == [], "it has stayed"
    newcomers.look(connected(), 9, 300.0)
    newcomers.look(connected("a"), 9, 301.0)
    assert take_all(newcomers, 310.0) == ["a"]
    newcomers.look(connected("a", since=5.0), 9, 401.0)
    assert take_all(newcomers, 410.0) == ["a"], "it was away between two looks"


def test_who_is_gone_was_asked_otherwise_or_is_left_alone_is_not_asked() -> None:
    newcomers = new()
    newcomers.look(connected("gone", "asked", "left"), 0, 0.0)
    newcomers.look(connected("asked", "left"), 0, 1.0)
    newcomers.drop({"asked", "another"})
    assert newcomers.take(10.0, {"left"}) is None
    assert take_all(newcomers, 10.0) == ["left"], "later it is"
    newcomers.look(connected("asked", "left", "third"), 0, 1.0)
    newcomers.drop_all()
    assert take_all(newcomers, 100.0) == []


def test_many_that_come_at_once_are_asked_at_the_pace_of_the_bucket_in_any_order() -> None:
    newcomers = new()
    names = [f"peer {number:03}" for number in range(100)]
    newcomers.look(connected(*names), 0, 0.0)
    at_once = take_all(newcomers, 10.0)
    assert len(at_once) == LIMITS.burst_s / LIMITS.ask_s == 6 and at_once != sorted(at_once)
    later = [name for now in range(11, 11 + 600) for name in take_all(newcomers, float(now))]
    assert len(later) == 60 and len({*at_once, *later}) == 66


def test_one_that_comes_and_goes_all_the_time_leaves_others_their_turn() -> None:
    newcomers, asked = new(), []
    for second in range(3600):
        here = connected("restless", since=second)
        if second >= 1800:
            here += connected("honest")
        newcomers.look(here, 0, float(second))
        for name in take_all(newcomers, second + 2 * LIMITS.wait_s):
            asked.append((second, name))
    assert 60 <= sum(name == "restless" for _, name in asked) <= 63
    (when,) = (second for second, name in asked if name == "honest")
    assert when <= 1801


def test_keys_that_cost_nothing_are_asked_one_in_ten_seconds_and_memory_is_bounded() -> None:
    newcomers, num = new(), 0
    for second in range(24 * 3600):
        newcomers.look(connected(*(f"{second} {n}" for n in range(2))), 0, second - 10.0)
        num += len(take_all(newcomers, float(second)))
    assert num <= 24 * 3600 / LIMITS.ask_s + 6
    assert len(newcomers._debts) <= MAX_KEYS and len(newcomers._waiting) <= 2


def test_who_tells_much_makes_the_next_wait_as_long_as_regular_asking_would() -> None:
    newcomers, limits = new(), CatchUpLimits()
    newcomers.look(connected("a", "b"), 0, 0.0)
    assert newcomers.take(10.0, NOBODY) is not None
    newcomers.spend(limits.max_records, 10.0)
    now = 10.0
    while newcomers.take(now, NOBODY) is None:
        now += 1.0
    assert 250 < now < 350 and limits.repair_s == 300


class Restless:
    """A peer that connects anew every few seconds, each time under another key, and tells so many
    announcements that nothing is wrong with."""

    def __init__(self, num_told: int) -> None:
        self.num_told = num_told
        self.num_asked = self.num_bytes = 0
        self._made: dict[bytes, bytes] = {}

    def connections(self) -> list[Connection]:
        now = trio.current_time()
        return [Connection("old", "", 0.0), *connected(f"key {now // 5}", since=now // 5)]

    def heard_shards(self) -> frozenset[int]:
        return frozenset()

    async def ask_catalogue(self, node_id: str, request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        asked = msgspec.msgpack.decode(request)
        if node_id == "old":
            return pack([0, b""])
        if asked[0] == "list":
            self.num_asked += 1
            records = [
                self.num_asked.to_bytes(8) + n.to_bytes(8) * 70 for n in range(self.num_told)
            ]
            self._made = {announcement_id(one): one for one in records}
            reply = pack([0, b"".join(self._made)])
        else:
            ids = [asked[1][start : start + 8] for start in range(0, len(asked[1]), 8)]
            reply = pack([self._made[one] for one in ids])
        self.num_bytes += len(reply)
        return reply


async def live_with(gossip: Any, node: Any, seconds: float) -> CatchUp:
    async def hear(received: Received) -> Refusal | None:
        await trio.lowlevel.checkpoint()
        return None

    catch_up = CatchUp(gossip, node.kept, hear, node.offload, rng=random.Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catch_up.run)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return catch_up


@trio_test
async def test_an_hour_of_new_keys_costs_a_page_in_ten_seconds(
    swarm: Any, mock_clock: MockClock
) -> None:
    gossip = Restless(0)
    catch_up = await live_with(gossip, swarm.node(), 3600)
    stats = catch_up.stats()
    assert 300 <= stats.num_newcomers <= 3600 / LIMITS.ask_s + 6
    assert stats.num_runs >= 10, "and the regular asking goes on"
    assert gossip.num_bytes < 10 * gossip.num_asked


@trio_test
async def test_an_hour_of_new_keys_with_much_to_tell_brings_no_more_than_the_bucket_holds(
    swarm: Any, mock_clock: MockClock
) -> None:
    gossip = Restless(MAX_LISTED)
    catch_up = await live_with(gossip, swarm.node(), 3600)
    stats = catch_up.stats()
    by_newcomers = (3600 + LIMITS.burst_s) / LIMITS.record_s + MAX_LISTED
    by_runs = 3 * MAX_LISTED * stats.num_runs
    assert 0 < stats.num_announcements <= by_newcomers + by_runs
    assert stats.num_newcomers < 3600 / (LIMITS.ask_s + LIMITS.record_s * MAX_LISTED) + 6
