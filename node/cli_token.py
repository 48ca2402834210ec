"""The commands of the API's token: `sapo token`."""

import typer

from node.access import TOKEN_FILE, rotate_token
from node.ask import NodeUnreachable, fetch_snapshot
from node.cli_options import Home, Yes, ask, say
from node.config import find_home

token_app = typer.Typer(no_args_is_help=True, help="What lets you ask a node.")


@token_app.callback()
def token() -> None:
    """What lets you ask a node."""


@token_app.command("rotate")
def rotate(home: Home = None, yes: Yes = False) -> None:
    """Replace the API's token: the old one is worth nothing from then on, in open pages too."""
    home = find_home(home)
    ask("Replace the token? Whatever uses the old one is shut out.", yes)
    rotate_token(home)
    say(f"there is a new token in {home / TOKEN_FILE}")
    try:
        fetch_snapshot(home)
        say("the running node has taken it; sapo status prints the page's new address")
    except NodeUnreachable as error:
        say(f"no running node has taken it: {error}")
