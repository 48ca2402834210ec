"""The commands that say how a node does: `sapo status` and `sapo rounds`."""

from typing import Annotated

import typer

from node.access import page_address
from node.ask import fetch_snapshot
from node.cli_options import AsJson, Home, console, write_json
from node.config import ConfigError, find_home
from node.kept import open_kept
from node.kept_view import print_rounds
from node.report import print_status

CURVE_ROUNDS = 10_000
"""Of which the curves are drawn at most."""


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Why am I not contributing? What the node does, waits for, learned from whom, what is odd."""
    home = find_home(home)
    snapshot = fetch_snapshot(home)
    if as_json:
        write_json(snapshot)
    else:
        print_status(snapshot, console, page_address(home))


def rounds(
    home: Home = None,
    last: Annotated[int, typer.Option("-n", help="Rounds in the table.", min=1)] = 20,
    mode: Annotated[
        str, typer.Option(help="train, or generate: what a fixed model did in the same home.")
    ] = "train",
    as_json: AsJson = False,
) -> None:
    """What the rounds did, with curves; the node may be running or stopped."""
    if mode not in ("train", "generate"):
        raise ConfigError(f"--mode {mode}: rounds are made in the modes train and generate")
    with open_kept(find_home(home)) as kept:
        reports = kept.rounds(mode, last if as_json else max(last, CURVE_ROUNDS))
        heldout = kept.heldout(mode)
    if as_json:
        write_json(reports)
    else:
        print_rounds(reports, heldout, last, console)
