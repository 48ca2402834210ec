"""What a demo found, as JSON and as a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node.evaluate import Accuracy, HeldOut, rise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHING_ROUNDS = 15


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """One node's run."""

    id: str
    engine: str
    engine_warning: str
    rounds: int
    own_reward: tuple[float, ...]
    """Mean reward of the own answers, a value per round."""
    round_s: tuple[float, ...]
    own_tokens: int
    heldout_before: HeldOut
    heldout_after: HeldOut
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A demo's run."""

    wall_s: float
    seed: int
    manifest: str
    swarm_id: str
    model: str
    nodes: tuple[NodeSummary, ...]

    @property
    def heldout_rise(self) -> Accuracy:
        """Paired over the questions of all nodes."""
        pairs = [rise(node.heldout_before, node.heldout_after) for node in self.nodes]
        mean = sum(one.mean for one in pairs) / len(pairs)
        error = math.sqrt(sum(one.standard_error**2 for one in pairs)) / len(pairs)
        return Accuracy(mean, error, sum(one.num_questions for one in pairs))

    @property
    def has_learned(self) -> bool:
        """Whether held-out accuracy rose by more than two standard errors."""
        return self.heldout_rise.mean > 2 * self.heldout_rise.standard_error


def write_summary(summary: Summary, home: Path) -> None:
    """Writes `summary.json` and `summary.png` into `home`."""
    (home / "summary.json").write_text(json.dumps(as_json(summary), indent=2) + "\n")
    draw_summary(summary, home / "summary.png")


def as_json(summary: Summary) -> dict[str, object]:
    """The summary as plain data; accuracies with standard error and number of questions."""
    return {
        "wall_s": round(summary.wall_s, 2),
        "seed": summary.seed,
        "manifest": summary.manifest,
        "swarm_id": summary.swarm_id,
        "model": summary.model,
        "heldout_rise": asdict(summary.heldout_rise),
        "has_learned": summary.has_learned,
        "nodes": [
            {
                "id": node.id,
                "engine": node.engine,
                "engine_warning": node.engine_warning,
                "rounds": node.rounds,
                "own_reward": [round(value, 4) for value in node.own_reward],
                "round_s": [round(value, 4) for value in node.round_s],
                "own_tokens": node.own_tokens,
                "heldout_questions": node.heldout_before.overall.num_questions,
                "heldout_before": _accuracies(node.heldout_before),
                "heldout_after": _accuracies(node.heldout_after),
                "checkpoint": node.checkpoint,
            }
            for node in summary.nodes
        ],
    }


def _accuracies(heldout: HeldOut) -> dict[str, object]:
    return {
        **asdict(heldout.overall),
        "answers_per_question": heldout.answers_per_question,
        "greedy": asdict(heldout.greedy),
        "per_task": {task: asdict(value) for task, value in heldout.per_task.items()},
    }


def draw_summary(summary: Summary, path: Path) -> None:
    """Own reward per round on the left, held-out accuracy per task on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
    rewards, bars = figure.subplots(1, 2, width_ratios=[3, 2])
    for number, node in enumerate(summary.nodes):
        rounds = range(1, node.rounds + 1)
        color = f"C{number}"
        rewards.plot(rounds, node.own_reward, color=color, alpha=0.25, linewidth=0.8)
        rewards.plot(rounds, smooth(node.own_reward), color=color, label=node.id, linewidth=2)
    rewards.set(xlabel="round", ylabel="own reward (share of correct answers)", ylim=(0, None))
    rewards.set_title(f"training: mean of {SMOOTHING_ROUNDS} rounds, and each round", loc="left")
    rewards.legend(frameon=False, loc="upper left")
    _draw_bars(bars, summary.nodes)
    for axes in (rewards, bars):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    gain = summary.heldout_rise
    figure.suptitle(
        f"held-out accuracy {gain.mean:+.3f} ± {gain.standard_error:.3f} on "
        f"{gain.num_questions} questions · {summary.model} · seed {summary.seed}",
        x=0.01,
        ha="left",
    )
    figure.savefig(path)


def _draw_bars(axes: "Axes", nodes: Sequence[NodeSummary]) -> None:
    tasks = ["all", "all, greedy", *nodes[0].heldout_before.per_task]
    width = 0.4
    for offset, name, color in ((-0.5, "before", "#b8b8b8"), (0.5, "after", "#2a78b5")):
        means, errors = [], []
        for task in tasks:
            found = [_task(node, name, task) for node in nodes]
            means.append(sum(one.mean for one in found) / len(found))
            errors.append(math.sqrt(sum(one.standard_error**2 for one in found)) / len(found))
        places = [place + offset * width for place in range(len(tasks))]
        axes.bar(places, means, width, yerr=errors, color=color, label=name, capsize=2)
    axes.set_xticks(range(len(tasks)), tasks, rotation=35, ha="right")
    axes.set_title("held-out accuracy, ± 1 standard error", loc="left")
    axes.set_ylim(0, None)
    axes.legend(frameon=False)


def _task(node: NodeSummary, when: str, task: str) -> Accuracy:
    heldout: HeldOut = getattr(node, f"heldout_{when}")
    whole = {"all": heldout.overall, "all, greedy": heldout.greedy}
    return whole.get(task) or heldout.per_task[task]


def smooth(values: Sequence[float]) -> list[float]:
    """Mean of each value and up to SMOOTHING_ROUNDS - 1 before it."""
    return [
        sum(values[max(0, end - SMOOTHING_ROUNDS) : end])
        / len(values[max(0, end - SMOOTHING_ROUNDS) : end])
        for end in range(1, len(values) + 1)
    ]
