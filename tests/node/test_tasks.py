"""Which tasks are used where the kernel isolates workers, and where it does not."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import rewards
from node.config import ConfigError, NodeConfig, find_manifest, load_config
from node.tasks import find_isolation, find_usable_tasks, open_verifier
from rewards.tasks import TaskFacts, TaskSpec
from swarm.manifest import Manifest, load_manifest

ROOT = str(Path(rewards.__file__).resolve().parents[1])
OPEN = (sys.executable, "-P", str(Path(__file__).with_name("open_worker.py")), ROOT)
ROW = {
    "question": "Square a number.",
    "answer": {"inputs": ["3"], "outputs": ["9"]},
    "example": "print(int(input()) ** 2)",
}

Make = Callable[..., tuple[NodeConfig, Manifest]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Settings and a manifest of a task of programs, and of another one where that is wanted."""
    data = tmp_path / "programs.jsonl"
    data.write_text(json.dumps(ROW) + "\n")
    version = "sha256:" + hashlib.sha256(data.read_bytes()).hexdigest()
    params = {"example": "example"}
    programs = TaskSpec("programs", "code", data.name, version, params, "code_block")  # type: ignore[arg-type]
    easy = load_manifest(find_manifest("easy"))

    def make(demand: str, num_others: int = 0) -> tuple[NodeConfig, Manifest]:
        tasks = (*easy.rules.tasks[:num_others], programs)
        manifest = msgspec.structs.replace(
            easy, rules=msgspec.structs.replace(easy.rules, tasks=tasks)
        )
        flags = {"home": tmp_path, "manifest": str(tmp_path / "swarm.toml")}
        return load_config(flags=flags | {"verify.isolation": demand}, environment={}), manifest

    (tmp_path / "swarm.toml").touch()
    return make


def test_programs_are_left_out_where_nothing_isolates_them(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    config, manifest = make("programs", 1)
    with open_verifier(config, manifest, OPEN) as verifier:
        usable, left_out = find_usable_tasks(verifier, manifest)
        isolation = find_isolation(config, verifier)
        with pytest.raises(ConfigError, match=r"verify\.isolation = 'required'.*lack of Landlock"):
            find_isolation(make("required")[0], verifier)
    assert [*usable] == [manifest.rules.tasks[0].name]
    assert "cannot isolate them" in left_out["programs"]
    assert not isolation.is_complete and len(isolation.missing) >= 2
    assert "not fully isolated: network and processes are open" in caplog.text


def test_who_has_nothing_to_lose_may_run_programs_without(make: Make) -> None:
    config, manifest = make("optional")
    with open_verifier(config, manifest, OPEN) as verifier:
        assert isinstance(verifier.describe()["programs"], TaskFacts)
        assert not find_isolation(config, verifier).is_complete


def test_what_is_isolated_meets_every_demand(make: Make) -> None:
    config, manifest = make("required")
    with open_verifier(config, manifest) as verifier:
        assert isinstance(verifier.describe()["programs"], TaskFacts)
        assert find_isolation(config, verifier).is_complete
