"""What a demo found, as data and as JSON; and what of it did not happen that should have."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from node.evaluate import Accuracy, HeldOut, accuracy, rise
from node.status import ForeignFate, RoundReport

SMOOTHING_ROUNDS = 15
"""At most; of a short run an eighth."""


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """One node's run, as far as it came."""

    id: str
    """Its name in the demo: "node-0"."""
    node_id: str
    """Its name in the swarm."""
    rounds: int
    """Rounds that its policy has made."""
    reports: tuple[RoundReport, ...]
    """Of its rounds in their order; those that nobody saw because the node was killed are left
    out."""
    heldout_before: HeldOut | None
    heldout_after: HeldOut | None
    """None where the node did not get there."""
    checkpoint: str
    engine: str = ""
    """Empty where the node never answered."""
    engine_warning: str = ""
    refused: dict[str, int] = field(default_factory=dict)
    peers: int = 0
    """Connected when the run ended."""
    used_by_peer: dict[str, int] = field(default_factory=dict)
    """Node id -> its rollouts in batches of this node."""
    bytes_sent: int = 0
    bytes_received: int = 0
    control_cpu_s: float = 0.0
    """Of the control process, since its last start."""
    announced_to_pool_s: float | None = None
    """Median seconds from first sight of an announcement to the pool."""
    peak_memory_mib: dict[str, float] = field(default_factory=dict)
    """By part: the highest that was seen, at two looks a second."""
    restarts: int = 0
    """Of the node's process."""
    learner_restarts: int = 0
    """Of the learner, since the last start of the node's process."""

    @property
    def own_reward(self) -> tuple[float, ...]:
        """A value per reported round."""
        return tuple(report.own_reward for report in self.reports)

    @property
    def foreign_groups_used(self) -> tuple[int, ...]:
        """A value per reported round."""
        return tuple(report.foreign_groups_used for report in self.reports)

    @property
    def num_rounds_wanting(self) -> int:
        """Rounds in which its strategy wanted foreign groups."""
        return sum(report.foreign_wanted > 0 for report in self.reports)

    @property
    def num_rounds_with_foreign(self) -> int:
        """Rounds in which it learned from a peer."""
        return sum(used > 0 for used in self.foreign_groups_used)

    @property
    def foreign_groups(self) -> dict[str, int]:
        """Over all rounds: wanted (J a round), drawn, and what became of those drawn."""
        fates = Counter(group.fate for report in self.reports for group in report.foreign)
        return {
            "wanted": sum(report.foreign_wanted for report in self.reports),
            "drawn": fates.total(),
            **{fate.value: fates[fate] for fate in ForeignFate},
        }

    @property
    def stage_s(self) -> dict[str, float]:
        """Seconds per stage over all rounds."""
        total: Counter[str] = Counter()
        for report in self.reports:
            total.update(report.seconds)
        return dict(total)

    @property
    def rounds_per_minute(self) -> float:
        """From the end of the first reported round to the end of the last; nan below two."""
        if len(self.reports) < 2:
            return math.nan
        first, last = self.reports[0], self.reports[-1]
        return 60 * (last.round - first.round) / max(last.finished_at - first.finished_at, 1e-9)


