"""The tasks of a swarm file in a terminal: `sapo tasks`.

What a task says may be anybody's text: it is escaped, and handed to rich as Text.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from node.escape import printable
from node.task_check import Finding, Outcome, TaskReport
from node.task_tools import DigestState, Kind, Sample, TaskEntry
from rewards.extract import AnswerFormat, instruction
from rewards.tasks import TaskFacts, TaskSpec
from rewards.tasks.table import has_table
from swarm.manifest import Manifest

MAX_LINES, MAX_LINE_CHARS = 200, 2000
"""Of a text that is shown."""

_MARKS = {
    Outcome.HOLDS: Text("✓", style="green"),
    Outcome.NOTE: Text("!", style="bold yellow"),
    Outcome.FAILS: Text("✗", style="bold red"),
}

_STATE_STYLES = {DigestState.AS_STATED: "green", DigestState.NOT_STATED: "yellow"}


def print_tasks(
    manifest: Manifest, entries: Sequence[TaskEntry], kinds: Sequence[Kind], console: Console
) -> None:
    """A row per task, then why some are not built, then the kinds that are installed."""
    about = manifest.about
    console.print(Text(f"{printable(about.name, 80)}  {manifest.swarm_id[:16]}…", style="bold"))
    gap = 1 if console.width < 100 else 2
    table = _table("task", "data set", "answer", "rule", "number", "digest", gap=gap)
    for entry in entries:
        spec, facts = entry.spec, entry.facts
        table.add_row(
            Text(spec.name),
            _dataset(spec),
            Text(printable(spec.answer_format)),
            Text(_rule(facts)),
            Text(_number(facts)),
            Text(entry.state, style=_STATE_STYLES.get(entry.state, "bold red")),
        )
    console.print(table)
    for entry in entries:
        if entry.state is DigestState.NOT_BUILT:
            console.print(Text(f"{entry.spec.name}: {printable(entry.why, 2000)}", style="red"))
        elif entry.facts is not None and not entry.facts.deterministic:
            said = f"{entry.spec.name}: verdicts may differ between nodes; nobody pays for that"
            console.print(Text(said, style="dim"))
    console.print()
    table = _table("kind", "package", "version")
    for kind in kinds:
        row = (kind.name, kind.package, kind.version)
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    for kind in kinds:
        if kind.problem:
            console.print(Text(f"{printable(kind.name)}: {kind.problem}", style="bold yellow"))


def print_task(manifest: Manifest, entry: TaskEntry, deadline_s: float, console: Console) -> None:
    """Everything that is known of a task."""
    spec, facts, rules = entry.spec, entry.facts, manifest.rules
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")

    def add(name: str, text: str, style: str = "") -> None:
        table.add_row(name, Text(text, style=style))

    add("task", spec.name, "bold")
    add("kind", printable(spec.kind))
    add("data set", printable(spec.dataset, 500) or "none")
    add("version", printable(spec.version))
    for number, (name, value) in enumerate(spec.params.items()):
        add("params" if number == 0 else "", printable(f"{name} = {value!r}", 500))
    add("answer", _answer(spec))
    add("right", _rule(facts) or "as its kind decides")
    if facts is not None:
        sure = "follow from question and answer alone: a wrong claim is charged"
        unsure = "may differ between machines: nobody pays for a difference"
        add("verdicts", sure if facts.deterministic else unsure)
        add("questions", _number(facts))
    if spec.system:
        add("system", _lines(spec.system))
    for number, one in enumerate(spec.examples):
        add("examples" if number == 0 else "", _lines(f"{one.question}\n→ {one.answer}"))
    add(
        "limits",
        f"{rules.max_new_tokens:,} new tokens, {rules.max_answer_bytes:,} bytes, "
        f"{deadline_s:g} s for a verdict",
    )
    add("digest", printable(spec.digest) or "none is stated")
    add("", entry.state, _STATE_STYLES.get(entry.state, "bold red"))
    if facts is not None and entry.state is not DigestState.AS_STATED:
        add("here", facts.digest)
    if entry.why:
        add("", printable(entry.why, 2000), "red")
    console.print(table)


def print_samples(samples: Sequence[Sample], console: Console) -> None:
    """What the model reads, and what counts as right, question by question."""
    for sample in samples:
        title = f"{sample.question.task}/{sample.question.index}"
        title += "  held out" if sample.is_held_out else ""
        console.print(Rule(Text(title), align="left", style="dim"))
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", justify="right", min_width=8)
        table.add_column(overflow="fold")
        if sample.system:
            table.add_row("system", Text(_lines(sample.system)))
        for one in sample.examples:
            table.add_row("user", Text(_lines(one.question)))
            table.add_row("policy", Text(_lines(one.answer)))
        table.add_row("user", Text(_lines(sample.text)))
        table.add_row("truth", Text(_lines(sample.truth), style="bold"))
        judged = Text("  judged correct" if sample.is_correct else "  judged wrong")
        judged.stylize("green" if sample.is_correct else "bold red")
        table.add_row("answer", Text(_lines(sample.answer)) + judged)
        console.print(table)


def print_report(report: TaskReport, console: Console) -> None:
    """A line per check of one task."""
    spec = report.spec
    head = Text(spec.name, style="bold")
    head.append(f"  {_dataset(spec)} {printable(spec.version, 20)}", style="dim")
    console.print(head)
    print_findings([*report.findings, *_digest_finding(report)], console)
    console.print()


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """A line per check."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=3, justify="right")
    table.add_column(style="dim", width=15)
    table.add_column(overflow="fold")
    for finding in findings:
        style = "" if finding.outcome is Outcome.HOLDS else "bold"
        table.add_row(_MARKS[finding.outcome], finding.check, Text(finding.text, style=style))
    console.print(table)


def _digest_finding(report: TaskReport) -> list[Finding]:
    match report.state:
        case DigestState.AS_STATED:
            return [Finding("digest", Outcome.HOLDS, "as stated")]
        case DigestState.NOT_BUILT:
            return []
        case DigestState.NOT_STATED:
            said = f"none is stated: --write puts {report.digest[:12]}… there"
            return [Finding("digest", Outcome.FAILS, said)]
        case DigestState.DIFFERS:
            stated = printable(report.spec.digest, 13)
            said = f"stated is {stated}, here it is {report.digest[:12]}…"
            return [Finding("digest", Outcome.FAILS, said)]


def _table(*columns: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _dataset(spec: TaskSpec) -> Text:
    if spec.dataset in ("", spec.name):
        return Text(printable(spec.kind, 40))
    if has_table(spec):
        return Text(printable(spec.dataset, 80))
    return Text(printable(f"{spec.kind}: {spec.dataset}", 80))


def _rule(facts: TaskFacts | None) -> str:
    return "" if facts is None else printable(facts.rule, 80)


def _number(facts: TaskFacts | None) -> str:
    if facts is None:
        return ""
    return "endless" if facts.num_questions is None else f"{facts.num_questions:,}"


def _answer(spec: TaskSpec) -> str:
    if spec.answer_format not in list(AnswerFormat):
        return printable(spec.answer_format)
    asked = instruction(spec.answer_format).strip()
    return f"{spec.answer_format}: {asked or 'the question does not say how'}"


def _lines(text: str) -> str:
    """A text of several lines, each made safe."""
    lines = text.split("\n")
    shown = [printable(line, MAX_LINE_CHARS) for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        shown.append(f"… {len(lines) - MAX_LINES:,} more lines")
    return "\n".join(shown)
