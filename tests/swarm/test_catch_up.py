"""Who was away, or whose gossip was lost, learns what it missed: that and nothing else; and peers
that lie about it cost little."""

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, trio_test

from swarm.announcements import KeptAnnouncement
from swarm.catalogue import MAX_REPLY_BYTES, announcement_id
from swarm.catch_up import CatchUp, CatchUpLimits
from swarm.gossip import Connection, FetchFailed, Received
from swarm.libp2p import open_libp2p
from swarm.protocol import MAX_LISTED, MAX_TOLD
from swarm.refusal import Refusal

LONG = 100.0
pack = msgspec.msgpack.encode


async def kept_by(node: Any) -> list[bytes]:
    """Ids, the last heard first."""
    ids, _ = await node.offload(node.kept.newest, 0, 100_000)
    return list(ids)


async def make_rounds(nodes: list[Any], start: int, num: int) -> None:
    """Each node shares one rollout a round, of questions of its own."""
    for number in range(start, start + num):
        for place, node in enumerate(nodes):
            index = 1000 * place + number
            assert await node.share(index, (str(index), "no"))
        await trio.sleep(10)


@trio_test
async def test_who_was_away_gets_what_it_missed_and_asks_for_nothing_that_it_has(
    swarm: Any, mock_clock: MockClock
) -> None:
    first, second, third = (swarm.node(fresh_target=400, max_from_one_author=400) for _ in "abc")
    async with swarm.running(catch_up=True):
        await make_rounds([first, second, third], 0, 5)
        await trio.sleep(LONG)
    swarm.stop(third)
    async with swarm.running(catch_up=True):
        await make_rounds([first, second], 100, 20)
        await trio.sleep(LONG)
    num_missed = 2 * 20
    told = (
        first.gossip.traffic().announcements_served + second.gossip.traffic().announcements_served
    )
    sent = first.gossip.traffic().bytes_sent + second.gossip.traffic().bytes_sent
    again = swarm.start(third)
    async with swarm.running(catch_up=True):
        await trio.sleep(LONG)
    assert sorted(await kept_by(again)) == sorted(await kept_by(first))
    now_told = sum(one.gossip.traffic().announcements_served for one in (first, second))
    assert now_told - told == num_missed, "each announcement travelled once"
    stats = again.catch_up.stats()
    assert (stats.num_announcements, stats.num_refused, stats.num_left) == (num_missed, 0, 0)
    assert stats.num_answered == 2 and stats.num_runs == 1
    records = await again.offload(again.kept.find, await kept_by(again))
    missed = sum(sorted(map(len, records.values()))[-num_missed:])
    ids = 8 * (2 * (3 * 5 + num_missed) + num_missed)  # two pages of all, and what is asked for
    assert missed + ids <= stats.num_bytes <= missed + ids + 5 * num_missed + 100
    fetched = again.gossip.traffic().rollouts_fetched
    held_out = again.refused.get("held_out", 0)
    assert await again.num_fresh() + held_out >= num_missed and fetched == num_missed
    bodies = again.intake.stats().fetched_bytes
    assert sum(one.gossip.traffic().bytes_sent for one in (first, second)) - sent < (
        bodies + stats.num_bytes + 64 * num_missed
    )


@trio_test
async def test_who_was_cut_off_catches_up_when_it_meets_somebody_again(
    swarm: Any, mock_clock: MockClock
) -> None:
    first, second, third = (swarm.node() for _ in "abc")
    swarm.network.partition({first.node_id, second.node_id}, {third.node_id})
    async with swarm.running(catch_up=True):
        await make_rounds([first, second, third], 0, 10)
        assert len(await kept_by(third)) == 10 and third.catch_up.stats().num_runs == 0
        swarm.network.heal()
        await trio.sleep(20)
        assert len(await kept_by(third)) == 30 and third.catch_up.stats().num_runs == 1


