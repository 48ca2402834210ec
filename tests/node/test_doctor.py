"""What the doctor finds on this machine, and on others that are worse."""

import json
import resource
import shutil
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import node.doctor
import node.doctor_machine
from node.cli import app
from node.cli_doctor import run_selftest
from node.config import NodeConfig, load_config
from node.doctor_machine import (
    NEWEST_PYTHON,
    OLDEST_PYTHON,
    OPEN_FILES,
    check_clock,
    check_disk,
    check_home,
    check_open_files,
    check_packages,
    check_python,
    check_versions,
)
from node.doctor_sandbox import check_programs, check_workers, try_program
from node.exit_status import Exit
from node.finding import Finding, Level, print_finding
from node.status_json import to_json
from rewards.question import Answer, Expansion, Question
from rewards.runner import Runner, runner_command
from swarm.database import open_database
from swarm.identity import Identity
from swarm.pool import Pool
from swarm.rollout import Rollout
from swarm.wire import seal

ROOT = Path(__file__).parents[2]


def settings(home: Path, **flags: object) -> NodeConfig:
    return load_config(flags={"home": home} | flags, environment={})


def test_all_that_is_looked_at_stands_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(bytes(32))
    (tmp_path / "identity.key").chmod(0o640)
    (tmp_path / "api-token").touch(0o600)
    before = sorted(tmp_path.iterdir())
    words = ["doctor", "--home", str(tmp_path), "--json", "--set", "api.port=0"]
    done = CliRunner().invoke(app, [*words, "--set", "swarm.listen=/ip4/127.0.0.1/tcp/0"])
    found = json.loads(done.stdout)
    assert {one["name"] for one in found} == {
        *("python", "packages", "kernel", "libseccomp", "isolation", "tasks", "programs"),
        *("open files", "disk", "home", "versions", "gpu", "memory", "clock", "ports"),
        *("reachability", "bootstrap"),
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
    monkeypatch.setattr(node.doctor, "NETWORK_CHECKS", ())
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert done.stdout == "warn moon: it is \\x1b[2Jfull\n     -> wait\n"


def test_the_pythons_are_those_of_the_package() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == f">=3.{OLDEST_PYTHON[1]},<3.{NEWEST_PYTHON[1] + 1}"
    assert [one.level for one in check_python(NodeConfig())] == [Level.OK]


def test_another_python_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.doctor_machine.sys, "version_info", (3, 14, 0))
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
    monkeypatch.setattr(node.doctor_machine.resource, "getrlimit", lambda _: limits["now"])
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
    monkeypatch.setattr(node.doctor_machine.os, "geteuid", lambda: 4242)
    (found,) = check_home(settings(tmp_path))
    assert found.level is Level.BAD and "chown 4242" in found.remedy


def test_the_key_of_the_apis_certificate_is_a_secret_too(tmp_path: Path) -> None:
    (tmp_path / "tls.key").touch(0o644)
    chosen = settings(tmp_path, **{"api.tls_key": tmp_path / "tls.key"})
    (found,) = check_home(chosen)
    assert found.level is Level.BAD and found.remedy == f"chmod 600 {tmp_path / 'tls.key'}"


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


def test_another_version_than_the_pinned_one_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.level for one in check_versions(NodeConfig())] == [Level.OK]
    monkeypatch.setattr(
        node.doctor_machine,
        "requires",
        lambda _: ["libp2p==0.0.1", "rich>=1", "x==2; extra == 'y'"],
    )
    (found,) = check_versions(NodeConfig())
    assert found.level is Level.BAD and "needs 0.0.1" in found.found
    assert found.remedy == "pip install 'libp2p==0.0.1'"
    monkeypatch.setattr(node.doctor_machine, "requires", lambda _: ["no-such-package[a,b]==1.0"])
    (found,) = check_versions(NodeConfig())
    assert "no-such-package is missing" in found.found


NOW = 2_000_000_000.0


def with_rollouts(home: Path, took_s: float, num_peers: int = 3) -> None:
    """Foreign rollouts that were seen so long after they were signed, and later ones."""
    database = open_database(home / "pool.sqlite")
    pool = Pool(database, 10 * 86400.0, 2**20, clock=lambda: NOW)
    for number in range(2 * num_peers):
        author = Identity(bytes([1 + number % num_peers] * 32))
        answers = (Answer(str(number), True), Answer("no", True))
        question, at = Question("sums", number), NOW - 50_000
        rollout = Rollout("ab" * 32, author.node_id, number + 1, question, answers, "m", 1, at)
        seen = at + took_s + (number >= num_peers) * 30_000  # from a catalogue, long after
        expansion = Expansion(question, "?", "!")
        pool.add_foreign(seal(rollout, author), rollout, expansion, (True, False), seen)
    database.close()


@pytest.mark.parametrize(
    ("took_s", "level", "said"),
    [
        (2.0, Level.OK, "agrees with 3 peers"),
        (5000.0, Level.BAD, "83 min ahead of 3 peers"),
        (-5000.0, Level.BAD, "83 min behind 3 peers"),
    ],
)
def test_the_clock_is_compared_with_when_peers_signed(
    tmp_path: Path, took_s: float, level: Level, said: str
) -> None:
    with_rollouts(tmp_path, took_s)
    (found,) = check_clock(settings(tmp_path))
    assert found.level is level and said in found.found


def test_few_peers_say_nothing_of_the_clock(tmp_path: Path) -> None:
    with_rollouts(tmp_path, 5000.0, num_peers=2)
    (found,) = check_clock(settings(tmp_path))
    assert found.level is Level.OK and "not compared with peers" in found.found


def test_a_clock_behind_an_earlier_run_is_bad(tmp_path: Path) -> None:
    (tmp_path / "sequence").write_text(f"{int((time.time() + 7200) * 1000)}\n")
    (found,) = check_clock(settings(tmp_path))
    assert found.level is Level.BAD and "behind an earlier run of this node" in found.found
    (tmp_path / "sequence").write_text("nonsense")
    assert [one.level for one in check_clock(settings(tmp_path))] == [Level.OK]


def test_the_selftest_generates_learns_synchronises_and_probes(tmp_path: Path) -> None:
    config = settings(tmp_path, **{"rollout.engine": "transformers", "policy.model": "none/such"})
    found = list(run_selftest(config, gpu=False))
    assert [one.level for one in found] == [Level.OK] * 5, found
    words = ("on ", "engine transformers started", "generated ", "update made", "synchronised: ")
    assert all(one.found.startswith(word) for one, word in zip(found, words, strict=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_a_selftest_of_the_gpu_is_bad_where_there_is_none(tmp_path: Path) -> None:
    (found,) = run_selftest(settings(tmp_path), gpu=True)
    assert found.level is Level.BAD and "no GPU" in found.found and "--selftest" in found.remedy


def test_a_selftest_that_crashes_is_a_finding(tmp_path: Path) -> None:
    said = to_json(Finding("selftest", Level.OK, "so far")).decode()
    program = f"import os; print({said!r}, flush=True); print('[]', flush=True); "
    program += "os.write(2, b'CUDA error\\x1b[2J'); os.abort()"
    found = list(run_selftest(settings(tmp_path), False, (sys.executable, "-c", program)))
    assert [one.level for one in found] == [Level.OK, Level.BAD]
    assert found[1].found == "it ended with status -6: CUDA error\\x1b[2J"
