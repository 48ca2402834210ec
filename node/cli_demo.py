"""The command `sapo demo`."""

import threading
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from node.cli_options import (
    ConfigFile,
    Engine,
    ManifestName,
    Model,
    Seed,
    Settings,
    console,
    parse_settings,
    stop_on_signal,
)
from node.config import ConfigError, load_config
from node.exit_status import Exit
from node.home import clear_home
from node.log import log_to


def demo(
    config: ConfigFile = None,
    home: Annotated[Path, typer.Option(help="Where everything goes.")] = Path(".demo"),
    nodes: Annotated[int, typer.Option(help="Nodes of the swarm.", min=1, max=64)] = 4,
    rounds: Annotated[int, typer.Option(help="Of each node.", min=1)] = 40,
    control: Annotated[
        bool, typer.Option("--control", help="Once more with J = 0, at the same own rollouts.")
    ] = False,
    model: Model = None,
    engine: Engine = None,
    seed: Seed = None,
    manifest: ManifestName = None,
    heldout: Annotated[int, typer.Option(help="Held-out questions per node.", min=2)] = 256,
    max_s: Annotated[float, typer.Option(help="Seconds for everything at most.")] = 600.0,
    settings: Settings = None,
) -> None:
    """Run a swarm of whole nodes on this machine and measure whether they learned."""
    flags = {
        "home": home,
        "policy.model": model,
        "rollout.engine": engine,
        "seed": 1 if seed is None else seed,
        "manifest": manifest,
    }
    shared = config or Path(str(files("node") / "configs" / "nodes" / "demo.toml"))
    chosen = load_config(shared, flags | parse_settings(settings))
    if chosen.mode != "train":
        raise ConfigError(f"mode = '{chosen.mode}': the demo's nodes train; leave it out")
    _ = chosen.manifest_file  # a wrong name is told before anything is removed
    clear_home(chosen.home)
    from node.demo import run_demo
    from node.view import show_summary

    log_to(chosen.home / "demo.log", also_stderr=not console.is_terminal)
    stop_asked = threading.Event()
    stop_on_signal(stop_asked)
    summary = run_demo(
        chosen,
        num_nodes=nodes,
        rounds=rounds,
        num_heldout=heldout,
        with_control=control,
        max_s=max_s,
        stop_asked=stop_asked,
        console=console,
    )
    show_summary(summary, console, str(home))
    if summary.failures:
        raise typer.Exit(Exit.NOT_SHOWN)
