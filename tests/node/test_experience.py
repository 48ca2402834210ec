"""What a node remembers of its rounds."""

from dataclasses import replace
from pathlib import Path

import pytest

from node.checkpoint import Checkpoints, NodeState, read_experience
from node.experience import (
    ACCURACY_GROUPS,
    MAX_FAILED,
    REWARD_ROUNDS,
    Experience,
    decode_experience,
    encode_experience,
)
from node.groups import VerifiedRollout
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable


def rollout(
    correct: list[bool], of_round: int = 1, task: str = "a", index: int = 0
) -> VerifiedRollout:
    return VerifiedRollout(
        Expansion(Question(task, index), "text", "truth", "system"),
        tuple(Answer("x", True, 1, -0.5) for _ in correct),
        tuple(Judged(one) for one in correct),
        tuple((1,) for _ in correct),
        policy_round=of_round - 1,
    )


def test_running_accuracy_is_a_mean_that_forgets_slowly() -> None:
    experience = Experience()
    assert experience.accuracy("a") == 0.0
    experience.note(
        [rollout([True, False]), rollout([True, True]), rollout([False], task="b")], 1, 0
    )
    assert experience.accuracy("a") == 0.75
    assert experience.accuracy("b") == 0.0
    experience.note([rollout([False])] * 10 * ACCURACY_GROUPS, 2, 0)
    assert 0 < experience.accuracy("a") < 1e-3
    experience.note([rollout([True])], 3, 0)
    assert experience.accuracy("a") == pytest.approx(1 / ACCURACY_GROUPS, abs=1e-3)


def test_informative_groups_are_replayable_for_k_rounds_after_their_own() -> None:
    experience = Experience()
    for number in range(1, 6):
        groups = [rollout([True, False], number, index=number), rollout([True, True], number)]
        experience.note(groups, number, replay_rounds=2)
        kept = [one.expansion.question.index for one in experience.replayable]
        assert kept == [n for n in (number - 1, number) if n > 0]
    experience.note([rollout([True, False], 6)], 6, replay_rounds=0)
    assert experience.replayable == []


def test_own_reward_and_failed_questions_are_bounded() -> None:
    experience = Experience()
    for number in range(REWARD_ROUNDS + 3):
        experience.note([rollout([True, False])], number, 0)
        experience.note_failed([Question("a", number % (MAX_FAILED + 2))])
    assert experience.rewards == [0.5] * REWARD_ROUNDS
    assert len(experience.failed) == MAX_FAILED == len(set(experience.failed))


def test_experience_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    experience = Experience(brake_until=7, brake_reason="fell")
    hung = replace(rollout([True, False]), verdicts=(Judged(True), Unscorable(Reason.DEADLINE)))
    experience.note([hung, rollout([False, True], task="b")], 1, 30)
    experience.note_failed([Question("b", 3)])
    assert decode_experience(encode_experience(experience)) == experience
    checkpoints = Checkpoints(tmp_path, keep=1)
    state = NodeState(1, seed=1, swarm_id="s", model="m")
    path = checkpoints.write(state, lambda directory: None, experience)
    assert read_experience(path / "policy") == experience


def test_a_checkpoint_without_or_with_a_damaged_experience_is_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_experience(None) == Experience()
    (tmp_path / "policy").mkdir()
    assert read_experience(tmp_path / "policy") == Experience()
    assert caplog.text == ""
    (tmp_path / "experience.msgpack").write_bytes(b"\xc1 damaged")
    assert read_experience(tmp_path / "policy") == Experience()
    assert "unusable" in caplog.text
