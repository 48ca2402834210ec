"""curves.png: own reward, held-out accuracy and what they cost, an arm a line, means over seeds.

Controls are grey and broken, the best of them black; arms that share are coloured.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Literal, TypeAlias

from node.escape import printable
from node.experiment import measures
from node.experiment.figures import (
    Declared,
    Runs,
    Series,
    best_control,
    curve,
    figures_of,
    in_order,
    is_attacked,
    measured_runs,
    num_nodes,
    role_names,
)
from node.experiment.results import Role, RunResult
from node.summary import smooth, window_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Dash: TypeAlias = Literal["-"] | tuple[float, Sequence[float]]
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, which colour-blind people tell apart; without yellow, which is pale on white."""
COLOR_DASHES: tuple[Dash, ...] = ("-", (0, (7, 1.5)), (0, (7, 1.5, 1.5, 1.5)))
"""One for each time that the colours are used up."""
GREYS: tuple[tuple[str, Dash], ...] = (
    ("#6b6b6b", (0, (1, 1.2))),
    ("#8a8a8a", (0, (8, 2.5))),
    ("#777777", (0, (5, 1.5, 1, 1.5))),
    ("#a0a0a0", (0, (2.5, 1.2))),
    ("#b0b0b0", (0, (5, 1.5, 1, 1.5, 1, 1.5))),
)
BEST_DASH: Dash = (0, (4, 1.4))
TEXT = "#444444"

DPI = 110
COLUMN, HEADER, ROW, ROLE, LEGEND_LINE = 4.0, 0.85, 3.4, 0.45, 0.25
"""A width and four heights in inches."""
LEGEND_COLUMNS = 6
"""At most."""


@dataclass(frozen=True, slots=True)
class Style:
    """How an arm is drawn."""

    color: str
    dash: Dash
    width: float
    depth: int


@dataclass(frozen=True, slots=True)
class Panel:
    """A small diagram."""

    title: str
    x_label: str
    x: Series
    y: Series
    target: float | None = None


def draw_curves(results: Sequence[RunResult], declared: Declared, file: Path) -> bool:
    """Draws the measuring runs that are there, two rows for each role; False where there is none.
    Readers of the file find the old picture or the new one.

    Raises:
        ValueError: see `measured_runs`.
        OSError: e.g. a full disk.
    """
    runs = in_order(measured_runs(results), declared)
    if not runs:
        return False
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        make_figure(runs, declared).savefig(aside, format="png")
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return True


