"""The round and the life of a node, with the scripted policy: everything but learning."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from node.batch import OwnRollout, VerifiedRollout, mix
from node.checkpoint import Checkpoints, NodeState
from node.exchange import Exchange
from node.loop import Node, report_round
from node.policy import ScriptedPolicy
from node.status import Stage, Status
from node.update import Update
from rewards.question import (
    Answer,
    Expansion,
    Judged,
    Question,
    Reason,
    Unscorable,
    is_held_out,
)
from rewards.verifier import Verifier
from swarm.rollout import Rollout

FRESH = NodeState(round=0, seed=5, swarm_id="s", model="scripted")


def make_node(home: Path, verifier: Verifier, checkpoint_every: int = 2) -> Node:
    """A scripted node, resumed from what lies in `home`."""
    checkpoints = Checkpoints(home, keep=2)
    latest = checkpoints.latest()
    if latest is None:
        state, policy = FRESH, ScriptedPolicy(FRESH.seed)
    else:
        state, policy = latest[0], ScriptedPolicy.load(latest[1], FRESH.seed)
    return Node(
        state,
        policy,
        Exchange(verifier, ["sums"], state.seed),
        checkpoints,
        num_questions=4,
        checkpoint_every=checkpoint_every,
        status=Status(),
    )


def test_a_round_draws_answers_verifies_and_learns(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier)
    report = node.run_round()
    assert report.round == node.state.round == 1
    assert (report.num_questions, report.num_answers) == (4, 32)
    assert 0 < report.own_reward < 0.6
    assert report.batch_reward == report.own_reward
    assert report.update_skipped is None
    assert node.state.total_tokens == report.own_tokens > 0
    assert set(report.seconds) == {"drawing", "generating", "verifying", "updating", "syncing"}


def test_scripted_policy_gets_better(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier)
    node.run(60)
    rewards = [report.own_reward for report in node.status.reports]
    assert sum(rewards[-20:]) > sum(rewards[:20]) + 2


def test_three_rounds_and_three_more_equal_six(tmp_path: Path, verifier: Verifier) -> None:
    whole = make_node(tmp_path / "whole", verifier)
    whole.run(6)
    make_node(tmp_path / "parts", verifier).run(3)
    parts = make_node(tmp_path / "parts", verifier)
    parts.run(6)
    assert parts.state == whole.state
    assert parts.policy.skill == whole.policy.skill  # type: ignore[attr-defined]
    figures = [replace(report, seconds={}) for report in whole.status.reports]
    assert [replace(report, seconds={}) for report in parts.status.reports] == figures[3:]


def test_rounds_of_one_node_differ_and_nodes_differ(tmp_path: Path, verifier: Verifier) -> None:
    exchanges = [Exchange(verifier, ["sums"], seed) for seed in (1, 2)]
    draws = [
        tuple(one.text for one in exchange.draw_questions(number, 8))
        for exchange, number in itertools.product(exchanges, (1, 2))
    ]
    assert len(set(draws)) == 4
    assert not any(is_held_out(text) for draw in draws for text in draw)
    assert draws[0] == tuple(one.text for one in exchanges[0].draw_questions(1, 8))


def test_checkpoints_are_written_every_k_rounds_and_at_the_end(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, checkpoint_every=2)
    node.run(5)
    names = [path.name for path in node.checkpoints.rounds()]
    assert names == ["round-00000004", "round-00000005"]


def test_a_stop_ends_the_round_under_way_with_a_checkpoint(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, checkpoint_every=1000)
    learn = node.policy.learn

    def stop_during_the_second_update(batch: Sequence[VerifiedRollout]) -> Update:
        if node.state.round == 1:
            node.stop_asked.set()
        return learn(batch)

    node.policy.learn = stop_during_the_second_update  # type: ignore[method-assign]
    node.run()
    latest = node.checkpoints.latest()
    assert latest is not None
    assert latest[0].round == 2


def test_a_crash_in_the_policy_is_not_swallowed(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier)

    def crash(batch: Sequence[VerifiedRollout]) -> Update:
        raise RuntimeError("CUDA out of memory")

    node.policy.learn = crash  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        node.run(1)
    assert node.state.round == 0


def test_a_skipped_update_is_loud(
    tmp_path: Path, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(tmp_path, verifier)
    node.policy.learn = lambda batch: Update(step=0, skipped="no group is informative")  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO):
        report = node.run_round()
    assert report.update_skipped == "no group is informative"
    assert "UPDATE SKIPPED" in caplog.text


def rollout(verdicts: Sequence[Judged | Unscorable]) -> VerifiedRollout:
    answers = tuple(Answer("x", True, 2, -0.5) for _ in verdicts)
    question = Question("sums", 1)
    return VerifiedRollout(
        Rollout(question, answers, "m", 0),
        Expansion(question, "text", "truth"),
        tuple(verdicts),
        tuple((1, 2) for _ in verdicts),
    )


def test_an_unscorable_own_answer_trains_as_wrong_and_is_not_shared() -> None:
    right, hung = Judged(True), Unscorable(Reason.DEADLINE)
    one = rollout([right, hung])
    assert one.rewards == (1.0, 0.0)
    assert one.is_informative
    assert not one.is_shareable
    assert rollout([right, Judged(False)]).is_shareable
    report = report_round(1, [one], mix([one]), Update(step=1), {})
    assert report.num_unscorable == 1
    assert report.own_reward == 0.5


def test_figures_of_a_round_are_what_their_names_say() -> None:
    mixed, failed = rollout([Judged(True), Judged(False)]), rollout([Judged(False)] * 2)
    report = report_round(3, [mixed, failed], [mixed], Update(step=1), {"generating": 2.0})
    assert report.zero_advantage_share == 0.5
    assert report.own_reward == 0.25
    assert report.batch_reward == 0.5
    assert report.own_tokens == 8
    assert report.entropy == pytest.approx(0.5)
    assert report.tokens_per_s == 4.0


def test_a_stage_counts_its_seconds_even_when_it_fails() -> None:
    clock = iter([10.0, 13.0]).__next__
    status = Status(stage_since=0.0, clock=clock)
    with pytest.raises(ValueError, match="update"), status.during(Stage.UPDATING):
        raise ValueError("update")
    assert status.stage is Stage.UPDATING
    assert status.take_seconds() == {"updating": 3.0}
    assert status.take_seconds() == {}


def test_own_rollouts_keep_their_token_ids(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier)
    own: list[OwnRollout] = node.policy.roll_out(node.exchange.draw_questions(1, 2), 1)
    verified = node.exchange.verify(own)
    assert [one.token_ids for one in verified] == [one.token_ids for one in own]
    assert [len(one.verdicts) for one in verified] == [8, 8]
