"""What systemd is told: by the part alone, and by a whole node until SIGTERM has ended it."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, trio_test

from node.sd_notify import Systemd, find_systemd, keep_informed, one_line
from node.status import LearnerStatus, Snapshot
from node.status_json import from_json
from tests.integration.sapo_node import ENVIRONMENT, SAPO

SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
DEADLINE_S = 120
SETTINGS = ("api.port=0", "swarm.listen=/ip4/127.0.0.1/tcp/0")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(DEADLINE_S)
        yield made


def told(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


def test_nobody_is_told_where_systemd_did_not_start_the_node() -> None:
    assert find_systemd({}) is None
    assert find_systemd({"NOTIFY_SOCKET": "vsock:2:1234"}) is None


def test_the_variables_are_taken_so_that_no_child_has_them() -> None:
    environment = {"NOTIFY_SOCKET": "@name", "WATCHDOG_USEC": "30000000", "HOME": "/"}
    assert find_systemd(environment) == Systemd("\0name", 30.0)
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("usec", "pid", "watchdog_s"),
    [
        ("5000000", "own", 5.0),
        ("5000000", "1", None),  # meant for another process
        ("0", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_a_watchdog_counts_if_it_is_meant_for_this_process(
    usec: str, pid: str, watchdog_s: float | None
) -> None:
    meant_for = str(os.getpid()) if pid == "own" else pid
    environment = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": meant_for}
    assert find_systemd(environment) == Systemd("/run/n", watchdog_s)


def test_a_socket_that_is_gone_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Systemd(str(tmp_path / "gone")).tell("READY=1")
    assert "systemd does not listen" in caplog.text


def test_the_node_shows_life_three_times_within_the_watchdogs_time(
    listener: socket.socket, autojump_clock: MockClock
) -> None:
    @trio_test
    async def live(autojump_clock: MockClock) -> None:
        systemd = Systemd(listener.getsockname(), 6.0)
        with trio.move_on_after(7):
            await keep_informed(systemd, lambda: SNAPSHOT)

    live(autojump_clock=autojump_clock)
    assert told(listener) == ["READY=1"]
    for _ in range(4):  # at 0, 2, 4 and 6 s
        status, alive = told(listener)
        assert status.startswith("STATUS=round") and alive == "WATCHDOG=1"
    assert told(listener) == ["STOPPING=1", "STATUS=leaving the swarm"]


def test_the_line_says_what_the_node_does() -> None:
    quiet = msgspec.structs.replace(SNAPSHOT, warnings=(), peers=SNAPSHOT.peers[:1])
    learner = LearnerStatus(stage="generating", round=7, target_rounds=9)
    assert one_line(msgspec.structs.replace(quiet, learner=learner)) == (
        "round 7 of 9, generating; 1 peer"
    )
    done = LearnerStatus(stage="stopped", round=9, is_done=True)
    assert one_line(msgspec.structs.replace(quiet, learner=done, peers=())) == (
        "all 9 rounds are made; 0 peers"
    )
    watcher = msgspec.structs.replace(quiet, mode="observe", warnings=("a", "b"))
    assert one_line(watcher) == (
        "sees the swarm and passes on what is announced; 1 peer; 2 warnings: see sapo status"
    )


def test_the_line_holds_no_text_of_a_stranger() -> None:
    """The recorded snapshot is full of hostile text."""
    line = one_line(SNAPSHOT)
    assert line.isprintable() and "<" not in line and "[" not in line


def test_a_whole_node_says_that_it_is_ready_alive_and_ending(
    listener: socket.socket, tmp_path: Path
) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    told_of = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "300000"}
    process = subprocess.Popen(
        [SAPO, "run", "--observe", "--home", str(tmp_path / "home"), *settings],
        env=ENVIRONMENT | told_of,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert told(listener) == ["READY=1"]
        assert (tmp_path / "home" / "api-address").exists()
        for _ in range(3):
            assert "WATCHDOG=1" in told(listener)
        process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in told(listener):
            pass
        _, log = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, log
    finally:
        process.kill()
