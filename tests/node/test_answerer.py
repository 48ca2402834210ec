"""What the control process answers, over a real pool, publisher and verifier; peers in memory."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import trio_test

from node.answerer import Answerer
from node.batch import Want, make_strategy
from node.config import BatchConfig, NodeConfig, SwarmConfig
from node.experience import Experience
from node.foreign import wanted_by
from node.pipe import (
    Broken,
    DrawCommon,
    DrawHeldOut,
    DrawQuestions,
    ForeignRollouts,
    OwnGroup,
    Questions,
    Request,
    Shared,
    ShareOwn,
    TakeForeign,
    Verdicts,
    Verify,
)
from node.threads import OneAtATime
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable, is_held_out
from rewards.tasks import TaskFacts, TaskSpec
from rewards.verifier import Verifier
from swarm.database import Database, open_database
from swarm.identity import Identity, Sequences
from swarm.intake import Intake
from swarm.judge import VerifierJudge
from swarm.ledger import Ledger
from swarm.manifest import Rules
from swarm.memory_gossip import MemoryNetwork
from swarm.pool import Pool
from swarm.share import Publisher

SWARM_ID = "ab" * 32
RULES = Rules(
    tasks=tuple(
        TaskSpec(name, "reasoning_gym", "chain_sum", "0.1.25") for name in ("sums", "products")
    ),
    max_new_tokens=16,
    max_answer_bytes=1024,
)


class Box:
    """Everything that an answerer stands on, for one node of a network."""

    def __init__(
        self,
        home: Path,
        database: Database,
        network: MemoryNetwork,
        seed: bytes,
        verifier: Verifier,
        config: NodeConfig,
    ) -> None:
        identity = Identity(seed)
        offload = OneAtATime()
        self.pool = Pool(database, RULES.lifetime_s, max_bytes=1 << 20)
        self.node_id = identity.node_id
        gossip = network.join(identity.node_id, lambda hashes: offload(self.pool.find, hashes))
        publisher = Publisher(
            identity, SWARM_ID, RULES, Sequences(home / "sequence"), self.pool, gossip, offload
        )
        self.intake = Intake(
            gossip=gossip,
            judge=VerifierJudge(verifier),
            pool=self.pool,
            ledger=Ledger(database),
            offload=offload,
            rules=RULES,
            swarm_id=SWARM_ID,
            wanted=wanted_by(make_strategy(config).want((), Experience())),
            judged_tasks={"sums": TaskFacts("", True, None)},
        )
        self.answerer = Answerer(
            config.swarm,
            verifier,
            self.pool,
            publisher,
            self.intake,
            offload,
            seed=5,
            rules=RULES,
            model="tiny",
            clock=lambda: 2000.0,
        )
        self.answerer.task_names = ("sums",)
        self.answerer.has_tasks.set()


@contextmanager
def two_boxes(tmp_path: Path, verifier: Verifier, wait_s: float = 0) -> Iterator[tuple[Box, Box]]:
    config = NodeConfig(swarm=SwarmConfig(wait_s=wait_s), batch=BatchConfig(peer_share=1.0))
    network = MemoryNetwork()
    with (
        closing(open_database(tmp_path / "a.sqlite")) as first,
        closing(open_database(tmp_path / "b.sqlite")) as second,
    ):
        boxes = []
        for name, database, seed in (("a", first, b"a" * 32), ("b", second, b"b" * 32)):
            (tmp_path / name).mkdir()
            boxes.append(Box(tmp_path / name, database, network, seed, verifier, config))
        yield boxes[0], boxes[1]


@pytest.fixture
def boxes(tmp_path: Path, verifier: Verifier) -> Iterator[tuple[Box, Box]]:
    with two_boxes(tmp_path, verifier) as pair:
        yield pair


@pytest.fixture
def waiting_boxes(tmp_path: Path, verifier: Verifier) -> Iterator[tuple[Box, Box]]:
    with two_boxes(tmp_path, verifier, wait_s=600) as pair:
        yield pair


class Saying:
    """A verifier that expands questions without workers."""

    def expand(self, questions: Sequence[Question]) -> list[Expansion]:
        return [Expansion(one, f"{one.task}: say {one.index}", str(one.index)) for one in questions]


@pytest.fixture
def saying_boxes(tmp_path: Path) -> Iterator[tuple[Box, Box]]:
    with two_boxes(tmp_path, Saying()) as pair:  # type: ignore[arg-type]
        yield pair


def group(truth: str, index: int = 7) -> OwnGroup:
    answers = (Answer(truth, True, 3, -0.5), Answer("wrong", True, 5, -0.7))
    return OwnGroup(Question("sums", index), answers, (True, False), 3)


async def truth_of(box: Box, index: int = 7) -> str:
    [expansion] = await trio.to_thread.run_sync(
        box.answerer._verifier.expand, [Question("sums", index)]
    )
    assert not isinstance(expansion, Unscorable)
    return expansion.truth


@trio_test
async def test_questions_are_those_of_the_nodes_seed_and_exams_are_held_out(
    boxes: tuple[Box, Box],
) -> None:
    answer = boxes[0].answerer.answer
    first, again = [await answer(DrawQuestions(3, 4)) for _ in range(2)]
    assert isinstance(first, Questions)
    assert first == again
    assert not any(is_held_out(one.text) for one in first.expansions)
    exam = await answer(DrawHeldOut(4, 0))
    assert isinstance(exam, Questions)
    assert all(is_held_out(one.text) for one in exam.expansions)


async def drawn(box: Box, request: Request) -> tuple[Expansion, ...]:
    reply = await box.answerer.answer(request)
    assert isinstance(reply, Questions)
    return reply.expansions


@trio_test
async def test_further_questions_weighed_ones_and_common_ones_are_drawn(
    saying_boxes: tuple[Box, Box],
) -> None:
    a, b = saying_boxes
    a.answerer.task_names = b.answerer.task_names = ("sums", "products")
    further = await drawn(a, DrawQuestions(3, 2, first=2))
    assert further == (await drawn(a, DrawQuestions(3, 4)))[2:]
    weighed = await drawn(a, DrawQuestions(3, 8, task_weights={"sums": 1e-9}))
    assert {one.question.task for one in weighed} == {"products"}
    shared = [one.question for one in await drawn(a, DrawCommon(3, 64))]
    assert len(set(shared)) == 64
    b.answerer.task_names = ("sums",)
    fewer = [one.question for one in await drawn(b, DrawCommon(9, 64))]
    assert set(fewer) == {one for one in shared if one.task == "sums"}
    assert len(await drawn(b, DrawCommon(9, 5))) == 5
    a.answerer._clock = lambda: 2000.0 + RULES.epoch_s
    later = [one.question for one in await drawn(a, DrawCommon(3, 64))]
    assert not set(later) & set(shared)


@trio_test
async def test_answers_are_judged_one_verdict_each(boxes: tuple[Box, Box]) -> None:
    truth = await truth_of(boxes[0])
    answers = (Answer(truth, True), Answer("no", True), Answer("x" * 100_000, True))
    reply = await boxes[0].answerer.answer(Verify(((Question("sums", 7), answers),)))
    assert reply == Verdicts(((Judged(True), Judged(False), Unscorable(Reason.TOO_LONG)),))


@trio_test
async def test_what_one_shares_the_other_learns_from_once(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    shared = group(await truth_of(a))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.intake.run)
            assert await a.answerer.answer(ShareOwn((shared,))) == Shared(1)
            await b.intake.wait_for_more()
            reply = await b.answerer.answer(TakeForeign(Want(num_groups=4, most=4)))
            assert isinstance(reply, ForeignRollouts)
            [foreign] = reply.rollouts
            assert foreign.answers == shared.answers
            assert foreign.correct == (True, False)
            assert foreign.expansion.question == shared.question
            assert foreign.origin.author == a.node_id
            assert foreign.origin.policy_round == 3
            assert await b.answerer.answer(
                TakeForeign(Want(num_groups=4, most=4))
            ) == ForeignRollouts(())
            nursery.cancel_scope.cancel()


@trio_test
async def test_a_node_that_waits_gets_what_comes_meanwhile(waiting_boxes: tuple[Box, Box]) -> None:
    a, b = waiting_boxes
    shared = group(await truth_of(a))
    replies = []

    async def take() -> None:
        replies.append(await b.answerer.answer(TakeForeign(Want(num_groups=1, most=1))))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.intake.run)
            async with trio.open_nursery() as takers:
                takers.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
                await a.answerer.answer(ShareOwn((shared,)))
            nursery.cancel_scope.cancel()
    [reply] = replies
    assert isinstance(reply, ForeignRollouts)
    assert len(reply.rollouts) == 1


@trio_test
async def test_a_stop_ends_the_waiting_and_no_other_begins(waiting_boxes: tuple[Box, Box]) -> None:
    _, b = waiting_boxes
    replies = []

    async def take() -> None:
        replies.append(await b.answerer.answer(TakeForeign(Want(num_groups=1, most=1))))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            while b.answerer._waiting.deadline == float("inf"):
                await trio.lowlevel.checkpoint()
            b.answerer.stop_waiting()
        await take()
    assert replies == [ForeignRollouts(())] * 2


@trio_test
async def test_a_broken_verifier_is_an_answer(tmp_path: Path, verifier: Verifier) -> None:
    broken = Verifier([TaskSpec("sums", "reasoning_gym", "chain_sum", "0.1.25")], command=["false"])
    with trio.fail_after(60):
        try:
            answerer = Answerer(
                SwarmConfig(), broken, None, None, None, OneAtATime(),  # type: ignore[arg-type]
                seed=1, rules=RULES, model="tiny", clock=lambda: 0.0,
            )  # fmt: skip
            answerer.task_names = ("sums",)
            answerer.has_tasks.set()
            reply = await answerer.answer(DrawQuestions(1, 1))
        finally:
            broken.close()
    assert isinstance(reply, Broken)
    assert "3 workers in a row did not start" in reply.message
