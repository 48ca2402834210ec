"""`sapo eval`: what it takes for a policy, how it asks, and what it shows."""

import io
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from node.build import open_examinee
from node.checkpoint import Checkpoints, NodeState
from node.cli import app
from node.config import ConfigError, NodeConfig, find_manifest, load_config
from node.evaluate import HeldOut, accuracy
from node.exam import ADAPTER_FILE, Exam, Figure, Report, TaskFigures, ask, change, find_target
from node.exam_view import print_report
from node.exchange import LocalExchange
from node.policy import Policy, ScriptedPolicy
from node.status import Status
from node.status_json import from_json, to_json
from rewards.verifier import Verifier
from swarm.manifest import Manifest, load_manifest

TINY = Path(str(files("node") / "tiny"))
STATE = NodeState(round=12, seed=7, swarm_id="ab" * 32, model="some/model")


def write_checkpoint(home: Path, number: int, *, adapter: bool = False) -> Path:
    def save(directory: Path) -> None:
        (directory / (ADAPTER_FILE if adapter else "config.json")).write_text("{}")

    state = msgspec.structs.replace(STATE, round=number)
    return Checkpoints(home / "checkpoints", keep=3).write(state, save)


def test_a_checkpoint_is_found_by_its_own_name_and_by_its_nodes_home(tmp_path: Path) -> None:
    first, last = write_checkpoint(tmp_path, 2), write_checkpoint(tmp_path, 12)
    by_home = find_target(str(tmp_path), Path("elsewhere"))
    assert by_home.model == str(last / "policy")
    assert (by_home.adapter, by_home.home, by_home.state) == (None, tmp_path, STATE)
    for name in (last, last / "policy", tmp_path / "checkpoints"):
        assert find_target(str(name), Path("elsewhere")).model == by_home.model
    assert find_target("", tmp_path).model == by_home.model
    earlier = find_target(str(first), Path("elsewhere"))
    assert (earlier.model, earlier.home) == (str(first / "policy"), tmp_path)
    assert earlier.state is not None and earlier.state.round == 2


def test_an_adapter_is_one_of_the_model_that_its_node_started_with(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path, 12, adapter=True)
    target = find_target(str(place), Path("elsewhere"))
    assert (target.model, target.adapter) == ("some/model", place / "policy")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / ADAPTER_FILE).write_text('{"base_model_name_or_path": "other/model", "r": 8}')
    target = find_target(str(alone), Path("elsewhere"))
    assert (target.model, target.adapter, target.state) == ("other/model", alone, None)


def test_a_home_is_only_looked_at(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 12)
    (tmp_path / "checkpoints" / ".writing-round-00000013").mkdir()
    (tmp_path / "checkpoints" / "round-00000013").mkdir()
    before = sorted(tmp_path.rglob("*"))
    target = find_target(str(tmp_path), Path("elsewhere"))
    assert target.state == STATE, "one without a state is passed over"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["tiny", "Qwen/Qwen2.5-0.5B", "gpt2"])
def test_what_is_no_directory_is_a_name_of_the_hub(name: str) -> None:
    target = find_target(name, Path("elsewhere"))
    assert (target.model, target.adapter, target.home) == (name, None, None)


def test_a_models_directory_is_a_model() -> None:
    assert find_target(str(TINY), Path("elsewhere")).model == str(TINY)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "there is no elsewhere; name a checkpoint"),
        ("./nowhere", "there is no nowhere"),
        ("a/b/c", "there is no a/b/c"),
        ("../../etc", "there is no ../../etc"),
        ("empty", "neither a checkpoint, nor a node's home"),
        ("broken", "no state of a node"),
        ("nameless", "does not name the model of the adapter"),
        ("garbled", "cannot be read"),
    ],
)
def test_what_is_no_policy_is_an_error_that_says_what_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in ("empty", "broken", "nameless", "garbled"):
        Path(directory).mkdir()
    Path("broken/state.json").write_text('{"round": "many"}')
    Path("nameless", ADAPTER_FILE).write_text('{"base_model_name_or_path": null}')
    Path("garbled", ADAPTER_FILE).write_text("{")
    with pytest.raises(ConfigError, match=said):
        find_target(name, Path("elsewhere"))


SKILLS = {"weak": 0.2, "strong": 0.8}


@contextmanager
def open_scripted(
    config: NodeConfig, manifest: Manifest, adapter: Path | None, status: Status
) -> Iterator[Policy]:
    """A policy whose name says what it can."""
    status.engine = "scripted"
    yield ScriptedPolicy(config.seed or 0, config.rollout.answers, SKILLS[config.policy.model])


def asked(verifier: Verifier, *names: str) -> tuple[Report, list[tuple[str, int]]]:
    """The report, and what was heard of the progress."""
    config = load_config(flags={"seed": 3, "rollout.answers": 4}, environment={})
    exchange = LocalExchange(verifier, ["sums"], 3)
    heard: list[tuple[str, int]] = []
    report = ask(
        [find_target(name, Path("elsewhere")) for name in names],
        config,
        load_manifest(find_manifest("easy")),
        exchange,
        exchange.draw_held_out(40, 3),
        open_scripted,
        lambda name, num_done: heard.append((name, num_done)),
    )
    return report, heard


