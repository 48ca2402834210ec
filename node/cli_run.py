"""The command `sapo run`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from node.cli_options import (
    ConfigFile,
    Engine,
    Home,
    ManifestName,
    Model,
    Rounds,
    Seed,
    Settings,
    console,
    errors,
    parse_settings,
)
from node.config import ConfigError, NodeConfig, load_node_config
from node.log import log_to
from node.run_view import node_view, shows_view

if TYPE_CHECKING:
    from node.supervisor import LearnerEnd


def run(
    config: ConfigFile = None,
    home: Home = None,
    model: Model = None,
    engine: Engine = None,
    rounds: Rounds = None,
    seed: Seed = None,
    manifest: ManifestName = None,
    generate_only: Annotated[
        bool, typer.Option("--generate-only", help="Share rollouts of a model that stays as it is.")
    ] = False,
    observe: Annotated[
        bool, typer.Option("--observe", help="See the swarm, without a policy.")
    ] = False,
    relay: Annotated[
        bool,
        typer.Option("--relay", help="Be a public bootstrap node and relay, without a policy."),
    ] = False,
    log_format: Annotated[str | None, typer.Option(help="human or json: lines of the log.")] = None,
    live: Annotated[
        bool, typer.Option("--live/--no-live", help="In a terminal: a view instead of the log.")
    ] = True,
    settings: Settings = None,
) -> None:
    """Run the node until it is stopped. SIGTERM: finish the round, checkpoint, end.

    In a terminal it shows one live view, and the log goes to logs/node.log in the home; elsewhere
    it logs to stderr.
    """
    flags = {
        "mode": _mode(generate_only, observe, relay),
        "home": home,
        "policy.model": model,
        "rollout.engine": engine,
        "rounds": rounds,
        "seed": seed,
        "manifest": manifest,
        "log.format": log_format,
    }
    chosen = load_node_config(config, flags | parse_settings(settings))
    if not chosen.has_policy:
        for name, given in (("--model", model), ("--engine", engine), ("--rounds", rounds)):
            if given is not None:
                raise ConfigError(f"{name}: mode {chosen.mode} has no policy; leave it out")
    _ = chosen.manifest_file  # a wrong name is told before the seconds of the imports
    end = _run_here(chosen, live)
    if end.failure:
        errors.print(f"[bold red]sapo:[/] {escape(end.failure)}", highlight=False, soft_wrap=True)
    raise typer.Exit(end.exit_status)


def _run_here(chosen: NodeConfig, live: bool) -> "LearnerEnd":
    """With a live view where a person watches, else with the log on stderr."""
    log_format = chosen.log.format
    if not live or log_format == "json" or not shows_view(console):
        log_to(None, format=log_format)
        from node.control import run_node

        return run_node(chosen)
    with node_view(chosen.home, console) as board:
        log_to(None, format=log_format)
        board.listen()
        from node.control import run_node

        return run_node(chosen, show=board.show)


def _mode(generate_only: bool, observe: bool, relay: bool) -> str | None:
    """The mode that a flag names; None where the settings say it."""
    given = {"generate": generate_only, "observe": observe, "relay": relay}
    modes = [mode for mode, is_asked in given.items() if is_asked]
    if len(modes) > 1:
        raise ConfigError("give one of --generate-only, --observe and --relay")
    return modes[0] if modes else None
