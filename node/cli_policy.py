"""The commands of the embedded policy: `sapo policy`."""

from pathlib import Path
from typing import Annotated

import typer

from node.cli_options import console
from node.log import log_to

policy_app = typer.Typer(no_args_is_help=True, help="The embedded policy.")


@policy_app.command("make-tiny")
def make_tiny_command(
    out: Annotated[Path, typer.Option(help="A directory that does not exist yet, or is empty.")],
    seed: Annotated[int, typer.Option(help="Of weights, data and order.")] = 0,
) -> None:
    """Train the embedded policy from nothing (about eight minutes on one core)."""
    from node.make_tiny import make_tiny

    log_to(None)
    report = make_tiny(out, seed=seed)
    console.print(str(report), highlight=False)
