"""A node that is killed with -9 at random moments resumes, and loses nothing that was on disk."""

import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from node.build import open_node
from node.checkpoint import Checkpoints
from node.config import NodeConfig, load_config
from node.status import Status

NUM_KILLS = int(os.environ.get("TEST_KILLS", "10"))
"""`make faults` tries 30."""
DEADLINE_S = 120
NUM_CHECKED_ROUNDS = 12
"""At least so many rounds are compared with a node that nobody killed."""


def settings(home: Path) -> NodeConfig:
    flags = {
        "home": home,
        "seed": 11,
        "rollout.engine": "transformers",
        "rollout.questions": 2,
        "rollout.answers": 4,
        "rollout.max_new_tokens": 6,
        "learn.learning_rate": 1e-3,
        "checkpoint.every": 1,
    }
    return load_config(flags=flags, environment={})


def live(home: Path, reports: Connection, rounds: int | None) -> None:
    """A node in a process of its own; says the round that it starts from, and each one finished."""
    torch.set_num_threads(1)
    with open_node(settings(home), Status()) as node:
        reports.send(node.state.round)
        while rounds is None or node.state.round < rounds:
            node.run_round()
            node.checkpoint()
            reports.send(node.state.round)
    reports.send("ended")


def start(home: Path, rounds: int | None = None) -> tuple[multiprocessing.Process, Connection]:
    # The server has torch and TRL imported, so that a life costs ten seconds less.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["node.build", "node.learn"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=live, args=(home, theirs, rounds))
    process.start()
    theirs.close()
    return process, ours  # type: ignore[return-value]


def receive(reports: Connection) -> int | str:
    assert reports.poll(DEADLINE_S), "the node did nothing for too long"
    return reports.recv()  # type: ignore[no-any-return]


def run_to(home: Path, rounds: int) -> dict[str, torch.Tensor]:
    """The weights after so many rounds."""
    process, reports = start(home, rounds)
    while receive(reports) != "ended":
        pass
    process.join(DEADLINE_S)
    assert process.exitcode == 0
    return weights(home, rounds)


def weights(home: Path, rounds: int) -> dict[str, torch.Tensor]:
    return load_file(home / "checkpoints" / f"round-{rounds:08d}" / "policy" / "model.safetensors")


@pytest.mark.timeout(900)
def test_kills_lose_nothing_that_was_on_disk(tmp_path: Path) -> None:
    draw = random.Random(0)
    home = tmp_path / "killed"
    on_disk = 0
    for number in range(NUM_KILLS):
        process, reports = start(home)
        if number % 5 != 4:  # every fifth is killed while it starts
            assert receive(reports) == on_disk, "resumed from another round than the last written"
            receive(reports)
        time.sleep(draw.uniform(0, 0.4))  # the moment of the kill is what is tried
        process.kill()
        process.join(DEADLINE_S)
        latest = Checkpoints(home / "checkpoints", keep=3).latest()
        assert latest is not None or number == 0
        if latest is not None:
            assert latest[0].round >= on_disk
            on_disk = latest[0].round
    rounds = max(on_disk + 1, NUM_CHECKED_ROUNDS)
    killed, whole = run_to(home, rounds), run_to(tmp_path / "whole", rounds)
    assert killed.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(killed[name], tensor, rtol=0, atol=1e-5)
