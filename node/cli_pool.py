"""The commands of the pool: `sapo pool`. The node may be running or stopped."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from node.cli_options import AsJson, Home, console, say, write_json
from node.config import find_home
from node.kept import KINDS, open_kept
from node.kept_view import print_pool

pool_app = typer.Typer(no_args_is_help=True, help="Rollouts at hand, own and foreign.")


class Whose(StrEnum):
    """Which rollouts are exported."""

    ALL = "all"
    OWN = "own"
    FOREIGN = "foreign"


KINDS_OF = {
    Whose.ALL: KINDS,
    Whose.OWN: ("own",),
    Whose.FOREIGN: ("used", "fresh"),
}


@pool_app.command("stats")
def stats(home: Home = None, as_json: AsJson = False) -> None:
    """How many rollouts there are, of what kind, task and author."""
    with open_kept(find_home(home)) as kept:
        found = kept.stats()
    if as_json:
        write_json(found)
    else:
        print_pool(found, console)


@pool_app.command("export")
def export_pool(
    file: Annotated[Path, typer.Argument(help="A new file, *.jsonl or *.parquet.")],
    home: Home = None,
    whose: Annotated[Whose, typer.Option(help="Whose rollouts.")] = Whose.ALL,
) -> None:
    """Write the rollouts to a file: question, answers, verdicts, author. Texts are as signed."""
    from node.pool_export import export

    with open_kept(find_home(home)) as kept:
        done = export(kept.rollouts(KINDS_OF[whose]), file)
    damaged = f"; {done.num_damaged} damaged ones left out" if done.num_damaged else ""
    say(f"wrote {done.num} rollouts to {done.file}{damaged}")
