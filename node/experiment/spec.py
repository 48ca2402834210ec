"""An experiment as its file declares it, before anything is run (docs/experiments.md): arms, seeds,
learning rates, and the nodes that make the runs.

`Spec.runs` lists all runs, `Spec.plan` decides one down to the last setting, and `Spec.digest`
names all that its result depends on: a result with another digest belongs to something else.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from node.config import NodeConfig, find_manifest, known_keys
from node.experiment.figures import choose_rate
from node.experiment.plan import AttackPlan, NodePlan, RunPlan
from node.experiment.results import RunKey, RunResult

MAX_NODES = 256
ATTACKER = "attacker"
"""Role of the nodes that lie."""

SECTIONS = ("policy", "rollout", "learn", "batch", "reward", "verify", "swarm")
"""Of a node's settings, those on which a result depends."""
ELSEWHERE = frozenset(
    {
        "policy.model",
        "policy.revision",
        "policy.trust_remote_code",
        "learn.learning_rate",
        "learn.report_to",
        "rollout.engine",
        "rollout.gpu_memory",
        "rollout.kv_cache_gib",
        "verify.workers",
        "verify.isolation",
        "swarm.listen",
        "swarm.bootstrap",
        "swarm.announce",
        "swarm.relay",
        "swarm.hear_kib_per_s",
        "swarm.mdns",
        "swarm.dht",
        "swarm.max_peers",
        "swarm.max_per_address",
        "swarm.max_per_subnet",
        "swarm.announcements_mib",
        "swarm.announcements_per_s",
        "swarm.author_announcements_per_s",
        "swarm.fetches_per_s",
        "swarm.catalogue_per_s",
        "swarm.peer_questions_per_s",
        "swarm.served_mib_per_s",
        "swarm.wait_s",
        "swarm.stay",
    }
)
"""Settings in these sections that the experiment itself decides, or that play no part where all
nodes share a process."""

ADDED: dict[str, Any] = {}
"""Settings in these sections that came after results were published, each with the value at which
nodes do as they did before. At it they are left out of digests, lest those results be orphaned."""

ANSWER_S, LEARN_S, EXAM_ANSWER_S = 0.0018, 0.0013, 0.0016
"""Of one core and the embedded policy: an answer generated and judged, one learned from, one of an
exam."""

ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")

Rate = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Exams(_Section):
    """When nodes are asked held-out questions: also before the first and after the last round."""

    every: Count = 10
    """Rounds of the swarm between exams."""
    questions: int = Field(default=64, ge=2)
    """The same for all nodes, exams and seeds, evenly over the tasks."""


class Network(_Section):
    """What becomes of what nodes send."""

    round_s: float = Field(default=10.0, gt=0)
    """How far the run's clock goes on in a round of the swarm."""
    delay_s: float = Field(default=0.0, ge=0)
    """Of every announcement and fetch, by that clock."""
    loss: float = Field(default=0.0, ge=0, lt=1)
    """Probability that an announcement does not reach a node."""


class RoleSpec(_Section):
    """Nodes of one kind."""

    name: str = Field(default="node", min_length=1, max_length=40)
    count: int = Field(ge=1, le=MAX_NODES)
    start: str | tuple[str, ...] = "tiny"
    """The policy that they start from: one of node/experiment/starts.py, or a directory, written
    with a /. Of several, each node takes the next one, over and over."""
    tasks: tuple[str, ...] | None = None
    """Whose questions they draw; by default all of the manifest."""
    joins_at: int = Field(default=0, ge=0)
    """The swarm's round before which they join."""
    settings: dict[str, Any] = {}
    """Differences from the experiment's settings."""

    @property
    def starts(self) -> tuple[str, ...]:
        """At least one, unless the file is wrong."""
        return (self.start,) if isinstance(self.start, str) else self.start


class AttackSpec(_Section):
    """The last nodes of the swarm lie instead of learning."""

    kind: str
    """Of node/experiment/attack.py."""
    nodes: Count
    """How many of the nodes."""


