"""The commands of settings: `sapo config`."""

import typer

from node.cli_options import ConfigFile, Settings, console, parse_settings
from node.config import load_config

config_app = typer.Typer(no_args_is_help=True, help="Settings.")


@config_app.command("show")
def show_config(config: ConfigFile = None, settings: Settings = None) -> None:
    """The settings in force, as JSON."""
    chosen = load_config(config, parse_settings(settings))
    console.print_json(chosen.model_dump_json())