@trio_test
async def test_after_a_partition_that_healed_nobody_waits_for_the_next_regular_time(
    swarm: Any, mock_clock: MockClock
) -> None:
    """Three nodes on each side, which kept two peers each, as in an integration test with real
    processes."""
    nodes = [swarm.node(fresh_target=400, max_from_one_author=400) for _ in range(6)]
    sides = [{node.node_id for node in nodes[start : start + 3]} for start in (0, 3)]

    def num_told() -> int:
        return sum(node.gossip.traffic().announcements_served for node in nodes)

    async with swarm.running(catch_up=True):
        await make_rounds(nodes, 0, 3)
        swarm.network.partition(*sides)
        await make_rounds(nodes, 100, 3)
        before, told = [node.catch_up.stats() for node in nodes], num_told()
        assert [len(await kept_by(node)) for node in nodes] == [27] * 6, "18, and 9 of 18"
        swarm.network.heal()
        await trio.sleep(10)
        assert [len(await kept_by(node)) for node in nodes] == [36] * 6
        now = [node.catch_up.stats() for node in nodes]
        assert [one.num_runs for one in now] == [one.num_runs for one in before] == [1] * 6
        assert all(one.num_announcements >= 9 for one in now)
        await trio.sleep(60)
        later = [node.catch_up.stats() for node in nodes]
    for first, last in zip(before, later, strict=True):
        assert last.num_newcomers - first.num_newcomers == 3, "and the other two in vain"
        missed, page = 9 * 700, 8 * 36 + 30
        assert last.num_bytes - first.num_bytes < missed + 8 * 9 + 30 + 3 * page
    assert num_told() - told == 6 * 9, "each once"


@trio_test
async def test_a_needless_question_to_a_new_peer_costs_one_page(
    swarm: Any, mock_clock: MockClock
) -> None:
    """Whatever was heard before it came: 3,000 here."""
    records = [made_up(number) for number in range(3000)]
    in_pages = catalogue_in_pages(records)
    gossip, node = Scripted(old=in_pages), swarm.node()
    for record in records[:1000]:
        await node.offload(node.kept.keep, as_kept(record))
    keeper = Keeper(node, gossip)
    for record in records[1000:]:
        await node.offload(node.kept.keep, as_kept(record))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.catch_up.run)
        await trio.sleep(30)
        gossip.answers["new"] = in_pages
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert gossip.num_asked("new") == 1
    assert keeper.catch_up.stats().num_newcomers == 1 and not keeper.taken


@trio_test
async def test_a_new_peer_is_asked_below_what_was_heard_since_it_came(
    swarm: Any, mock_clock: MockClock
) -> None:
    """Where the bucket was empty for long, what was missed is not on the first page any more."""
    records = [made_up(number) for number in range(1200)]
    missed = records[:100]
    gossip, node = Scripted(old=catalogue_of([])), swarm.node()
    keeper = Keeper(node, gossip)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.catch_up.run)
        await trio.sleep(30)
        gossip.answers["new"] = catalogue_in_pages(records)
        await trio.sleep(1.5)
        for record in records[100:]:
            await node.offload(node.kept.keep, as_kept(record))
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert keeper.taken == missed[::-1]


@trio_test
async def test_with_half_of_all_gossip_lost_everything_wanted_arrives(
    swarm: Any, mock_clock: MockClock
) -> None:
    swarm.network.loss = 0.5
    nodes = [swarm.node(fresh_target=500, max_from_one_author=500) for _ in range(5)]
    async with swarm.running(catch_up=True):
        await make_rounds(nodes, 0, 20)
        await trio.sleep(1500)
        held = [await kept_by(node) for node in nodes]
        for node in nodes:
            num_foreign = await node.num_fresh() + node.refused.get("held_out", 0)
            assert num_foreign == 4 * 20
    assert all(sorted(one) == sorted(held[0]) for one in held) and len(held[0]) == 100
    caught = sum(node.catch_up.stats().num_announcements for node in nodes)
    assert 100 < caught < 300, "about half of 400 deliveries were lost"
    told = sum(node.gossip.traffic().announcements_served for node in nodes)
    refused = sum(node.catch_up.stats().num_refused for node in nodes)
    assert told == caught + refused and refused < 20, "what gossip brought in the same second"


