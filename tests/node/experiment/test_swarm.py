"""Whole runs: real admission, pools, verdicts; a scripted policy where learning plays no part."""

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

import node
from node.config import NodeConfig
from node.experiment.plan import AttackPlan, NodePlan, RunPlan
from node.experiment.results import Role, RunKey
from node.experiment.swarm import SwarmResult, language_policy, run_swarm
from node.experiment.verdicts import Judging
from node.groups import OwnRollout
from node.policy import LanguagePolicy, Policy, ScriptedPolicy
from rewards.question import Expansion
from swarm.manifest import Manifest

TINY = Path(node.__file__).parent / "tiny"
QUESTIONS, ANSWERS, FOREIGN = 4, 4, 2


def make_node(seed: int = 1, role: str = "node", **settings: object) -> NodePlan:
    """Settings are those of the plan, or of a section of the configuration."""
    sections = {
        "rollout": {"questions": QUESTIONS, "answers": ANSWERS},
        "batch": {"strategy": "paper", "peer_share": 1.0},
        "swarm": {"foreign": FOREIGN, "share": "all"},
    }
    for name in [name for name in settings if name in NodeConfig.model_fields]:
        sections[name] = sections.get(name, {}) | settings.pop(name)  # type: ignore[operator]
    config = NodeConfig.model_validate({"seed": seed, **sections})
    return NodePlan(role=role, config=config, start=TINY, **settings)  # type: ignore[arg-type]


def make_plan(*nodes: NodePlan, rounds: int = 3, **fields: object) -> RunPlan:
    fields = {"exam_every": 100, "exam_questions": 8} | fields
    key = RunKey("arm", 1, 1e-4)
    return RunPlan(key=key, manifest=Path("easy"), nodes=nodes, rounds=rounds, **fields)  # type: ignore[arg-type]


class Recorder:
    """Makes scripted policies, and notes what they are asked in rounds and in exams."""

    def __init__(self, skill: float = 0.5) -> None:
        self.skill = skill
        self.asked: dict[int, Counter[str]] = {}
        self.examined: list[tuple[Expansion, ...]] = []

    def __call__(self, config: NodeConfig, manifest: Manifest, place: Path) -> Policy:
        assert config.seed is not None
        return _Recorded(self, config.seed, config.rollout.answers, self.skill)


class _Recorded(ScriptedPolicy):
    def __init__(self, recorder: Recorder, seed: int, num_answers: int, skill: float) -> None:
        super().__init__(seed, num_answers, skill)
        self.recorder = recorder

    def roll_out(
        self, questions: Sequence[Expansion], round_number: int, *, greedy: bool = False
    ) -> list[OwnRollout]:
        if round_number:
            tasks = self.recorder.asked.setdefault(self.seed, Counter())
            tasks.update(one.question.task for one in questions)
        elif not greedy:
            self.recorder.examined.append(tuple(questions))
        return super().roll_out(questions, round_number, greedy=greedy)


@pytest.fixture
def run(judging: Judging) -> Callable[..., SwarmResult]:
    def run(plan: RunPlan, policies: Recorder | None = None) -> SwarmResult:
        return run_swarm(plan, judging=judging, make_policy=policies or Recorder())

    return run


def only(result: SwarmResult) -> Role:
    (role,) = result.roles
    return role


def as_bytes(result: SwarmResult) -> bytes:
    """All but what the clock on the wall says; nan equals nan."""
    return msgspec.json.encode(result.roles)


def test_the_same_plan_gives_the_same_figures_bit_for_bit(judging: Judging) -> None:
    small = {"rollout": {"questions": 3, "answers": 4}, "learn": {"kl_every": 2}}
    nodes = [make_node(seed, **small) for seed in (1, 2)]
    plan = make_plan(*nodes, rounds=2, exam_questions=4, delay_s=0.5, loss=0.2)
    first = run_swarm(plan, judging=judging)
    other = run_swarm(make_plan(make_node(3, **small), rounds=1), judging=judging)
    assert as_bytes(run_swarm(plan, judging=judging)) == as_bytes(first) != as_bytes(other)
    rounds = only(first).rounds
    assert any(rounds.foreign_used) and any(rounds.gradient_norm)


def test_what_is_fetched_and_drawn_repeats(run: Callable[..., SwarmResult]) -> None:
    """Much more is there than is wanted, so that every draw counts."""
    nodes = [make_node(seed, swarm={"foreign": 1}) for seed in range(4)]
    nodes.append(make_node(9, role="attacker", attack=AttackPlan("lie")))
    plan = make_plan(*nodes, rounds=5, exam_questions=2, delay_s=0.5, loss=0.1)
    assert as_bytes(run(plan)) == as_bytes(run(plan))


def test_a_node_learns_the_same_whoever_else_is_in_the_process(judging: Judging) -> None:
    alone = {"batch": {"strategy": "own"}, "swarm": {"share": "none"}}
    plans = [make_node(1, role="first", **alone), make_node(2, role="second", **alone)]
    by_itself = run_swarm(make_plan(plans[0], rounds=2, exam_questions=2), judging=judging)
    beside = run_swarm(make_plan(*plans, rounds=2, exam_questions=2), judging=judging)
    assert msgspec.json.encode(beside.roles[0]) == msgspec.json.encode(by_itself.roles[0])
    assert any(by_itself.roles[0].rounds.gradient_norm)


