"""What a demo found as a picture: rewards, foreign groups used, held-out accuracy."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from node.evaluate import Accuracy, HeldOut, accuracy
from node.summary import NodeSummary, Summary, mean_rise, smooth, window_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE, AFTER, CONTROL = "#c4c4c4", "#2a78b5", "#6f6f6f"


def draw_summary(summary: Summary, path: Path) -> None:
    """Own reward per round over foreign groups used on the left, held-out accuracy on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[3, 2], height_ratios=[3, 1])
    rewards = figure.add_subplot(grid[0, 0])
    foreign = figure.add_subplot(grid[1, 0], sharex=rewards)
    bars = figure.add_subplot(grid[:, 1])
    _draw_rewards(rewards, summary)
    _draw_foreign(foreign, summary)
    _draw_bars(bars, summary)
    for axes in (rewards, foreign, bars):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    figure.suptitle(headline(summary), x=0.01, ha="left", fontsize=11)
    figure.savefig(path)


def headline(summary: Summary) -> str:
    """The result in one line."""
    gain = summary.heldout_rise
    found = "held-out accuracy was not measured before and after"
    if gain is not None:
        found = (
            f"held-out accuracy {gain.mean:+.3f} ± {gain.standard_error:.3f} "
            f"on {gain.num_questions} questions"
        )
    if (without := mean_rise(summary.control)) is not None:
        found += f", without sharing {without.mean:+.3f} ± {without.standard_error:.3f}"
    nodes = f"{len(summary.nodes)} nodes" if len(summary.nodes) > 1 else "1 node"
    return f"{found}\n{nodes} · {summary.model} · swarm {summary.manifest} · seed {summary.seed}"


def _draw_rewards(axes: "Axes", summary: Summary) -> None:
    """Each node thin, the mean of all bold; the control's mean grey and dashed."""
    for number, node in enumerate(summary.nodes):
        axes.plot(
            _rounds(node),
            smooth(node.own_reward),
            color=f"C{number}",
            alpha=0.55,
            linewidth=1,
            label=node.id,
        )
    if len(summary.nodes) > 1:
        rounds, mean = mean_reward(summary.nodes)
        axes.plot(rounds, smooth(mean), color="black", linewidth=2.2, label="mean")
    if summary.control:
        rounds, mean = mean_reward(summary.control)
        label = "mean without sharing (J = 0)"
        axes.plot(rounds, smooth(mean), color=CONTROL, linewidth=1.8, linestyle="--", label=label)
    window = window_of(max((len(node.reports) for node in summary.nodes), default=0))
    axes.set(ylabel="own reward", ylim=(0, None))
    axes.set_title(
        f"share of own answers that are correct, mean of {window} rounds", loc="left", fontsize=10
    )
    if summary.nodes:
        axes.legend(frameon=False, loc="upper left", ncols=2, fontsize=9)
    axes.tick_params(labelbottom=False)


def _draw_foreign(axes: "Axes", summary: Summary) -> None:
    """The nodes' bars of a round side by side."""
    width = 0.8 / max(len(summary.nodes), 1)
    for number, node in enumerate(summary.nodes):
        shift = (number + 0.5) * width - 0.4
        places = [place + shift for place in _rounds(node)]
        axes.bar(places, node.foreign_groups_used, width, color=f"C{number}")
    axes.set(xlabel="round", ylim=(0, max(summary.foreign, 1)))
    axes.set_title(f"foreign groups used, of {summary.foreign} asked for", loc="left", fontsize=10)
    axes.set_yticks(range(0, summary.foreign + 1, max(1, summary.foreign // 2)))


def _draw_bars(axes: "Axes", summary: Summary) -> None:
    axes.set_title("held-out accuracy, ± 1 standard error over questions", loc="left", fontsize=10)
    series = [
        ("before", BEFORE, "", [node.heldout_before for node in summary.nodes]),
        ("after", AFTER, "", [node.heldout_after for node in summary.nodes]),
    ]
    if summary.control:
        after = [node.heldout_after for node in summary.control]
        series.append(("after, without sharing", "white", "////", after))
    measured = [
        (name, color, hatch, whole)
        for name, color, hatch, found in series
        if (whole := [one for one in found if one is not None])
    ]
    if not measured:
        return
    tasks = ["all", "all, greedy", *measured[0][3][0].per_task]
    width = 0.8 / len(measured)
    for number, (name, color, hatch, whole) in enumerate(measured):
        values = [over_nodes(whole, task) for task in tasks]
        places = [place + (number + 0.5) * width - 0.4 for place in range(len(tasks))]
        axes.bar(
            places,
            [value.mean for value in values],
            width,
            yerr=[value.standard_error for value in values],
            color=color,
            hatch=hatch,
            edgecolor=CONTROL if hatch else color,
            linewidth=0.6,
            error_kw={"elinewidth": 0.9},
            capsize=1.5,
            label=name,
        )
    axes.set_xticks(range(len(tasks)), tasks, rotation=40, ha="right", fontsize=9)
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])  # room for the legend
    axes.legend(frameon=False, loc="upper left", ncols=3, fontsize=9)


def over_nodes(found: Sequence[HeldOut], task: str) -> Accuracy:
    """One task's mean over the nodes. The standard error is over the questions, which all nodes
    share; of greedy accuracy, known per node only, it is the mean of the nodes' errors."""
    if task == "all, greedy":
        one = [heldout.greedy for heldout in found]
        mean = sum(value.mean for value in one) / len(one)
        error = sum(value.standard_error for value in one) / len(one)
        return Accuracy(mean, error, one[0].num_questions)
    columns = zip(*(heldout.per_question for heldout in found), strict=True)
    means = [sum(column) / len(column) for column in columns]
    kept = [mean for mean, of in zip(means, found[0].tasks, strict=True) if task in ("all", of)]
    return accuracy(kept)


def mean_reward(nodes: Sequence[NodeSummary]) -> tuple[list[int], list[float]]:
    """The rounds that any node reported, and the mean own reward of those that did."""
    values: dict[int, list[float]] = {}
    for node in nodes:
        for report in node.reports:
            values.setdefault(report.round, []).append(report.own_reward)
    rounds = sorted(values)
    return rounds, [sum(values[number]) / len(values[number]) for number in rounds]


def _rounds(node: NodeSummary) -> list[int]:
    return [report.round for report in node.reports]
