"""Rounds and pool in a terminal: `sapo rounds` and `sapo pool stats`."""

import time
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.escape import printable
from node.kept import PoolCount, PoolStats
from node.status import HeldOutStatus, RoundReport
from node.summary import smooth
from node.view import sparkline
from node.words import short_id, size, span

BARS = 48
SHOWN = 20
"""Lines of each part of `sapo pool stats`; --json has them all."""


def print_rounds(
    reports: Sequence[RoundReport],
    heldout: Sequence[HeldOutStatus],
    last: int,
    console: Console,
) -> None:
    """Curves over all reports, and a table of the last ones."""
    if not reports:
        console.print(Text("No round was made yet."))
        return
    console.print(_curves(reports, heldout))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("round", "ended", "own\nreward", "foreign\nused", "shared", "tokens/s", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("")
    for report in reports[-last:]:
        note = report.brake or report.update_skipped or ""
        table.add_row(
            f"{report.round:,}",
            _clock(report.finished_at),
            f"{report.own_reward:.3f}",
            f"{report.foreign_groups_used} of {report.foreign_wanted}",
            f"{report.num_shared}",
            f"{report.tokens_per_s:,.0f}",
            f"{report.round_s:.1f}",
            Text(printable(note, 60), style="yellow"),
        )
    console.print(table)


def _curves(reports: Sequence[RoundReport], heldout: Sequence[HeldOutStatus]) -> Table:
    rewards = smooth([report.own_reward for report in reports])
    used = [float(report.foreign_groups_used) for report in reports]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", justify="right")
    grid.add_column(no_wrap=True)
    grid.add_column()
    first, last = reports[0].round, reports[-1].round
    grid.add_row("rounds", "", f"{first:,} to {last:,}")
    grid.add_row("own reward", sparkline(rewards, BARS), f"{rewards[0]:.3f} to {rewards[-1]:.3f}")
    if heldout:
        means = [one.mean for one in heldout]
        grid.add_row("held out", sparkline(means, BARS), f"{means[0]:.3f} to {means[-1]:.3f}")
    grid.add_row("foreign groups", sparkline(used, BARS), f"{sum(used):,.0f} used")
    return grid


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%m-%d %H:%M:%S") if at else ""


def print_pool(stats: PoolStats, console: Console, now: float | None = None) -> None:
    """What lies in the pool, by kind, task and author."""
    now = time.time() if now is None else now
    console.print(Text(f"{stats.num:,} rollouts, {size(stats.num_bytes)}"))
    if stats.oldest is not None and stats.newest is not None:
        ages = f"{span(now - stats.newest)} to {span(now - stats.oldest)}"
        console.print(Text(f"first seen {ages} ago"))
    authors = [
        PoolCount(short_id(one.name), one.num, one.num_bytes) for one in stats.authors[:SHOWN]
    ]
    for title, rows in (("kind", stats.kinds), ("task", stats.tasks), ("author", authors)):
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column(title, min_width=20)
        table.add_column("rollouts", justify="right")
        table.add_column("size", justify="right")
        for row in rows[:SHOWN]:
            table.add_row(Text(printable(row.name, 60)), f"{row.num:,}", size(row.num_bytes))
        console.print(table)
    for what, num in (("tasks", len(stats.tasks)), ("authors", len(stats.authors))):
        if num > SHOWN:
            console.print(Text(f"and {num - SHOWN:,} more {what}; --json has them all", "dim"))
