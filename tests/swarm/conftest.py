"""What tests of the swarm share: a clock, a database, and nodes and liars on a MemoryNetwork."""

import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec
import pytest
import trio
from trio.testing import MockClock

from rewards.question import Answer, Question
from rewards.tasks import TaskFacts, TaskSpec
from swarm import catalogue
from swarm.announcements import Announcements
from swarm.bans import Bans
from swarm.catch_up import CatchUp
from swarm.database import Database, open_database
from swarm.identity import Identity, Sequences
from swarm.intake import Intake, IntakeLimits
from swarm.judge import Judge, ScriptedJudge
from swarm.ledger import Ledger
from swarm.manifest import Rules
from swarm.memory_gossip import MemoryNetwork
from swarm.pool import Pool
from swarm.rollout import Announcement, Entry, Rollout
from swarm.share import Publisher
from swarm.wanted import Wanted, Weigh, alike
from swarm.wire import rollout_hash, seal

P = ParamSpec("P")
T = TypeVar("T")

SWARM_ID = "5" * 64
START = 1_800_000_000.0
SUMS = TaskSpec("sums", "reasoning_gym", "chain_sum", "0.1.25")
CODE = TaskSpec("code", "sandboxed_code", "", "1")
LIMITS = IntakeLimits()
RULES = Rules((SUMS, CODE), max_new_tokens=16, max_answer_bytes=1000, max_answers=8)


class UnixClock:
    """Unix seconds that stand still, or go with trio's mock clock."""

    def __init__(self) -> None:
        self.now = START
        self.follows: MockClock | None = None

    def __call__(self) -> float:
        return self.now + (self.follows.current_time() if self.follows else 0.0)


class BlockingOffload:
    """Runs a call in a thread and holds trio's up meanwhile: the mock clock cannot jump then."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    async def __call__(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        return self.block(call, *args, **kwargs)

    def block(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.submit(call, *args, **kwargs).result()

    def close(self) -> None:
        self._thread.shutdown()


def identity_of(number: int) -> Identity:
    return Identity(number.to_bytes(32))


class Maker:
    """Signs rollouts and announcements as told, honest or not."""

    def __init__(self, number: int, clock: UnixClock) -> None:
        self.identity = identity_of(number)
        self.node_id = self.identity.node_id
        self._clock = clock
        self.sequence = int(START * 1000)

    def rollout(
        self, index: int = 7, texts: Sequence[str] = ("7", "8"), **changes: object
    ) -> bytes:
        """A sealed rollout of sums/index; right answers are the index in digits."""
        rollout = Rollout(
            SWARM_ID,
            self.node_id,
            self.sequence,
            Question("sums", index),
            tuple(Answer(text, True) for text in texts),
            "model",
            3,
            self._clock(),
        )
        return seal(msgspec.structs.replace(rollout, **changes), self.identity)

    def entry(
        self,
        record: bytes,
        index: int = 7,
        correct: Sequence[bool] = (True, False),
        **changes: object,
    ) -> Entry:
        """The entry that announces a record."""
        size = min(len(record), 2**20)
        entry = Entry(rollout_hash(record), Question("sums", index), size, tuple(correct), 3)
        return msgspec.structs.replace(entry, **changes)

    def announcement(self, *entries: Entry, **changes: object) -> bytes:
        """A sealed announcement with the present sequence."""
        announcement = Announcement(
            SWARM_ID, self.node_id, self.sequence, self.sequence, self._clock(), entries
        )
        return seal(msgspec.structs.replace(announcement, **changes), self.identity)


class Peer(Maker):
    """A node that says and serves whatever a test wants."""

    def __init__(self, number: int, clock: UnixClock, network: MemoryNetwork) -> None:
        super().__init__(number, clock)
        self.served: dict[bytes, bytes] = {}
        self.num_asked = 0
        self.gossip = network.join(self.node_id, self._find)

    async def _find(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        self.num_asked += 1
        return {one: self.served[one] for one in hashes if one in self.served}

    def serve(self, record: bytes) -> bytes:
        self.served[rollout_hash(record)] = record
        return record

    async def announce(self, *entries: Entry, **changes: object) -> bytes:
        """Announces with the next sequence; returns the record."""
        record = self.announcement(*entries, **changes)
        self.sequence += 1
        await self.gossip.announce(record)
        return record

    async def offer(
        self,
        index: int = 7,
        texts: Sequence[str] = ("7", "8"),
        correct: Sequence[bool] = (True, False),
    ) -> bytes:
        """Serves a rollout and announces it; returns its record."""
        record = self.serve(self.rollout(index, texts))
        await self.announce(self.entry(record, index, correct))
        return record


class Node:
    """An honest node: pool, ledger, intake and publisher around a judge."""

    def __init__(
        self,
        number: int,
        clock: UnixClock,
        network: MemoryNetwork,
        home: Path,
        judge: Judge,
        rules: Rules,
        judged_tasks: Sequence[str],
        wanted: Wanted,
        limits: IntakeLimits,
    ) -> None:
        self.identity = identity_of(number)
        self.node_id = self.identity.node_id
        self.offload = BlockingOffload()
        block = self.offload.block
        self.database = block(open_database, home / f"pool-{number}.sqlite")
        self.pool = block(Pool, self.database, rules.lifetime_s, 2**24, clock=clock)
        self.ledger = block(Ledger, self.database, clock=clock)
        self.bans = block(Bans, self.database, clock=clock)
        self.kept = block(Announcements, self.database, self.node_id, clock=clock)
        self.gossip = network.join(self.node_id, self.find, answer_catalogue=self.answer_catalogue)
        self.intake = Intake(
            self.gossip,
            judge,
            self.pool,
            self.ledger,
            self.offload,
            rules,
            SWARM_ID,
            wanted,
            {name: TaskFacts("", name != "code", None) for name in judged_tasks},
            limits,
            clock,
            random.Random(number),
            self.kept,
            is_banned=self.bans.is_banned,
        )
        sequences = Sequences(home / f"sequence-{number}", clock)
        self.publisher = Publisher(
            *(self.identity, SWARM_ID, rules, sequences, self.pool, self.gossip, self.offload),
            *(clock, self.kept),
        )

        self.catch_up = CatchUp(
            *(self.gossip, self.kept, self.intake.hear, self.offload),
            rng=random.Random(number),
        )

    async def find(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        return await self.publisher.find(hashes)

    async def answer_catalogue(self, request: bytes) -> tuple[bytes, int] | None:
        return await catalogue.answer(request, self.kept, self.offload)

    async def share(self, index: int = 7, texts: Sequence[str] = ("7", "8")) -> int:
        """Shares an honest rollout of sums/index."""
        answers = [Answer(text, True) for text in texts]
        correct = [text == str(index) for text in texts]
        return await self.publisher.share([(Question("sums", index), answers, correct, 3)], "model")

    async def num_fresh(self) -> int:
        return (await self.offload(self.pool.counts)).fresh

    @property
    def refused(self) -> dict[str, int]:
        return self.ledger.refused_totals()

    def lies_of(self, peer: "Maker | Node") -> int:
        return sum(one.lies for one in self.ledger.peers() if one.node_id == peer.node_id)

    def refused_of(self, peer: "Maker | Node") -> dict[str, int]:
        found = [one.refused for one in self.ledger.peers() if one.node_id == peer.node_id]
        return found[0] if found else {}

    @property
    def num_lies(self) -> int:
        return sum(one.lies for one in self.ledger.peers())

    def close(self) -> None:
        self.offload.close()
        self.database.close()


def informative(num_fresh: int, max_from_one_author: int, weigh: Weigh = alike) -> Wanted:
    """What the paper's rule wants."""
    return Wanted(num_fresh, max_from_one_author, lambda entry: entry.is_informative, weigh)