@trio_test
async def test_a_catalogue_of_many_pages_is_taken_to_its_end(
    swarm: Any, mock_clock: MockClock
) -> None:
    num = 2 * MAX_LISTED + 100
    peers = [swarm.peer() for _ in range(20)]
    full, empty = swarm.node(fresh_target=0), swarm.node(fresh_target=0)
    swarm.network.partition({empty.node_id}, {full.node_id, *(one.node_id for one in peers)})
    async with swarm.running():
        for number in range(num):
            peer = peers[number % len(peers)]
            await peer.announce(peer.entry(peer.rollout(), number, (True, True)))
            if number % 500 == 0:
                await trio.sleep(1)
        await trio.sleep(10)
    assert len(await kept_by(full)) == num
    swarm.network.partition({empty.node_id, full.node_id}, {one.node_id for one in peers})
    async with swarm.running(catch_up=True):
        await trio.sleep(5)
        stats = empty.catch_up.stats()
        assert sorted(await kept_by(empty)) == sorted(await kept_by(full))
        await trio.sleep(1000)
    assert stats.num_announcements == num
    num_requests = 3 + 2 * math.ceil(MAX_LISTED / MAX_TOLD) + 1
    assert num_requests < CatchUpLimits().max_requests
    later = empty.catch_up.stats()
    assert later.num_runs > 2 and later.num_announcements == num
    page_bytes = 8 * MAX_LISTED + 30
    assert later.num_bytes - stats.num_bytes <= page_bytes * (later.num_runs - 1)


class Scripted:
    """A swarm of peers that answer as a test says, and a node that asks them."""

    def __init__(self, **answers: Callable[[list[Any]], Awaitable[bytes]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, list[Any]]] = []
        self.num_bytes = 0
        self.shards: frozenset[int] = frozenset()

    def connections(self) -> list[Connection]:
        return [Connection(name, "", 0.0) for name in self.answers]

    def heard_shards(self) -> frozenset[int]:
        return self.shards

    async def ask_catalogue(self, node_id: str, request: bytes) -> bytes:
        asked = msgspec.msgpack.decode(request)
        self.asked.append((node_id, asked))
        reply = await self.answers[node_id](asked)
        self.num_bytes += len(reply)
        return reply

    def num_asked(self, node_id: str) -> int:
        return sum(name == node_id for name, _ in self.asked)


def made_up(number: int, num_bytes: int = 600) -> bytes:
    return number.to_bytes(8) * (num_bytes // 8)


def catalogue_of(records: list[bytes]) -> Callable[[list[Any]], Awaitable[bytes]]:
    """An honest peer that has these, the newest last."""
    by_id = {announcement_id(record): record for record in records}

    async def answer(asked: list[Any]) -> bytes:
        if asked[0] == "list":
            return pack([0, b"".join(reversed(by_id))])
        step = asked[1]
        ids = [step[start : start + 8] for start in range(0, len(step), 8)]
        return pack([by_id[one] for one in ids if one in by_id])

    return answer


def catalogue_in_pages(records: list[bytes]) -> Callable[[list[Any]], Awaitable[bytes]]:
    """The same in pages of 400."""
    whole, num = catalogue_of(records), len(records)

    async def answer(asked: list[Any]) -> bytes:
        if asked[0] == "get":
            return await whole(asked)
        newest_first = [announcement_id(record) for record in reversed(records)]
        start = num - asked[1] if asked[1] else 0
        page = newest_first[start : start + 400]
        return pack([max(0, num - start - 400), b"".join(page)])

    return answer


async def unknown_ids(asked: list[Any]) -> bytes:
    if asked[0] == "list":
        return pack([0, random.Random(1).randbytes(8 * MAX_LISTED)])
    return pack([])


async def other_records(asked: list[Any]) -> bytes:
    return pack([0, bytes(8)]) if asked[0] == "list" else pack([b"another"])


async def too_long(asked: list[Any]) -> bytes:
    return bytes(MAX_REPLY_BYTES + 1)


async def garbage(asked: list[Any]) -> bytes:
    return random.Random(len(asked)).randbytes(1000)


async def endless_pages(asked: list[Any]) -> bytes:
    """Pages without end, of ids that it does not have."""
    assert asked[0] == "list" or len(asked[1]) <= 8 * MAX_TOLD
    if asked[0] == "get":
        return pack([])
    ids = random.Random(asked[1]).randbytes(8 * MAX_LISTED)
    return pack([(asked[1] or 2**50) - 1, ids])


async def endless_known_pages(asked: list[Any]) -> bytes:
    """Pages without end, each with one id that is never told."""
    if asked[0] == "get":
        return pack([])
    return pack([(asked[1] or 2**50) - 1, random.Random(asked[1]).randbytes(8)])


async def one_at_a_time(asked: list[Any]) -> bytes:
    """What it tells is refused, but costs it nothing to make; and it tells one a reply."""
    if asked[0] == "list":
        ids = [announcement_id(made_up(number)) for number in range(MAX_LISTED)]
        return pack([1 if asked[1] == 0 else 0, b"".join(ids)])
    for number in range(MAX_LISTED):
        if announcement_id(made_up(number)) == asked[1][:8]:
            return pack([made_up(number)])
    raise AssertionError("it asks for what was listed")


async def silent(asked: list[Any]) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def absent(asked: list[Any]) -> bytes:
    raise FetchFailed("not connected")


@trio_test
async def test_who_hears_some_shards_asks_for_those_alone(
    swarm: Any, mock_clock: MockClock
) -> None:
    gossip = Scripted(honest=catalogue_of([made_up(1)]))
    gossip.shards = frozenset({3, 1})
    keeper = Keeper(swarm.node(), gossip)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.catch_up.run)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert gossip.asked[0] == ("honest", ["list", 0, [1, 3]])


