"""The terminal during a demo: a row per node, what happened to them, and the result at the end."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from node.escape import printable
from node.evaluate import Accuracy
from node.status import Snapshot, Stage
from node.summary import NodeSummary, Summary, mean_rise, smooth

BARS = "▁▂▃▄▅▆▇█"
MAX_EVENTS = 5
SILENT_AFTER_S = 3.0
"""A snapshot that is older is shown with its age."""

WIDE = 100
"""Columns from which there is room for longer curves."""

LINE_EVERY_S = 5.0
"""Between the lines that stand for the table where the output is no terminal."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node as the demo sees it now."""

    name: str
    snapshot: Snapshot | None = None
    """The last one; None until the first."""
    age_s: float = 0.0
    """Of the snapshot, or since the node was started."""
    trouble: str = ""
    """Why its process does not run now."""

    @property
    def is_done(self) -> bool:
        """All its rounds and evaluations are made."""
        return self.snapshot is not None and self.snapshot.learner.is_done

    @property
    def round(self) -> int:
        """Rounds that its policy has made; while a learner starts, those of the one before."""
        if self.snapshot is None:
            return 0
        learner, last = self.snapshot.learner, self.snapshot.last_round
        return last.round if last and learner.stage == Stage.STARTING else learner.round

    @property
    def num_connected(self) -> int:
        """Peers with a connection."""
        return sum(peer.connected for peer in self.snapshot.peers) if self.snapshot else 0

    @property
    def stage(self) -> str:
        """What it does, and for how long where that is long."""
        if self.trouble:
            return self.trouble
        if self.snapshot is None:
            return f"starting, {self.age_s:.0f} s"
        if self.age_s > SILENT_AFTER_S:
            return f"no answer for {self.age_s:.0f} s"
        learner = self.snapshot.learner
        if learner.is_done:
            return "done"
        if learner.restart_in_s is not None:
            return f"learner restarts in {learner.restart_in_s:.0f} s"
        age = f", {learner.stage_age_s:.0f} s" if learner.stage_age_s >= 1 else ""
        return f"{printable(learner.stage, 20)}{age}"


@dataclass
class Board:
    """What there is to see. The demo writes it, the view's thread reads it."""

    title: str
    rounds: int
    foreign: int
    """J."""
    clock: Callable[[], float] = time.monotonic
    rows: tuple[Row, ...] = ()
    began: float = field(init=False)
    num_events: int = 0
    events: deque[Text] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    """The last things that happened, oldest first."""

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        return self.clock() - self.began

    def tell(self, text: str, style: str = "yellow") -> None:
        """Notes something that happened."""
        self.events.append(Text(f"{self.elapsed_s:4.0f} s  {text}", style=style))
        self.num_events += 1

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """The table, the reasons of refusals, the events. Fits into 80 columns."""
        yield self._heading()
        yield self._table(reward_bars=20 if options.max_width >= WIDE else 8)
        if refusals := self._refusals():
            yield refusals
        yield from self.events

    def _heading(self) -> Text:
        engines = {row.snapshot.learner.engine for row in self.rows if row.snapshot} - {""}
        warnings = {row.snapshot.learner.engine_warning for row in self.rows if row.snapshot}
        heading = Text.assemble((self.title, "bold"), f"  {self.elapsed_s:.0f} s")
        if engines:
            heading.append(f"  {', '.join(printable(name, 40) for name in sorted(engines))}", "dim")
        for warning in sorted(warnings - {""}):
            heading.append(f"\n{printable(warning, 300)}", "bold yellow")
        return heading

    def _table(self, reward_bars: int) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("node")
        table.add_column("round", justify="right")
        table.add_column("own reward", min_width=7 + reward_bars)
        table.add_column("foreign\ngroups used", justify="right", min_width=12)
        table.add_column("refused", justify="right")
        table.add_column("peers", justify="right")
        table.add_column("stage", min_width=14)
        for row in self.rows:
            table.add_row(
                row.name,
                f"{row.round} of {self.rounds}",
                _reward(row, reward_bars),
                _foreign_used(row),
                str(sum(row.snapshot.refused.values())) if row.snapshot else "",
                str(row.num_connected) if row.snapshot else "",
                Text(row.stage, style=_style(row)),
            )
        return table

    def _refusals(self) -> Text | None:
        total: dict[str, int] = {}
        for row in self.rows:
            for reason, count in (row.snapshot.refused if row.snapshot else {}).items():
                total[reason] = total.get(reason, 0) + count
        if not total:
            return None
        parts = [f"{printable(reason, 40)} {count}" for reason, count in sorted(total.items())]
        return Text(f"refused: {', '.join(parts)}", style="dim")

    def as_line(self) -> Text:
        """The table in one line, for outputs that are no terminal: a value per node."""
        rounds = " ".join(str(row.round) for row in self.rows)
        parts = [f"{self.elapsed_s:4.0f} s  round {rounds} of {self.rounds}"]
        if any(row.snapshot and row.snapshot.own_reward for row in self.rows):
            parts.append(f"own reward {' '.join(map(_last_reward, self.rows))}")
            if self.foreign:
                used = " ".join(str(_num_foreign(row)) for row in self.rows)
                parts.append(f"foreign groups used {used}")
        stages = [row.stage.partition(",")[0] for row in self.rows]  # without ages
        parts.append(" | ".join(stages if len(set(stages)) > 1 else stages[:1]))
        return Text("  ".join(parts))