@dataclass(frozen=True, slots=True)
class Summary:
    """A demo's run."""

    wall_s: float
    seed: int
    manifest: str
    swarm_id: str
    model: str
    rounds: int
    """That every node was to make."""
    foreign: int
    """J: peers' rollouts that every node asked for in a round."""
    nodes: tuple[NodeSummary, ...]
    control: tuple[NodeSummary, ...] = ()
    """The same nodes with J = 0, where such a run was made."""
    interruptions: tuple[str, ...] = ()
    """What kept a run from its end, one sentence each."""
    is_vllm_installed: bool = False
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def heldout_rise(self) -> Accuracy | None:
        """See `mean_rise`."""
        return mean_rise(self.nodes)

    @property
    def has_learned(self) -> bool:
        """Whether held-out accuracy rose by more than two standard errors."""
        gain = self.heldout_rise
        return gain is not None and gain.mean > 2 * gain.standard_error

    @property
    def sharing_gain(self) -> Accuracy | None:
        """How much further the swarm's held-out accuracy rose than the control's, paired over the
        questions. Of this one pair of runs: other seeds may give another figure."""
        swarm, control = rises_per_question(self.nodes), rises_per_question(self.control)
        if not swarm or not control:
            return None
        return accuracy([ours - theirs for ours, theirs in zip(swarm, control, strict=True)])

    @property
    def verdict_on_sharing(self) -> str:
        """What the control run allows to say about sharing."""
        if not self.control:
            return "no control run without sharing was made: nothing is said about sharing"
        gain = self.sharing_gain
        if gain is None:
            return "the run or its control did not end: nothing is said about sharing"
        found = (
            f"{gain.mean:+.3f} ± {gain.standard_error:.3f} beyond the control run "
            "(J = 0, as many own rollouts)"
        )
        if abs(gain.mean) <= 2 * gain.standard_error:
            return f"sharing made no difference that is clear: {found}, within 2 standard errors"
        did = "helped" if gain.mean > 0 else "did harm"
        return f"sharing {did} in this pair of runs: {found}, more than 2 standard errors"

    @property
    def failures(self) -> tuple[str, ...]:
        """What did not happen that should have, one sentence each; empty when all is well."""
        return (
            *self.interruptions,
            *_shortfalls(self.nodes, self.rounds, self.foreign),
            *_shortfalls(self.control, self.rounds, 0, "control run: "),
            *(self._fallbacks() if self.is_vllm_installed else ()),
            *self._missing_rise(),
        )

    def _fallbacks(self) -> list[str]:
        return [
            f"{node.id} fell back to {node.engine} although vLLM is installed: "
            f"{node.engine_warning}"
            for node in (*self.nodes, *self.control)
            if node.engine_warning
        ]

    def _missing_rise(self) -> list[str]:
        gain = self.heldout_rise
        if gain is None:
            return ["held-out accuracy was not measured before and after"]
        if self.has_learned:
            return []
        return [
            "held-out accuracy did not rise by more than 2 standard errors: "
            f"{gain.mean:+.3f} ± {gain.standard_error:.3f}"
        ]


def _shortfalls(
    nodes: Sequence[NodeSummary], rounds: int, foreign: int, prefix: str = ""
) -> list[str]:
    """What the nodes did not do."""
    found = []
    for node in nodes:
        if node.rounds < rounds:
            found.append(f"{prefix}{node.id} made {node.rounds} of {rounds} rounds")
        elif node.heldout_before is None or node.heldout_after is None:
            found.append(f"{prefix}{node.id} was not measured on held-out questions")
        elif foreign and 2 * node.num_rounds_with_foreign <= node.num_rounds_wanting:
            found.append(
                f"{prefix}{node.id} used foreign groups in {node.num_rounds_with_foreign} "
                f"of {node.num_rounds_wanting} rounds that wanted some"
            )
    return found


def rises_per_question(nodes: Sequence[NodeSummary]) -> list[float]:
    """Rise of held-out accuracy per question, mean over the nodes; empty if a node has none.

    All nodes of a demo ask the same held-out questions, in one order.
    """
    rises = [
        _differences(node.heldout_before, node.heldout_after)
        for node in nodes
        if node.heldout_before is not None and node.heldout_after is not None
    ]
    if not rises or len(rises) < len(nodes):
        return []
    return [sum(column) / len(column) for column in zip(*rises, strict=True)]


def _differences(before: HeldOut, after: HeldOut) -> list[float]:
    pairs = zip(after.per_question, before.per_question, strict=True)
    return [later - earlier for later, earlier in pairs]


