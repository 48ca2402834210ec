"""The commands of tasks, for those who read or write them: `sapo tasks`."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from node.cli_options import AsJson, Home, ManifestName, console, write_json
from node.config import NodeConfig, load_node_config
from node.exit_status import Exit
from node.manifest_edit import write_digests
from node.task_check import check_tasks
from node.task_tools import (
    TaskList,
    draw_samples,
    find_task,
    installed_kinds,
    list_tasks,
    opener,
)
from node.task_view import print_report, print_samples, print_task, print_tasks
from swarm.manifest import Manifest, load_manifest

tasks_app = typer.Typer(no_args_is_help=True, help="Tasks, for those who read or write them.")


@tasks_app.command("ls")
def list_tasks_command(
    manifest: ManifestName = None, home: Home = None, as_json: AsJson = False
) -> None:
    """The tasks of a swarm file, what this machine makes of them, and the kinds installed."""
    config, chosen = _tasks_of(manifest, home)
    entries = list_tasks(chosen.rules.tasks, opener(config, chosen))
    kinds = installed_kinds()
    if as_json:
        found = TaskList(chosen.swarm_id, tuple(entries), tuple(kinds))
        write_json(found)
    else:
        print_tasks(chosen, entries, kinds, console)


@tasks_app.command("show")
def show_task(
    name: Annotated[str, typer.Argument(help="A task of the swarm file.")],
    manifest: ManifestName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Everything of one task: parameters, prompting, limits, digest, what counts as right."""
    config, chosen = _tasks_of(manifest, home)
    (entry,) = list_tasks([find_task(chosen, name)], opener(config, chosen))
    if as_json:
        write_json(entry)
    else:
        print_task(chosen, entry, config.verify.deadline_s, console)


@tasks_app.command("sample")
def sample_task(
    name: Annotated[str, typer.Argument(help="A task of the swarm file.")],
    number: Annotated[int, typer.Option("-n", help="Questions.", min=1, max=1000)] = 5,
    seed: Annotated[int, typer.Option(help="Another one, other questions.")] = 0,
    manifest: ManifestName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What the model reads, and what counts as right."""
    config, chosen = _tasks_of(manifest, home)
    samples = draw_samples(find_task(chosen, name), opener(config, chosen), number, seed)
    if as_json:
        write_json(samples)
    else:
        print_samples(samples, console)


@tasks_app.command("check")
def check_tasks_command(
    manifest: Annotated[str, typer.Argument(help="A swarm file or its name.")],
    write: Annotated[
        bool, typer.Option("--write", help="Put the digests of tasks that hold into the file.")
    ] = False,
) -> None:
    """The gate for those who write tasks: 0 only if strangers can rely on every one."""
    config, chosen = _tasks_of(manifest, None, verify=False)
    reports = []
    with console.status("starting workers") as status:
        rules = chosen.rules
        for report in check_tasks(
            rules.tasks, opener(config, chosen), rules.max_answer_bytes, status.update
        ):
            print_report(report, console)
            reports.append(report)
    new = {report.spec.name: report.digest for report in reports if report.needs_digest}
    if write and new:
        write_digests(config.manifest_file, new)
        made = load_manifest(config.manifest_file, verify=False)
        wrote = f"wrote {len(new)} digests into {config.manifest_file}; its swarm is now "
        unsigned = "; sign it again" if made.rules.owner and not made.is_signed else ""
        console.print(Text(wrote + made.swarm_id + unsigned))
    failed = [r.spec.name for r in reports if not r.holds or (r.needs_digest and not write)]
    if failed:
        said = f"{len(failed)} of {len(reports)} tasks fail: {', '.join(failed)}"
        console.print(Text(said, style="bold red"))
        raise typer.Exit(Exit.NOT_SHOWN)
    console.print(Text(f"{len(reports)} tasks, and all hold", style="bold green"))


def _tasks_of(
    manifest: str | None, home: Path | None, *, verify: bool = True
) -> tuple[NodeConfig, Manifest]:
    """Settings and swarm file; what becomes of workers stands in the answer, not in the log."""
    logging.getLogger("rewards").setLevel(logging.CRITICAL)
    config = load_node_config(None, {"manifest": manifest, "home": home})
    return config, load_manifest(config.manifest_file, verify=verify)