class ArmSpec(_Section):
    """What is compared."""

    learning_rate: Rate | None = None
    """A fixed one: the arm is not tuned."""
    settings: dict[str, Any] = {}
    """Differences from the experiment's settings and those of the roles."""
    network: Network | None = None
    """Instead of the experiment's."""
    attack: AttackSpec | None = None


class Spec(_Section):
    """All that an experiment's file says."""

    name: str
    """The file's, without its ending."""
    question: str = Field(min_length=1, max_length=2000)
    """What is to be decided."""
    manifest: str = "easy"
    """A swarm file, or the name of one that is shipped."""
    nodes: int | None = Field(default=None, ge=1, le=MAX_NODES)
    """Of each run, all of one kind; without them, `roles`."""
    roles: tuple[RoleSpec, ...] = ()
    rounds: Count
    """Of the swarm."""
    target: float | None = Field(default=None, gt=0, lt=1)
    """Held-out pass@1 whose price in own tokens is of interest."""
    exams: Exams = Exams()
    network: Network = Network()
    seeds: tuple[Seed, ...] = Field(min_length=1)
    """Of the measuring runs. Equal ones give equal starts and questions in all arms."""
    tuning_seeds: tuple[Seed, ...] = ()
    """Of the runs that choose the learning rate; none of `seeds`."""
    learning_rates: tuple[Rate, ...] = Field(min_length=1)
    """Each arm is measured at the best of them, chosen in its tuning runs."""
    controls: tuple[str, ...] = ()
    """Arms without sharing: the best of them is what all others are compared with."""
    against: dict[str, str] = {}
    """Arm with a defence -> the same without it: what that changes has a table of its own."""
    settings: dict[str, Any] = {}
    """Differences from the defaults of a node's settings, for all nodes."""
    arms: dict[str, ArmSpec] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        if (self.nodes is None) == (not self.roles):
            yield "say either nodes = N (all of one kind) or [[roles]]"
        for name, values in (
            ("seeds", self.seeds),
            ("tuning_seeds", self.tuning_seeds),
            ("learning_rates", self.learning_rates),
            ("names of roles", [role.name for role in self.roles]),
        ):
            if len(set(values)) < len(values):
                yield f"{name}: one stands there twice"
        if both := set(self.seeds) & set(self.tuning_seeds):
            yield f"{sorted(both)} are seeds and tuning_seeds: a rate is measured on fresh ones"
        for arm in self.arms:
            if not ARM_NAME.fullmatch(arm):
                yield f"arm {arm!r}: a name has at most 40 letters, digits and . _ + -"
        tuned = [arm for arm in self.arms if self._is_tuned(arm)]
        if tuned and not self.tuning_seeds:
            yield f"arm {tuned[0]}: several learning_rates, but no tuning_seeds to choose on"
        for role in self.all_roles:
            if role.name == ATTACKER:
                yield f"a role may not be named {ATTACKER!r}: those of [arms.NAME.attack] are"
            if not role.starts:
                yield f"role {role.name}: start is empty"
            if role.joins_at >= self.rounds:
                yield f"role {role.name}: joins_at = {role.joins_at}, of {self.rounds} rounds"
        if unknown := {*self.against, *self.against.values()} - set(self.arms):
            yield f"against: {sorted(unknown)} are no arms"
        num_nodes = sum(role.count for role in self.all_roles)
        for name, chosen in self.arms.items():
            if chosen.attack and chosen.attack.nodes >= num_nodes:
                yield f"arm {name}: {chosen.attack.nodes} of {num_nodes} nodes attack: none is left"

    @property
    def all_roles(self) -> tuple[RoleSpec, ...]:
        """At least one."""
        return self.roles or (RoleSpec(count=self.nodes or 1),)

    @property
    def num_nodes(self) -> int:
        """Of each run."""
        return sum(role.count for role in self.all_roles)

    @property
    def num_node_rounds(self) -> int:
        """Of each run."""
        return sum(role.count * (self.rounds - role.joins_at) for role in self.all_roles)

    def estimate_s(self, run: "Run") -> float:
        """Seconds of one core, roughly, from how long the embedded policy took."""
        arm = self.arms[run.arm]
        total_s = 0.0
        for role in self.all_roles:
            config = self.config(role, arm, run.learning_rate or self.learning_rates[0])
            rollout, rounds = config.rollout, self.rounds - role.joins_at
            learned = max(rollout.questions, config.batch.groups) * rollout.answers
            round_s = ANSWER_S * rollout.questions * rollout.answers + LEARN_S * learned
            exams = 1 + -(-rounds // self.exams.every)
            exam_s = EXAM_ANSWER_S * self.exams.questions * rollout.answers
            total_s += role.count * (rounds * round_s + exams * exam_s)
        return total_s

    @property
    def k(self) -> int:
        """Answers to each question of an exam: as many as the first node gives in training."""
        arm = next(iter(self.arms.values()))
        return self.config(self.all_roles[0], arm, self.learning_rates[0]).rollout.answers

    @property
    def manifest_file(self) -> Path:
        """Raises ConfigError: there is none."""
        return find_manifest(self.manifest)

    @property
    def starts(self) -> tuple[str, ...]:
        """Names of all policies that nodes start from."""
        return tuple(dict.fromkeys(name for role in self.all_roles for name in role.starts))

    def _is_tuned(self, arm: str) -> bool:
        return self.arms[arm].learning_rate is None and len(self.learning_rates) > 1

    def runs(self, results: Iterable[RunResult] = ()) -> list["Run"]:
        """All runs in the order in which they are made: tuning first, then measuring, each seed by
        seed, so that an experiment that is cut short has all arms at the same seeds.

        Args:
            results: of this experiment. The measuring runs of an arm have no learning rate while
                one of its tuning runs is missing.
        """
        tuning = [
            Run(arm, seed, rate, is_tuning=True)
            for seed in self.tuning_seeds
            for arm in self.arms
            if self._is_tuned(arm)
            for rate in self.learning_rates
        ]
        wanted = {run.key for run in tuning}
        there = [one for one in results if one.is_tuning and one.key in wanted]
        missing = {key.arm for key in wanted - {one.key for one in there}}
        chosen = choose_rate(there)
        return tuning + [
            Run(arm, seed, None if arm in missing else self._rate(arm, chosen), is_tuning=False)
            for seed in self.seeds
            for arm in self.arms
        ]

    def _rate(self, arm: str, chosen: Mapping[str, float]) -> float:
        return chosen.get(arm) or self.arms[arm].learning_rate or self.learning_rates[0]

    def plan(self, key: RunKey, starts: Mapping[str, Path]) -> RunPlan:
        """One run, fully decided.

        Args:
            starts: name -> directory, of all in `self.starts`.
        """
        arm = self.arms[key.arm]
        network = arm.network or self.network
        return RunPlan(
            key=key,
            manifest=self.manifest_file,
            nodes=tuple(
                NodePlan(
                    role=node.role,
                    config=node.config,
                    start=starts[node.start],
                    tasks=node.tasks,
                    joins_at=node.joins_at,
                    attack=AttackPlan(node.attack) if node.attack else None,
                )
                for node in self._nodes(key)
            ),
            rounds=self.rounds,
            exam_every=self.exams.every,
            exam_questions=self.exams.questions,
            round_s=network.round_s,
            delay_s=network.delay_s,
            loss=network.loss,
        )

    def declares(self, result: RunResult, materials: "Materials") -> bool:
        """Whether a result is of a run that this file declares as it stands now."""
        arm = self.arms.get(result.key.arm)
        if arm is None or result.key.seed not in (
            self.tuning_seeds if result.is_tuning else self.seeds
        ):
            return False
        rates = (arm.learning_rate,) if arm.learning_rate else self.learning_rates
        return (
            result.key.learning_rate in rates
            and self.digest(result.key, materials) == result.digest
        )

    def digest(self, key: RunKey, materials: "Materials") -> str:
        """SHA-256 over all that a run's result depends on, as far as the file and the defaults of
        the settings decide it. Not covered: the program itself; each result names its version."""
        network = self.arms[key.arm].network or self.network
        nodes = [
            {
                "role": node.role,
                "seed": node.config.seed,
                "settings": _relevant(node.config),
                "start": [Path(node.start).name, materials.recipes[node.start]],
                "tasks": node.tasks,
                "joins_at": node.joins_at,
                "attack": node.attack,
            }
            for node in self._nodes(key)
        ]
        decided = {
            "swarm": materials.swarm_id,
            "seed": key.seed,
            "learning_rate": key.learning_rate,
            "rounds": self.rounds,
            "exams": self.exams.model_dump(),
            "network": network.model_dump(),
            "nodes": nodes,
        }
        text = json.dumps(decided, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _nodes(self, key: RunKey) -> list["_Node"]:
        arm = self.arms[key.arm]
        num_nodes = sum(role.count for role in self.all_roles)
        num_honest = num_nodes - (arm.attack.nodes if arm.attack else 0)
        nodes: list[_Node] = []
        for role in self.all_roles:
            config = self.config(role, arm, key.learning_rate)
            for index in range(role.count):
                number = len(nodes)
                attack = arm.attack.kind if arm.attack and number >= num_honest else None
                nodes.append(
                    _Node(
                        role=ATTACKER if attack else role.name,
                        config=config.model_copy(update={"seed": node_seed(key.seed, number)}),
                        start=role.starts[index % len(role.starts)],
                        tasks=role.tasks,
                        joins_at=role.joins_at,
                        attack=attack,
                    )
                )
        return nodes

    def config(self, role: RoleSpec, arm: ArmSpec, learning_rate: float) -> NodeConfig:
        """Of a role's nodes in an arm, but for their seeds.

        Raises:
            ValidationError: a setting's value is wrong.
        """
        tree: dict[str, Any] = {}
        for settings in (self.settings, role.settings, arm.settings):
            for key, value in flatten(settings):
                section, name = key.split(".")
                tree.setdefault(section, {})[name] = value
        tree.setdefault("learn", {})["learning_rate"] = learning_rate
        return NodeConfig.model_validate(tree)


@dataclass(frozen=True, slots=True)
class Materials:
    """What a result depends on besides the experiment's file."""

    swarm_id: str
    """Of the manifest."""
    recipes: Mapping[str, str]
    """Name of a start -> what it is made of."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an experiment."""

    arm: str
    seed: int
    learning_rate: float | None
    """None: the arm's tuning runs, which are not all there, decide it."""
    is_tuning: bool

    @property
    def key(self) -> RunKey:
        """Raises ValueError: the learning rate is not known yet."""
        if self.learning_rate is None:
            raise ValueError(f"arm {self.arm}: the learning rate is not chosen yet")
        return RunKey(self.arm, self.seed, self.learning_rate)

    def __str__(self) -> str:
        rate = "a rate not chosen yet" if self.learning_rate is None else f"{self.learning_rate:g}"
        return f"{self.arm}, seed {self.seed}, {rate}"


@dataclass(frozen=True, slots=True)
class _Node:
    role: str
    config: NodeConfig
    start: str
    tasks: tuple[str, ...] | None
    joins_at: int
    attack: str | None


def node_seed(run_seed: int, number: int) -> int:
    """The same for a node of that number in all arms of a seed: arms are paired."""
    text = f"sapo experiment, seed {run_seed}, node {number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def declarable() -> list[str]:
    """The settings that a file may declare, as dotted keys."""
    keys = (key for key in known_keys() if key.split(".")[0] in SECTIONS)
    return [key for key in keys if key not in ELSEWHERE]


def _relevant(config: NodeConfig) -> dict[str, Any]:
    tree = config.model_dump(mode="json", include=set(SECTIONS))
    return {
        key: value
        for key, value in flatten(tree)
        if key not in ELSEWHERE and not (key in ADDED and value == ADDED[key])
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
