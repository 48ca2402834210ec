"""What `sapo eval` shows: a table per policy, and one of what changed.

Names of targets and tasks may be anybody's text: they are escaped and handed to rich as Text.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from node.escape import printable
from node.words import span

if TYPE_CHECKING:
    from node.exam import Advance, Exam, Figure, Report, TaskFigures


@contextmanager
def show_progress(num_questions: int, console: Console) -> "Iterator[Advance]":
    """A bar per policy while it is asked; gone in the end, and nothing where nobody looks."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("questions"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    bar = bars.add_task("drawing questions", total=num_questions)
    with bars:
        yield lambda name, num_done: bars.update(
            bar, description=printable(name, 40), completed=num_done
        )


def print_report(report: "Report", console: Console) -> None:
    """Each policy's figures, then the differences, then how to read them."""
    for exam in report.exams:
        console.print(Text(_title(exam), style="bold"), soft_wrap=True)
        console.print(_table(exam.tasks, report.k))
        if exam.swarm_id not in (None, report.swarm_id):
            text = f"it learned in another swarm ({exam.swarm_id:.16}…): perhaps other tasks"
            console.print(Text(text, style="yellow"))
        console.print()
    if report.change:
        before, after = report.exams
        text = f"{printable(after.target)} minus {printable(before.target)}, question by question"
        console.print(Text(text, style="bold"), soft_wrap=True)
        console.print(_table(report.change, report.k, sign="+"))
        console.print()
    note = (
        f"swarm {printable(report.swarm, 80)}, seed {report.seed}, {report.k} answers to each "
        f"question at temperature {report.temperature:g}; [95 % intervals] over questions"
    )
    console.print(Text(note, style="dim"))


def _title(exam: "Exam") -> str:
    after = "" if exam.round is None else f", after {exam.round:,} rounds"
    return f"{printable(exam.target)}{after}: {exam.engine}, {span(exam.wall_s)}"


def _table(rows: "tuple[TaskFigures, ...]", k: int, sign: str = "") -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0) if sign else (0, 2, 0, 0))
    table.add_column("task", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    for name in ("pass@1", f"pass@{k}", "greedy", "diversity"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            Text("all" if row.task is None else printable(row.task, 40)),
            f"{row.num_questions:,}",
            _shown(row.pass_1, sign),
            _shown(row.pass_k, sign),
            _shown(row.greedy, sign),
            _shown(row.diversity, sign, digits=2),
            style="bold" if row.task is None else "",
        )
    return table


def _shown(figure: "Figure", sign: str, digits: int = 3) -> Text:
    """The mean and its interval, if it has a width; a difference whose interval holds no 0 in
    colour."""
    ends = f"{figure.low:{sign}.2f}…{figure.high:{sign}.2f}" * (figure.low < figure.high)
    text = re.sub(r"\b0\.", ".", f"{figure.mean:{sign}.{digits}f} {ends}")
    is_clear = bool(sign) and not figure.low <= 0 <= figure.high
    return Text(text, style="" if not is_clear else "green" if figure.low > 0 else "red")
