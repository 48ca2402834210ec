"""A stage that lasts too long is named, by what it usually takes, and once."""

from pathlib import Path

import msgspec
import pytest

from node.status import LearnerStatus, RoundReport, Snapshot
from node.status_json import from_json
from node.watchdog import Watchdog, slow_stage

replace = msgspec.structs.replace
SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
assert SNAPSHOT.last_round is not None
REPORT = replace(SNAPSHOT.last_round, seconds={"generating": 30.0, "updating": 1.0})


def slow(stage: str, age_s: float, lately: tuple[RoundReport, ...] = (REPORT,) * 3) -> str:
    learner = LearnerStatus(pid=1, stage=stage, stage_age_s=age_s)
    return slow_stage(learner, lately, hang_s=900.0, start_s=1800.0)


@pytest.mark.parametrize(
    ("stage", "well_s", "slow_s"),
    [
        ("generating", 149, 151),  # five times as long as usually
        ("updating", 59, 61),  # at least a minute
        ("syncing", 449, 451),  # of which nothing is known: half of what is allowed
        ("starting", 899, 901),
    ],
)
def test_how_long_is_too_long(stage: str, well_s: float, slow_s: float) -> None:
    assert slow(stage, well_s) == ""
    assert slow(stage, slow_s).startswith(f"{stage} takes long: ")


def test_the_sentence_says_what_is_usual_and_what_comes() -> None:
    assert slow("generating", 700) == (
        "generating takes long: 12 min so far, usually 30 s a round; after 15 min the learner is "
        "killed and started again from its checkpoint"
    )
    assert "usually" not in slow("generating", 700, ())


@pytest.mark.parametrize("stage", ["stopped", "paused"])
def test_what_rests_is_not_slow(stage: str) -> None:
    assert slow(stage, 10_000) == ""
    done = LearnerStatus(pid=1, stage="updating", stage_age_s=10_000, is_done=True)
    assert slow_stage(done, (), 900.0, 1800.0) == ""


def test_it_is_told_once_per_stage() -> None:
    dog, learner = Watchdog(900.0, 1800.0), LearnerStatus(pid=1, stage="updating", round=7)
    assert dog.look(replace(learner, stage_age_s=5), [REPORT]) == ""
    assert dog.look(replace(learner, stage_age_s=70), [REPORT])
    assert dog.look(replace(learner, stage_age_s=700), [REPORT]) == ""
    assert dog.look(replace(learner, stage_age_s=70, round=8), [REPORT])
    assert dog.look(replace(learner, stage_age_s=70, round=8, restarts=1), [REPORT])
