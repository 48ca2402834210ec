"""The shipped unit under a real systemd: ready, watched, closed in, restarted where that helps.

systemd runs in namespaces of its own (tests/deploy/systemd_machine.sh). That needs root and
systemd; elsewhere it is skipped. Not tried here: a GPU, and limits by cgroups (TasksMax,
DeviceAllow), which a container's systemd may not have.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.integration.sapo_node import SAPO

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
DEADLINE_S = 120
NAMESPACES = ["--mount", "--pid", "--ipc", "--uts", "--cgroup", "--net", "--fork", "--kill-child"]

SEEN = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
"""Where the program lies, which the node has to see: in a checkout that may be anywhere."""

TEST_UNIT = f"""
[Service]
ExecStart=
ExecStart={SAPO} run
ProtectHome=read-only
RestartSec=100ms
StartLimitBurst=100
"""
"""What is different here, and no waiting."""

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "systemctl"))),
        reason="the unit was NOT run: that needs root, systemd and util-linux",
    ),
    pytest.mark.skipif(
        any(one.is_relative_to("/tmp") for one in SEEN),
        reason="the unit was NOT run: it has a /tmp of its own, and this checkout is in /tmp",
    ),
    pytest.mark.timeout(600),
]


class NoMachine(RuntimeError):
    """This machine lets no systemd run in namespaces; the message is its log's end."""


