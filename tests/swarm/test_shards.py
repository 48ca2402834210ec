import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from rewards.question import Question
from rewards.tasks import TaskSpec
from swarm.admission import Admission, Refused
from swarm.gossip import Received
from swarm.identity import Identity
from swarm.judge import ScriptedJudge
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.manifest import Rules
from swarm.memory_gossip import MemoryNetwork
from swarm.network_options import NetworkOptions
from swarm.refusal import Refusal
from swarm.rollout import Announcement, Entry
from swarm.shards import DAY_S, LOOK_S, ShardChoice, shard_of, shard_topics
from swarm.wire import open_announcement, seal
from tests.swarm.until import until

SWARM_ID = "5" * 64
NUM = 8
RULES = Rules(
    (TaskSpec("sums", "reasoning_gym", "chain_sum", "0.1.25"),),
    max_new_tokens=16,
    max_answer_bytes=1000,
    shards=NUM,
)


class Clock:
    """Unix seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def identity_of(number: int) -> Identity:
    return Identity(number.to_bytes(32))


def announcement(identity: Identity, created: float, sequence: int = 5) -> bytes:
    entry = Entry(bytes(32), Question("sums", 7), 500, (True, False), 3)
    one = Announcement(SWARM_ID, identity.node_id, sequence, 4, created, (entry,))
    return seal(one, identity)


def test_authors_are_spread_over_the_shards_and_move_daily() -> None:
    authors = [identity_of(number).node_id for number in range(1, 400)]
    now = 20_000 * DAY_S + 5.0
    today = [shard_of(SWARM_ID, one, now, NUM) for one in authors]
    assert max(Counter(today).values()) < 2 * len(authors) / NUM
    assert set(today) == set(range(NUM))
    assert today == [shard_of(SWARM_ID, one, now + DAY_S - 10, NUM) for one in authors]
    tomorrow = [shard_of(SWARM_ID, one, now + DAY_S, NUM) for one in authors]
    stayed = sum(one == other for one, other in zip(today, tomorrow, strict=True))
    assert stayed < 2 * len(authors) / NUM
    elsewhere = [shard_of("6" * 64, one, now, NUM) for one in authors]
    assert elsewhere != today


def test_a_swarm_of_one_shard_has_the_topic_that_it_always_had() -> None:
    assert shard_topics(SWARM_ID, 1) == [f"sapo/{SWARM_ID}/announce/1"]
    assert shard_topics(SWARM_ID, 2)[1] == f"sapo/{SWARM_ID}/announce/1/1"


class Hearer:
    """A node whose shards all bring the same number of bytes a second."""

    def __init__(self, max_bytes_per_s: float) -> None:
        self.clock = Clock()
        self.node_id = identity_of(1).node_id
        self.choice = ShardChoice(SWARM_ID, self.node_id, NUM, max_bytes_per_s, self.clock)

    def pass_time(self, seconds: float, bytes_per_s: float) -> frozenset[int]:
        for _ in range(round(seconds)):
            self.clock.now += 1
            self.choice.note(round(bytes_per_s * len(self.choice.heard())))
        return self.choice.heard()


def test_a_node_hears_as_many_shards_as_its_budget_allows() -> None:
    hearer = Hearer(max_bytes_per_s=1000)
    own = shard_of(SWARM_ID, hearer.node_id, hearer.clock(), NUM)
    assert hearer.choice.heard() == {own}
    heard = hearer.pass_time(30 * LOOK_S, bytes_per_s=250)
    assert len(heard) == 4 and own in heard
    assert hearer.pass_time(30 * LOOK_S, bytes_per_s=250) == heard, "and stays with them"
    assert len(hearer.pass_time(60 * LOOK_S, bytes_per_s=499)) == 2, "less, when more comes"
    assert len(hearer.pass_time(60 * LOOK_S, bytes_per_s=5000)) == 1, "never none"
    assert len(hearer.pass_time(60 * LOOK_S, bytes_per_s=10)) == NUM


def test_the_shards_of_a_node_change_daily_and_differ_between_nodes() -> None:
    hearer = Hearer(max_bytes_per_s=1000)
    today = hearer.pass_time(30 * LOOK_S, bytes_per_s=250)
    hearer.clock.now += DAY_S
    assert hearer.choice.heard() != today
    orders = {
        tuple(ShardChoice(SWARM_ID, identity_of(n).node_id, NUM, 1, Clock()).order_on(11_574))
        for n in range(1, 20)
    }
    assert len(orders) == 19


@pytest.mark.parametrize("moved", [0, 1])
@trio_test
async def test_what_is_put_on_another_shard_is_refused_and_keeps_nothing_out(moved: int) -> None:
    async def unknown(*_: object) -> None:
        return None

    clock, author = Clock(), identity_of(2)
    admission = Admission(
        SWARM_ID, "me", RULES, ScriptedJudge(), unknown, lambda entry: True, clock
    )
    record = announcement(author, clock())
    right = shard_of(SWARM_ID, author.node_id, clock(), NUM)
    heard = admission.hear(Received(record, "carrier", (right + moved) % NUM))
    if moved:
        assert isinstance(heard, Refused)
        assert heard.reason is Refusal.WRONG_SHARD
        assert heard.node_id == "carrier"
        heard = admission.hear(Received(record, "carrier", right))
    assert heard == open_announcement(record)
    other = announcement(author, clock(), sequence=6)
    late = admission.hear(Received(other, "carrier", is_late=True))
    assert late == open_announcement(other), "from a catalogue it comes on no shard"


@trio_test
async def test_in_memory_only_those_hear_who_hear_the_shard() -> None:
    network = MemoryNetwork(num_shards=NUM)

    async def nothing(hashes: object) -> dict[bytes, bytes]:
        return {}

    author = identity_of(1)
    sender = network.join(author.node_id, nothing)
    all_shards = network.join("all", nothing)
    one = network.join("one", nothing)
    now = 20_000 * DAY_S
    one.shards = ShardChoice(SWARM_ID, "one", NUM, 1, lambda: now)
    (heard,) = one.shards.heard()
    for day in range(40):
        await sender.announce(announcement(author, now + day * DAY_S, sequence=1 + day))
    mine = sum(
        shard_of(SWARM_ID, author.node_id, now + day * DAY_S, NUM) == heard for day in range(40)
    )
    assert 0 < mine < 40
    assert all_shards.traffic().announcements_received == 40
    assert one.traffic().announcements_received == mine
    assert one.received.receive_nowait().shard == heard


@trio_test
async def test_over_libp2p_a_shard_reaches_those_who_hear_it(tmp_path: Path) -> None:
    """Two shards: everybody hears its own, and, with a budget, the other one after LOOK_S."""
    by_shard: dict[int, list[Identity]] = {0: [], 1: []}
    clock = Clock()
    for number in range(1, 40):
        identity = identity_of(number)
        by_shard[shard_of(SWARM_ID, identity.node_id, clock(), 2)].append(identity)
    (first, second), (other, *_) = by_shard[0][:2], by_shard[1]

    async def nothing(hashes: object) -> dict[bytes, bytes]:
        return {}

    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            nodes: list[Libp2pGossip] = []
            for number, identity in enumerate((first, second, other)):
                node = await stack.enter_async_context(
                    open_libp2p(
                        identity,
                        SWARM_ID,
                        listen="/ip4/127.0.0.1/tcp/0",
                        find=nothing,
                        bootstrap=[one.addresses()[0] for one in nodes[:1]],
                        peers_file=tmp_path / f"{number}.json",
                        max_peers=8,
                        chance=random.Random(number),
                        clock=clock,
                        options=NetworkOptions(dht=False),
                        num_shards=2,
                    )
                )
                nodes.append(node)
            sender, hears, hears_not = nodes
            await until(lambda: all(len(one.members()) == 2 for one in nodes))
            await until(lambda: any(sender.router.mesh.values()))
            await sender.announce(announcement(first, clock()))
            assert (await hears.received.receive()).shard == 0
            assert hears_not.traffic().announcements_received == 0
            assert sender.traffic().shards_heard == 1
            clock.now += LOOK_S
            await until(lambda: hears_not.traffic().shards_heard == 2)
            await until(lambda: len(sender.router.mesh[shard_topics(SWARM_ID, 2)[0]]) == 2)
            await sender.announce(announcement(first, clock(), sequence=6))
            sequence = 0  # the first may be made up for, since it is still young
            while sequence != 6:
                received = await hears_not.received.receive()
                assert received.shard == 0
                sequence = open_announcement(received.record).sequence
            await hears_not.announce(announcement(other, clock(), sequence=7))
            assert (await sender.received.receive()).shard == 1
