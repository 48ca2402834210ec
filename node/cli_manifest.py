"""The commands of swarm files: `sapo join` and `sapo manifest`."""

from pathlib import Path
from typing import Annotated

import typer

from node.cli_options import AsJson, Home, Yes, ask, console, say, write_json
from node.config import find_home, find_manifest
from node.escape import printable
from node.exit_status import Exit
from node.join import join_swarm, read_swarm_file
from node.manifest_tools import files_beside, new_manifest, sign_manifest
from node.manifest_view import manifest_facts, print_manifest
from node.task_check import Outcome
from node.task_view import print_findings
from swarm.manifest import load_manifest

manifest_app = typer.Typer(no_args_is_help=True, help="Swarm files, for those who run a swarm.")
SwarmFile = Annotated[Path, typer.Argument(help="A swarm file.")]


def join(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="The swarm's file, or https.")],
    home: Home = None,
    yes: Yes = False,
) -> None:
    """Join a swarm: shows what one joins and what becomes public, asks once, keeps its file.

    The same swarm again: takes its new name and bootstrap addresses.
    """
    place = find_home(home)
    given = read_swarm_file(source)
    print_manifest(given.manifest, console)
    ask("Join?", yes)
    join_swarm(given, place)
    say("joined; now: sapo run" + (f" --home {home}" if home else ""))


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
    say(f"wrote {file}: the swarm {made.swarm_id}")
    if load_manifest(find_manifest(source), verify=False).swarm_id == made.swarm_id:
        say(
            f"that is the swarm of {source}, until you change its tasks or limits, or name an owner"
        )
    if beside := files_beside(made):
        directory = find_manifest(source).parent
        say(f"its tasks need these files beside it, from {directory}: {', '.join(beside)}")
    if owner is not None:
        say(f"{owner} is the owner's key: who has it speaks for the swarm; keep a copy")
    then = f"sign {file} --key {owner}" if owner is not None else f"check {file}"
    say(f"next: fill in [about] and, once a node runs, [bootstrap]; then sapo manifest {then}")


@manifest_app.command("check")
def check(file: SwarmFile, as_json: AsJson = False) -> None:
    """Whether it can be given to strangers; 0 only if nothing fails. Runs no task."""
    from node.manifest_check import check_manifest

    findings = check_manifest(file)
    failed = [finding.check for finding in findings if finding.outcome is Outcome.FAILS]
    if as_json:
        write_json(findings)
        raise typer.Exit(Exit.NOT_SHOWN if failed else Exit.DONE)
    print_findings(findings, console)
    if failed:
        say(f"fails: {', '.join(dict.fromkeys(failed))}", "bold red")
        raise typer.Exit(Exit.NOT_SHOWN)
    say(f"nothing fails; whether its tasks hold: sapo tasks check {file}")


@manifest_app.command("sign")
def sign(
    file: SwarmFile,
    key: Annotated[Path, typer.Option(help="File of the owner's key.")],
) -> None:
    """Sign name and bootstrap addresses, one version higher. The rest of the file stays."""
    signed = sign_manifest(file, key)
    version = signed.signature.version if signed.signature else 0
    say(f"signed version {version} of {printable(signed.about.name)}, the swarm {signed.swarm_id}")


@manifest_app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A swarm file or its name.")],
    as_json: AsJson = False,
) -> None:
    """What one would join."""
    manifest = load_manifest(find_manifest(name))
    if as_json:
        write_json(manifest_facts(manifest))
    else:
        print_manifest(manifest, console)
