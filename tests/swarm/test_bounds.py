"""Hostile peers that do whatever they like, for thousands of messages: what a node keeps in memory
and on disk stays within what it declares. Bounds are small here, so that all of them are met."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, trio_test

from swarm.announcements import BATCH
from swarm.catalogue import announcement_id
from swarm.catch_up import CatchUpLimits
from swarm.gossip import FetchFailed
from swarm.intake import IntakeLimits
from swarm.limits import Kind, Rate
from swarm.protocol import MAX_ANNOUNCEMENT_BYTES, MAX_FETCH_HASHES
from swarm.wire import ANNOUNCEMENT_MAGIC

NUM_MESSAGES = 4000
LIMITS = IntakeLimits(
    offers_per_author=10,
    max_offers=60,
    max_fetches=4,
    fetch_timeout_s=5,
    retry_s=1,
    num_holders=2,
    deadline_s=30,
    patience_s=2,
)
pack = msgspec.msgpack.encode


class Crowd:
    """Peers that mint keys, and do what they like."""

    def __init__(self, swarm: Any, make_maker: Any, seed: int, victim: Any) -> None:
        self.rng = random.Random(seed)
        self.swarm = swarm
        self.victim = victim
        self.authors = [make_maker(1000 + number) for number in range(150)]
        self.peers: list[Any] = []
        self.said: list[bytes] = []
        self.true: set[bytes] = set()
        self.bodies: dict[bytes, bytes] = {}
        for _ in range(12):
            self.join()

    def join(self) -> None:
        peer = self.swarm.peer()
        peer.gossip._find = self.serve
        peer.gossip._answer_catalogue = self.tell
        self.peers.append(peer)

    async def act(self) -> None:
        """One message of some kind."""
        weights = {self.announce: 60, self.repeat: 10, self.babble: 8, self.ask: 12}
        weights |= {self.come_and_go: 3, self.contradict: 7}
        (action,) = self.rng.choices(list(weights), weights.values())
        await action()

    async def announce(self) -> None:
        """Rollouts, true or not, some of which exist."""
        author = self.rng.choice(self.authors[: self.rng.choice([5, 150])])
        author.sequence += self.rng.choice([0, 1, 1, 1, 1000])
        entries = []
        for _ in range(self.rng.choice([1, 1, 2, 24])):
            index = self.rng.randrange(5000)
            texts = [str(index), self.rng.choice(["no", "never", str(index)])]
            record = author.rollout(index, texts)
            if self.rng.random() < 0.7:
                self.bodies[author.entry(record, index).hash] = record
            correct = (True, self.rng.random() < 0.2)
            size = self.rng.choice([len(record)] * 5 + [2**20])
            entries.append(author.entry(record, index, correct, num_bytes=size))
        now = author._clock()
        created = now + self.rng.choice([0, 0, 0, 0, -1000, -3599, -10_000, 599, 10_000])
        swarm_id = self.rng.choice(["5" * 64] * 9 + ["6" * 64])
        record = author.announcement(*entries, created=created, swarm_id=swarm_id)
        self.true.add(record)
        self.deliver(record)

    async def repeat(self) -> None:
        if self.said:
            self.deliver(self.rng.choice(self.said))

    async def contradict(self) -> None:
        author = self.rng.choice(self.authors[:20])
        index = self.rng.randrange(5000)
        self.deliver(author.announcement(author.entry(author.rollout(index), index)))

    async def babble(self) -> None:
        size = self.rng.choice([0, 1, 100, MAX_ANNOUNCEMENT_BYTES, 100_000])
        data = self.rng.choice([b"", ANNOUNCEMENT_MAGIC]) + self.rng.randbytes(size)
        self.deliver(data)

    async def ask(self) -> None:
        """The node itself is asked, for what it has and for nonsense."""
        peer, node_id = self.rng.choice(self.peers).gossip, self.victim.node_id
        requests = [
            pack(["list", self.rng.choice([0, 1, 10, 2**50])]),
            pack(["get", self.rng.randbytes(8 * self.rng.choice([1, 512]))]),
            self.rng.randbytes(50),
        ]
        try:
            await peer.ask_catalogue(node_id, self.rng.choice(requests))
            await peer.fetch(node_id, [self.rng.randbytes(32)] * MAX_FETCH_HASHES, 10_000)
        except FetchFailed:
            pass

    async def come_and_go(self) -> None:
        gone = self.peers.pop(self.rng.randrange(len(self.peers)))
        self.swarm.network.leave(gone.node_id)
        self.join()

    def deliver(self, data: bytes) -> None:
        self.said.append(data)
        del self.said[:-1000]
        self.victim.gossip.deliver(data, self.rng.choice(self.peers).node_id)

    async def serve(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        await trio.sleep(self.rng.choice([0, 0, 0, 1, 100]))
        lies = {one: self.rng.randbytes(100) for one in hashes if self.rng.random() < 0.05}
        return {one: self.bodies[one] for one in hashes if one in self.bodies} | lies

    async def tell(self, request: bytes) -> tuple[bytes, int]:
        await trio.sleep(self.rng.choice([0, 0, 1, 100]))
        kind, argument, *_ = msgspec.msgpack.decode(request)
        true = [one for one in self.said[-300:] if one in self.true]
        by_id = {announcement_id(record): record for record in true}
        if kind == "list" and self.rng.random() < 0.9:
            ids = self.rng.sample(sorted(by_id), len(by_id) // 2)
            ids += [self.rng.randbytes(8)] * self.rng.choice([0, 0, 1])
            return pack([max(0, (argument or 1000) - 1), b"".join(ids)]), 0
        if kind == "get" and self.rng.random() < 0.7:
            ids = [argument[start : start + 8] for start in range(0, len(argument), 8)]
            return pack([by_id[one] for one in ids if one in by_id]), 0
        records = self.rng.sample(self.said, min(3, len(self.said)))
        return self.rng.choice([pack(records), pack([]), self.rng.randbytes(1000)]), 0


class Bounds:
    """What the node declares, made small, and what it has."""

    def __init__(self, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, intake = node, node.intake
        for one in (intake._admission._limits, node.gossip._limits):
            one._paid_off._most = 40
        intake._admission.budget._paid_off._most = 20
        monkeypatch.setattr("swarm.claims.MAX_AUTHORS", 20)
        monkeypatch.setattr("swarm.ledger.MAX_PROOFS", 10)
        intake._admission._heard._max_bytes = 30_000
        intake._admission._heard._max_per_author = 6
        intake._admission._limits.rates = {Kind.AUTHOR: Rate(1.0, 50)}
        node.gossip._limits.rates = {
            Kind.ANNOUNCEMENTS: Rate(500.0, 1000),
            Kind.FETCHES: Rate(1, 5),
        }
        node.gossip._inbox._remembered = 200
        node.kept._max_rows, node.kept._max_bytes = 80, 60_000
        node.kept._max_per_author, node.kept._max_author_bytes = 8, 20_000
        node.pool._max_rows, node.pool._max_bytes, node.pool._max_seen = 30, 20_000, 100
        node.ledger._max_peers = 40
        node.catch_up._limits = CatchUpLimits(
            repair_s=20, retry_s=5, peer_s=20, max_requests=8, max_records=50, remembered=60
        )
        self.most: dict[str, int] = {}

    def in_memory(self) -> dict[str, tuple[int, int]]:
        """Name -> what there is, and what may be."""
        node, intake = self.node, self.node.intake
        heard, sources, offers = intake._admission._heard, intake._sources, intake._offers
        num_peers = len(node.gossip.connections())
        return {
            "offers": (len(offers), 60),
            "offers of an author": (max([0, *map(len, offers._authors.values())]), 10),
            "offers counted": (abs(len(offers) - len(list(offers))), 0),
            "in flight": (len(intake._in_flight), 8 * MAX_FETCH_HASHES),
            "asked": (len(sources._asked), 8),
            "waiting": (len(intake._waiting), 8),
            "troubled": (len(sources._troubled), num_peers + 60),
            "paused": (len(sources._paused), num_peers + 60),
            "tried": (max([0, *(len(one.tried) for one in offers)]), 4),
            "heard bytes": (heard._num_bytes, 30_000 + MAX_ANNOUNCEMENT_BYTES),
            "heard of an author": (max([0, *map(len, heard._authors.values())]), 6),
            "to be kept": (len(node.kept._waiting), BATCH + 2),
            "told": (len(node.catch_up._told), 60),
            "left": (len(node.catch_up._left), num_peers + 60),
            "inbox": (node.gossip.received.statistics().current_buffer_used, 1024),
            "known to the inbox": (len(node.gossip._inbox._seen), 200),
            "ledger": (len(node.ledger.peers()), 40),
            "rates of authors": (len(intake._admission._limits._paid_off), 40),
            "rates of peers": (len(node.gossip._limits._paid_off), 40),
            "budget": (len(intake._admission.budget._paid_off), 20),
            "claims": (len(intake._admission.claims._outcomes), 20),
        }

    def on_disk(self) -> dict[str, tuple[int, int]]:
        """The same; off the trio thread."""
        node = self.node
        counts, kept = node.pool.counts(), node.kept.counts()
        execute = node.database.execute
        per_author = execute("SELECT author, count(*) FROM announcements GROUP BY author")
        return {
            "kept": (kept.num, 80 + 8),
            "kept bytes": (kept.num_bytes, 60_000 + 20_000),
            "kept of an author": (max([0, *(num for _, num in per_author)]), 8),
            "pool": (counts.fresh + counts.used + counts.own, 30),
            "pool bytes": (counts.num_bytes, 20_000),
            "seen": (execute("SELECT count(*) FROM seen").fetchone()[0], 100),
            "proofs": (execute("SELECT count(*) FROM proofs").fetchone()[0], 10),
            "peers": (execute("SELECT count(*) FROM peers").fetchone()[0], 40),
        }

    async def check(self) -> None:
        found = self.in_memory() | await self.node.offload(self.on_disk)
        assert {name: pair for name, pair in found.items() if pair[0] > pair[1]} == {}
        for name, (num, _) in found.items():
            self.most[name] = max(num, self.most.get(name, 0))


@pytest.mark.parametrize("seed", range(2))
@trio_test
async def test_whatever_peers_do_a_node_keeps_to_its_bounds(
    swarm: Any,
    mock_clock: MockClock,
    make_maker: Any,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    node = swarm.node(fresh_target=10, max_from_one_author=5, limits=LIMITS)
    bounds = Bounds(node, monkeypatch)
    crowd = Crowd(swarm, make_maker, seed, node)
    async with swarm.running(catch_up=True):
        for number in range(NUM_MESSAGES):
            await crowd.act()
            if number % 40 == 0:
                await trio.sleep(crowd.rng.choice([0.1, 1, 10]))
                await node.share(number, (str(number), "no"))
                if number % 200 == 0:
                    await node.offload(node.pool.draw, 3, 3, crowd.rng)
                    node.intake.wake()
                await bounds.check()
        await trio.sleep(1000)
        await bounds.check()
    met = {"offers", "offers of an author", "heard of an author", "told", "known to the inbox"}
    met |= {"ledger", "rates of authors", "kept of an author", "proofs", "seen"}
    declared = bounds.in_memory() | await node.offload(bounds.on_disk)
    short = {name for name in met if bounds.most[name] < declared[name][1] // 2}
    assert short == set(), "these bounds were never met"
    assert bounds.most["asked"] > 1 and bounds.most["kept"] >= 80 and bounds.most["pool"] > 10
    assert node.intake.stats().num_admitted > 20, "it works meanwhile"
    assert node.catch_up.stats().num_announcements > 20