def _style(row: Row) -> str:
    if row.trouble:
        return "bold red"
    if row.snapshot is not None and not row.is_done and row.age_s > SILENT_AFTER_S:
        return "yellow"
    return "green" if row.is_done else ""


def _reward(row: Row, num_bars: int) -> str:
    if row.snapshot is None or not row.snapshot.own_reward:
        return ""
    rewards = smooth(row.snapshot.own_reward)
    return f"{rewards[-1]:.3f}  {sparkline(rewards, num_bars)}"


def _last_reward(row: Row) -> str:
    if row.snapshot is None or not row.snapshot.own_reward:
        return "-"
    return f"{smooth(row.snapshot.own_reward)[-1]:.2f}"


def _num_foreign(row: Row) -> int:
    return sum(row.snapshot.foreign_groups_used) if row.snapshot else 0


def _foreign_used(row: Row) -> str:
    """Groups, and in how many of the rounds there were some."""
    if row.snapshot is None or not row.snapshot.foreign_groups_used:
        return ""
    used = row.snapshot.foreign_groups_used
    return f"{sum(used)} in {sum(one > 0 for one in used)}/{len(used)}"


def sparkline(values: list[float], width: int = 48) -> str:
    """The values as a row of at most `width` bars, the highest value the highest bar."""
    if not values or max(values) <= 0:
        return ""
    step = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for part in _parts(values, step)]
    top = max(means)
    return "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] for value in means)


def _parts(values: list[float], step: int) -> Iterator[list[float]]:
    for start in range(0, len(values), step):
        yield values[start : start + step]


def show_summary(summary: Summary, console: Console, home: str) -> None:
    """The result as a table, what did not happen, and where the files are."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("held out", no_wrap=True)
    for column in ("before", "after", "rise", "greedy before", "greedy after"):
        table.add_column(column, justify="right", no_wrap=True)
    for node in summary.nodes:
        table.add_row(node.id, *_accuracies(node))
    for node in summary.control:
        table.add_row(f"{node.id} J=0", *_accuracies(node), style="dim")
    console.print(table)
    gains = [("swarm", mean_rise(summary.nodes))]
    if summary.control:
        gains.append(("control run, J = 0", mean_rise(summary.control)))
    for name, gain in gains:
        if gain is not None:
            found = (
                f"{gain.mean:+.3f} ± {gain.standard_error:.3f} on {gain.num_questions} questions"
            )
            console.print(f"{name}: held-out accuracy {found}", highlight=False)
    if summary.control:
        console.print(summary.verdict_on_sharing, highlight=False, soft_wrap=True)
    _show_verdict(summary, console)
    console.print(Text(f"{home}/summary.png  {home}/summary.json", style="dim"), soft_wrap=True)


def _accuracies(node: NodeSummary) -> list[str]:
    before, after = node.heldout_before, node.heldout_after
    measured: list[tuple[Accuracy | None, str]] = [
        (before.overall if before else None, ""),
        (after.overall if after else None, ""),
        (mean_rise([node]), "+"),
        (before.greedy if before else None, ""),
        (after.greedy if after else None, ""),
    ]
    return [
        f"{one.mean:{sign}.3f} ± {one.standard_error:.3f}".replace("0.", ".") if one else "unknown"
        for one, sign in measured
    ]


def _show_verdict(summary: Summary, console: Console) -> None:
    for failure in summary.failures:
        console.print(
            Text(f"DID NOT HAPPEN AS IT SHOULD: {failure}", style="bold red"), soft_wrap=True
        )
    if not summary.failures:
        who = "the swarm" if len(summary.nodes) > 1 else "the node"
        text = f"{who} learned: {summary.rounds} rounds a node, {summary.wall_s:.0f} s in all"
        console.print(Text(text, style="bold green"))
