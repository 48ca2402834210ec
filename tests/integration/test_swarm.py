"""Two real nodes with real libp2p and vLLM: they learn from each other, and survive kill -9."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from node.ask import fetch_rounds
from node.snapshot import HARMLESS
from node.status import ForeignFate, Snapshot
from swarm.refusal import Refusal
from tests.integration.sapo_node import SapoNode


def start(home: Path, seed: int, bootstrap: str = "") -> SapoNode:
    return SapoNode(
        home, "--seed", str(seed), "--engine", "vllm",
        "--set", f"swarm.bootstrap={bootstrap}", "--set", "batch.peer_share=1",
        "--set", "rollout.questions=4", "--set", "checkpoint.every=5",
        "--set", "supervise.stop_s=120", "--set", "batch.likelihood_weight=true",
    )  # fmt: skip


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[SapoNode, SapoNode]]:
    first = start(tmp_path / "a", seed=1)
    second = start(tmp_path / "b", seed=2, bootstrap=first.address)
    yield first, second
    for node in (first, second):
        node.kill()


def used_foreign(snapshot: Snapshot) -> int:
    return sum(snapshot.foreign_groups_used)


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_two_nodes_learn_from_each_other_and_survive_kills(
    nodes: tuple[SapoNode, SapoNode],
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


def kill_the_learner(node: SapoNode) -> None:
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


def kill_the_control_process(node: SapoNode, peer: SapoNode) -> None:
    before = node.wait_until(lambda one: one.learner.round >= 7)
    old_sequence = int((node.home / "sequence").read_text())
    children = node.descendants()
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


def admitted_from(node: SapoNode, author: str) -> int:
    found = node.wait_until(lambda _: True)
    return sum(peer.rollouts_admitted for peer in found.peers if peer.node_id == author)


def stop_in_order(node: SapoNode) -> None:
    round_before = node.wait_until(lambda _: True).learner.round
    children = node.descendants()
    node.process.terminate()
    assert node.process.wait(150) == 0, node.log()[-3000:]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    newest = max(path.name for path in (node.home / "checkpoints").iterdir())
    assert int(newest.removeprefix("round-")) >= round_before
    assert not (node.home / "api-address").exists()
