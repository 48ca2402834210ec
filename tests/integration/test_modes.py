"""A relay, an observer and a fixed model as real nodes, and one that learns from the fixed model's
rollouts: each does what its mode says, says so, and ends in order."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from node.ask import fetch_rounds
from node.status import ForeignFate
from tests.integration.sapo_node import ENVIRONMENT, SAPO, SapoNode

DEADLINE_S = 180
POLICY = ("--engine", "transformers", "--set", "rollout.questions=4")


def status_of(node: SapoNode) -> str:
    """What `sapo status` prints, in one line."""
    command = [SAPO, "status", "--home", str(node.home)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


def end(node: SapoNode) -> None:
    """SIGTERM, and an end in order."""
    children = node.descendants()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(timeout=DEADLINE_S) == 0, node.log()[-3000:]
    assert not psutil.wait_procs(children, timeout=DEADLINE_S)[1]


Start = Callable[..., SapoNode]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    nodes: list[SapoNode] = []

    def start_one(name: str, bootstrap: str, *words: str) -> SapoNode:
        known = ("--set", f"swarm.bootstrap={bootstrap}")
        nodes.append(SapoNode(tmp_path / name, *words, *known))
        nodes[-1].deadline_s = DEADLINE_S
        return nodes[-1]

    yield start_one
    for node in nodes:
        node.kill()


@pytest.mark.timeout(600)
def test_every_mode_does_what_it_says_beside_a_node_that_learns(start: Start) -> None:
    relay = start("relay", "", "--relay")
    observer = start("observer", relay.address, "--observe", "--set", "swarm.relay=use")
    giver = start("giver", relay.address, "--generate-only", *POLICY)
    learner = start("learner", relay.address, *POLICY, "--set", "batch.peer_share=1")

    learner.wait_until(lambda one: sum(one.foreign_groups_used) >= 2)
    used = [
        group
        for report in fetch_rounds(learner.home, 0)
        for group in report.foreign
        if group.fate is ForeignFate.USED
    ]
    assert {(group.author, group.policy_round) for group in used} == {(giver.node_id, 0)}

    check_that_it_only_generates(giver)
    for node in (observer, relay):
        check_that_it_only_talks(node)
    seen = observer.wait_until(lambda one: one.announcements_received > 3)
    assert seen.mode == "observe" and seen.warnings == ()
    authors = {peer.node_id for peer in seen.peers if peer.rollouts_offered}
    assert authors <= {giver.node_id, learner.node_id} and giver.node_id in authors

    known = relay.wait_until(lambda one: sum(peer.connected for peer in one.peers) == 3)
    assert known.mode == "relay"
    relay.wait_until(lambda one: one.relay is not None and one.relay.reserved == 1)
    observer.wait_until(
        lambda one: f"{relay.address}/p2p-circuit/p2p/{observer.node_id}" in one.addresses
    )
    assert seen.relay is None
    (warning,) = known.warnings
    assert "none of this relay's addresses is public" in warning
    assert f'not for strangers: "{relay.address}"' in relay.log()

    check_that_it_goes_on(giver)
    for node in (giver, learner, observer, relay):
        end(node)


def check_that_it_only_generates(node: SapoNode) -> None:
    found = node.wait_until(lambda one: one.learner.round >= 2)
    assert found.mode == "generate" and found.learner.engine == "transformers"
    assert found.announcements_sent > 0 and found.pool.own > 0
    assert (found.pool.fetched_bytes, found.pool.fresh, sum(found.foreign_groups_used)) == (0, 0, 0)
    # the tiny model answers in milliseconds, so that its nodes announce more often than one may
    assert found.refused.keys() <= {"not_wanted", "own", "repeated", "too_often"}
    for report in fetch_rounds(node.home, 0):
        assert (report.num_groups, report.update_skipped, report.foreign_wanted) == (0, None, 0)
    assert not any("learn" in warning for warning in found.warnings)
    assert "generate: it shares rollouts of a model that stays as it is" in status_of(node)
    assert not (node.home / "checkpoints").exists()


def check_that_it_only_talks(node: SapoNode) -> None:
    found = node.wait_until(lambda one: one.pool.announcements > 3)
    assert found.announcements_sent == found.pool.fetched_bytes == found.pool.own == 0
    assert found.refused.keys() <= {"not_wanted", "repeated", "too_often"}
    assert psutil.Process(node.process.pid).children(recursive=True) == []
    maps = Path(f"/proc/{node.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert found.memory_mib.keys() == {"control"}
    assert f"{found.mode}: it " in status_of(node)
    assert not (node.home / "checkpoints").exists()


def check_that_it_goes_on(node: SapoNode) -> None:
    """It is stopped and started, and asks the next questions."""
    end(node)
    before = last_round(node.home)
    node.start()
    node.wait_until(lambda one: one.learner.round > before)
    assert f"resuming after round {before} from" in node.log()


def last_round(home: Path) -> int:
    return max(int(one.name[-8:]) for one in (home / "generated" / "rounds").glob("round-*"))