LIARS = (
    *(unknown_ids, other_records, too_long, garbage, endless_pages, endless_known_pages),
    *(one_at_a_time, silent, absent),
)


def as_kept(record: bytes) -> KeptAnnouncement:
    author = f"author {record[7] % 50}"
    return KeptAnnouncement(record, author, 1, 1e9, 1e11)


class Keeper:
    """A node that takes whatever does not begin as `made_up` records of `one_at_a_time`."""

    def __init__(self, node: Any, gossip: Any, **limits: Any) -> None:
        self.taken: list[bytes] = []
        self.wrong: set[bytes] = set()
        self.carriers: dict[bytes, str] = {}
        self.catch_up = CatchUp(
            *(gossip, node.kept, self.hear, node.offload),
            replace(CatchUpLimits(), **limits),
            random.Random(1),
        )

    async def hear(self, received: Received) -> Refusal | None:
        assert received.is_late
        await trio.lowlevel.checkpoint()
        self.carriers[received.record] = received.carrier
        if received.record in self.wrong:
            return Refusal.WRONG_SWARM
        self.taken.append(received.record)
        return None


@pytest.mark.parametrize("liar", LIARS, ids=lambda one: one.__name__)
@trio_test
async def test_a_peer_that_lies_costs_little_and_is_left(
    swarm: Any, mock_clock: MockClock, liar: Any
) -> None:
    records = [made_up(10_000 + number) for number in range(10)]
    gossip = Scripted(liar=liar, honest=catalogue_of(records))
    keeper = Keeper(swarm.node(), gossip)
    keeper.wrong = {made_up(number) for number in range(MAX_LISTED)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.catch_up.run)
        await trio.sleep(95)
        assert keeper.taken == records[::-1], "the honest one was asked, newest first"
        stats = keeper.catch_up.stats()
        assert stats.num_left == 1 and stats.num_answered == 1
        assert gossip.num_asked("liar") <= 4, "bounded in requests"
        assert gossip.num_bytes < MAX_REPLY_BYTES + 50_000, "and in bytes"
        assert stats.num_refused <= 2
        await trio.sleep(24 * 3600 - 95)
        nursery.cancel_scope.cancel()
    assert gossip.num_asked("liar") < 4 * 120, "later it is asked less and less often"
    assert gossip.num_asked("honest") > 200


