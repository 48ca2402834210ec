"""One node of a run: what its control process would be, with a learner in the same process.

Pool, ledger, admission, publisher and answerer are the product's own. Of them differ: where bytes
lie (in memory), what the clock says (the run's), and that nothing is done in threads of its own.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import trio

from node.answerer import Answerer
from node.batch import make_strategy
from node.checkpoint import Checkpoints, NodeState
from node.evaluate import evaluate
from node.experiment.plan import NodePlan
from node.experiment.tally import Tally
from node.experiment.timeline import Spread, Timeline
from node.experiment.verdicts import Judging
from node.foreign import make_intake
from node.loop import Node
from node.pipe import Broken, PipeExchange, Reply, Request, TakeForeign, Verify
from node.policy import Policy
from node.reward import make_terms
from node.status import Status
from rewards.question import Answer, Expansion
from rewards.verifier import VerifierBroken
from swarm.database import MemoryDatabase
from swarm.identity import Identity, Sequences
from swarm.ledger import Ledger
from swarm.manifest import Manifest
from swarm.memory_gossip import MemoryNetwork
from swarm.pool import Pool
from swarm.share import Publisher

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the nodes of a run have in common."""

    manifest: Manifest
    judging: Judging
    timeline: Timeline
    network: MemoryNetwork
    seed: int
    """Of the run."""
    place: Path
    """An empty directory: the libraries of policies want one."""
    order: dict[str, int]
    """Node id -> number in the plan, of all that have joined."""
    joined: dict[str, int]
    """Node id -> the swarm's round with which it began."""


class Member:
    """A node without a policy, connected to the others. `intake.run` is to run while it is there.

    What an attacker needs is public: its key, its pool, and its ways to announce and to hear.
    """

    def __init__(self, plan: NodePlan, number: int, run: Surroundings, stack: ExitStack) -> None:
        """
        Args:
            number: of the node in the plan of its run.
            stack: closes what was opened.
        """
        self.plan = plan
        self.run = run
        self.identity = Identity(_secret("key", run.seed, number))
        self.rng = random.Random(_secret("draws", run.seed, number))
        config, rules, now = plan.config, run.manifest.rules, run.timeline.now
        swarm_id, node_id = run.manifest.swarm_id, self.identity.node_id
        database = stack.enter_context(closing(MemoryDatabase()))
        self.pool = Pool(database, rules.lifetime_s, config.swarm.pool_mib * 2**20, clock=now)
        self.ledger = Ledger(database, clock=now)
        run.order[node_id], run.joined[node_id] = number, plan.joins_at
        self.gossip = Spread(run.network.join(node_id, self._find), run.order)
        self.publisher = Publisher(
            self.identity, swarm_id, rules, Numbers(), self.pool, self.gossip, inline, now
        )
        self.intake = make_intake(
            config,
            run.manifest,
            self.gossip,
            run.judging.judge,
            self.pool,
            self.ledger,
            inline,
            clock=now,
            rng=self.rng,
        )
        self.intake.judge_tasks(run.judging.tasks)
        assert config.seed is not None, "a run's nodes have seeds"
        self.answerer = Answerer(
            config.swarm,
            run.judging.verifier,
            self.pool,
            self.publisher,
            self.intake,
            inline,
            seed=config.seed,
            rules=rules,
            model=plan.start.name,  # not its path: what is signed must not depend on the machine
            clock=now,
            rng=self.rng,
        )
        wanted = run.judging.tasks if plan.tasks is None else plan.tasks
        self.answerer.task_names = tuple(name for name in run.judging.tasks if name in wanted)
        self.answerer.has_tasks.set()

    async def _find(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        return self.pool.find(hashes)


class Learning:
    """A member that makes the product's rounds."""

    def __init__(self, member: Member, policy: Policy, tally: Tally, place: Path) -> None:
        """
        Args:
            place: an empty directory of its own.
        """
        plan, manifest = member.plan, member.run.manifest
        assert plan.config.seed is not None, "a run's nodes have seeds"
        self.member = member
        self.tally = tally
        self._answers: list[Answer] = []
        self._node = Node(
            NodeState(0, plan.config.seed, manifest.swarm_id, plan.start.name),
            policy,
            PipeExchange(self, plan.config.swarm.share),
            Checkpoints(place / "checkpoints", keep=1),  # never written
            make_strategy(plan.config),
            checkpoint_every=1,
            status=Status(),
            reward=make_terms(plan.config.reward, manifest.rules),
            clock=member.run.timeline.now,
        )

    async def take_turn(self, swarm_round: int) -> None:
        """One round."""
        self._answers.clear()
        report = await trio.to_thread.run_sync(self._node.run_round)
        self.tally.add_round(report, self._answers, swarm_round, self.member.run.joined)

    async def sit_exam(self, questions: Sequence[Expansion]) -> None:
        """Asks the policy as it is now."""
        node = self._node
        found = await trio.to_thread.run_sync(evaluate, node.policy, node.exchange, questions)
        self.tally.add_exam(node.state.total_tokens, found)

    def ask(self, request: Request) -> Reply:
        """What a learner's pipe does (node/pipe.py), without one: called from the round's thread.

        Raises:
            VerifierBroken: nothing can be expanded or judged.
        """
        return trio.from_thread.run(self._answer, request)

    async def _answer(self, request: Request) -> Reply:
        if isinstance(request, TakeForeign):
            await self.member.run.timeline.settle()
        if isinstance(request, Verify):
            self._answers += [answer for _, answers in request.rollouts for answer in answers]
        reply = await self.member.answerer.answer(request)
        if isinstance(reply, Broken):
            raise VerifierBroken(reply.message)
        return reply


class Numbers(Sequences):
    """The sequences of a node that never restarts: nothing is kept."""

    def __init__(self) -> None:
        self._last = 0

    def take(self) -> int:
        """1, 2, 3, ..."""
        self._last += 1
        return self._last


async def inline(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`Offload` (swarm/database.py) for a database in memory: here and now."""
    return call(*args, **kwargs)


def _secret(what: str, seed: int, number: int) -> bytes:
    """32 bytes: the same in every arm of an experiment."""
    return hashlib.sha256(f"sapo experiment, {what} {seed} {number}".encode()).digest()
