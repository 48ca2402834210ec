"""One run, fully decided: what node/experiment/swarm.py carries out."""

from dataclasses import dataclass
from pathlib import Path

from node.config import NodeConfig
from node.experiment.results import RunKey


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """What a hostile node does in every round instead of learning."""

    kind: str
    """Of node/experiment/attack.py."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node of a run."""

    role: str
    config: NodeConfig
    """Its settings: strategy, learning rate, rollouts per round, seed. Home, addresses, engine and
    API play no part here: everything is in one process and memory."""
    start: Path
    """Directory of the policy that it starts from."""
    tasks: tuple[str, ...] | None = None
    """Whose questions it draws; None: all of the manifest. It judges, and is examined on, all."""
    joins_at: int = 0
    """The swarm's round before which it joins."""
    attack: AttackPlan | None = None


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run: the same plan gives the same result."""

    key: RunKey
    manifest: Path
    nodes: tuple[NodePlan, ...]
    rounds: int
    """Of the swarm: each node that is there makes one round in each."""
    exam_every: int
    """Swarm rounds between exams; one more before the first and after the last round."""
    exam_questions: int
    round_s: float = 10.0
    """How far the run's clock goes on in one round of the swarm: what ages and delays are measured
    against."""
    delay_s: float = 0.0
    """Of every announcement and fetch, by that clock."""
    loss: float = 0.0
    """Probability that an announcement does not reach a node."""