@pytest.mark.parametrize(
    ("max_records", "max_bytes", "num"), [(4000, 2**30, 4000), (10**6, 2**21, 3500)]
)
@trio_test
async def test_who_tells_much_that_is_taken_has_its_share_and_no_more(
    swarm: Any, mock_clock: MockClock, max_records: int, max_bytes: int, num: int
) -> None:
    """Whoever mints keys can make as much as it likes that nothing is wrong with."""

    async def endless(asked: list[Any]) -> bytes:
        if asked[0] == "list":
            start = (2**40 - asked[1]) if asked[1] else 0
            numbers = range(start, start + MAX_LISTED)
            ids = [announcement_id(made_up(number)) for number in numbers]
            made.update(zip(ids, numbers, strict=True))
            return pack([2**40 - start - MAX_LISTED, b"".join(ids)])
        step = asked[1]
        ids = [step[start : start + 8] for start in range(0, len(step), 8)]
        return pack([made_up(made[one]) for one in ids])

    made: dict[bytes, int] = {}
    gossip = Scripted(endless=endless)
    bounds = {"max_records": max_records, "max_bytes": max_bytes}
    keeper = Keeper(swarm.node(), gossip, remembered=3000, **bounds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.catch_up.run)
        await trio.sleep(60)
        assert num - MAX_TOLD <= len(keeper.taken) <= num + MAX_TOLD
        assert gossip.num_bytes < max_bytes + MAX_REPLY_BYTES
        assert len(keeper.catch_up._told) == 3000
        assert keeper.catch_up.stats().num_runs == 1
        nursery.cancel_scope.cancel()


@trio_test
async def test_announcements_that_nobody_could_have_made_are_their_carriers_and_it_is_left(
    swarm: Any, mock_clock: MockClock
) -> None:
    author, liar, honest, node = swarm.peer(), swarm.peer(), swarm.node(), swarm.node()
    good = [author.announcement(author.entry(author.rollout(7)), sequence=n) for n in range(1, 9)]
    bad = [record[:-1] + bytes([record[-1] ^ 1]) for record in good]
    serve = catalogue_of(bad)

    async def answer(request: bytes) -> tuple[bytes, int]:
        return await serve(msgspec.msgpack.decode(request)), 1

    liar.gossip._answer_catalogue = answer
    for record in good:
        assert await honest.intake.hear(Received(record, author.node_id)) is None
    async with swarm.running(catch_up=True):
        await trio.sleep(LONG)
        assert sorted(await kept_by(node)) == sorted(map(announcement_id, good))
    assert set(node.refused_of(author)) <= {"seen", "fetch_failed"} and node.num_lies == 0
    refused = node.refused_of(liar)
    assert sum(refused.values()) <= 3 and set(refused) <= {"bad_signature", "malformed"}
    assert node.catch_up.stats().num_left >= 1


@trio_test
async def test_after_a_peer_that_broke_off_the_next_is_asked_to_the_end(
    swarm: Any, mock_clock: MockClock
) -> None:
    """The newest are known then, and the older ones not."""
    records = [made_up(number) for number in range(1200)]
    in_pages = catalogue_in_pages(records)

    async def breaks_off(asked: list[Any]) -> bytes:
        if len(gossip.asked) > 2:
            raise FetchFailed("broken off")
        return await in_pages(asked)

    gossip = Scripted(breaks=breaks_off)
    node = swarm.node()
    keeper = Keeper(node, gossip)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.catch_up.run)
        await trio.sleep(5)
        assert len(keeper.taken) == 400
        gossip.answers["honest"] = in_pages
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert sorted(keeper.taken) == sorted(records)


@trio_test
async def test_a_node_that_lost_what_it_kept_is_told_its_own_and_leaves_nobody_for_it(
    swarm: Any, mock_clock: MockClock
) -> None:
    stays, loses = swarm.node(), swarm.node()
    async with swarm.running():
        await make_rounds([loses], 0, 20)
        await make_rounds([stays], 100, 1)
        await trio.sleep(5)
    swarm.stop(loses)
    for file in swarm._home.glob("pool-2.sqlite*"):
        file.unlink()
    again = swarm.start(loses)
    again.catch_up._limits = replace(CatchUpLimits(), repair_s=20)
    async with swarm.running(catch_up=True):
        await trio.sleep(LONG)
    stats = again.catch_up.stats()
    assert stats.num_left == stats.num_refused == 0 and stats.num_announcements == 1
    assert stats.num_runs > 2 and stays.gossip.traffic().announcements_served == 21
    assert again.refused == {"own": 20}


