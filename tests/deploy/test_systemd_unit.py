"""The unit for systemd as a file: valid, and in agreement with the program.

tests/integration/test_systemd.py runs it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.config import NodeConfig, load_config
from node.control import LEAVE_S
from node.exit_status import FINAL
from node.sd_notify import STATUS_EVERY_S

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = (UNITS / "sapo.service").read_text()
LINES = [line.split("=", 1) for line in UNIT.splitlines() if line[:1].isalpha() and "=" in line]


def value(name: str) -> str:
    (found,) = [text for key, text in LINES if key == name]
    return found


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="the unit was NOT checked: no systemd here"
)
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    unit = tmp_path / "sapo.service"
    unit.write_text(UNIT.replace("/opt/sapo/bin/sapo", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_node_is_not_started_again_where_a_person_has_to_change_something() -> None:
    assert value("Restart") == "on-failure"
    assert {int(word) for word in value("RestartPreventExitStatus").split()} == set(FINAL)


def test_systemd_waits_for_the_checkpoint_and_the_leave_taking() -> None:
    assert value("KillMode") == "mixed"
    assert float(value("TimeoutStopSec")) >= NodeConfig().supervise.stop_s + LEAVE_S + 10


def test_the_node_shows_life_often_enough() -> None:
    assert float(value("WatchdogSec")) >= 3 * STATUS_EVERY_S


def test_the_example_of_settings_holds_such_as_exist() -> None:
    lines = (UNITS / "sapo.env.example").read_text().splitlines()
    settings = [line.lstrip("#").split("=", 1) for line in lines if "SAPO_" in line and "=" in line]
    settings += [
        text.split("=", 1) for key, text in LINES if key == "Environment" and "SAPO" in text
    ]
    assert len(settings) >= 4
    load_config(environment=dict((name, text) for name, text in settings))
