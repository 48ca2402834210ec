"""The program as a user starts it: the demo with each engine, a run that is stopped and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SAPO = [str(Path(sys.executable).with_name("sapo"))]
DEADLINE_S = 240
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}


def sapo(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SAPO, *words],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


@pytest.mark.parametrize(
    "engine",
    [
        "transformers",
        pytest.param("vllm", marks=pytest.mark.vllm),
        pytest.param("vllm-process", marks=pytest.mark.vllm),
    ],
)
def test_the_demo_trains_with_each_engine_and_says_what_it_found(
    tmp_path: Path, engine: str
) -> None:
    done = sapo(
        "demo", "--home", "out", "--engine", engine, "--rounds", "4", "--heldout", "16",
        cwd=tmp_path,
    )  # fmt: skip
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert done.returncode == (0 if summary["has_learned"] else 3), done.stderr
    [node] = summary["nodes"]
    assert node["engine"] == engine
    assert node["engine_warning"] == ""
    assert node["rounds"] == len(node["own_reward"]) == 4
    assert node["heldout_questions"] == 16
    assert Path(tmp_path, node["checkpoint"], "policy", "model.safetensors").is_file()
    assert (tmp_path / "out" / "summary.png").stat().st_size > 10_000
    assert "held-out accuracy" in done.stdout


def test_a_run_ends_on_sigterm_with_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    command = [*SAPO, "run", "--home", "home", "--engine", "transformers"]
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
    [checkpoint] = (tmp_path / "home" / "checkpoints").iterdir()
    stopped_at = int(checkpoint.name.removeprefix("round-"))
    assert stopped_at >= 2
    done = sapo(*command[len(SAPO) :], "--rounds", str(stopped_at + 1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"resuming after round {stopped_at}" in done.stderr
    assert f"round {stopped_at + 1}:" in done.stderr
    assert "round 1:" not in done.stderr
    refused = sapo("run", "--home", "home", "--manifest", "paper", cwd=tmp_path)
    assert refused.returncode == 2
    assert "was started with swarm_id" in refused.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run", "--engine", "vlm"], "rollout.engine = 'vlm'"),
        (["run", "--set", "learn.lerning_rate=1"], "did you mean 'learn.learning_rate'"),
        (["run", "--set", "nonsense"], "write it as KEY=VALUE"),
        (["run", "--manifest", "esy"], "shipped are only: easy, paper"),
        (["run", "--model", "./nowhere"], "there is no directory ./nowhere"),
        (["demo", "--nodes", "4"], "only 1 works in this version"),
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
