"""Two real nodes with real libp2p and vLLM: they learn from each other, and survive kill -9."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from node.report import NodeUnreachable, fetch_rounds, fetch_snapshot
from node.snapshot import HARMLESS
from node.status import ForeignFate, Snapshot
from swarm.identity import open_identity
from swarm.refusal import Refusal

SAPO = str(Path(sys.executable).with_name("sapo"))
DEADLINE_S = 240
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealNode:
    """A `sapo run` in a home of its own."""

    def __init__(self, home: Path, seed: int, bootstrap: str = "") -> None:
        home.mkdir()
        self.home = home
        self.port = free_port()
        with open_identity(home) as identity:
            self.node_id = identity.node_id
        self.command = [
            SAPO, "run", "--home", str(home), "--seed", str(seed), "--engine", "vllm",
            "--set", "api.port=0", "--set", f"swarm.listen=/ip4/127.0.0.1/tcp/{self.port}",
            "--set", f"swarm.bootstrap={bootstrap}", "--set", "batch.peer_share=1",
            "--set", "rollout.questions=4", "--set", "checkpoint.every=5",
            "--set", "supervise.stop_s=120", "--set", "batch.likelihood_weight=true",
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.port}/p2p/{self.node_id}"

    def start(self) -> None:
        with (self.home / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        return (self.home / "node.log").read_text(errors="replace")

    def snapshot(self) -> Snapshot | None:
        assert self.process is not None
        assert self.process.poll() is None, self.log()[-3000:]
        try:
            return fetch_snapshot(self.home)
        except NodeUnreachable:
            return None

    def wait_until(self, is_so: Callable[[Snapshot], object]) -> Snapshot:
        """The first snapshot for which it is so."""
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            if (found := self.snapshot()) is not None and is_so(found):
                return found
            time.sleep(0.2)  # between looks at another process, not for it
        raise AssertionError(f"it never came to that; the log ends:\n{self.log()[-3000:]}")

    def descendants(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[RealNode, RealNode]]:
    first = RealNode(tmp_path / "a", seed=1)
    second = RealNode(tmp_path / "b", seed=2, bootstrap=first.address)
    pair = (first, second)
    for node in pair:
        node.start()
    yield pair
    for node in pair:
        if node.process is not None and node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def used_foreign(snapshot: Snapshot) -> int:
    return sum(snapshot.foreign_groups_used)


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_two_nodes_learn_from_each_other_and_survive_kills(
    nodes: tuple[RealNode, RealNode],
) -> None:
    a, b = nodes
    for node, other in ((a, b), (b, a)):
        found = node.wait_until(lambda one: used_foreign(one) >= 3 and one.learner.round >= 7)
        assert found.node_id == node.node_id
        assert found.learner.engine == "vllm"
        assert found.learner.engine_warning == ""
        assert [peer.node_id for peer in found.peers if peer.connected] == [other.node_id]
        assert found.refused.keys() <= HARMLESS | {Refusal.FETCH_FAILED, Refusal.EXPIRED}
        assert not any(peer.lies for peer in found.peers)
    reports = fetch_rounds(a.home, 0)
    foreign = [group for report in reports for group in report.foreign]
    assert {group.author for group in foreign} == {b.node_id}
    used = [group for group in foreign if group.fate is ForeignFate.USED]
    assert all(group.mean_logp is not None and -20 < group.mean_logp < 0 for group in used)

    kill_the_learner(b)
    kill_the_control_process(a, b)
    stop_in_order(a)
    stop_in_order(b)


def kill_the_learner(node: RealNode) -> None:
    before = node.wait_until(lambda one: one.learner.pid is not None)
    assert before.learner.pid is not None
    os.kill(before.learner.pid, signal.SIGKILL)
    back = node.wait_until(
        lambda one: one.learner.restarts == 1 and one.learner.stage not in ("starting", "stopped")
    )
    assert back.learner.last_error == "ended by signal: Killed"
    assert any("was restarted once" in warning for warning in back.warnings)
    assert before.learner.round - 5 <= back.learner.round
    node.wait_until(lambda one: one.learner.round > before.learner.round)


def kill_the_control_process(node: RealNode, peer: RealNode) -> None:
    before = node.wait_until(lambda one: one.learner.round >= 7)
    old_sequence = int((node.home / "sequence").read_text())
    children = node.descendants()
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, "the learner and the verifier's workers end with their control process"
    admitted = admitted_from(peer, node.node_id)
    node.start()
    back = node.wait_until(lambda one: one.learner.round > before.learner.round)
    assert back.node_id == before.node_id
    assert "resuming after round" in node.log()
    assert int((node.home / "sequence").read_text()) > old_sequence
    node.wait_until(lambda one: [one for one in one.peers if one.connected])
    used = used_foreign(back)
    node.wait_until(lambda one: used_foreign(one) > used)
    peer.wait_until(lambda _: admitted_from(peer, node.node_id) > admitted)


def admitted_from(node: RealNode, author: str) -> int:
    found = node.wait_until(lambda _: True)
    return sum(peer.rollouts_admitted for peer in found.peers if peer.node_id == author)


def stop_in_order(node: RealNode) -> None:
    round_before = node.wait_until(lambda _: True).learner.round
    children = node.descendants()
    assert node.process is not None
    node.process.terminate()
    assert node.process.wait(150) == 0, node.log()[-3000:]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    newest = max(path.name for path in (node.home / "checkpoints").iterdir())
    assert int(newest.removeprefix("round-")) >= round_before
    assert not (node.home / "api-address").exists()
