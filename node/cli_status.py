"""The commands that ask a running node: `sapo status`."""

from node.access import page_address
from node.cli_options import AsJson, Home, console, write_json
from node.config import find_home
from node.report import fetch_snapshot, print_status


def status(home: Home = None, as_json: AsJson = False) -> None:
    """What the node does now, since when, what it learned from whom, and what is unusual."""
    home = find_home(home)
    snapshot = fetch_snapshot(home)
    if as_json:
        write_json(snapshot)
    else:
        print_status(snapshot, console, page_address(home))
