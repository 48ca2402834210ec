"""The commands of settings: `sapo config`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from node.cli_options import (
    AsJson,
    ConfigFile,
    Home,
    Settings,
    console,
    parse_settings,
    say,
    write_json,
)
from node.config import NODE_FILE, known_keys, load_config, load_node_config
from node.escape import printable
from node.network_settings import network_options
from node.settings_list import DEFAULT, list_settings

config_app = typer.Typer(no_args_is_help=True, help="Settings.")


@config_app.command("show")
def show_config(
    config: ConfigFile = None,
    home: Home = None,
    settings: Settings = None,
    with_origin: Annotated[
        bool, typer.Option("--origin", help="Where each value comes from.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Every setting in force: flag > environment > file (--config, else HOME/node.toml) > default.

    As JSON it is the tree of settings, or with --origin a list of key, value and origin.
    """
    chosen = load_node_config(config, {"home": home} | parse_settings(settings))
    if as_json and with_origin:
        write_json(list(list_settings(chosen)))
    elif as_json:
        sys.stdout.write(chosen.model_dump_json() + "\n")
    else:
        for one in list_settings(chosen):
            is_default = one.origin == DEFAULT
            line = Text(f"{one.key} = {printable(json.dumps(one.value), 500)}")
            line.stylize("" if is_default else "bold")
            if with_origin:
                line.append(f"  # {printable(one.origin)}", "dim")
            console.print(line, soft_wrap=True)


@config_app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(help=f"E.g. {NODE_FILE}.")],
    as_json: AsJson = False,
) -> None:
    """Whether a file of settings is right, by itself: without flags and environment; 0 if so.

    What it names (a model, a swarm file that is not there yet) is looked for by `sapo doctor`.
    """
    chosen = load_config(file, environment={})
    network_options(chosen)  # contradictions between settings
    differing = [one for one in list_settings(chosen) if one.origin != DEFAULT]
    if as_json:
        write_json(differing)
    else:
        say(f"{file} is right: {len(differing)} settings, {len(known_keys())} are known")
