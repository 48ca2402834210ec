"""What an operator does to a running node: it happens, also to its peer, and lasts.

Two whole nodes with real libp2p whose learners are scripted (tests/node/scripted_learner.py), asked
through the API and by `sapo`.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from node.access import read_address, read_token
from node.ask import NodeUnreachable, fetch_snapshot
from node.status import PeerStatus, Snapshot
from tests.integration.sapo_node import ENVIRONMENT, SAPO, free_port

SCRIPT = str(Path(__file__).parents[1] / "node" / "run_scripted_node.py")
DEADLINE_S = 60
TURNED_AWAY = "connections with banned peers were ended at their handshake"
"""In the log, once a minute at most."""


class Scripted:
    """A node whose learner makes rounds of nothing and heeds its orders."""

    def __init__(self, home: Path, *settings: str, behaviour: str = "orders") -> None:
        self.home = home
        self.log_before = 0
        """Characters of the log when it was started the last time."""
        self._command = [sys.executable, "-P", SCRIPT, str(home), behaviour, *settings]
        self.start()

    def start(self) -> None:
        with self.home.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=ENVIRONMENT, stderr=log, stdout=log, start_new_session=True
            )

    def log(self) -> str:
        return self.home.with_suffix(".log").read_text(errors="replace")

    def until(self, is_so: Callable[[Snapshot], object]) -> Snapshot:
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            assert self.process.poll() is None, self.log()[-3000:]
            try:
                if is_so(found := fetch_snapshot(self.home)):
                    return found
            except NodeUnreachable:
                pass
            time.sleep(0.05)  # between looks at another process
        raise AssertionError(self.log()[-3000:])

    def post(self, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        place = urlsplit(read_address(self.home) or "")
        connection = HTTPConnection(place.hostname or "", place.port, timeout=DEADLINE_S)
        headers = {
            "Authorization": f"Bearer {token or read_token(self.home)}",
            "Content-Type": "application/json",
        }
        connection.request("POST", f"/api/v1/{path}", json.dumps(body) if body else b"", headers)
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer

    def ready(self) -> int:
        place = urlsplit(read_address(self.home) or "")
        connection = HTTPConnection(place.hostname or "", place.port, timeout=DEADLINE_S)
        connection.request("GET", "/ready")
        status = connection.getresponse().status
        connection.close()
        return status


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Scripted, Scripted]]:
    first = Scripted(tmp_path / "first", f"swarm.listen=/ip4/127.0.0.1/tcp/{free_port()}")
    second = None
    try:
        address = first.until(lambda one: one.addresses).addresses[0]
        second = Scripted(tmp_path / "second", f"swarm.bootstrap={address}")
        yield first, second
    finally:
        for node in (first, second):
            if node is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait()


def peer_of(snapshot: Snapshot, node_id: str) -> PeerStatus:
    found = [peer for peer in snapshot.peers if peer.node_id == node_id]
    return found[0] if found else PeerStatus(node_id, connected=False)


@pytest.mark.timeout(240)
def test_an_operator_rules_a_running_node(nodes: tuple[Scripted, Scripted]) -> None:
    first, second = nodes
    theirs = second.until(lambda one: one.node_id).node_id
    own = first.until(lambda one: peer_of(one, theirs).connected).node_id
    ban(first, second, own, theirs)
    pause(first)
    start_again(first)
    find_it_banned_and_paused(first, theirs)
    assert first.post("resume") == (200, {"paused": False})
    unban(first, theirs)
    first.until(lambda one: one.learner.round > 3 and not one.paused)
    assert first.ready() == 200
    order_a_checkpoint(first)
    take_a_new_token(first)
    first.until(lambda one: peer_of(one, theirs).connected)
    shut_down(first)


def ban(first: Scripted, second: Scripted, own: str, theirs: str) -> None:
    status, done = first.post(f"peers/{theirs}/ban", {"reason": "test", "for_s": None})
    assert status == 200 and done["banned_until"] is None and done["node_id"] == theirs
    gone = first.until(lambda one: not peer_of(one, theirs).connected)
    assert peer_of(gone, theirs).banned and peer_of(gone, theirs).ban_reason == "test"
    second.until(lambda one: not peer_of(one, own).connected)
    first.until(lambda one: TURNED_AWAY in first.log())  # it came again, in vain


def pause(node: Scripted) -> None:
    assert node.ready() == 200
    assert node.post("pause") == (200, {"paused": True})
    paused = node.until(lambda one: one.learner.stage == "paused")
    assert paused.paused and any("paused by its operator" in one for one in paused.warnings)
    assert node.ready() == 503


def start_again(node: Scripted) -> None:
    node.process.terminate()
    assert node.process.wait(DEADLINE_S) == 0, node.log()[-3000:]
    node.log_before = len(node.log())
    node.start()


def find_it_banned_and_paused(node: Scripted, theirs: str) -> None:
    again = node.until(
        lambda one: one.learner.stage == "paused" and TURNED_AWAY in node.log()[node.log_before :]
    )
    assert not peer_of(again, theirs).connected and peer_of(again, theirs).banned
    assert again.paused and again.learner.round == 0, "a scripted learner begins anew"
    assert node.ready() == 503
    assert "WARNING node.control: paused by its operator" in node.log()[node.log_before :]


def unban(node: Scripted, theirs: str) -> None:
    status, done = node.post(f"peers/{theirs}/unban")
    assert (status, done) == (200, {"node_id": theirs, "was_banned": True})
    assert not peer_of(node.until(lambda one: one), theirs).banned


def order_a_checkpoint(node: Scripted) -> None:
    before = node.until(lambda one: one).learner.round
    status, done = node.post("checkpoint")
    assert status == 200 and done["round"] >= before
    assert (node.home / "written").read_text() == str(done["round"])


def take_a_new_token(node: Scripted) -> None:
    old = read_token(node.home)
    command = [SAPO, "token", "rotate", "--yes", "--home", str(node.home)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "the running node has taken it" in " ".join(done.stdout.split())
    assert node.post("pause", token=old)[0] == 401
    assert node.post("resume")[0] == 200


def shut_down(node: Scripted) -> None:
    children = psutil.Process(node.process.pid).children(recursive=True)
    assert node.post("shutdown") == (202, {"stopping": True})
    assert node.process.wait(DEADLINE_S) == 0, node.log()[-3000:]
    assert not psutil.wait_procs(children, timeout=DEADLINE_S)[1]
    assert not (node.home / "api-address").exists()
    lines = [json.loads(one) for one in (node.home / "audit.log").read_text().splitlines()]
    whats = [one["what"].split()[0] for one in lines]
    assert whats == ["ban", "pause", "resume", "unban", "checkpoint", "new", "resume", "shutdown"]
    assert all(one["result"].startswith("done: ") for one in lines)


@pytest.mark.timeout(120)
def test_a_signal_after_a_shutdown_still_lets_the_learner_finish(tmp_path: Path) -> None:
    """A service manager sends one to a node that its operator has told to end."""
    node = Scripted(tmp_path / "deaf", "supervise.stop_s=600", behaviour="deaf")
    try:
        node.until(lambda one: one.learner.round == 1)
        for _ in range(2):
            assert node.post("shutdown") == (202, {"stopping": True})
        node.process.send_signal(signal.SIGTERM)
        node.until(lambda one: "SIGTERM: the learner may finish its round" in node.log())
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(DEADLINE_S) == 128 + signal.SIGTERM
    finally:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