def make_figure(runs: Mapping[str, Runs], declared: Declared) -> "Figure":
    """The picture of at least one run."""
    from matplotlib.figure import Figure

    roles, styles = role_names(runs), styles_of(runs, declared)
    labels = {
        arm: printable(arm) + (" (control)" if arm in declared.controls else "") for arm in runs
    }
    rows = _panels(declared, is_attacked(runs))
    width = COLUMN * len(rows[0])
    longest = max(map(len, labels.values()))
    legend_columns = max(1, min(LEGEND_COLUMNS, int(width / (0.95 + 0.085 * longest))))
    below = 0.3 + LEGEND_LINE * -(-len(runs) // legend_columns)
    part = 2 * ROW + (ROLE if len(roles) > 1 else 0)
    height = HEADER + part * len(roles) + below
    figure = Figure(figsize=(width, height), dpi=DPI)
    for number, role in enumerate(roles):
        bottom = below + part * (len(roles) - 1 - number)
        if len(roles) > 1:
            _write(figure, (bottom + 2 * ROW + 0.25) / height, _nodes(runs, role), 12, bold=True)
        grid = figure.add_gridspec(
            2,
            len(rows[0]),
            left=0.035,
            right=0.99,
            bottom=(bottom + 0.65) / height,
            top=(bottom + 2 * ROW - 0.2) / height,
            wspace=0.17,
            hspace=0.36,
        )
        drawn = [[figure.add_subplot(grid[y, x]) for x in range(len(rows[y]))] for y in (0, 1)]
        for axes, panel in zip(chain(*drawn), chain(*rows), strict=True):
            _draw_panel(axes, panel, runs, role, styles)
        _level(*drawn)
    title = shorten(printable(declared.title, 400), 150, placeholder=" …")
    _write(figure, 1 - 0.3 / height, title, 14, bold=True)
    _write(figure, 1 - 0.58 / height, _subtitle(runs), 10)
    _draw_legend(figure, styles, labels, legend_columns, height)
    return figure


def styles_of(runs: Mapping[str, Runs], declared: Declared) -> dict[str, Style]:
    """By the order that was declared, so that an arm looks the same while others are missing. The
    best control is that of the first role in cumulative own reward."""
    rewards = figures_of(runs, role_names(runs)[0], measures.cumulative_reward)
    best = best_control(rewards, declared.controls)
    order = dict.fromkeys((*declared.arms, *runs))
    styles = {}
    for number, arm in enumerate(arm for arm in order if arm not in declared.controls):
        turn, color = divmod(number, len(COLORS))
        styles[arm] = Style(COLORS[color], COLOR_DASHES[turn % len(COLOR_DASHES)], 2.0, depth=4)
    for number, arm in enumerate(declared.controls):
        styles[arm] = Style(*GREYS[number % len(GREYS)], 1.7, depth=2)
    if best is not None:
        styles[best] = Style("black", BEST_DASH, 2.4, depth=6)
    return {arm: styles[arm] for arm in runs}


def _panels(declared: Declared, is_attacked: bool) -> tuple[list[Panel], list[Panel]]:
    """Two rows: against rounds, and against own tokens; then own reward over the paper's number,
    then what attackers achieve."""
    pass_1, pass_k = "held-out pass@1", f"held-out pass@{declared.k}"
    if declared.target is not None:
        pass_1 += f" (dotted: target {declared.target:g})"
    cumulative, batch = "cumulative own reward", "batch reward, foreign groups included"
    tokens, target = "own tokens per node", declared.target
    upper = [
        Panel(cumulative, "round", _rounds, _cumulative),
        Panel(pass_1, "round", _exam("round"), _exam("pass_1"), target),
        Panel(pass_k, "round", _exam("round"), _exam("pass_k")),
        Panel("own reward", "round", _rounds, lambda role: smooth(role.rounds.own_reward)),
    ]
    lower = [
        Panel(cumulative, tokens, _tokens, _cumulative),
        Panel(pass_1, tokens, _exam("own_tokens"), _exam("pass_1"), target),
        Panel(pass_k, tokens, _exam("own_tokens"), _exam("pass_k")),
        Panel(batch, "round", _rounds, lambda role: smooth(role.rounds.batch_reward)),
    ]
    if is_attacked:
        marked, length = "own answers with the attackers' mark", "bytes of an own answer"
        upper.append(Panel(marked, "round", _rounds, lambda role: role.rounds.poison_share))
        lower.append(Panel(length, "round", _rounds, lambda role: role.rounds.answer_bytes))
    return upper, lower


def _draw_panel(
    axes: "Axes", panel: Panel, runs: Mapping[str, Runs], role: str, styles: Mapping[str, Style]
) -> None:
    """Each arm's mean, and a band of one standard deviation around it."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for arm, found in runs.items():
        x, y, style = curve(found, role, panel.x), curve(found, role, panel.y), styles[arm]
        if not y.mean.size:
            continue  # nobody attacks in this arm
        axes.plot(
            x.mean,
            y.mean,
            color=style.color,
            linestyle=style.dash,
            linewidth=style.width,
            zorder=style.depth + 1,
            gid=arm,
        )
        axes.fill_between(
            x.mean,
            y.mean - y.deviation,
            y.mean + y.deviation,
            color=style.color,
            alpha=0.14,
            linewidth=0,
            zorder=style.depth,
            gid=arm,
        )
    if panel.target is not None:
        axes.axhline(panel.target, color=TEXT, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_title(panel.title, loc="left", fontsize=10.5)
    axes.set_xlabel(panel.x_label, fontsize=9.5)
    axes.margins(x=0.01)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    if panel.x_label == "round":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    else:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.22, linewidth=0.6)
    axes.set_axisbelow(True)


def _level(above: Sequence["Axes"], below: Sequence["Axes"]) -> None:
    """Two in a column that show the same unit are read against each other."""
    for upper, lower in list(zip(above, below, strict=True))[:4]:
        top = max(upper.get_ylim()[1], lower.get_ylim()[1])
        upper.set_ylim(top=top)
        lower.set_ylim(top=top)


def _draw_legend(
    figure: "Figure",
    styles: Mapping[str, Style],
    labels: Mapping[str, str],
    columns: int,
    height: float,
) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=style.color, linestyle=style.dash, linewidth=style.width)
        for style in styles.values()
    ]
    legend = figure.legend(
        lines,
        [labels[arm] for arm in styles],
        loc="lower left",
        bbox_to_anchor=(0.005, 0.1 / height),
        ncols=columns,
        frameon=False,
        fontsize=10,
        handlelength=3.6,
        columnspacing=2.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _write(figure: "Figure", y: float, text: str, size: float, bold: bool = False) -> None:
    """A name may hold a dollar sign: nothing in it is taken for mathematics."""
    weight, color = ("bold", "black") if bold else ("normal", TEXT)
    figure.text(
        0.01, y, text, fontsize=size, weight=weight, color=color, va="center", parse_math=False
    )


def _subtitle(runs: Mapping[str, Runs]) -> str:
    counts = {len({run.key.seed for run in found}) for found in runs.values()}
    seeds = _count(min(counts), max(counts), "seed")
    nodes = " + ".join(_nodes(runs, role) for role in role_names(runs))
    parts = [seeds, nodes, "lines: mean over nodes and seeds"]
    if max(counts) > 1:
        parts.append("bands: ± 1 standard deviation over seeds")
    parts.append("each arm at the learning rate chosen for it")
    roles = (role for found in runs.values() for role in found[0].roles)
    if (window := window_of(max(len(role.rounds.own_reward) for role in roles))) > 1:
        parts.append(f"rewards per round: means of {window} rounds")
    return " · ".join(parts)


def _nodes(runs: Mapping[str, Runs], role: str) -> str:
    nodes = _count(*num_nodes(runs, role), "node")
    return f"{printable(role)}: {nodes}" if len(role_names(runs)) > 1 else nodes


def _count(low: int, high: int, what: str) -> str:
    return f"{f'{low} to {high}' if low < high else high} {what}{'s' * (high != 1)}"


def _rounds(role: Role) -> Sequence[float]:
    return range(1, len(role.rounds.own_reward) + 1)


def _cumulative(role: Role) -> Sequence[float]:
    return list(accumulate(role.rounds.own_reward))


def _tokens(role: Role) -> Sequence[float]:
    return list(accumulate(role.rounds.own_tokens))


def _exam(field: str) -> Callable[[Role], list[float]]:
    return lambda role: [getattr(exam, field) for exam in role.exams]
