"""The live view of a terminal: what a node does now, and whether it learns."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from node.status import RoundReport, Stage, Status
from node.summary import SMOOTHING_ROUNDS, Summary, smooth

BARS = "▁▂▃▄▅▆▇█"


@contextmanager
def live_view(status: Status, console: Console, max_rounds: int | None) -> Iterator[None]:
    """Shows `status` until the block ends; silent where the output is not a terminal."""
    if not console.is_terminal:
        yield
        return
    view = LiveView(status, max_rounds)
    with Live(view, console=console, refresh_per_second=4):
        yield


class LiveView:
    """Renders one Status."""

    def __init__(self, status: Status, max_rounds: int | None) -> None:
        self.status = status
        self.max_rounds = max_rounds

    def __rich__(self) -> Panel:
        """One calm panel: stage, round, reward, speed, and the seconds of the last round."""
        status = self.status
        reports = list(status.reports)
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", justify="right")
        facts.add_column()
        facts.add_row("stage", f"{status.stage} for {status.stage_age_s:.1f} s")
        facts.add_row("engine", status.engine or "loading")
        if status.engine_warning:
            facts.add_row("", Text(status.engine_warning, style="bold yellow"))
        if reports:
            self._add_rounds(facts, reports)
        return Panel(Group(facts), title="sapo", title_align="left", border_style="dim")

    def _add_rounds(self, facts: Table, reports: list[RoundReport]) -> None:
        last, recent = reports[-1], reports[-SMOOTHING_ROUNDS:]
        rewards = [report.own_reward for report in reports]
        of = f" of {self.max_rounds}" if self.max_rounds else ""
        facts.add_row("round", f"{last.round}{of}")
        facts.add_row("own reward", f"{smooth(rewards)[-1]:.3f}  {sparkline(smooth(rewards))}")
        facts.add_row("zero advantage", f"{_mean_of(recent, 'zero_advantage_share'):.0%} of groups")
        facts.add_row("tokens/s", f"{_mean_of(recent, 'tokens_per_s'):,.0f} while generating")
        facts.add_row("seconds a round", _round_seconds(recent))
        skipped = sum(report.update_skipped is not None for report in recent)
        if skipped:
            text = f"{skipped} of the last {len(recent)} updates: {last.update_skipped or ''}"
            facts.add_row("skipped", Text(text, style="bold yellow"))
        if unscorable := sum(report.num_unscorable for report in recent):
            facts.add_row("unscorable", Text(f"{unscorable} answers lately", style="bold yellow"))


def _round_seconds(reports: list[RoundReport]) -> str:
    total = _mean_of(reports, "round_s")
    stages = [Stage.GENERATING, Stage.VERIFYING, Stage.UPDATING, Stage.SYNCING]
    parts = [
        f"{stage} {sum(one.seconds.get(stage, 0.0) for one in reports) / len(reports):.2f}"
        for stage in stages
    ]
    return f"{total:.2f} ({', '.join(parts)})"


def _mean_of(reports: list[RoundReport], name: str) -> float:
    return sum(float(getattr(report, name)) for report in reports) / len(reports)


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
    """The result as a table, and where the files are."""
    for node in summary.nodes:
        table = Table(title=f"held-out accuracy of {node.id}", title_justify="left", box=None)
        table.add_column("task")
        for column in ("questions", "before", "after"):
            table.add_column(column, justify="right")
        before, after = node.heldout_before, node.heldout_after
        rows = [("all", before.overall, after.overall)]
        rows += [(task, one, after.per_task[task]) for task, one in before.per_task.items()]
        rows.append(("all, greedy", before.greedy, after.greedy))
        for task, first, last in rows:
            table.add_row(
                task,
                str(first.num_questions),
                f"{first.mean:.3f} ± {first.standard_error:.3f}",
                f"{last.mean:.3f} ± {last.standard_error:.3f}",
            )
        console.print(table)
    gain = summary.heldout_rise
    verdict = "learned" if summary.has_learned else "NO RISE beyond 2 standard errors"
    console.print(
        f"{verdict}: held-out accuracy {gain.mean:+.3f} ± {gain.standard_error:.3f} "
        f"in {summary.nodes[0].rounds} rounds, {summary.wall_s:.0f} s in all",
        style="bold green" if summary.has_learned else "bold red",
        highlight=False,
    )
    console.print(f"{home}/summary.png  {home}/summary.json", style="dim", highlight=False)
