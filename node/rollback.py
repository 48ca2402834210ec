"""`sapo rollback`: a stopped node goes on from an older checkpoint. Nothing is deleted.

Newer checkpoints are moved aside, below the same directory, where a running node neither finds nor
removes them. What cannot be rolled back: what peers have got, sequence numbers (they only rise),
and the history of rounds: a round that is made again replaces its first report.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from node.checkpoint import find_rounds, open_checkpoints, read_state
from node.config import ConfigError, NodeConfig
from node.home import open_home
from swarm.disk import fsync_directory


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did."""

    round: int
    """From which the node will go on."""
    aside: tuple[Path, ...]
    """Where the newer checkpoints are now; none where it was the newest one already."""


def roll_back(config: NodeConfig, number: int) -> RolledBack:
    """Makes the checkpoint of round `number` the newest one.

    Raises:
        ConfigError: there is no usable checkpoint of that round.
        HomeError: the node runs, or its home cannot be used.
    """
    with open_home(config.home):
        directory = open_checkpoints(config).directory
        paths = {_number(path): path for path in find_rounds(directory)}
        kept = ", ".join(map(str, sorted(paths))) or "none"
        if number not in paths:
            raise ConfigError(f"there is no checkpoint of round {number}; kept are: {kept}")
        try:
            read_state(paths[number])
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{paths[number]} is unusable ({error}); choose another of: {kept}"
            ) from None
        newer = [paths[one] for one in sorted(paths, reverse=True) if one > number]
        aside = tuple(_move_aside(path) for path in newer)
        return RolledBack(number, aside)


def _number(path: Path) -> int:
    text = path.name.removeprefix("round-")
    return int(text) if text.isascii() and text.isdigit() else -1


def _move_aside(path: Path) -> Path:
    """The newest first: whatever interrupts this, the newest one left is whole."""
    place = path.parent / "aside"
    place.mkdir(exist_ok=True)
    target, copy = place / path.name, 1
    while target.exists():
        target, copy = place / f"{path.name}.{copy}", copy + 1
    os.rename(path, target)
    fsync_directory(place)
    fsync_directory(path.parent)
    return target
