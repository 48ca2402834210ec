"""An experiment in the terminal before and after its runs: what there is, what is missing, what it
costs, what failed."""

from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.escape import printable
from node.experiment.run import Kept, Outcome, said
from node.experiment.spec import Spec
from node.words import span


def print_runs(spec: Spec, kept: Kept, only: Collection[str], jobs: int, console: Console) -> None:
    """Every run and whether it is there, a row per arm; and what the missing ones cost."""
    runs = [run for run in spec.runs(kept.results.values()) if not only or run.arm in only]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for column in ("tuning runs", "rate", "seeds, * done", "core time"):
        table.add_column(column, justify="left" if column.startswith("seeds") else "right")
    for arm in (name for name in spec.arms if not only or name in only):
        tuning = [run for run in runs if run.arm == arm and run.is_tuning]
        measuring = [run for run in runs if run.arm == arm and not run.is_tuning]
        rate = measuring[0].learning_rate
        table.add_row(
            arm,
            f"{sum(run in kept.results for run in tuning)} of {len(tuning)}" if tuning else "none",
            "not chosen" if rate is None else f"{rate:g}",
            " ".join(f"{run.seed}{'*' * (run in kept.results)}" for run in measuring),
            span(sum(map(spec.estimate_s, tuning + measuring))),
        )
    _say(f"{spec.name}: {spec.question}", console, "bold")
    console.print(table)
    if any(run.is_tuning for run in runs):
        rates = ", ".join(f"{rate:g}" for rate in spec.learning_rates)
        seeds = ", ".join(map(str, spec.tuning_seeds))
        _say(f"tuning runs: at the learning rates {rates}, seeds {seeds}", console)
    if kept.ignored:
        _say(f"{len(kept.ignored)} results are kept and ignored: {said(kept.ignored)}", console)
    missing = [run for run in runs if run not in kept.results]
    cost_s = sum(map(spec.estimate_s, missing))
    _say(
        f"{len(runs)} runs of {spec.num_nodes} nodes and {spec.rounds} rounds, "
        f"{spec.num_node_rounds * len(runs):,} node-rounds in all; {len(missing)} runs are missing:"
        f" about {span(cost_s)} of one core, {span(cost_s / jobs)} with {jobs} at once",
        console,
    )


def print_outcome(outcome: Outcome, directory: Path, console: Console) -> None:
    """What was found, what is missing, what failed and why."""
    for what, why in outcome.failures.items():
        _say(f"FAILED: {what}", console, "bold red")
        console.print(Text("\n".join(printable(line, 2000) for line in why.splitlines())))
    num_done = outcome.num_runs - len(outcome.missing)
    _say(f"{num_done} of {outcome.num_runs} runs are in {directory}", console, "bold")
    if outcome.missing:
        shown = "; ".join(map(str, outcome.missing[:5]))
        more = f"; and {len(outcome.missing) - 5} more" if len(outcome.missing) > 5 else ""
        _say(f"missing: {shown}{more}. The same command goes on with them.", console)
    if num_done:
        _say(f"{directory}/table.md  {directory}/curves.png", console, "dim")


def _say(text: str, console: Console, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
