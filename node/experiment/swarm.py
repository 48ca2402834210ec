"""One run of an experiment: many whole nodes in one process, in turns.

Each makes the product's rounds with the product's parts; the network is in memory and time is the
run's own (timeline.py). In each round of the swarm every node that is there has one turn, at a
moment drawn by the run's seed. Before it draws peers' rollouts, all that was announced has been
heard and fetched, but for what the network delays: so what a node can draw follows from the plan,
and so does every figure. The same plan gives the same roles, bit for bit, on the same machine.

Not covered: nodes that restart, partitions, and rounds that overlap (a slow node's peers do not
move on while it computes).
"""

import gc
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from node.batch import make_strategy
from node.build import build_policy
from node.checkpoint import NodeState
from node.config import NodeConfig
from node.experiment.attack import Attacker, carries_mark
from node.experiment.member import Learning, Member, Surroundings
from node.experiment.plan import NodePlan, RunPlan
from node.experiment.results import Role
from node.experiment.tally import Tally, make_role, stage_seconds
from node.experiment.timeline import Timeline
from node.experiment.verdicts import Judging, open_judging
from node.generate_transformers import TransformersGenerator
from node.generate_vllm import prepare_environment
from node.policy import Policy
from node.status import Stage, Status
from rewards.draw import draw_held_out
from rewards.question import Expansion
from swarm.manifest import Manifest
from swarm.memory_gossip import MemoryNetwork

MAX_ROWS = 512
"""Answers that are sampled at once: an exam of a small model is quicker so."""

MakePolicy = Callable[[NodeConfig, Manifest, Path], Policy]
"""Settings, manifest, and an empty directory for the policy's libraries."""


@dataclass(frozen=True, slots=True)
class SwarmResult:
    """What a run found."""

    roles: tuple[Role, ...]
    """Of the nodes that learn, in the order of the plan."""
    stage_s: dict[str, float]
    """Seconds per stage of all rounds and exams of all nodes; "evaluating" are the exams."""
    node_rounds: int


def run_swarm(
    plan: RunPlan,
    on_round: Callable[[int], None] = lambda num_rounds: None,
    *,
    judging: Judging | None = None,
    make_policy: MakePolicy | None = None,
) -> SwarmResult:
    """Carries a run out.

    Args:
        on_round: called with the number of rounds that the swarm has made; also after the first
            exam, with 0.
        judging: of the plan's manifest, where several runs share one; it is not closed.
        make_policy: of each node that learns; None: the language model that its plan names.

    Raises:
        ValueError: the plan cannot be carried out.
        ConfigError, ManifestError: the settings of a node cannot.
        ExceptionGroup: of VerifierBroken, LearnerFailed or a bug.
    """
    check(plan)
    timeline = Timeline()
    with ExitStack() as stack:
        if judging is None:
            judging = stack.enter_context(open_judging(settings(plan, plan.nodes[0])))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sapo-run-")))
        stack.enter_context(_one_thread())
        run = Surroundings(
            manifest=judging.manifest,
            judging=judging,
            timeline=timeline,
            network=MemoryNetwork(plan.key.seed, plan.delay_s, plan.loss, clock=timeline.now),
            seed=plan.key.seed,
            place=place,
            order={},
            joined={},
        )
        found = trio.run(
            _Swarm(plan, run, stack, make_policy or language_policy).run,
            on_round,
            clock=timeline.clock,
        )
    gc.collect()  # trainers hold themselves, in cycles, and with them their models
    return found


def check(plan: RunPlan) -> None:
    """Raises ValueError, saying what is wrong with a plan."""
    roles: dict[str, int] = {}
    for node in plan.nodes:
        if node.config.seed is None:
            raise ValueError(f"a node of role {node.role} has no seed")
        if not 0 <= node.joins_at < plan.rounds:
            raise ValueError(f"a node joins at round {node.joins_at} of {plan.rounds}")
        if node.attack is None and roles.setdefault(node.role, node.joins_at) != node.joins_at:
            raise ValueError(f"nodes of role {node.role} join at different rounds")
    if not roles:
        raise ValueError("no node learns")


def settings(plan: RunPlan, node: NodePlan) -> NodeConfig:
    """A node's settings, with those that a run decides itself."""
    config = node.config
    return config.model_copy(
        update={
            "manifest": str(plan.manifest),
            "policy": config.policy.model_copy(update={"model": str(node.start)}),
            "rollout": config.rollout.model_copy(update={"engine": "transformers"}),
            "swarm": config.swarm.model_copy(update={"wait_s": 0.0}),
        }
    )


