"""The command `sapo experiment`."""

import os
import threading
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from node.cli_options import console, stop_on_signal, write_json
from node.exit_status import Exit
from node.log import log_to


class ListedRun(msgspec.Struct, frozen=True):
    """A run that an experiment declares."""

    arm: str
    seed: int
    learning_rate: float | None
    """None: not chosen yet."""
    is_tuning: bool
    is_done: bool
    estimate_s: float
    """Of one core."""


def experiment(
    file: Annotated[str, typer.Argument(help="The experiment's file, or a shipped one's name.")],
    out: Annotated[Path | None, typer.Option(help="Default: results/ and its name.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at once; default: cores.", min=1)] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this arm; repeatable.")] = None,
    max_s: Annotated[float | None, typer.Option(help="Then start no more runs.", min=0)] = None,
    list_runs: Annotated[bool, typer.Option("--list", help="Show the runs, make none.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write table and curves.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: the runs as JSON.")] = False,
) -> None:
    """Make the runs that an experiment's file declares; go on where the last call ended."""
    from node.experiment.listing import print_outcome, print_runs
    from node.experiment.run import (
        find_materials,
        make_logs,
        read_kept,
        run_experiment,
        write_report,
    )
    from node.experiment.spec_file import check_arms, load_spec

    spec = load_spec(file)
    check_arms(spec, only or ())
    directory = out or Path("results") / spec.name
    num_jobs = jobs or len(os.sched_getaffinity(0))
    materials = find_materials(spec)
    if list_runs or report:
        kept = read_kept(spec, materials, directory)
        if report:
            write_report(spec, directory, list(kept.results.values()))
        if as_json:
            runs = [run for run in spec.runs(kept.results.values()) if not only or run.arm in only]
            write_json(
                [
                    ListedRun(
                        *(run.arm, run.seed, run.learning_rate, run.is_tuning),
                        *(run in kept.results, spec.estimate_s(run)),
                    )
                    for run in runs
                ]
            )
        else:
            print_runs(spec, kept, only or (), num_jobs, console)
        return
    log_to(make_logs(directory) / "experiment.log", also_stderr=False)
    stop_asked = threading.Event()
    stop_on_signal(stop_asked)
    outcome = run_experiment(
        spec,
        materials,
        directory,
        jobs=num_jobs,
        only=only or (),
        max_s=max_s,
        stop_asked=stop_asked,
        console=console,
    )
    print_outcome(outcome, directory, console)
    if outcome.failures:
        raise typer.Exit(Exit.NOT_SHOWN)
