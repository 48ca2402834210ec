"""The commands of a stopped node's home: `sapo init` and `sapo rollback`."""

from typing import Annotated

import msgspec
import typer

from node.cli_options import (
    AsJson,
    ConfigFile,
    Home,
    ManifestName,
    Model,
    Settings,
    Yes,
    ask,
    parse_settings,
    say,
    write_json,
)
from node.config import load_config, load_node_config
from node.init import OFFERED, make_home
from node.rollback import roll_back


class NewHome(msgspec.Struct, frozen=True):
    """What `sapo init` made."""

    home: str
    node_id: str
    made: tuple[str, ...]
    """Files; empty where all were there."""


class Rollback(msgspec.Struct, frozen=True):
    """What `sapo rollback` did."""

    round: int
    aside: tuple[str, ...]
    """Where the newer checkpoints are now."""


def init(
    home: Home = None,
    model: Model = None,
    manifest: ManifestName = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Make a node's directory: key, API token, and node.toml with what one may want to change.

    What is there already stays as it is.
    """
    flags = {"home": home, "policy.model": model, "manifest": manifest}
    chosen = load_config(None, flags | parse_settings(settings))
    node_id, made = make_home(chosen.home, chosen)
    if as_json:
        write_json(NewHome(str(chosen.home), node_id, tuple(made)))
        return
    where = f" --home {home}" if home else ""
    if made:
        say(f"made {', '.join(made)} in {chosen.home}; what was there stays as it was")
    else:
        say(f"{chosen.home} has all; nothing was changed")
    say(f"this node is {node_id}")
    say(f"next: look into {chosen.home / 'node.toml'}; sapo join SWARM{where}; sapo run{where}")
    offered = {key for key, _ in OFFERED}
    for key in parse_settings(settings):
        if key not in offered and "node.toml" in made:
            say(f"not written, since node.toml does not offer it: {key}; add it by hand")


def rollback(
    number: Annotated[int, typer.Argument(metavar="ROUND", help="Of a kept checkpoint.", min=0)],
    config: ConfigFile = None,
    home: Home = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Go on from an older checkpoint at the next start. Newer ones are moved aside, not deleted."""
    chosen = load_node_config(config, {"home": home})
    ask(f"Go on from round {number} in {chosen.home}, and move newer checkpoints aside?", yes)
    done = roll_back(chosen, number)
    if as_json:
        write_json(Rollback(done.round, tuple(map(str, done.aside))))
        return
    say(f"the node will go on after round {done.round}")
    for path in done.aside:
        say(f"moved aside: {path}")
