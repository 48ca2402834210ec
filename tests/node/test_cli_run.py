"""The words of `sapo run` become settings, and what cannot be is said in one line."""

import itertools
from pathlib import Path

import pytest
from typer.testing import CliRunner

import node.control
from node.cli import app
from node.config import ConfigError, NodeConfig
from node.supervisor import LearnerEnd

FLAGS = {"--generate-only": "generate", "--observe": "observe", "--relay": "relay"}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """The settings with which nodes were run."""
    found: list[NodeConfig] = []

    def run_node(config: NodeConfig) -> LearnerEnd:
        found.append(config)
        return LearnerEnd()

    monkeypatch.setattr(node.control, "run_node", run_node)
    return found


def error_of(*words: str) -> str:
    done = CliRunner().invoke(app, ["run", *words])
    assert isinstance(done.exception, ConfigError), done.output
    return str(done.exception)


def test_a_flag_names_the_mode_and_without_one_the_settings_do(runs: list[NodeConfig]) -> None:
    for flag in FLAGS:
        assert CliRunner().invoke(app, ["run", flag]).exit_code == 0
    assert CliRunner().invoke(app, ["run"]).exit_code == 0
    assert CliRunner().invoke(app, ["run"], env={"SAPO_MODE": "relay"}).exit_code == 0
    assert [one.mode for one in runs] == [*FLAGS.values(), "train", "relay"]


def test_a_node_has_one_mode(runs: list[NodeConfig]) -> None:
    for one, other in itertools.combinations(FLAGS, 2):
        assert error_of(one, other) == "give one of --generate-only, --observe and --relay"
    assert runs == []


def test_the_demo_trains(tmp_path: Path) -> None:
    words = ["demo", "--home", str(tmp_path / "demo"), "--set", "mode=observe"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError) and "the demo's nodes train" in str(
        done.exception
    )
    assert not (tmp_path / "demo").exists()


def test_what_a_policy_would_need_is_refused_where_there_is_none(runs: list[NodeConfig]) -> None:
    for flag in ("--observe", "--relay"):
        for words in (("--model", "tiny"), ("--engine", "vllm"), ("--rounds", "3")):
            mode = FLAGS[flag]
            assert error_of(flag, *words) == f"{words[0]}: mode {mode} has no policy; leave it out"
    assert runs == []
    words = ["run", "--generate-only", "--model", "tiny", "--engine", "vllm", "--rounds", "3"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (runs[0].mode, runs[0].rounds) == ("generate", 3)