class Machine:
    """A systemd of its own. `root` shows its files from outside."""

    def __init__(self, place: Path) -> None:
        script = ROOT / "tests" / "deploy" / "systemd_machine.sh"
        self._log = place / "machine.log"
        (place / "disk").mkdir()
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                ["unshare", *NAMESPACES, "sh", str(script), str(place / "disk"), *map(str, SEEN)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid = self._find_first_process()
        self.root = Path(f"/proc/{self._pid}/root")

    def _find_first_process(self) -> int:
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up and self._unshare.poll() is None:
            for child in psutil.Process(self._unshare.pid).children():
                if (
                    child.name() == "systemd"
                    and Path(f"/proc/{child.pid}/root/run/systemd/private").exists()
                ):
                    return child.pid
            time.sleep(0.1)  # between looks at another process
        self.end()
        raise NoMachine(self._log.read_text()[-1000:])

    def run(self, *command: str, check: bool = True) -> str:
        """All output of a command there."""
        inside = [
            "nsenter",
            "-t",
            str(self._pid),
            *["-m", "-p", "-u", "-i", "-C", "-n", "-r", "-w"],
        ]
        done = subprocess.run(
            [*inside, *command], capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the node's unit."""
        lines = self.run("systemctl", "show", "sapo", *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in lines.splitlines())

    def wait_for(self, **wanted: str) -> dict[str, str]:
        """Until the unit has these properties."""
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            if (found := self.show(*wanted)) == wanted:
                return found
            time.sleep(0.1)  # between looks at another process
        raise AssertionError(f"{found}\n{self.run('journalctl', '-u', 'sapo', '-n', '30')}")

    def configure(self, settings: str, unit: str = "") -> None:
        """Writes the node's settings, and what of its unit is different."""
        (self.root / "etc/sapo/sapo.env").write_text(f"OMP_NUM_THREADS=1\n{settings}")
        (self.root / "etc/systemd/system/sapo.service.d/test.conf").write_text(TEST_UNIT + unit)
        self.run("systemctl", "daemon-reload")

    def end(self) -> None:
        with suppress(ProcessLookupError):  # it never ran
            os.killpg(self._unshare.pid, signal.SIGKILL)  # --kill-child: and all that is in it
        self._unshare.wait()


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    try:
        made = Machine(tmp_path_factory.mktemp("systemd"))
    except NoMachine as reason:
        pytest.skip(f"the unit was NOT run: no systemd starts in namespaces here: {reason}")
    system = made.root / "etc/systemd/system"
    shutil.copy(UNITS / "sapo.service", system)
    (system / "sapo.service.d").mkdir()
    (made.root / "etc/sapo").mkdir()
    (made.root / "etc/sysusers.d").mkdir(exist_ok=True)
    shutil.copy(UNITS / "sapo.sysusers", made.root / "etc/sysusers.d/sapo.conf")
    made.run("systemd-sysusers")
    for way in {parent for one in SEEN for parent in one.parents}:
        (there := made.root / str(way).lstrip("/")).chmod(there.stat().st_mode | 0o011)
    yield made
    made.end()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    yield booted
    booted.run("systemctl", "kill", "--signal=KILL", "sapo", check=False)
    booted.run("systemctl", "stop", "sapo", check=False)
    booted.run("systemctl", "reset-failed", "sapo", check=False)


OBSERVER = "SAPO_MODE=observe\nSAPO_SWARM__LISTEN=/ip4/127.0.0.1/tcp/0\n"


def test_a_node_is_ready_says_what_it_does_and_stops_in_order(machine: Machine) -> None:
    machine.configure(OBSERVER)
    machine.run("systemctl", "start", "sapo")  # returns when the node has said that it is ready
    found = machine.show("ActiveState", "StatusText", "User")
    assert found["ActiveState"] == "active" and found["User"] == "sapo"
    assert found["StatusText"].startswith("sees the swarm")
    health = str(ROOT / "deploy/docker/health.py")  # which the image asks of the same node
    machine.run("env", "SAPO_HOME=/var/lib/sapo", sys.executable, health)
    home = machine.root / "var/lib/sapo"
    assert home.stat().st_mode & 0o777 == 0o700 and (home / "identity.key").exists()
    machine.run("systemctl", "stop", "sapo")
    machine.wait_for(ActiveState="inactive", Result="success", ExecMainStatus="0")


def test_a_node_trains_with_all_doors_of_its_workers_closed(machine: Machine) -> None:
    """ "required" ends a node at its start where isolation is not complete."""
    machine.configure(
        "SAPO_ROUNDS=1\nSAPO_ROLLOUT__QUESTIONS=2\nSAPO_ROLLOUT__ENGINE=transformers\n"
        "SAPO_VERIFY__ISOLATION=required\nSAPO_SWARM__LISTEN=/ip4/127.0.0.1/tcp/0\n"
    )
    machine.run("systemctl", "start", "sapo")
    machine.wait_for(ActiveState="inactive", Result="success", ExecMainStatus="0")
    assert list((machine.root / "var/lib/sapo/checkpoints").iterdir())


def isolation_of(machine: Machine, without: str) -> str:
    """What the doctor finds, run under everything that the unit closes, but for some words."""
    lines = (UNITS / "sapo.service").read_text().replace(without, "").splitlines()
    kept = [
        line for line in lines if not line.startswith(("Restart", "Watchdog", "Type", "Notify"))
    ]
    unit = machine.root / "etc/systemd/system/sapo-doctor.service"
    unit.write_text("\n".join(kept))
    (drop_in := unit.with_name("sapo-doctor.service.d")).mkdir(exist_ok=True)
    (drop_in / "test.conf").write_text(
        TEST_UNIT.replace(f"{SAPO} run", f"-{SAPO} doctor --json")  # -: whatever it ends with
        + "Type=oneshot\nStandardOutput=truncate:/run/doctor.json\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "sapo-doctor")
    findings = json.loads((machine.root / "run/doctor.json").read_text())
    (text,) = [one["found"] for one in findings if one["name"] == "isolation"]
    return str(text)


def test_the_unit_lets_workers_close_themselves_in(machine: Machine) -> None:
    machine.configure("")
    found = isolation_of(machine, without="nothing of it")
    assert "files closed" in found and "processes closed" in found, found


def test_without_its_words_for_landlock_and_seccomp_they_could_not(machine: Machine) -> None:
    """So each of the words is there for a reason."""
    machine.configure("")
    landlock = " landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    assert "FILES OPEN" in isolation_of(machine, without=landlock)
    assert "processes OPEN" in isolation_of(machine, without=" seccomp")


def test_a_killed_node_is_started_again(machine: Machine) -> None:
    machine.configure(OBSERVER)
    machine.run("systemctl", "start", "sapo")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "sapo")
    machine.wait_for(ActiveState="active", NRestarts="1")


def test_a_node_that_hangs_is_killed_and_started_again(machine: Machine) -> None:
    machine.configure(OBSERVER, unit="WatchdogSec=2\nWatchdogSignal=SIGKILL\n")
    machine.run("systemctl", "start", "sapo")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "sapo")
    machine.wait_for(ActiveState="active", NRestarts="1")
    assert "Watchdog timeout" in machine.run("journalctl", "-u", "sapo", "-n", "40")


def test_a_wrong_setting_is_not_tried_again(machine: Machine) -> None:
    machine.configure("SAPO_MODE=dance\n")
    machine.run("systemctl", "start", "sapo", check=False)
    machine.wait_for(ActiveState="failed", ExecMainStatus="2", NRestarts="0")
