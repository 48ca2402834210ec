"""`sapo tasks check` finds the fault of each careless task, and no other."""

import sys
from pathlib import Path

import pytest

from node.config import load_config
from node.task_check import Outcome, TaskReport, check_tasks
from node.task_tools import DigestState, opener
from rewards.tasks import TaskSpec
from swarm.manifest import About, Manifest, Rules

ROOT = Path(__file__).parents[2]
CARELESS = (sys.executable, "-P", str(Path(__file__).with_name("careless_worker.py")), str(ROOT))

FAULTS = {
    "gaps": ("expansion", "checker_error LookupError: no \\x1b[31msuch row"),
    "not_canonical": ("addresses", "Expansion.question must be its lowest address"),
    "too_many_rows": ("addresses", "its num_questions is 200"),
    "refusing": ("right answers", "64 of 64 are not judged correct"),
    "containing": ("wrong answers", " or "),
    "takes_nan": ("hostile answers", "'nan' is judged correct"),
    "hashed": ("agreement", "differs between two processes: it must depend on"),
    "moody": ("agreement", "judge '∞' to question"),
    "remembering": ("agreement", "differs when it is asked for again"),
    "one_text": ("held out", "none is held out: add questions"),
    "leaning": ("held out", "should be near 6.2%"),
    "always_yes": ("constant", "'yes' is right for 100% of 64"),
}
NOTES = {
    "raising": ("hostile answers", "unscorable: 2 checker_error"),
    "rows": ("distinct", "300 questions; 0 and 299 differ only in their truth"),
    "uncertain": ("agreement", "verdicts may differ"),
}


def manifest(*kinds: str) -> Manifest:
    specs = tuple(TaskSpec(kind, kind, "", "1") for kind in kinds)
    return Manifest(About("careless"), Rules(specs, 16, 4096))


def check(*kinds: str) -> dict[str, TaskReport]:
    made = manifest(*kinds)
    config = load_config(environment={})
    told: list[str] = []
    open_tasks = opener(config, made, CARELESS)
    reports = list(check_tasks(made.rules.tasks, open_tasks, 4096, told.append, 300))
    assert [report.spec.name for report in reports] == list(kinds)
    assert told[0] == "starting workers"
    return {report.spec.name: report for report in reports}


def found(report: TaskReport, outcome: Outcome) -> dict[str, str]:
    return {one.check: one.text for one in report.findings if one.outcome is outcome}


@pytest.fixture(scope="module")
def reports() -> dict[str, TaskReport]:
    return check("sound", *FAULTS, *NOTES, "refused")


def test_a_sound_task_holds(reports: dict[str, TaskReport]) -> None:
    report = reports["sound"]
    assert report.holds and report.needs_digest and report.state is DigestState.NOT_STATED
    holding = found(report, Outcome.HOLDS)
    assert [*holding] == [
        *["expansion", "addresses", "right answers", "wrong answers", "hostile answers"],
        *["agreement", "held out", "distinct", "constant"],
    ]
    assert "none of 300 drawn for training" in holding["held out"]
    assert "more than 15,000 (estimated)" in holding["distinct"]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found_and_explained(reports: dict[str, TaskReport], kind: str) -> None:
    where, text = FAULTS[kind]
    failed = found(reports[kind], Outcome.FAILS)
    assert not reports[kind].holds and not reports[kind].needs_digest
    assert text in failed[where], failed
    # a text that does not say enough, or a truth that is always the same, is seen in several ways
    expected = {where} | ({"constant"} if kind == "one_text" else set())
    assert set(failed) == expected, failed


@pytest.mark.parametrize("kind", NOTES)
def test_what_an_author_should_know_is_noted(reports: dict[str, TaskReport], kind: str) -> None:
    where, text = NOTES[kind]
    assert reports[kind].holds
    assert text in found(reports[kind], Outcome.NOTE)[where]


def test_a_refused_task_says_why(reports: dict[str, TaskReport]) -> None:
    report = reports["refused"]
    assert found(report, Outcome.FAILS) == {"built": "task 'refused': needs \\x1b[31mversion 2"}
    assert report.state is DigestState.NOT_BUILT and report.digest == ""


def test_a_task_that_ends_its_workers_is_named_and_the_others_are_checked() -> None:
    reports = check("crashing", "sound")
    assert "ended with status 7" in found(reports["crashing"], Outcome.FAILS)["built"]
    assert reports["sound"].holds
