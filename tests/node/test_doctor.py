"""What the doctor finds on this machine, and on others that are worse."""

import json
import resource
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import node.doctor
from node.cli import app
from node.config import NodeConfig, load_config
from node.doctor import (
    NEWEST_PYTHON,
    OLDEST_PYTHON,
    OPEN_FILES,
    Finding,
    Level,
    check_disk,
    check_home,
    check_open_files,
    check_packages,
    check_programs,
    check_python,
    check_workers,
    print_finding,
    try_program,
)
from node.exit_status import Exit
from rewards.runner import Runner, runner_command

ROOT = Path(__file__).parents[2]


def settings(home: Path, **flags: object) -> NodeConfig:
    return load_config(flags={"home": home} | flags, environment={})


def test_all_that_is_looked_at_stands_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(bytes(32))
    (tmp_path / "identity.key").chmod(0o640)
    (tmp_path / "api-token").touch(0o600)
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path), "--json"])
    found = json.loads(done.stdout)
    assert {one["name"] for one in found} == {
        *("python", "packages", "kernel", "libseccomp", "isolation", "tasks", "programs"),
        *("open files", "disk", "home"),
    }
    by_name = {one["name"]: one for one in found}
    assert by_name["tasks"]["found"] == "8 of 8 of easy judged here"
    assert by_name["programs"]["level"] == by_name["isolation"]["level"]
    key, token = (one for one in found if one["name"] == "home")
    assert (key["level"], token["level"]) == ("bad", "ok")
    assert key["remedy"] == f"chmod 600 {tmp_path / 'identity.key'}"
    assert done.exit_code == Exit.BAD_MACHINE and sorted(tmp_path.iterdir()) == before


def test_a_warning_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(_: NodeConfig) -> Iterator[Finding]:
        yield Finding("moon", Level.WARN, "it is \x1b[2Jfull", "wait")

    monkeypatch.setattr(node.doctor, "CHECKS", (warn,))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert done.stdout == "warn moon: it is \\x1b[2Jfull\n     -> wait\n"


def test_the_pythons_are_those_of_the_package() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == f">=3.{OLDEST_PYTHON[1]},<3.{NEWEST_PYTHON[1] + 1}"
    assert [one.level for one in check_python(NodeConfig())] == [Level.OK]


def test_another_python_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.doctor.sys, "version_info", (3, 14, 0))
    (found,) = check_python(NodeConfig())
    assert found.level is Level.BAD and "3.11 to 3.13" in found.remedy


def test_a_distribution_that_owns_our_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = tmp_path / "rival-1.0.dist-info"
    rival.mkdir()
    (rival / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (rival / "RECORD").write_text("node/__init__.py,,\nnode/cli.py,,\nrival.py,,\nnodes/x.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = check_packages(NodeConfig())
    assert found.level is Level.BAD and "pip uninstall rival" in found.remedy
    assert found.found == "rival owns node/__init__.py and 1 more files in a package of ours"


def test_a_swarm_file_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    (found,) = check_workers(settings(tmp_path, manifest="no-such-swarm"))
    assert found.level is Level.BAD and "no-such-swarm" in found.found


@pytest.mark.parametrize(
    ("may_run", "level", "remedy"),
    [(False, Level.WARN, "what 'isolation' says"), (True, Level.BAD, "set verify.isolation")],
)
def test_a_program_that_nothing_holds_back_is_found(
    may_run: bool, level: Level, remedy: str
) -> None:
    open_boot = (
        "import sys; sys.path += sys.argv[1:]; from rewards import interpreter, sandbox; "
        "sandbox.isolate = lambda *_, **__: sandbox.Isolation(0, True, ('no Landlock',)); "
        "interpreter.main()"
    )
    command = tuple(open_boot if "interpreter" in part else part for part in runner_command())
    runner = Runner(60.0, programs_anyway=True, command=command)
    found = try_program(runner, may_run)
    runner.close()
    assert found.level is level and found.remedy.startswith(remedy)
    assert found.found.startswith("one could read a file, list a directory,")
    assert "memory" not in found.found, "limits hold without isolation"


def test_a_program_that_cannot_be_started_is_bad() -> None:
    runner = Runner(60.0, command=("/no/such/program",))
    found = try_program(runner, may_run=False)
    runner.close()
    assert found.level is Level.BAD and found.found.startswith("none can be run")


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (256, 4096)}
    monkeypatch.setattr(node.doctor.resource, "getrlimit", lambda _: limits["now"])
    (found,) = check_open_files(NodeConfig())
    assert found.level is Level.WARN and f"ulimit -n {OPEN_FILES}" in found.remedy
    for soft in (OPEN_FILES, resource.RLIM_INFINITY):
        limits["now"] = (soft, soft)
        assert [one.level for one in check_open_files(NodeConfig())] == [Level.OK]


def test_a_place_without_room_is_bad() -> None:
    (found,) = check_disk(settings(Path("/proc/no/home")))
    assert found.level is Level.BAD and "at /proc" in found.found and found.remedy


def test_a_home_that_is_not_there_yet_is_well(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    assert [one.level for one in check_home(settings(home))] == [Level.OK]
    (found,) = check_disk(settings(home))
    assert found.found.endswith(f"free at {tmp_path}") and not home.exists()


def test_secrets_of_another_user_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api-token").touch(0o600)
    monkeypatch.setattr(node.doctor.os, "geteuid", lambda: 4242)
    (found,) = check_home(settings(tmp_path))
    assert found.level is Level.BAD and "chown 4242" in found.remedy


def test_a_finding_stays_on_its_line_however_narrow_the_terminal() -> None:
    console = Console(width=20, record=True)
    print_finding(Finding("disk", Level.OK, "x" * 100), console)
    assert console.export_text().splitlines() == ["ok   disk: " + "x" * 100]


def test_a_node_without_a_policy_needs_no_workers(tmp_path: Path) -> None:
    for mode in ("observe", "relay"):
        chosen = settings(tmp_path, manifest="no-such-swarm", mode=mode)
        (found,) = check_workers(chosen)
        assert found.level is Level.OK and f"mode {mode} needs none" in found.found
        assert list(check_programs(chosen)) == []