def test_two_policies_are_asked_the_same_and_compared_question_by_question(
    verifier: Verifier,
) -> None:
    report, heard = asked(verifier, "weak", "strong")
    assert heard == [(name, done) for name in SKILLS for done in (0, 16, 32, 40)]
    assert (report.seed, report.k, report.swarm) == (3, 4, "easy")
    before, after = (exam.tasks for exam in report.exams)
    assert [row.task for row in before] == [None, "sums"]
    assert before[0].num_questions == 40
    for row, skill in ((before[0], 0.2), (after[0], 0.8)):
        assert row.pass_1.low < skill < row.pass_1.high
        assert row.pass_k.low < 1 - (1 - skill) ** 4 < row.pass_k.high
        assert 1 <= row.diversity.low < row.diversity.high <= 4
    assert (before[0].greedy.mean, after[0].greedy.mean) == (0, 1)
    gain = report.change[0]
    assert gain.pass_1.mean == pytest.approx(after[0].pass_1.mean - before[0].pass_1.mean)
    assert 0.4 < gain.pass_1.low < 0.6 < gain.pass_1.high < 0.8
    assert gain.pass_1.standard_error < math.hypot(
        before[0].pass_1.standard_error, after[0].pass_1.standard_error
    ), "pairs share their random numbers"
    assert gain.greedy.mean == 1


def test_the_figures_are_json(verifier: Verifier) -> None:
    report, _ = asked(verifier, "weak")
    assert report.change == ()
    assert from_json(to_json(report), Report) == report


def test_a_policy_that_no_question_fits_is_named(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedPolicy, "roll_out", lambda *_, **__: [])
    with pytest.raises(ConfigError, match=r"weak: no held-out question fits .*max_prompt_tokens"):
        asked(verifier, "weak")


def test_policies_without_a_question_in_common_cannot_be_compared() -> None:
    one, other = (
        HeldOut((0.5,), ("a",), 2, accuracy([1.0]), (index,), (1.0,), (2.0,)) for index in (1, 2)
    )
    with pytest.raises(ConfigError, match="no question fits both"):
        change(one, other)


def made_report(name: str, task: str) -> Report:
    low, high = Figure(0.25, 0.1, 0.05, 0.45), Figure(0.625, 0.1, 0.5, 0.75)
    many = Figure(10.25, 0.1, 10.0, 10.5)
    worse, better = Figure(-0.5, 0.1, -0.75, -0.25), Figure(0.375, 0.1, 0.25, 0.5)
    rows = (TaskFigures(None, 9, low, high, low, many), TaskFigures(task, 9, low, high, low, many))
    exam = Exam(name, name, 12, "cd" * 32, "transformers", 3.0, rows)
    gain = TaskFigures(None, 9, better, worse, Figure(0, 0, 0, 0), Figure(0, 1, -2, 2))
    return Report("easy", "ab" * 32, 0, 16, 1.0, (exam, exam), (gain,))


def shown(report: Report, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_means_with_intervals_and_warns_of_another_swarm() -> None:
    text = shown(made_report("home", "sums"), 120)
    for part in (
        "home, after 12 rounds: transformers, 3.0 s",
        "pass@16",
        ".250 .05….45",
        "10.25 10.00…10.50",
        "+.375 +.25…+.50",
        "-.500 -.75…-.25",
        "another swarm (cdcdcdcdcdcdcdcd…)",
        "home minus home, question by question",
        "swarm easy, seed 0, 16 answers to each question at temperature 1",
    ):
        assert part in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_odd_names_cannot_act_on_the_terminal(width: int) -> None:
    text = shown(made_report("[red]a\x1b[2J\u202e", "[bold]\x1b]0;x\x07\n"), width)
    assert "\x1b[2J" not in text and "\x1b]" not in text and "\u202e" not in text
    assert "[red]a" in text


def test_the_command_asks_a_real_model_and_a_directory_against_each_other(tmp_path: Path) -> None:
    head, first, *_ = find_manifest("easy").read_text().split("[[rules.tasks]]")
    manifest = tmp_path / "swarm.toml"
    manifest.write_text(f"{head}[[rules.tasks]]{first}")
    shutil.copytree(TINY, tmp_path / "model")
    done = CliRunner().invoke(
        app,
        [
            *("eval", str(tmp_path / "model"), "--against", "tiny", "--json"),
            *("--questions", "8", "--answers", "2"),
            *("--engine", "transformers", "--manifest", str(manifest)),
        ],
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    before, after = report["exams"]
    assert (before["target"], after["model"]) == ("tiny", str(tmp_path / "model"))
    assert before["tasks"] == after["tasks"], "the same weights answer the same"
    assert report["k"] == 2
    assert [row["num_questions"] for row in report["change"]] == [8, 8]
    assert report["change"][0]["pass_1"]["mean"] == 0


def test_a_directory_that_holds_something_else_is_the_users_mistake(tmp_path: Path) -> None:
    for name, text in (("config.json", "{}"), ("model.safetensors", "x")):
        (tmp_path / name).write_text(text)
    config = load_config(flags={"policy.model": str(tmp_path)}, environment={})
    manifest = load_manifest(find_manifest("easy"))
    with (
        pytest.raises(ConfigError, match="cannot be loaded"),
        open_examinee(config, manifest, None, Status()),
    ):
        pass
    (tmp_path / "config.json").unlink()
    with (
        pytest.raises(ConfigError, match=r"it has no config\.json"),
        open_examinee(config, manifest, None, Status()),
    ):
        pass
