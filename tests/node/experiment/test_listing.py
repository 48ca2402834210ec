from io import StringIO
from pathlib import Path

import fake_swarm
from rich.console import Console

from node.experiment.listing import print_outcome, print_runs
from node.experiment.results import RunKey
from node.experiment.run import Kept, Outcome
from node.experiment.spec import Run, Spec

SPEC = Spec.model_validate(
    {
        "name": "made",
        "question": "Is it listed?",
        "nodes": 2,
        "rounds": 10,
        "seeds": [1, 2],
        "tuning_seeds": [11],
        "learning_rates": [1e-4, 3e-4],
        "arms": {"own": {}, "fixed": {"learning_rate": 1e-3}},
    }
)


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_every_run_is_listed_with_what_is_done_and_what_the_rest_costs() -> None:
    done = [
        Run("own", 11, 1e-4, is_tuning=True),
        Run("own", 11, 3e-4, is_tuning=True),
        Run("own", 1, 3e-4, is_tuning=False),
    ]
    results = {run: fake_swarm.made(run.key, is_tuning=run.is_tuning) for run in done}
    other = fake_swarm.made(RunKey("gone", 7, 1e-4))
    console = Console(file=(out := StringIO()), width=200)
    print_runs(SPEC, Kept(results, (other,)), (), 2, console)
    shown = lines(out.getvalue())
    assert shown[0] == ["made:", "Is", "it", "listed?"]
    assert shown[2][:7] == ["own", "2", "of", "2", "0.0003", "1*", "2"]
    assert shown[3][:5] == ["fixed", "none", "0.001", "1", "2"]
    assert "1 results are kept and ignored: gone 7 at 0.0001" in out.getvalue()
    missing = [run for run in SPEC.runs(results.values()) if run not in results]
    assert "6 runs of 2 nodes and 10 rounds, 120 node-rounds in all; 3 runs are missing" in (
        out.getvalue()
    )
    assert len(missing) == 3


def test_only_the_arms_that_are_asked_for_are_listed() -> None:
    console = Console(file=(out := StringIO()), width=200)
    print_runs(SPEC, Kept({}, ()), ["fixed"], 1, console)
    assert "own" not in out.getvalue()
    assert "2 runs are missing" in out.getvalue()


def test_an_estimate_grows_with_rounds_answers_and_exams() -> None:
    run = SPEC.runs()[0]
    ours = SPEC.estimate_s(run)
    for change in (
        {"rounds": 20},
        {"nodes": 3},
        {"exams": SPEC.exams.model_copy(update={"questions": 128})},
        {"settings": {"rollout": {"answers": 16}}},
    ):
        assert SPEC.model_copy(update=change).estimate_s(run) > ours


def test_what_failed_and_what_is_missing_is_named() -> None:
    missing = tuple(Run("own", seed, 1e-4, is_tuning=False) for seed in range(7))
    failures = {"own, seed 0, 0.0001": "Traceback\n  in learn\nValueError: \x1b[31mnan"}
    console = Console(file=(out := StringIO()), width=200)
    print_outcome(Outcome(9, missing, failures, was_stopped=True), Path("results/made"), console)
    text = out.getvalue()
    assert "FAILED: own, seed 0, 0.0001\nTraceback\n  in learn\nValueError: \\x1b[31mnan" in text
    assert "2 of 9 runs are in results/made" in text
    assert "missing: own, seed 0, 0.0001; own, seed 1, 0.0001" in text
    assert "and 2 more. The same command goes on with them." in text
