"""What is fetched and drawn under each strategy: a node that takes and a peer that shares, over
mock time, with everything real but the network and the judge."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec
import pytest
import trio
from trio.testing import MockClock, trio_test

from node.answerer import Answerer
from node.batch import Want, make_strategy
from node.config import BatchConfig, NodeConfig, StrategyName, SwarmConfig
from node.experience import Experience
from node.foreign import make_intake
from node.groups import VerifiedRollout
from node.pipe import ForeignRollouts, TakeForeign
from rewards.question import Answer, Expansion, Judged, Question
from rewards.tasks import TaskFacts, TaskSpec
from swarm.database import MemoryDatabase
from swarm.identity import Identity, Sequences
from swarm.intake import Intake
from swarm.judge import ScriptedJudge
from swarm.ledger import Ledger
from swarm.manifest import About, Manifest, Rules
from swarm.memory_gossip import MemoryNetwork
from swarm.pool import Pool
from swarm.share import Publisher
from swarm.wire import open_rollout

P = ParamSpec("P")
T = TypeVar("T")

LONG = 100.0
SUMS, CODE = Question("sums", 7), Question("code", 8)
RIGHT, WRONG, MIXED = (True, True), (False, False), (True, False)
RULES = Rules(
    tuple(TaskSpec(name, "reasoning_gym", "chain_sum", "0.1.25") for name in ("sums", "code")),
    max_new_tokens=16,
    max_answer_bytes=1024,
)
MANIFEST = Manifest(About("test"), RULES)


async def inline(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return call(*args, **kwargs)


class Pair:
    """A node that takes by its strategy, and a peer that shares what it is told."""

    def __init__(
        self, home: Path, clock: MockClock, databases: Sequence[MemoryDatabase], config: NodeConfig
    ) -> None:
        def now() -> float:
            return 1_800_000_000 + clock.current_time()

        network = MemoryNetwork(clock=now)
        taking, sharing = Identity(b"a" * 32), Identity(b"b" * 32)
        self.pool, theirs = (Pool(one, RULES.lifetime_s, 2**20, clock=now) for one in databases)
        self.served: list[Question] = []
        """Questions of the rollouts whose bodies travelled."""

        async def find(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
            found = theirs.find(hashes)
            self.served += [open_rollout(record).question for record in found.values()]
            return found

        async def find_nothing(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
            return {}

        self.publisher = Publisher(
            *(sharing, MANIFEST.swarm_id, RULES, Sequences(home / "sequence", now), theirs),
            *(network.join(sharing.node_id, find), inline, now),
        )
        self.ledger = Ledger(databases[0], clock=now)
        self.intake: Intake = make_intake(
            config,
            MANIFEST,
            network.join(taking.node_id, find_nothing),
            ScriptedJudge(),
            self.pool,
            self.ledger,
            inline,
            clock=now,
        )
        self.intake.judge_tasks({name: TaskFacts("", True, None) for name in ("sums", "code")})
        self.strategy = make_strategy(config)
        self.answerer = Answerer(
            config.swarm,
            None,  # type: ignore[arg-type]
            self.pool,
            self.publisher,
            self.intake,
            inline,
            seed=1,
            rules=RULES,
            model="tiny",
            clock=now,
        )
        self.answerer.has_tasks.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.intake.run)
            yield
            nursery.cancel_scope.cancel()

    async def share(self, *groups: tuple[Question, Sequence[bool]]) -> None:
        """Shares honest rollouts, and waits until all that follows from it has happened."""
        offered = []
        for question, correct in groups:
            texts = (str(question.index), f"wrong {len(self.served)}")
            answers = [Answer(texts[not one], True) for one in correct]
            offered.append((question, answers, correct, 3))
        assert await self.publisher.share(offered, "tiny") == len(groups)
        await trio.sleep(LONG)

    async def take(self, want: Want) -> list[Question]:
        """The questions of what is drawn."""
        reply = await self.answerer.answer(TakeForeign(want))
        assert isinstance(reply, ForeignRollouts)
        await trio.sleep(LONG)
        return sorted(one.expansion.question for one in reply.rollouts)


MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(tmp_path: Path, autojump_clock: MockClock) -> Iterator[MakePair]:
    with closing(MemoryDatabase()) as first, closing(MemoryDatabase()) as second:

        def make(strategy: StrategyName = "paper", foreign: int = 2, wait_s: float = 0) -> Pair:
            config = NodeConfig(
                batch=BatchConfig(strategy=strategy, peer_share=1.0),
                swarm=SwarmConfig(foreign=foreign, wait_s=wait_s),
            )
            return Pair(tmp_path, autojump_clock, (first, second), config)

        yield make


def own_group(question: Question, correct: Sequence[bool]) -> VerifiedRollout:
    answers = tuple(Answer(str(number), True) for number in range(len(correct)))
    return VerifiedRollout(
        Expansion(question, "say it", "it"), answers, tuple(map(Judged, correct)), token_ids=None
    )


USEFUL: dict[StrategyName, set[Question]] = {
    "own": set(),
    "own-dynamic": set(),
    "own-replay": set(),
    "own-weakness": set(),
    "paper": {SUMS},
    "fill": {SUMS},
    "teach": {SUMS, CODE},
    "rescue": set(),  # before any of its own questions has failed
}


@pytest.mark.parametrize("strategy", USEFUL)
@trio_test
async def test_what_a_strategy_has_no_use_for_never_travels(
    make_pair: MakePair, strategy: StrategyName, autojump_clock: MockClock
) -> None:
    pair = make_pair(strategy, foreign=4)
    async with pair.running():
        await pair.share((SUMS, MIXED), (CODE, RIGHT), (Question("sums", 9), WRONG))
        assert set(pair.served) == USEFUL[strategy]
        want = pair.strategy.want((), Experience())
        assert set(await pair.take(want)) == (USEFUL[strategy] if want.num_groups else set())
    assert len(pair.served) == len(USEFUL[strategy])
    num_kept = 1 if strategy == "rescue" else len(USEFUL[strategy])
    assert pair.ledger.refused_totals() == {"not_wanted": 3 - num_kept}


@trio_test
async def test_a_rescue_fetches_what_was_announced_before_its_question_failed(
    make_pair: MakePair, autojump_clock: MockClock
) -> None:
    pair = make_pair("rescue", wait_s=10)
    async with pair.running():
        await pair.share((SUMS, MIXED), (CODE, MIXED))
        assert pair.served == [] and pair.intake.stats().offers == 2
        mastered, failed = own_group(CODE, RIGHT), own_group(SUMS, WRONG)
        want = pair.strategy.want([mastered, failed], Experience())
        assert await pair.take(want) == [SUMS]
        assert await pair.take(want) == []
        assert pair.served == [SUMS] and pair.intake.stats().offers == 1


@trio_test
async def test_what_nobody_wants_any_more_does_not_stop_fetching(
    make_pair: MakePair, autojump_clock: MockClock
) -> None:
    pair = make_pair("paper", foreign=2)
    async with pair.running():
        await pair.share(*((Question("sums", number), MIXED) for number in range(6)))
        assert len(pair.served) == pair.pool.counts().fresh == 4
        want = Want(2, 2, questions=frozenset({CODE}))
        assert await pair.take(want) == []
        await pair.share((CODE, MIXED))
        assert pair.served[4:] == [CODE]
        assert await pair.take(want) == [CODE]
        assert await pair.take(msgspec.structs.replace(want, questions=None)) != []


@trio_test
async def test_a_braked_node_fetches_and_draws_nothing_until_it_wants_again(
    make_pair: MakePair, autojump_clock: MockClock
) -> None:
    pair = make_pair("paper", foreign=1)
    async with pair.running():
        await pair.share(*((Question("sums", number), MIXED) for number in range(3)))
        assert len(pair.served) == pair.pool.counts().fresh == 2
        assert await pair.take(Want()) == []
        await pair.share((CODE, MIXED))
        assert pair.ledger.refused_totals() == {"not_wanted": 1}
        assert len(pair.served) == 2 and pair.intake.stats().offers == 1
        assert len(await pair.take(pair.strategy.want((), Experience()))) == 1
        assert len(pair.served) == 3, "the place in the pool is filled from what was offered"


@trio_test
async def test_where_only_some_may_be_taken_the_heavier_task_goes_first(
    make_pair: MakePair, autojump_clock: MockClock
) -> None:
    pair = make_pair("teach", foreign=2)
    codes = [Question("code", number) for number in range(8)]
    async with pair.running():
        await pair.take(Want(0, 2, masters=True, task_weights={"sums": 1e-12}))
        await pair.share(*((Question("sums", number), RIGHT) for number in range(8)))
        assert len(pair.served) == 4, "little is not nothing"
        assert await pair.take(Want(0, 2, masters=True, task_weights={"sums": 0.0})) == []
        await pair.share(*((one, RIGHT) for one in codes))
        assert len(pair.served) == 8 and set(pair.served[4:]) < set(codes)
        want = Want(2, 2, masters=True, task_weights={"sums": 1e-12})
        assert {one.task for one in await pair.take(want)} == {"code"}


@trio_test
async def test_what_is_too_old_is_neither_drawn_nor_fetched(
    make_pair: MakePair, autojump_clock: MockClock
) -> None:
    pair = make_pair("paper", foreign=1)
    young, old = Want(1, 1, max_age_s=1.5 * LONG), Want(1, 1, max_age_s=0.5 * LONG)
    async with pair.running():
        await pair.share(*((Question("sums", number), MIXED) for number in range(6)))
        assert len(pair.served) == 2
        assert await pair.take(old) == []
        assert len(pair.served) == 2, "offers are as old as what is at hand"
        await pair.share((CODE, MIXED))
        assert len(pair.served) == 3
        assert await pair.take(young) == [CODE]
        assert await pair.take(young) == []


@trio_test
async def test_the_wait_is_for_what_is_wanted(
    make_pair: MakePair, autojump_clock: MockClock
) -> None:
    pair = make_pair("paper", foreign=2, wait_s=600)
    drawn: list[Question] = []

    async def take() -> None:
        drawn.extend(await pair.take(Want(1, 2, questions=frozenset({CODE}))))

    async with pair.running():
        await pair.share((SUMS, MIXED))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.sleep(LONG)
            assert pair.pool.counts().fresh == 1 and not drawn
            await pair.share((CODE, MIXED))
        assert drawn == [CODE]
        assert autojump_clock.current_time() < 600
        assert await pair.take(Want()) == [], "nothing wanted is not waited for"
        assert autojump_clock.current_time() < 600