def test_nodes_learn_from_what_the_others_shared(run: Callable[..., SwarmResult]) -> None:
    result = run(make_plan(*map(make_node, (1, 2, 3)), rounds=4))
    role = only(result)
    assert result.node_rounds == 12 and role.num_nodes == 3
    assert role.rounds.foreign_used[-1] == FOREIGN
    assert role.admitted_honest >= FOREIGN * 3
    assert role.refused_honest == role.admitted_hostile == role.used_hostile == 0
    assert all(0 <= age <= 3 for age in role.rounds.foreign_age)
    assert {"updating", "evaluating"} <= set(result.stage_s)
    assert len(role.node_reward) == len(role.node_pass_1) == 3
    assert sum(role.node_reward) == pytest.approx(3 * sum(role.rounds.own_reward))


def test_what_is_shared_before_a_turn_can_be_drawn_in_it(run: Callable[..., SwarmResult]) -> None:
    """The first of a round has nobody to learn from, every later one has."""
    rounds = only(run(make_plan(*map(make_node, (1, 2, 3)), rounds=1))).rounds
    assert rounds.foreign_used == (pytest.approx(FOREIGN * 2 / 3),)
    assert rounds.foreign_age == (0.0,)


def test_a_network_delays_and_loses(run: Callable[..., SwarmResult]) -> None:
    nodes = list(map(make_node, (1, 2)))
    late = only(run(make_plan(*nodes, rounds=5, delay_s=11.0))).rounds
    # An announcement and a fetch: two rounds and more.
    assert late.foreign_used[:2] == (0.0, 0.0) and late.foreign_used[-1] > 0
    assert late.foreign_age[:2] == (0.0, 0.0) and late.foreign_age[-1] >= 2
    lost = only(run(make_plan(*nodes, loss=1.0)))
    assert not any(lost.rounds.foreign_used) and lost.admitted_honest == 0


def test_who_joins_late_begins_with_its_own_round_one(run: Callable[..., SwarmResult]) -> None:
    newcomer = make_node(3, role="newcomer", joins_at=2)
    plan = make_plan(make_node(1), make_node(2), newcomer, rounds=4, exam_every=2)
    result = run(plan)
    old, new = result.roles
    assert (old.name, new.name) == ("node", "newcomer")
    assert len(old.rounds.own_reward) == 4 and len(new.rounds.own_reward) == 2
    assert [exam.round for exam in old.exams] == [0, 2, 4]
    assert [exam.round for exam in new.exams] == [0, 2]
    assert new.exams[0].own_tokens == 0 < new.exams[1].own_tokens
    assert new.rounds.foreign_used[1] == FOREIGN
    assert result.node_rounds == 10


def test_a_node_is_asked_of_its_tasks_and_examined_on_all(run: Callable[..., SwarmResult]) -> None:
    recorder = Recorder(skill=1.0)
    special = make_node(1, role="special", tasks=("leg_counting",), batch={"strategy": "own"})
    result = run(make_plan(special, make_node(2), rounds=6), recorder)
    assert set(recorder.asked[1]) == {"leg_counting"} < set(recorder.asked[2])
    exams = recorder.examined
    assert len(exams) == 4 and len(set(exams)) == 1
    assert [one.question.task for one in exams[0]] == sorted(result.roles[0].exams[0].per_task)
    assert result.roles[0].exams[0].pass_1 == result.roles[0].exams[0].greedy == 1.0


def test_attackers_are_counted_and_not_measured(run: Callable[..., SwarmResult]) -> None:
    hostile = make_node(9, role="attacker", attack=AttackPlan("inject"))
    role = only(run(make_plan(make_node(1), make_node(2), hostile)))
    assert role.name == "node" and role.num_nodes == 2
    assert role.admitted_hostile > 0 and role.used_hostile > 0
    assert role.admitted_honest > 0 and role.refused_honest == 0
    assert role.rounds.poison_share == (0.0,) * 3  # a scripted policy is not taught anything
    assert all(length > 1 for length in role.rounds.answer_bytes)


def test_liars_are_refused_and_honest_peers_are_not(run: Callable[..., SwarmResult]) -> None:
    hostile = make_node(9, role="attacker", attack=AttackPlan("lie"), rollout={"questions": 16})
    role = only(run(make_plan(make_node(1), make_node(2), hostile)))
    assert role.refused.get("wrong_claim", 0) > 0 and role.refused.get("equivocation", 0) > 0
    assert role.admitted_honest > 0 and role.refused_honest == 0


def test_a_run_leaves_no_thread_and_no_model_behind(judging: Judging) -> None:
    models: list[weakref.ref[object]] = []
    places: list[Path] = []

    def make_policy(config: NodeConfig, manifest: Manifest, place: Path) -> Policy:
        policy = language_policy(config, manifest, place)
        assert isinstance(policy, LanguagePolicy)
        models.append(weakref.ref(policy.learner.model))
        places.append(place)
        return policy

    plan = make_plan(make_node(1), make_node(2), rounds=1, exam_questions=2)
    run_swarm(plan, judging=judging, make_policy=make_policy)
    names = {thread.name for thread in threading.enumerate()}
    assert len(models) == 2 and "trl-trainer" not in names
    assert [model() for model in models] == [None, None]
    assert not any(place.exists() for place in places)


def test_a_run_says_how_far_it_is(judging: Judging) -> None:
    rounds: list[int] = []
    plan = make_plan(make_node(1), rounds=3, exam_questions=2)
    run_swarm(plan, rounds.append, judging=judging, make_policy=Recorder())
    assert rounds == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([make_node(1, joins_at=3)], "joins at round 3 of 3"),
        ([make_node(1), make_node(2, joins_at=1)], "join at different rounds"),
        ([make_node(1, attack=AttackPlan("inject"))], "no node learns"),
        ([NodePlan("node", NodeConfig(), TINY)], "has no seed"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(nodes: list[NodePlan], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        run_swarm(make_plan(*nodes))
