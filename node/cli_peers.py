"""The commands of a running node's peers: `sapo peers`."""

import typer

from node.cli_options import AsJson, Home, console, write_json
from node.config import find_home
from node.report import fetch_snapshot, print_peers

peers_app = typer.Typer(no_args_is_help=True, help="The node's peers.")


@peers_app.command("ls")
def list_peers(home: Home = None, as_json: AsJson = False) -> None:
    """The node's peers: what they offered, what was used, what was refused and why."""
    snapshot = fetch_snapshot(find_home(home))
    if as_json:
        write_json(snapshot.peers)
    else:
        print_peers(snapshot, console)