def mean_rise(nodes: Sequence[NodeSummary]) -> Accuracy | None:
    """Mean over the nodes, standard error over the questions, which all nodes share: more nodes do
    not make it smaller. None if a node was not measured."""
    rises = rises_per_question(nodes)
    return accuracy(rises) if rises else None


def smooth(values: Sequence[float]) -> list[float]:
    """Mean of each value and up to a window's values before it."""
    window = window_of(len(values))
    parts = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def window_of(num_rounds: int) -> int:
    """Over how many rounds a run of this length is averaged."""
    return max(1, min(SMOOTHING_ROUNDS, num_rounds // 8))


def write_summary(summary: Summary, home: Path) -> None:
    """Writes `home`/summary.json."""
    (home / "summary.json").write_text(json.dumps(as_json(summary), indent=2) + "\n")


def as_json(summary: Summary) -> dict[str, object]:
    """The summary as plain data; accuracies with standard error and number of questions."""
    gain, sharing = summary.heldout_rise, summary.sharing_gain
    data: dict[str, object] = {
        "wall_s": round(summary.wall_s, 2),
        "seed": summary.seed,
        "manifest": summary.manifest,
        "swarm_id": summary.swarm_id,
        "model": summary.model,
        "rounds": summary.rounds,
        "foreign": summary.foreign,
        "heldout_rise": gain and asdict(gain),
        "has_learned": summary.has_learned,
        "sharing": summary.verdict_on_sharing,
        "failures": list(summary.failures),
        "command": summary.command,
        "versions": summary.versions,
        "nodes": [_node_as_json(node) for node in summary.nodes],
    }
    if summary.control:
        without = mean_rise(summary.control)
        data["control"] = {
            "heldout_rise": without and asdict(without),
            "sharing_gain": sharing and asdict(sharing),
            "nodes": [_node_as_json(node) for node in summary.control],
        }
    return data


def _node_as_json(node: NodeSummary) -> dict[str, object]:
    before, after = node.heldout_before, node.heldout_after
    gain = rise(before, after) if before and after else None
    rate = node.rounds_per_minute
    return {
        "id": node.id,
        "node_id": node.node_id,
        "engine": node.engine,
        "engine_warning": node.engine_warning,
        "rounds": node.rounds,
        "own_reward": [round(value, 4) for value in node.own_reward],
        "foreign_groups_used": list(node.foreign_groups_used),
        "rounds_with_foreign_groups": node.num_rounds_with_foreign,
        "foreign_groups": node.foreign_groups,
        "refused": node.refused,
        "peers": node.peers,
        "used_by_peer": node.used_by_peer,
        "round_s": [round(report.round_s, 4) for report in node.reports],
        "stage_s": {stage: round(seconds, 3) for stage, seconds in node.stage_s.items()},
        "rounds_per_minute": None if math.isnan(rate) else round(rate, 2),
        "own_tokens": sum(report.own_tokens for report in node.reports),
        "heldout_questions": before.overall.num_questions if before else 0,
        "heldout_before": before and _accuracies(before),
        "heldout_after": after and _accuracies(after),
        "heldout_rise": gain and asdict(gain),
        "checkpoint": node.checkpoint,
        "bytes_sent": node.bytes_sent,
        "bytes_received": node.bytes_received,
        "control_cpu_s": round(node.control_cpu_s, 2),
        "announced_to_pool_s": node.announced_to_pool_s,
        "peak_memory_mib": {part: round(mib, 1) for part, mib in node.peak_memory_mib.items()},
        "restarts": node.restarts,
        "learner_restarts": node.learner_restarts,
    }


def _accuracies(heldout: HeldOut) -> dict[str, object]:
    return {
        **asdict(heldout.overall),
        "answers_per_question": heldout.answers_per_question,
        "greedy": asdict(heldout.greedy),
        "per_task": {task: asdict(value) for task, value in heldout.per_task.items()},
    }
