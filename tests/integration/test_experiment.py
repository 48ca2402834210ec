"""`sapo experiment` as a user starts it: interrupted, gone on with, asked what is there."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SAPO = str(Path(sys.executable).with_name("sapo"))
DEADLINE_S = 540


def sapo(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [SAPO, "experiment", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def lines(results: Path) -> list[str]:
    """The runs that are on disk."""
    return results.read_text().splitlines() if results.exists() else []


@pytest.mark.timeout(1200)
def test_the_smoke_experiment_is_interrupted_and_goes_on_to_its_table_and_curves(
    tmp_path: Path,
) -> None:
    made = tmp_path / "results" / "smoke"
    with subprocess.Popen(
        [SAPO, "experiment", "smoke"], cwd=tmp_path, stdout=subprocess.PIPE
    ) as begun:
        give_up = time.monotonic() + DEADLINE_S
        while not lines(made / "results.jsonl") and time.monotonic() < give_up:
            assert begun.poll() is None
            time.sleep(0.2)  # between looks at another process, not for it
        descendants = psutil.Process(begun.pid).children(recursive=True)
        begun.send_signal(signal.SIGINT)
        said = begun.communicate(timeout=DEADLINE_S)[0].decode()
    assert begun.returncode == 0, said
    assert "The same command goes on with them." in said
    psutil.wait_procs(descendants, timeout=DEADLINE_S)
    assert not [process for process in descendants if process.is_running()]
    first = lines(made / "results.jsonl")
    assert 1 <= len(first) < 8

    said = sapo("smoke", cwd=tmp_path)
    assert "8 of 8 runs are in results/smoke" in said
    all_lines = lines(made / "results.jsonl")
    assert all_lines[: len(first)] == first
    results = [json.loads(line) for line in all_lines]
    assert len({json.dumps(result["key"]) for result in results}) == len(results) == 8
    for result in results:
        (role,) = result["roles"]
        assert role["num_nodes"] == 3
        assert len(role["rounds"]["own_reward"]) == 3
        assert [exam["round"] for exam in role["exams"]] == [0, 3]
    starts: dict[int, set[float]] = {}
    for result in results:
        first_exam = result["roles"][0]["exams"][0]
        starts.setdefault(result["key"]["seed"], set()).add(first_exam["pass_1"])
    assert {seed: len(found) for seed, found in starts.items()} == {101: 1, 1: 1, 2: 1}
    foreign = {
        result["key"]["arm"]: sum(result["roles"][0]["rounds"]["foreign_used"])
        for result in results
    }
    assert foreign["own"] == 0 < foreign["paper"]

    table = (made / "table.md").read_text()
    assert table.startswith("# smoke")
    for arm in ("own", "paper", "fill"):
        assert f"| {arm}" in table
    assert (made / "curves.png").read_bytes().startswith(b"\x89PNG")

    assert "0 runs are missing" in sapo("smoke", "--list", cwd=tmp_path)
    (made / "table.md").unlink()
    sapo("smoke", "--report", cwd=tmp_path)
    assert (made / "table.md").read_text() == table
    assert lines(made / "results.jsonl") == all_lines