@trio_test
async def test_what_gossip_lost_is_found_below_whole_pages_that_are_known(
    swarm: Any, mock_clock: MockClock
) -> None:
    """As far back as was heard since the last time, and not in all that is kept."""
    records = [made_up(number) for number in range(3000)]
    lost = {records[100], records[1100], records[2900]}
    gossip, node = Scripted(honest=catalogue_in_pages(records)), swarm.node()
    for record in set(records[:1000]) - lost:
        await node.offload(node.kept.keep, as_kept(record))
    keeper = Keeper(node, gossip)
    for record in set(records[1000:]) - lost:
        await node.offload(node.kept.keep, as_kept(record))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.catch_up.run)
        await trio.sleep(60)
        assert keeper.taken == [records[2900], records[1100]]
        assert gossip.num_asked("honest") == 6 + 2, "the fifth page was not known"
        await trio.sleep(600)
        nursery.cancel_scope.cancel()
    assert gossip.num_asked("honest") <= 6 + 2 + 3, "nothing was heard meanwhile"


@trio_test
async def test_over_libp2p_a_node_that_was_away_gets_what_it_missed_and_the_bodies(
    swarm: Any, tmp_path: Path
) -> None:
    node_of: dict[str, Any] = {}

    class Network:
        """Where a Node of conftest expects a MemoryNetwork."""

        def __init__(self, gossip: Any) -> None:
            self.gossip = gossip

        def join(self, node_id: str, find: Any, **_: Any) -> Any:
            return self.gossip

    class Mute:
        async def announce(self, record: bytes) -> None:
            await trio.lowlevel.checkpoint()

    async def start(stack: AsyncExitStack, name: str, number: int, *bootstrap: str) -> Any:
        async def find(hashes: Any) -> Any:
            return await node_of[name].find(hashes)

        async def answer(request: bytes) -> Any:
            return await node_of[name].answer_catalogue(request)

        gossip = await stack.enter_async_context(
            open_libp2p(
                identity(number),
                "a swarm",
                "/ip4/127.0.0.1/tcp/0",
                find,
                bootstrap,
                tmp_path / f"{name}.json",
                max_peers=8,
                chance=random.Random(number),
                answer_catalogue=answer,
            )
        )
        node_of[name] = swarm.node(network=Network(gossip), number=number)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(node_of[name].intake.run)
        nursery.start_soon(node_of[name].catch_up.run)
        return node_of[name]

    identity = swarm.identity_of
    with trio.fail_after(60):
        async with AsyncExitStack() as stays:
            first = await start(stays, "first", 101)
            addresses = first.gossip.addresses()
            second = await start(stays, "second", 102, *addresses)
            async with AsyncExitStack() as leaves:
                third = await start(leaves, "third", 103, *addresses)
                await swarm.until(lambda: len(third.gossip.connections()) == 2)
                await swarm.until(lambda: third.catch_up.stats().num_answered >= 2)
            third.close()
            swarm.nodes.remove(third)
            # not by gossip: it tells who comes what was said in the last seconds
            for number in range(10):
                node = (first, second)[number % 2]
                node.publisher._gossip = Mute()
                await node.share(number, (str(number), "no"))
            async with AsyncExitStack() as back:
                again = await start(back, "third", 103, *addresses)
                await swarm.until(lambda: again.catch_up.stats().num_announcements == 10)
                num_fresh = 0
                while num_fresh + again.refused.get("held_out", 0) < 8:
                    num_fresh = await again.num_fresh()
                    await trio.sleep(0.05)
                both = {*await kept_by(first), *await kept_by(second)}
                assert set(await kept_by(again)) == both and len(both) == 10
                stats = again.catch_up.stats()
                assert stats.num_refused == 0 and stats.num_left == 0
