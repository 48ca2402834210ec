"""The program as a user starts it: the demo, whole, killed or stopped, and a run resumed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from node.ask import NodeUnreachable, fetch_snapshot
from node.config import find_manifest, load_config
from node.home import HomeError
from node.status import Snapshot

SAPO = [str(Path(sys.executable).with_name("sapo"))]
DEADLINE_S = 300
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}
ALONE = ["--set", "api.port=0", "--set", "swarm.listen=/ip4/127.0.0.1/tcp/0"]


def sapo(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SAPO, *words],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


class RunningDemo:
    """A `sapo demo` in the directory "out"."""

    def __init__(self, process: "subprocess.Popen[str]", home: Path) -> None:
        self.process = process
        self.home = home

    def wait_for(self, number: int, is_so: Callable[[Snapshot], bool]) -> Snapshot:
        """The first snapshot of a node for which it is so."""
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                found = fetch_snapshot(self.home / f"node-{number}")
            except (NodeUnreachable, HomeError):
                found = None
            if found is not None and is_so(found):
                return found
            time.sleep(0.2)  # between looks at another process, not for it
        raise AssertionError("it never came to that")

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def control_pid(self, number: int) -> int:
        file = str(self.home / f"node-{number}" / "node.toml")
        [pid] = [one.pid for one in psutil.process_iter(["cmdline"]) if is_run(one, file)]
        return int(pid)

    def end(self) -> str:
        """What it printed, once it has ended."""
        out, _ = self.process.communicate(timeout=2 * DEADLINE_S)
        return out


def is_run(process: psutil.Process, config_file: str) -> bool:
    return config_file in (process.info["cmdline"] or [])


@contextmanager
def running_demo(directory: Path, *words: str) -> Iterator[RunningDemo]:
    command = [*SAPO, "demo", "--home", "out", *words]
    with subprocess.Popen(
        command,
        cwd=directory,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield RunningDemo(process, directory / "out")
        finally:
            process.send_signal(signal.SIGINT)


def assert_nothing_left(processes: list[psutil.Process], home: Path) -> None:
    _, alive = psutil.wait_procs(processes, timeout=0)
    assert not alive
    for file in home.glob("node-*/node.toml"):
        port = int(load_config(file, environment={}).swarm.listen.rpartition("/")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} is still open"


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_four_nodes_learn_together_though_a_learner_and_a_node_are_killed(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--engine", "vllm", "--max-s", "800") as demo:
        learner = demo.wait_for(1, lambda one: one.learner.round >= 6).learner.pid
        assert learner is not None
        os.kill(learner, signal.SIGKILL)
        demo.wait_for(2, lambda one: one.learner.round >= 8)
        os.kill(demo.control_pid(2), signal.SIGKILL)
        back = demo.wait_for(2, lambda one: one.learner.round > 8)
        assert back.learner.restarts == 0
        processes = demo.descendants()
        printed = demo.end()
    assert demo.process.returncode == 0, printed[-3000:]
    assert "node-1 lost its learner (ended by signal: Killed)" in printed
    assert "node-2 was ended by signal 9 (Killed); it is started again in 1 s" in printed
    assert_nothing_left(processes, demo.home)
    summary = json.loads((demo.home / "summary.json").read_text())
    assert summary["failures"] == []
    assert summary["heldout_rise"]["mean"] > 2 * summary["heldout_rise"]["standard_error"]
    assert len(summary["nodes"]) == 4
    for node in summary["nodes"]:
        assert (node["engine"], node["engine_warning"]) == ("vllm", "")
        assert node["rounds"] == len(node["own_reward"]) == len(node["foreign_groups_used"]) == 40
        assert node["rounds_with_foreign_groups"] > 20
        assert node["heldout_questions"] == 256
        assert node["peers"] == 3
        assert Path(node["checkpoint"], "policy", "model.safetensors").is_file()
    assert [node["restarts"] for node in summary["nodes"]] == [0, 0, 1, 0]
    assert (demo.home / "summary.png").stat().st_size > 10_000


@pytest.mark.timeout(600)
def test_ctrl_c_leaves_no_process_and_no_port_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--nodes", "2", "--engine", "transformers") as demo:
        demo.wait_for(1, lambda one: one.learner.pid is not None)
        processes = demo.descendants()
        assert len(processes) > 4
        demo.process.send_signal(signal.SIGINT)
        printed = demo.end()
    assert demo.process.returncode == 3, printed[-3000:]
    assert "DID NOT HAPPEN AS IT SHOULD: it was stopped" in printed
    assert "Traceback" not in printed
    assert_nothing_left(processes, demo.home)
    assert json.loads((demo.home / "summary.json").read_text())["failures"][0] == "it was stopped"


@pytest.mark.timeout(600)
def test_the_end_of_the_demo_by_a_kill_is_the_end_of_its_nodes(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--nodes", "2", "--engine", "transformers") as demo:
        demo.wait_for(1, lambda one: one.learner.pid is not None)
        processes = demo.descendants()
        demo.process.kill()
        demo.end()
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert not alive


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "engine",
    [
        "transformers",
        pytest.param(
            "vllm-process",
            marks=[
                pytest.mark.vllm,
                pytest.mark.skipif("TEST_KILLS" not in os.environ, reason="run by `make faults`"),
            ],
        ),
    ],
)
def test_a_single_node_demo_works_with_each_other_engine(tmp_path: Path, engine: str) -> None:
    done = sapo(
        "demo", "--home", "out", "--nodes", "1", "--engine", engine, "--rounds", "4",
        "--heldout", "16",
        cwd=tmp_path,
    )  # fmt: skip
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert done.returncode == (3 if summary["failures"] else 0), done.stderr
    assert all("did not rise" in failure for failure in summary["failures"])
    [node] = summary["nodes"]
    assert (node["engine"], node["engine_warning"]) == (engine, "")
    assert node["rounds"] == len(node["own_reward"]) == 4
    assert node["foreign_groups_used"] == [0, 0, 0, 0]
    assert node["heldout_questions"] == 16
    assert "held-out accuracy" in done.stdout


@pytest.mark.timeout(600)
def test_a_run_ends_on_sigterm_with_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    command = [*SAPO, "run", "--home", "home", "--engine", "transformers", *ALONE]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "round 2:" in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
        assert process.wait(DEADLINE_S) == 0, rest
    newest = max((tmp_path / "home" / "checkpoints").iterdir())
    stopped_at = int(newest.name.removeprefix("round-"))
    assert stopped_at >= 2
    done = sapo(*command[len(SAPO) :], "--rounds", str(stopped_at + 1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"resuming after round {stopped_at}" in done.stderr
    assert f"round {stopped_at + 1}:" in done.stderr
    assert "round 1:" not in done.stderr
    refused = sapo("run", "--home", "home", "--manifest", "paper", *ALONE, cwd=tmp_path)
    assert refused.returncode == 2
    assert "was started with swarm_id" in refused.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run", "--engine", "vlm"], "rollout.engine = 'vlm'"),
        (["run", "--set", "learn.lerning_rate=1"], "did you mean 'learn.learning_rate'"),
        (["run", "--set", "nonsense"], "write it as KEY=VALUE"),
        (["run", "--manifest", "esy"], "shipped are only: easy, paper"),
        (["run", "--model", "./nowhere", *ALONE], "there is no directory ./nowhere"),
        (["join", "nowhere.toml", "--yes"], "nowhere.toml: cannot be read"),
        (["run", "--set", "swarm.listen=here", "--set", "api.port=0"], "write /ip4/ADDRESS/tcp"),
        (["run", "--set", "api.host=0.0.0.0"], "api.host"),
        (["demo", "--manifest", "esy"], "shipped are only: easy, paper"),
        (["demo", "--nodes", "0"], "--nodes"),
        (["demo", "--home", "."], "holds files that no demo made"),
    ],
)
def test_mistakes_get_one_clear_line_and_status_2(
    tmp_path: Path, words: list[str], complaint: str
) -> None:
    (tmp_path / "precious").touch()
    done = sapo(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "precious").exists()


def test_a_swarm_is_joined_by_its_file_and_asked_for_once(tmp_path: Path) -> None:
    (tmp_path / "swarm.toml").write_text(find_manifest("easy").read_text())
    asked = sapo("join", "swarm.toml", "--home", "home", cwd=tmp_path)
    assert asked.returncode != 0, "nobody said yes"
    assert "when it is active" in " ".join(asked.stdout.split())
    assert not (tmp_path / "home").exists()
    joined = sapo("join", "swarm.toml", "--home", "home", "--yes", cwd=tmp_path)
    assert joined.returncode == 0, joined.stderr
    assert (tmp_path / "home" / "swarm.toml").read_text() == find_manifest("easy").read_text()


def test_a_node_that_does_not_run_is_named_with_status_5(tmp_path: Path) -> None:
    for words in (["status"], ["peers", "ls"], ["status", "--json"]):
        done = sapo(*words, "--home", "home", cwd=tmp_path)
        assert done.returncode == 5
        assert "no node runs in home" in done.stderr
