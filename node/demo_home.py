"""The directories of a demo: per node an identity and settings, for all of them one swarm file."""

import json
import re
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from node.config import ConfigError, NodeConfig
from node.data import find_data, keep_data
from node.settings_file import as_toml
from swarm.identity import open_identity
from swarm.manifest import load_manifest

SEEDS_PER_DEMO = 1000
"""Node K of a demo with seed S has seed S * this + K: no two nodes ask the same questions."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one node of the demo lives."""

    name: str
    """ "node-0" and so on."""
    home: Path
    node_id: str
    config_file: Path

    @property
    def log(self) -> Path:
        """What the node says."""
        return self.home / "logs" / "node.log"


def lay_out(
    config: NodeConfig,
    directory: Path,
    manifest_file: Path,
    *,
    num_nodes: int,
    rounds: int,
    num_heldout: int,
    foreign: int,
) -> list[Place]:
    """Makes `directory`/node-K with key and node.toml, and `directory`/swarm.toml with all
    addresses. The swarm's id is that of `manifest_file`.

    Args:
        config: what all nodes have in common; its seed is the demo's.
        manifest_file: of the swarm; its own bootstrap peers are left out.
        foreign: J; with 0 nothing is shared either.

    Raises:
        ConfigError, ManifestError: what the user has to change.
    """
    directory = directory.resolve()
    homes = [directory / f"node-{number}" for number in range(num_nodes)]
    ids = []
    for home in homes:
        home.mkdir(parents=True)
        with open_identity(home) as identity:
            ids.append(identity.node_id)
    listen = [f"/ip4/127.0.0.1/tcp/{port}" for port in free_ports(num_nodes)]
    peers = [f"{at}/p2p/{node_id}" for at, node_id in zip(listen, ids, strict=True)]
    manifest = _write_manifest(manifest_file, directory / "swarm.toml", peers)
    made = load_manifest(manifest)
    data = find_data(made, directory, manifest_file.parent)
    for home in homes:
        keep_data(data, made, home)
    swarm: dict[str, object] = {"foreign": foreign, "stay": True, "share": "none"}
    peer_share = config.batch.peer_share
    if foreign:  # few peers must be allowed to give all that a round asks for
        peer_share = max(peer_share, 1 / (num_nodes - 1))
        swarm["share"] = config.swarm.share
    places = []
    for number, home in enumerate(homes):
        settings = config.model_copy(
            update={
                "home": home,
                "seed": (config.seed or 0) * SEEDS_PER_DEMO + number,
                "manifest": str(manifest),
                "rounds": rounds,
                "batch": config.batch.model_copy(update={"peer_share": peer_share}),
                "swarm": config.swarm.model_copy(update=swarm | {"listen": listen[number]}),
                "api": config.api.model_copy(update={"host": "127.0.0.1", "port": 0}),
                "evaluate": config.evaluate.model_copy(update={"questions": num_heldout}),
            }
        )
        file = home / "node.toml"
        file.write_text(
            f"# Written by `sapo demo`. This node alone: sapo run --config {file}\n"
            + as_toml(settings)
        )
        places.append(Place(home.name, home, ids[number], file))
    return places


def free_ports(count: int) -> list[int]:
    """Different TCP ports of 127.0.0.1 that nobody listens on now.

    Not excluded: that another program takes one before the node does. The node then fails, says
    so, and is started again.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _write_manifest(source: Path, target: Path, peers: Sequence[str]) -> Path:
    """The swarm file `source` with other bootstrap peers, and without the signature of its own."""
    text = re.sub(r"(?ms)^\[(?:bootstrap|signature)\].*?(?=^\[|\Z)", "", source.read_text())
    listed = "".join(f"    {json.dumps(peer)},\n" for peer in peers)
    target.write_text(f"{text.rstrip()}\n\n[bootstrap]\npeers = [\n{listed}]\n")
    made = load_manifest(target)
    if made.swarm_id != load_manifest(source).swarm_id or made.bootstrap.peers != tuple(peers):
        raise ConfigError(f"{source}: its [bootstrap] cannot be replaced; remove it from the file")
    return target
