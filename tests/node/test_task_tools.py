"""`sapo tasks`, as its users call it, on a swarm of the example package's kind."""

import io
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from node import cli
from node.task_check import Finding, Outcome, TaskReport
from node.task_tools import (
    DigestState,
    Kind,
    Sample,
    TaskEntry,
    installed_kinds,
)
from node.task_view import print_report, print_samples, print_task, print_tasks
from rewards.question import Example, Question
from rewards.tasks import TaskFacts, TaskSpec
from swarm.manifest import About, Manifest, Rules, load_manifest

SWARM = """[about]
name = "numerals"

[rules]
max_new_tokens = 32
max_answer_bytes = 4096

[[rules.tasks]]
name = "roman"
kind = "roman_numerals"  # of the package roman-tasks
dataset = ""
version = "1.0"
answer_format = "tags"
system = "You are a scribe."
[[rules.tasks.examples]]
question = "Write 2 as a Roman numeral."
answer = "<answer>II</answer>"
"""

FACTS = TaskFacts("d" * 64, True, None, "number")


class Terminal:
    """`sapo` in a directory with a swarm file."""

    def __init__(
        self, swarm: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.swarm, self._patch, self._capture = swarm, patch, capture

    def __call__(self, *words: str) -> tuple[object, str, str]:
        """Exit status, standard output with its lines joined, standard error."""
        self._patch.setattr(sys, "argv", ["sapo", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = self._capture.readouterr()
        return end.value.code, " ".join(out.split()), err


@pytest.fixture
def sapo(
    tmp_path: Path,
    example_worker: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Terminal:
    swarm = tmp_path / "swarm.toml"
    swarm.write_text(SWARM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("node.task_tools.worker_command", lambda: example_worker)
    return Terminal(swarm, monkeypatch, capsys)


def test_check_writes_the_digest_that_ls_then_finds(sapo: Terminal) -> None:
    status, out, _ = sapo("tasks", "check", "swarm.toml")
    assert status == 3 and sapo.swarm.read_text() == SWARM
    assert "digest none is stated: --write puts " in out
    assert "1 of 1 tasks fail: roman" in out
    status, out, _ = sapo("tasks", "check", "swarm.toml", "--write")
    assert status == 0 and "1 tasks, and all hold" in out
    manifest = load_manifest(sapo.swarm)
    digest = manifest.rules.tasks[0].digest
    assert sapo.swarm.read_text() == SWARM.replace(
        'a scribe."\n', f'a scribe."\ndigest = "{digest}"\n'
    )
    assert manifest.swarm_id in out
    status, out, _ = sapo("tasks", "ls", "--manifest", "swarm.toml", "--json")
    found = json.loads(out)
    assert status == 0 and found["swarm"] == manifest.swarm_id
    (task,) = found["tasks"]
    assert task["state"] == "as stated"
    assert task["facts"] == {
        "type": "facts",
        "digest": digest,
        "deterministic": True,
        "num_questions": 3999,
        "rule": "exact",
    }


def test_sample_shows_what_the_model_reads_and_what_is_right(sapo: Terminal) -> None:
    words = ("tasks", "sample", "roman", "-n", "3", "--manifest", "swarm.toml")
    status, out, _ = sapo(*words, "--json")
    samples = json.loads(out)
    assert status == 0 and len(samples) == 3
    assert len({sample["question"]["index"] for sample in samples}) == 3
    for sample in samples:
        assert sample["system"] == "You are a scribe." and len(sample["examples"]) == 1
        assert sample["answer"] == f"<answer>{sample['truth']}</answer>"
        assert sample["is_correct"] is True
    status, out, _ = sapo(*words)
    assert status == 0 and out.count("You are a scribe.") == 3
    for sample in samples:
        assert f"truth {sample['truth']}" in out
    assert json.loads(sapo(*words, "--seed", "1", "--json")[1]) != samples


def test_show_says_everything_of_one_task(sapo: Terminal) -> None:
    status, out, _ = sapo("tasks", "show", "roman", "--manifest", "swarm.toml")
    assert status == 0
    for text in ("roman_numerals", "1.0", "tags", "You are a scribe.", "II", "3,999", "exact"):
        assert text in out
    assert "32 new tokens, 4,096 bytes" in out and "not stated" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "greek"), "'numerals' has no task 'greek'; it has roman"),
        (("sample", "roman"), "needs version '2.0', has roman-tasks 1.0"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    sapo: Terminal, words: tuple[str, ...], said: str
) -> None:
    sapo.swarm.write_text(SWARM.replace('version = "1.0"', 'version = "2.0"'))
    status, _, err = sapo("tasks", *words, "--manifest", "swarm.toml")
    assert status == 2 and said in " ".join(err.split()) and "Traceback" not in err


def test_kinds_are_those_of_this_package_and_of_installed_ones(
    example_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = tmp_path / "rival-1.0.dist-info"
    rival.mkdir()
    (rival / "METADATA").write_text("Metadata-Version: 2.4\nName: rival\nVersion: 1.0\n")
    (rival / "entry_points.txt").write_text("[sapo.tasks]\nrows = x:y\nroman_numerals = x:y\n")
    monkeypatch.syspath_prepend(str(example_packages))
    before = {kind.name: kind for kind in installed_kinds()}
    assert before["rows"].package == "sapo-swarm"
    assert before["roman_numerals"] == Kind("roman_numerals", "roman-tasks", "1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    problems = {(kind.package, kind.name): kind.problem for kind in installed_kinds()}
    assert problems["sapo-swarm", "rows"] == ""
    assert "never used" in problems["rival", "rows"]
    for package in ("rival", "roman-tasks"):
        assert "uninstall all but one" in problems[package, "roman_numerals"]


RED = "\x1b[31m[bold]red"
HOSTILE = TaskSpec(
    *("name", RED, RED, RED),
    params={"x": RED},
    system=f"{RED}\nsecond line",
    examples=(Example(RED, RED),),
)
MANIFEST = Manifest(About(RED), Rules((HOSTILE,), 16, 1024))
ENTRIES = [
    TaskEntry(HOSTILE, DigestState.NOT_BUILT, RED),
    TaskEntry(HOSTILE, DigestState.DIFFERS, facts=FACTS),
]
SAMPLE = Sample(
    *(Question("name", 2**53 - 1), True, RED, HOSTILE.examples),
    *(f"{RED}\n\nthird line", RED, RED, False),
)
REPORT = TaskReport(
    HOSTILE, (Finding("agreement", Outcome.FAILS, "word " * 40),), DigestState.NOT_STATED, "d" * 64
)
VIEWS: list[Callable[[Console], None]] = [
    partial(print_tasks, MANIFEST, ENTRIES, [Kind(RED, RED, RED, "a problem")]),
    partial(print_task, MANIFEST, ENTRIES[0], 5.0),
    partial(print_task, MANIFEST, ENTRIES[1], 5.0),
    partial(print_samples, [SAMPLE]),
    partial(print_report, REPORT),
]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("view", range(len(VIEWS)))
def test_what_is_shown_is_escaped_and_fits(view: int, width: int) -> None:
    out = io.StringIO()
    VIEWS[view](Console(file=out, width=width, force_terminal=False))
    shown = out.getvalue()
    assert "\x1b" not in shown and "\\x1b[31m[bold]red" in "".join(shown.split())
    assert max(map(len, shown.splitlines())) <= width


def test_lines_of_a_question_stay_lines() -> None:
    out = io.StringIO()
    print_samples([SAMPLE], Console(file=out, width=80))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert "third line" in lines and any("held out" in line for line in lines)
    assert any("judged wrong" in line for line in lines)