def language_policy(config: NodeConfig, manifest: Manifest, place: Path) -> Policy:
    """The policy that a node's settings name, with batches for the exams of small models."""
    assert config.seed is not None, "a run's nodes have seeds"
    _import_learner()
    state = NodeState(0, config.seed, manifest.swarm_id, config.policy.model)
    strategy = make_strategy(config)
    policy = build_policy(config, manifest, strategy, state, None, place, Status())
    assert isinstance(policy.generator, TransformersGenerator)
    policy.generator.max_rows = MAX_ROWS
    return policy


class _Swarm:
    """The nodes of a run and whose turn it is."""

    def __init__(
        self, plan: RunPlan, run: Surroundings, stack: ExitStack, make_policy: MakePolicy
    ) -> None:
        self._plan = plan
        self._run = run
        self._stack = stack
        self._make_policy = make_policy
        self._is_attacked = any(node.attack for node in plan.nodes)
        self._members: list[Learning | Attacker] = []
        self._exam: list[Expansion] = []
        self._exam_s = 0.0

    async def run(self, on_round: Callable[[int], None]) -> SwarmResult:
        """All rounds and exams."""
        plan = self._plan
        async with trio.open_nursery() as nursery:
            for swarm_round in range(plan.rounds):
                await self._let_join(swarm_round, nursery)
                if not swarm_round:
                    on_round(0)
                await self._make_round(swarm_round)
                if (swarm_round + 1) % plan.exam_every == 0 or swarm_round + 1 == plan.rounds:
                    await self._examine(self._learning())
                on_round(swarm_round + 1)
            nursery.cancel_scope.cancel()
        return self._result()

    async def _let_join(self, swarm_round: int, nursery: trio.Nursery) -> None:
        """Those whose plan says so become nodes, and are examined before their first round."""
        await self._run.timeline.go_to(swarm_round * self._plan.round_s)
        joining = [
            self._join(number, node, nursery)
            for number, node in enumerate(self._plan.nodes)
            if node.joins_at == swarm_round
        ]
        if not self._exam:
            verifier, tasks = self._run.judging.verifier, self._run.judging.tasks
            self._exam = draw_held_out(verifier, tuple(tasks), 0, self._plan.exam_questions)
        self._members += joining
        await self._examine([one for one in joining if isinstance(one, Learning)])

    def _join(self, number: int, node: NodePlan, nursery: trio.Nursery) -> Learning | Attacker:
        if node.attack is None:  # first, while the verifier's workers start
            place = self._run.place / str(number)
            config = settings(self._plan, node)
            policy = self._make_policy(config, self._run.judging.manifest, place)
            self._stack.callback(policy.close)
        member = Member(node, number, self._run, self._stack)
        nursery.start_soon(member.intake.run)
        if node.attack is not None:
            return Attacker(member)
        mark = carries_mark if self._is_attacked else None
        tally = Tally(node.role, node.joins_at, member.ledger, mark)
        return Learning(member, policy, tally, place)

    async def _make_round(self, swarm_round: int) -> None:
        rng = random.Random(f"sapo-experiment-1 {self._plan.key.seed} {swarm_round}")
        moments = [(swarm_round + rng.random()) * self._plan.round_s for _ in self._members]
        for moment, place in sorted(zip(moments, range(len(moments)), strict=True)):
            await self._run.timeline.go_to(moment)
            await self._members[place].take_turn(swarm_round)

    async def _examine(self, nodes: Sequence[Learning]) -> None:
        began = time.monotonic()
        for node in nodes:
            await node.sit_exam(self._exam)
        self._exam_s += time.monotonic() - began

    def _learning(self) -> list[Learning]:
        return [one for one in self._members if isinstance(one, Learning)]

    def _result(self) -> SwarmResult:
        nodes, order = self._plan.nodes, self._run.order
        hostile = {node_id for node_id, number in order.items() if nodes[number].attack}
        tallies = [one.tally for one in self._learning()]
        roles = dict.fromkeys(node.role for node in nodes if node.attack is None)
        return SwarmResult(
            roles=tuple(
                make_role(role, [one for one in tallies if one.role == role], hostile)
                for role in roles
            ),
            stage_s=stage_seconds(tallies) | {Stage.EVALUATING: self._exam_s},
            node_rounds=sum(len(tally.reports) for tally in tallies),
        )


def _import_learner() -> None:
    """In a thread of its own: vLLM keeps the traceback of an import that failed for ever, and with
    it the frames of all callers and what they hold, down to the models of the first run."""

    def import_it() -> None:
        prepare_environment(own_process=False)
        import node.learn  # noqa: F401

    thread = threading.Thread(target=import_it)
    thread.start()
    thread.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch's arithmetic: what several threads add up differs in its last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
