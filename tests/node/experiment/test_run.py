import threading
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import fake_swarm
import pytest
from rich.console import Console

from node.config import ConfigError
from node.experiment.figures import Declared
from node.experiment.results import RESULTS_FILE, RunResult, append_result, read_results
from node.experiment.run import (
    Makers,
    Outcome,
    declared,
    find_materials,
    read_kept,
    run_experiment,
)
from node.experiment.spec import ArmSpec, Materials, Run, Spec
from node.experiment.spec_file import load_spec

MATERIALS = Materials("swarm", {"tiny": "as shipped", "broken": "of nothing"})


def declare(arms: Sequence[str] = ("own", "fill"), **changes: Any) -> Spec:
    tree = {
        "name": "made",
        "question": "Does it go on?",
        "nodes": 2,
        "rounds": 2,
        "seeds": [1, 2],
        "learning_rates": [1e-4],
        "controls": [arms[0]],
        "arms": {arm: {} for arm in arms},
    }
    return Spec.model_validate(tree | changes)


class Made:
    """A directory of results, and what was reported and printed while they were made."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "results"
        self.marks = place / "marks"
        self.marks.mkdir()
        (self.directory / "logs").mkdir(parents=True)
        self.stop_asked = threading.Event()
        self.on_report: Callable[[], None] = lambda: None
        self.reported: list[list[Run]] = []
        self.printed = StringIO()

    def keep(self, spec: Spec) -> None:
        """As if all its runs had been made."""
        for run in spec.runs():
            digest = spec.digest(run.key, MATERIALS)
            append_result(self.directory, fake_swarm.made(run.key, spec.rounds, digest=digest))

    def make(self, spec: Spec, jobs: int = 1, **options: Any) -> Outcome:
        makers = Makers(
            partial(fake_swarm.make_start, self.marks), fake_swarm.make_run, self._report
        )
        return run_experiment(
            spec,
            MATERIALS,
            self.directory,
            jobs=jobs,
            stop_asked=self.stop_asked,
            console=Console(file=self.printed, width=300),
            makers=makers,
            **options,
        )

    def _report(self, spec: Spec, directory: Path, results: Sequence[RunResult]) -> None:
        assert directory == self.directory
        self.reported.append([Run(*key_of(one), one.is_tuning) for one in results])
        self.on_report()

    @property
    def kept(self) -> list[tuple[str, int, float]]:
        """What is on disk, in the order in which it was found."""
        return [key_of(result) for result in read_results(self.directory)]

    def times_begun(self, run: str) -> int:
        file = self.marks / run
        return len(file.read_text().splitlines()) if file.exists() else 0


def key_of(result: RunResult) -> tuple[str, int, float]:
    return result.key.arm, result.key.seed, result.key.learning_rate


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_every_run_is_made_once_seed_by_seed_and_kept_with_its_digest(made: Made) -> None:
    spec = declare()
    outcome = made.make(spec)
    assert outcome == Outcome(4, (), {}, was_stopped=False)
    assert made.kept == [
        ("own", 1, 1e-4), ("fill", 1, 1e-4), ("own", 2, 1e-4), ("fill", 2, 1e-4)
    ]  # fmt: skip
    for result in read_results(made.directory):
        assert (result.experiment, result.is_tuning) == ("made", False)
        assert result.digest == spec.digest(result.key, MATERIALS)
    assert made.reported[-1] == spec.runs()
    # one worker made them all, with one thread
    marks = {file.read_text() for file in made.marks.iterdir()}
    assert len(marks) == 1
    assert marks.pop().startswith("1 ")


def test_arms_are_tuned_first_and_measured_at_the_rate_that_did_best(made: Made) -> None:
    spec = declare(
        learning_rates=[1e-4, fake_swarm.BEST_RATE, 1e-3],
        tuning_seeds=[11, 12],
    ).model_copy(update={"arms": {"own": ArmSpec(), "fixed": ArmSpec(learning_rate=1e-3)}})
    outcome = made.make(spec)
    assert outcome == Outcome(10, (), {}, was_stopped=False)
    rates = [1e-4, 3e-4, 1e-3]
    tuning = [("own", seed, rate) for seed in (11, 12) for rate in rates]
    measuring = [
        (arm, seed, rate) for seed in (1, 2) for arm, rate in (("own", 3e-4), ("fixed", 1e-3))
    ]
    assert made.kept == tuning + measuring
    assert [result.is_tuning for result in read_results(made.directory)] == [True] * 6 + [False] * 4


def test_a_later_start_makes_only_what_is_missing(made: Made) -> None:
    made.keep(declare(["own"]))
    file = made.directory / RESULTS_FILE
    file.write_bytes(file.read_bytes()[:-5])  # as a crash leaves it
    assert made.make(declare()).missing == ()
    assert made.kept == [
        ("own", 1, 1e-4), ("fill", 1, 1e-4), ("own", 2, 1e-4), ("fill", 2, 1e-4)
    ]  # fmt: skip
    assert [made.times_begun(f"own {seed} 0.0001") for seed in (1, 2)] == [0, 1]


def test_where_all_is_there_nothing_is_started_and_the_report_is_written(made: Made) -> None:
    made.keep(declare())
    assert made.make(declare()).missing == ()
    assert made.reported == [declare().runs()]
    assert not list(made.marks.iterdir())


def test_only_the_arms_that_are_asked_for_are_made(made: Made) -> None:
    made.keep(declare(["own"], seeds=[1]))
    outcome = made.make(declare(), only=["own"])
    assert (outcome.num_runs, outcome.missing) == (2, ())
    assert made.kept == [("own", 1, 1e-4), ("own", 2, 1e-4)]


def test_results_of_another_declaration_are_named_kept_and_ignored(made: Made) -> None:
    made.keep(declare())
    changed = declare(rounds=3, seeds=[1])
    assert made.make(changed).missing == ()
    assert len(made.kept) == 6
    assert "4 lines of results.jsonl are ignored: own 1 at 0.0001" in made.printed.getvalue()
    kept = read_kept(changed, MATERIALS, made.directory)
    assert list(kept.results) == changed.runs()
    assert all(len(one.roles[0].rounds.own_reward) == 3 for one in kept.results.values())
    assert len(kept.ignored) == 4


def test_a_run_that_raises_is_made_twice_and_named_with_its_traceback(made: Made) -> None:
    outcome = made.make(declare(["own", "crash"], seeds=[1]))
    assert made.kept == [("own", 1, 1e-4)]
    assert made.times_begun("crash 1 0.0001") == 2
    assert outcome.missing == (Run("crash", 1, 1e-4, is_tuning=False),)
    (what,) = outcome.failures
    assert what == "crash, seed 1, 0.0001"
    assert "Traceback" in outcome.failures[what]
    assert "ValueError: the weights are nan" in outcome.failures[what]
    assert (
        "failed and is made once more: ValueError: the weights are nan" in made.printed.getvalue()
    )


def test_a_killed_worker_costs_one_attempt_and_not_the_others(made: Made) -> None:
    outcome = made.make(declare(["own", "killed-once"], seeds=[1]), jobs=2)
    assert outcome == Outcome(2, (), {}, was_stopped=False)
    assert made.times_begun("killed-once 1 0.0001") == 2


def test_a_worker_that_is_always_killed_is_named_with_its_last_words(made: Made) -> None:
    outcome = made.make(declare(["killed", "own"], seeds=[1]))
    assert made.kept == [("own", 1, 1e-4)]
    (why,) = outcome.failures.values()
    assert "by signal SIGKILL" in why
    assert "last words" in why


def test_an_arm_whose_tuning_failed_is_not_measured(made: Made) -> None:
    spec = declare(
        ["own", "crash"], seeds=[1], tuning_seeds=[11], learning_rates=[1e-4, fake_swarm.BEST_RATE]
    )
    outcome = made.make(spec)
    assert made.kept == [("own", 11, 1e-4), ("own", 11, 3e-4), ("own", 1, 3e-4)]
    assert Run("crash", 1, None, is_tuning=False) in outcome.missing
    assert len(outcome.failures) == 2


def test_a_start_that_cannot_be_made_is_named_and_no_run_is_begun(made: Made) -> None:
    spec = declare(nodes=None, roles=[{"count": 2, "start": "broken"}])
    outcome = made.make(spec)
    assert len(outcome.missing) == 4
    assert "no such weights" in outcome.failures["start broken"]
    assert not list(made.marks.iterdir())


def test_a_stop_loses_only_the_runs_that_have_begun(made: Made) -> None:
    made.on_report = made.stop_asked.set  # after the first result
    outcome = made.make(declare(["own", "hang"], seeds=[1]), jobs=2)
    assert outcome.was_stopped
    assert outcome.missing == (Run("hang", 1, 1e-4, is_tuning=False),)
    assert outcome.failures == {}
    assert made.kept == [("own", 1, 1e-4)]


def test_a_run_that_makes_no_round_is_ended(made: Made) -> None:
    outcome = made.make(declare(["hang"], seeds=[1]), hang_s=0.1)
    assert list(outcome.failures) == ["hang, seed 1, 0.0001"]
    assert outcome.failures["hang, seed 1, 0.0001"].startswith("no round for ")


def test_when_its_time_is_over_no_more_runs_are_started(made: Made) -> None:
    outcome = made.make(declare(), max_s=0)
    assert outcome.was_stopped
    assert len(outcome.missing) == 4
    assert outcome.failures == {}


def test_a_report_that_fails_does_not_end_the_runs_and_is_named(made: Made) -> None:
    def fail() -> None:
        raise ValueError("no such font")

    made.on_report = fail
    outcome = made.make(declare(seeds=[1]))
    assert len(made.kept) == 2
    assert "no such font" in outcome.failures["the report"]


def test_no_two_processes_write_into_one_directory(made: Made) -> None:
    other = Made(made.directory)
    other.directory = made.directory

    def meanwhile() -> None:
        with pytest.raises(ConfigError, match="another process is making its runs"):
            other.make(declare())

    made.on_report = meanwhile
    made.keep(declare())
    assert made.make(declare()).failures == {}


def test_a_foreign_file_in_the_place_of_the_results_is_refused(made: Made) -> None:
    (made.directory / RESULTS_FILE).write_text("not ours\n")
    with pytest.raises(ConfigError, match="line 1 is no result"):
        made.make(declare())


def test_what_the_report_needs_to_know_is_declared() -> None:
    spec = declare(target=0.25, settings={"rollout": {"answers": 4}})
    assert declared(spec) == Declared(
        "made: Does it go on?", ("own",), 0.25, k=4, arms=("own", "fill"), num_runs=4
    )


PUBLISHED = sorted((Path(__file__).parents[3] / "docs" / "results").glob(f"*/{RESULTS_FILE}"))


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.parent.name)
def test_published_results_are_of_the_shipped_experiments_as_they_stand(file: Path) -> None:
    """What is published can be reported on, and gone on with. A setting that was added since, or
    a default that was changed, has changed digests: see `ADDED` in node/experiment/spec.py."""
    spec = load_spec(file.parent.name)
    kept = read_kept(spec, find_materials(spec), file.parent)
    assert kept.ignored == ()