class TestSwarm:
    """Nodes and liars on one network; all nodes run until the test ends."""

    __test__ = False
    identity_of = staticmethod(identity_of)

    def __init__(self, home: Path, clock: UnixClock) -> None:
        self.clock = clock
        self.network = MemoryNetwork(clock=clock)
        self._home = home
        self._num = 0
        self.nodes: list[Node] = []
        self._args: dict[str, tuple[Any, ...]] = {}
        self.rng = random.Random(1)

    def peer(self) -> Peer:
        self._num += 1
        return Peer(self._num, self.clock, self.network)

    def node(
        self,
        judge: Judge | None = None,
        rules: Rules = RULES,
        judged_tasks: Sequence[str] = ("sums", "code"),
        fresh_target: int = 8,
        max_from_one_author: int = 8,
        weigh: Weigh = alike,
        limits: IntakeLimits = LIMITS,
        network: Any = None,
        number: int | None = None,
    ) -> Node:
        """
        Args:
            network: instead of the swarm's own.
            number: of a node that was here before, for one of another network.
        """
        self._num += 1
        args = (
            *(number or self._num, self.clock, network or self.network, self._home),
            *(judge or ScriptedJudge(), rules),
            *(judged_tasks, informative(fresh_target, max_from_one_author, weigh), limits),
        )
        node = Node(*args)
        self.nodes.append(node)
        self._args[node.node_id] = args
        return node

    def restart(self, node: Node) -> Node:
        """Ends a node, and starts it again from what it had on disk."""
        self.stop(node)
        return self.start(node)

    def stop(self, node: Node) -> None:
        """Ends a node. Not while it is `running`."""
        self.network.leave(node.node_id)
        node.close()
        self.nodes.remove(node)

    def start(self, node: Node) -> Node:
        """Starts a node that was stopped, from what it had on disk."""
        again = Node(*self._args[node.node_id])
        self.nodes.append(again)
        return again

    @asynccontextmanager
    async def running(self, catch_up: bool = False) -> AsyncIterator[None]:
        """All nodes take in what they hear, and ask what they missed where a test wants that."""
        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(node.intake.run)
                if catch_up:
                    nursery.start_soon(node.catch_up.run)
            yield
            nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when it holds; for work in other processes, under the real clock."""
        with trio.fail_after(60):
            while not condition():
                await trio.sleep(0.01)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


@pytest.fixture
def clock() -> UnixClock:
    return UnixClock()


@pytest.fixture
def mock_clock(clock: UnixClock) -> MockClock:
    """Time that passes when nothing else is left to do; Unix time goes with it."""
    clock.follows = MockClock(autojump_threshold=0)
    return clock.follows


@pytest.fixture
def rules() -> Rules:
    return RULES


@pytest.fixture
def make_maker(clock: UnixClock) -> Callable[[int], Maker]:
    return lambda number: Maker(number, clock)


@pytest.fixture
def maker(make_maker: Callable[[int], Maker]) -> Maker:
    return make_maker(1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path / "pool.sqlite")
    yield database
    database.close()


@pytest.fixture
def swarm(tmp_path: Path, clock: UnixClock) -> Iterator[TestSwarm]:
    made = TestSwarm(tmp_path, clock)
    yield made
    made.close()
