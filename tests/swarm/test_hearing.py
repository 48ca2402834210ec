"""What becomes of announcements that are heard, told later, or known from before a restart."""

from typing import Any

import trio
from trio.testing import MockClock, trio_test

from swarm.catalogue import announcement_id
from swarm.gossip import Received
from swarm.heard import Heard
from swarm.intake import IntakeLimits
from swarm.protocol import CLOCK_TOLERANCE_S
from swarm.refusal import Refusal

LONG = 100.0


async def kept_by(node: Any) -> list[bytes]:
    """Ids, the last heard first."""
    ids, _ = await node.offload(node.kept.newest, 0, 1000)
    return list(ids)


@trio_test
async def test_what_is_admitted_is_kept_and_what_is_refused_is_not(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        good = await peer.offer()
        await peer.announce(peer.entry(peer.rollout(8), 8), swarm_id="6" * 64)
        unwanted = await peer.announce(peer.entry(peer.rollout(9), 9, (True, True)))
        await trio.sleep(LONG)
        records = (await node.offload(node.kept.find, await kept_by(node))).values()
    assert unwanted in records and len(records) == 2 and good not in records
    assert node.refused == {"wrong_swarm": 1, "not_wanted": 1}


@trio_test
async def test_own_announcements_are_kept_before_anybody_hears_them(
    swarm: Any, mock_clock: MockClock
) -> None:
    node, peer = swarm.node(), swarm.peer()
    await node.share()
    heard = await peer.gossip.received.receive()
    again = swarm.restart(node)
    assert await kept_by(again) == [announcement_id(heard.record)]
    assert await again.offload(again.kept.recall, 9) == []


@trio_test
async def test_after_a_restart_what_was_announced_before_is_still_fetched(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node(fresh_target=1)
    async with swarm.running():
        await peer.offer(7)
        await trio.sleep(LONG)
        record = await peer.offer(8, ("8", "no"))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1 and node.intake.stats().offers == 1
    heard = node.ledger.peers()
    again = swarm.restart(node)
    async with swarm.running():
        await trio.sleep(LONG)
        assert again.ledger.peers() == heard, "nothing is counted again"
        drawn = await again.offload(again.pool.draw, 1, 1, again.intake._rng)
        again.intake.wake()
        await trio.sleep(LONG)
        assert await again.num_fresh() == 1 and len(drawn) == 1
        assert again.intake.stats().fetched_bytes == len(record)


@trio_test
async def test_after_a_restart_what_contradicts_an_earlier_announcement_is_a_lie(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        await peer.offer(7)
        await trio.sleep(LONG)
    again = swarm.restart(node)
    peer.sequence -= 1
    async with swarm.running():
        await peer.announce(peer.entry(peer.rollout(8), 8))
        await trio.sleep(LONG)
    assert again.lies_of(peer) == 1 and again.refused == {"equivocation": 1}


@trio_test
async def test_a_late_announcement_is_as_old_as_its_signature(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    lifetime_s = 3600
    records = {}
    for age_s in (0, lifetime_s - 1, lifetime_s, -CLOCK_TOLERANCE_S, -CLOCK_TOLERANCE_S - 1):
        entry = peer.entry(peer.rollout(), correct=(True, False))
        records[age_s] = peer.announcement(entry, created=node.publisher._clock() - age_s)
        peer.sequence += 1
    refused = {
        age_s: await node.intake.hear(Received(record, "carrier", is_late=True))
        for age_s, record in records.items()
    }
    assert refused == {
        0: None,
        lifetime_s - 1: None,
        lifetime_s: Refusal.EXPIRED,
        -CLOCK_TOLERANCE_S: None,
        -CLOCK_TOLERANCE_S - 1: Refusal.FROM_THE_FUTURE,
    }
    # heard in time it may be taken a little longer: its author's clock may be slow
    in_time = Received(records[lifetime_s], "carrier")
    assert await node.intake.hear(in_time) is None


@trio_test
async def test_a_late_offer_ends_with_its_lifetime_and_gives_way_before_newer_ones(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer = swarm.peer()
    node = swarm.node(fresh_target=0, limits=IntakeLimits(offers_per_author=2))
    now = node.publisher._clock
    async with swarm.running():
        first = peer.announcement(peer.entry(peer.rollout(1), 1), created=now() - 3000)
        peer.sequence += 1
        old = peer.announcement(peer.entry(peer.rollout(2), 2), created=now() - 3500)
        peer.sequence += 1
        await node.intake.hear(Received(first, "carrier", is_late=True))
        await peer.offer(3)
        await trio.sleep(1)
        await node.intake.hear(Received(old, "carrier", is_late=True))
        offers = node.intake._offers
        assert [one.entry.question.index for one in offers] == [1, 3]
        assert node.refused_of(peer) == {"crowded_out": 1}
        assert [round(now() - one.first_seen) for one in offers] == [3001, 1]
        await trio.sleep(LONG)
        node.intake.wake()
        await trio.sleep(LONG)
        assert [one.entry.question.index for one in offers] == [1, 3]
        await trio.sleep(600 - 2 * LONG)
        node.intake.wake()
        await trio.sleep(LONG)
        assert [one.entry.question.index for one in offers] == [3]


@trio_test
async def test_malformed_records_of_a_catalogue_are_their_carriers(
    swarm: Any, mock_clock: MockClock
) -> None:
    author, carrier, node = swarm.peer(), swarm.peer(), swarm.node()
    record = bytearray(author.announcement(author.entry(author.rollout())))
    record[-1] ^= 1
    received = Received(bytes(record), carrier.node_id, is_late=True)
    assert await node.intake.hear(received) in (Refusal.BAD_SIGNATURE, Refusal.MALFORMED)
    assert node.refused_of(author) == {} and sum(node.refused_of(carrier).values()) == 1


@trio_test
async def test_many_announcements_are_written_in_batches(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node(fresh_target=0)
    writes: list[int] = []
    write = node.kept.write
    node.kept.write = lambda: writes.append(len(node.kept._waiting)) or write()
    async with swarm.running():
        for number in range(300):
            await peer.announce(peer.entry(peer.rollout(number), number))
        await trio.sleep(1)
        assert sum(writes) == 256 and len(writes) == 2
        await trio.sleep(2)
        assert sum(writes) == 300


def test_of_what_was_heard_the_newest_is_remembered_whenever_it_came() -> None:
    """So that who contradicts itself now is found out after a catch-up of old announcements."""
    heard = Heard(max_per_author=4)
    for sequence in (10, 11):
        heard.remember("a", sequence, bytes(200))
    for sequence in (14, 13, 12, 9, 8):
        heard.remember("a", sequence, bytes(200), is_late=True)
    heard.remember("a", 15, bytes(200))
    assert [one for one in range(20) if heard.is_repeated("a", one, bytes(200))] == [12, 13, 14, 15]
    assert heard._num_bytes == 4 * 200
