"""The control process as a whole, with everything real but the learner."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from node.access import read_address
from node.ask import NodeUnreachable, fetch_rounds, fetch_snapshot
from node.config import find_manifest
from node.status import Snapshot
from rewards.question import Question
from swarm.announcements import Announcements, KeptAnnouncement
from swarm.database import open_database
from swarm.identity import Identity, open_identity
from swarm.manifest import load_manifest
from swarm.rollout import Announcement, Entry
from swarm.wire import seal

SCRIPT = str(Path(__file__).with_name("run_scripted_node.py"))
DEADLINE_S = 60
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}


class ScriptedNode:
    """The process of one node."""

    def __init__(self, home: Path, behaviour: str, *settings: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-P", SCRIPT, str(home), behaviour, *settings],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until(self, is_so: Callable[[Snapshot], object]) -> Snapshot:
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                if is_so(found := fetch_snapshot(self.home)):
                    return found
            except NodeUnreachable:
                pass
            time.sleep(0.05)  # between looks at another process
        self.process.kill()
        raise AssertionError(self.process.communicate()[1])

    def end(self) -> tuple[int, str]:
        """Status and log of a process that is ending."""
        _, log = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, log

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


Start = Callable[..., ScriptedNode]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    nodes: list[ScriptedNode] = []

    def start_one(behaviour: str, *settings: str, name: str = "home") -> ScriptedNode:
        nodes.append(ScriptedNode(tmp_path / name, behaviour, *settings))
        return nodes[-1]

    yield start_one
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.communicate()


def has_made(rounds: int) -> Callable[[Snapshot], bool]:
    return lambda snapshot: snapshot.last_round is not None and snapshot.last_round.round >= rounds


def all_end(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=DEADLINE_S)[1]


def test_a_node_makes_its_rounds_keeps_them_and_ends(start: Start, tmp_path: Path) -> None:
    node = start("rounds", "rounds=3")
    status, log = node.end()
    assert status == 0, log
    database = open_database(tmp_path / "home" / "pool.sqlite")
    [(rounds,)] = database.execute("SELECT count(*) FROM rounds")
    database.close()
    assert rounds == 3
    assert not (tmp_path / "home" / "api-address").exists()


def test_a_node_that_stays_goes_on_answering_until_it_is_stopped(start: Start) -> None:
    node = start("rounds", "rounds=3", "swarm.stay=true")
    found = node.wait_until(lambda snapshot: snapshot.learner.is_done)
    assert found.own_reward == (0.5, 0.5, 0.5)
    assert [report.round for report in fetch_rounds(node.home, 1)] == [2, 3]
    assert found.tasks_left_out == {} and found.isolation is not None
    assert len(found.tasks) == 8
    url = read_address(node.home)
    assert url is not None
    with urllib.request.urlopen(f"{url}/ready", timeout=DEADLINE_S) as reply:
        assert reply.status == 200
    node.process.terminate()
    assert node.end()[0] == 0


def test_a_node_that_comes_later_is_told_what_was_announced_before(
    start: Start, tmp_path: Path
) -> None:
    """By one that knows it only from before its own restart."""
    announce_before_the_start(tmp_path / "home", 5)
    listen = "swarm.listen=/ip4/127.0.0.1/tcp/0"
    early = start("wait", listen)
    found = early.wait_until(lambda snapshot: snapshot.pool.announcements == 5)
    bootstrap = f"swarm.bootstrap={found.addresses[0]}"
    late = start("wait", listen, bootstrap, name="late")
    told = late.wait_until(lambda snapshot: snapshot.catch_up.announcements == 5)
    assert told.catch_up.refused == told.catch_up.peers_left == 0
    late.wait_until(lambda snapshot: snapshot.pool.announcements == 5)
    told = early.wait_until(lambda snapshot: snapshot.announcements_told == 5)
    assert told.limited == {} and told.messages_unsent == 0


def announce_before_the_start(home: Path, num: int) -> None:
    """Leaves announcements of somebody else in a node's home."""
    home.mkdir()
    with open_identity(home) as own, closing(open_database(home / "pool.sqlite")) as database:
        author, kept = Identity(bytes(32)), Announcements(database, own.node_id)
        manifest, now = load_manifest(find_manifest("easy")), time.time()
        question = Question(manifest.rules.tasks[0].name, 1)
        for number in range(num):
            entry = Entry(number.to_bytes(32), question, 500, (True, False), 1)
            announcement = Announcement(
                manifest.swarm_id, author.node_id, 1 + number, 1, now, (entry,)
            )
            record = seal(announcement, author)
            kept.keep(KeptAnnouncement(record, author.node_id, 1 + number, now, now + 600))
        kept.write()


def test_one_signal_ends_in_order_and_leaves_nothing(start: Start) -> None:
    node = start("wait")
    node.wait_until(has_made(1))
    children = node.children()
    node.process.send_signal(signal.SIGINT)
    status, log = node.end()
    assert status == 0, log
    assert "SIGINT: the learner may finish its round" in log
    assert all_end(children)


def test_a_learner_that_does_not_heed_the_signal_is_killed(start: Start) -> None:
    node = start("deaf", "supervise.stop_s=1")
    node.wait_until(has_made(1))
    children = node.children()
    node.process.terminate()
    status, log = node.end()
    assert status == 0, log
    assert "the learner was killed; the last checkpoint stands" in log
    assert all_end(children)


def test_a_second_signal_ends_everything_at_once(start: Start) -> None:
    node = start("deaf", "supervise.stop_s=600")
    node.wait_until(has_made(1))
    children = node.children()
    node.process.terminate()
    assert node.process.stderr is not None
    for line in node.process.stderr:
        if "once more ends at once" in line:
            break
    node.process.terminate()
    status, log = node.end()
    assert status == 128 + signal.SIGTERM
    assert "SIGTERM again: ending at once" in log
    assert all_end(children)


def test_what_a_person_must_change_ends_the_node_with_its_status(start: Start) -> None:
    status, log = start("refuse").end()
    assert status == 2
    assert "the learner cannot go on: there is no model" in log


def test_a_killed_node_is_the_same_one_again_and_its_children_end(
    start: Start, tmp_path: Path
) -> None:
    node = start("wait")
    before = node.wait_until(has_made(1))
    children = node.children()
    reserved = int((node.home / "sequence").read_text())
    node.process.kill()
    node.end()
    assert all_end(children), "they end by themselves, without their control process"
    again = start("wait")
    after = again.wait_until(has_made(1))
    assert after.node_id == before.node_id
    assert int((node.home / "sequence").read_text()) > reserved
    again.process.terminate()
    assert again.end()[0] == 0
    with open_identity(node.home) as identity:
        assert identity.node_id == before.node_id


def test_two_nodes_cannot_share_a_home(start: Start) -> None:
    first = start("wait")
    first.wait_until(has_made(1))
    status, log = start("wait").end()
    assert status != 0
    assert "another process is using it" in log


def test_a_learner_that_dies_is_shown_and_replaced(start: Start) -> None:
    node = start("crash-once", "rounds=2", "swarm.stay=true")
    found = node.wait_until(lambda snapshot: snapshot.learner.is_done)
    assert found.learner.restarts == 1
    assert "the learner was restarted once: ended by signal: Aborted" in found.warnings
    node.process.terminate()
    assert node.end()[0] == 0
