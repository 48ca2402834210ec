"""The commands of a running node's peers: `sapo peers`."""

import re
from typing import Annotated

import typer

from node.ask import ban, fetch_snapshot, unban
from node.cli_options import AsJson, Home, Yes, ask, console, say, write_json
from node.config import ConfigError, find_home
from node.escape import printable
from node.report import print_peer, print_peers
from node.status import PeerStatus, Snapshot
from node.words import short_id, span
from swarm.identity import is_node_id

MAX_REASON_CHARS = 200
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

peers_app = typer.Typer(no_args_is_help=True, help="The node's peers.")

Peer = Annotated[str, typer.Argument(metavar="PEER", help="Its id, or an end that no other has.")]


@peers_app.command("ls")
def list_peers(home: Home = None, as_json: AsJson = False) -> None:
    """The node's peers: what they offered, what was used, what was refused and why."""
    snapshot = fetch_snapshot(find_home(home))
    if as_json:
        write_json(snapshot.peers)
    else:
        print_peers(snapshot, console)


@peers_app.command("show")
def show_peer(peer: Peer, home: Home = None, as_json: AsJson = False) -> None:
    """One peer."""
    snapshot = fetch_snapshot(find_home(home))
    found = find_peer(peer, snapshot)
    if as_json:
        write_json(found)
    else:
        print_peer(found, snapshot, console)


@peers_app.command("ban")
def ban_peer(
    peer: Peer,
    home: Home = None,
    reason: Annotated[str, typer.Option(help="For yourself, later.")] = "by hand",
    duration: Annotated[
        str | None, typer.Option("--for", help="E.g. 30m, 12h, 7d; else for good.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take nothing more from a peer, and remove its rollouts."""
    home = find_home(home)
    for_s = None if duration is None else parse_duration(duration)
    if len(reason) > MAX_REASON_CHARS:
        raise ConfigError(f"--reason has {len(reason)} characters; at most {MAX_REASON_CHARS}")
    node_id = peer if is_node_id(peer) else find_peer(peer, fetch_snapshot(home)).node_id
    long = "for good" if for_s is None else f"for {span(for_s)}"
    ask(f"Ban {printable(node_id)} {long}, and remove its rollouts?", yes)
    done = ban(home, node_id, reason, for_s)
    if as_json:
        write_json(done)
    else:
        say(f"banned {printable(done.node_id)} {long}; {done.purged} of its rollouts were removed")


@peers_app.command("unban")
def unban_peer(peer: Peer, home: Home = None, as_json: AsJson = False) -> None:
    """Take from a peer again. What was removed does not come back by itself."""
    home = find_home(home)
    node_id = peer if is_node_id(peer) else find_peer(peer, fetch_snapshot(home)).node_id
    done = unban(home, node_id)
    if as_json:
        write_json(done)
    else:
        was = "is no longer banned" if done.was_banned else "was not banned"
        say(f"{printable(done.node_id)} {was}")


def find_peer(name: str, snapshot: Snapshot) -> PeerStatus:
    """The peer of that id, or of whose id these are the first or last characters, or both as
    tables show them.

    Raises:
        ConfigError: it is none, or several.
    """
    head, _, tail = name.partition("…")
    found = [
        peer
        for peer in snapshot.peers
        if name == peer.node_id
        or (name and "…" not in name and peer.node_id.endswith(name))
        or (head and peer.node_id.startswith(head) and peer.node_id.endswith(tail))
    ]
    if len(found) == 1:
        return found[0]
    shown = printable(name, 80)
    if not found:
        raise ConfigError(f"the node knows no peer '{shown}'; sapo peers ls shows them")
    which = ", ".join(short_id(peer.node_id) for peer in found[:4])
    raise ConfigError(f"'{shown}' are {len(found)} peers ({which}, ...); give more of the id")


def parse_duration(text: str) -> float:
    """Seconds of e.g. "90", "30m", "12h", "7d".

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"--for {printable(text, 40)}: write it as 90s, 30m, 12h or 7d")
    return float(int(found[1]) * UNITS[found[2] or "s"])
