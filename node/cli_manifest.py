"""The commands of swarm files: `sapo join` and `sapo manifest`. Exit status: as of node/cli.py."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from node.config import find_home, find_manifest
from node.escape import printable
from node.join import join_swarm, read_swarm_file
from node.manifest_tools import files_beside, new_manifest, sign_manifest
from node.manifest_view import manifest_facts, print_manifest
from node.status_json import to_json
from node.task_check import Outcome
from node.task_view import print_findings
from swarm.manifest import load_manifest

EXIT_DECLINED = 2
EXIT_FILE_FAILS = 3

manifest_app = typer.Typer(no_args_is_help=True, help="Swarm files, for those who run a swarm.")
_console = Console()

SwarmFile = Annotated[Path, typer.Argument(help="A swarm file.")]


def join(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="The swarm's file, or https.")],
    home: Annotated[Path | None, typer.Option(help="The node's directory.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Join a swarm: shows what one joins and what becomes public, asks once, keeps its file.

    The same swarm again: takes its new name and bootstrap addresses.
    """
    place = find_home(home)
    given = read_swarm_file(source)
    print_manifest(given.manifest, _console)
    if not yes and not typer.confirm("Join?"):
        raise typer.Exit(EXIT_DECLINED)
    join_swarm(given, place)
    _say("joined; now: sapo run" + (f" --home {home}" if home else ""))


@manifest_app.command("new")
def new(
    file: Annotated[Path, typer.Argument(help="A file that does not exist yet.")],
    name: Annotated[str, typer.Option(help="Of the swarm, for people.")],
    source: Annotated[
        str, typer.Option("--from", help="Whose tasks: a swarm file or a shipped one's name.")
    ] = "easy",
    owner: Annotated[
        Path | None,
        typer.Option(help="File of the owner's key; made where it is missing. Not a node's."),
    ] = None,
) -> None:
    """Write a swarm file to start from: complete, with comments."""
    made = new_manifest(file, name, source, owner)
    _say(f"wrote {file}: the swarm {made.swarm_id}")
    if load_manifest(find_manifest(source), verify=False).swarm_id == made.swarm_id:
        _say(
            f"that is the swarm of {source}, until you change its tasks or limits, or name an owner"
        )
    if beside := files_beside(made):
        directory = find_manifest(source).parent
        _say(f"its tasks need these files beside it, from {directory}: {', '.join(beside)}")
    if owner is not None:
        _say(f"{owner} is the owner's key: who has it speaks for the swarm; keep a copy")
    then = f"sign {file} --key {owner}" if owner is not None else f"check {file}"
    _say(f"next: fill in [about] and, once a node runs, [bootstrap]; then sapo manifest {then}")


@manifest_app.command("check")
def check(file: SwarmFile) -> None:
    """Whether it can be given to strangers; 0 only if nothing fails. Runs no task."""
    from node.manifest_check import check_manifest

    findings = check_manifest(file)
    print_findings(findings, _console)
    failed = [finding.check for finding in findings if finding.outcome is Outcome.FAILS]
    if failed:
        _console.print(Text(f"fails: {', '.join(dict.fromkeys(failed))}", style="bold red"))
        raise typer.Exit(EXIT_FILE_FAILS)
    _say(f"nothing fails; whether its tasks hold: sapo tasks check {file}")


@manifest_app.command("sign")
def sign(
    file: SwarmFile,
    key: Annotated[Path, typer.Option(help="File of the owner's key.")],
) -> None:
    """Sign name and bootstrap addresses, one version higher. The rest of the file stays."""
    signed = sign_manifest(file, key)
    version = signed.signature.version if signed.signature else 0
    _say(f"signed version {version} of {printable(signed.about.name)}, the swarm {signed.swarm_id}")


@manifest_app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A swarm file or its name.")],
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """What one would join."""
    manifest = load_manifest(find_manifest(name))
    if as_json:
        sys.stdout.write(to_json(manifest_facts(manifest)).decode() + "\n")
    else:
        print_manifest(manifest, _console)


def _say(text: str) -> None:
    _console.print(Text(text), soft_wrap=True)
