"""The round and the life of a node, with the scripted policy: everything but learning."""

import itertools
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import msgspec
import pytest

from node.batch import Own, Want, advantages, make_strategy, of_own
from node.checkpoint import Checkpoints, NodeState, read_experience
from node.config import load_config
from node.evaluate import PART, HeldOut, accuracy, read_heldout, rise, write_heldout
from node.exchange import Exchange, LocalExchange
from node.groups import Lesson, Origin, OwnRollout, Source, VerifiedRollout
from node.loop import Node, StopAsked
from node.policy import ScriptedPolicy
from node.reward import NO_TERMS, RewardTerms
from node.round_report import foreign_groups, report_round
from node.status import ForeignFate, RoundReport, Stage, Status, TaskAnswers
from node.update import ForeignWeight, Update
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

FRESH = NodeState(round=0, seed=5, swarm_id="s", model="scripted")


class OfferingExchange(LocalExchange):
    """A lone node's exchange beside which peers' rollouts lie, and where one may stop the node."""

    def __init__(self, verifier: Verifier, seed: int, peers: Sequence[VerifiedRollout]) -> None:
        super().__init__(verifier, ["sums"], seed)
        self.peers = list(peers)
        self.asked: list[Want] = []
        self.shared: list[VerifiedRollout] = []

    def share(self, own: Sequence[VerifiedRollout]) -> int:
        self.shared += own
        return len(own) - 1

    def offered(self, want: Want) -> list[VerifiedRollout]:
        self.asked.append(want)
        num = want.num_groups
        handed, self.peers = self.peers[:num], self.peers[num:]
        return handed


def foreign(name: str, text: str = "x", correct: Sequence[bool] = (True, False)) -> VerifiedRollout:
    question = Question("sums", 9)
    return VerifiedRollout(
        Expansion(question, "1 + 2 =", "3"),
        tuple(Answer(text, bool(text), 99, -9.0) for _ in correct),
        tuple(Judged(one) for one in correct),
        token_ids=None,
        origin=Origin(name, name.encode().ljust(32, b"-"), policy_round=7, age_s=2.5),
    )


def make(name: str, questions: int = 4, foreign: int = 0, **batch: object) -> Own:
    """A strategy as settings make it."""
    flags = {f"batch.{key}": value for key, value in batch.items()}
    flags |= {"batch.strategy": name, "rollout.questions": questions, "swarm.foreign": foreign}
    return make_strategy(load_config(flags=flags, environment={}))


def make_node(
    home: Path,
    verifier: Verifier,
    checkpoint_every: int = 2,
    exchange: Exchange | None = None,
    num_foreign: int = 0,
    num_heldout: int = 0,
    evaluate_every: int = 0,
    reward: RewardTerms = NO_TERMS,
    strategy: Own | None = None,
) -> Node:
    """A scripted node, resumed from what lies in `home`."""
    checkpoints = Checkpoints(home / "checkpoints", keep=2)
    latest = checkpoints.latest()
    if latest is None:
        state, policy, resumed = FRESH, ScriptedPolicy(FRESH.seed), None
    else:
        state, resumed = latest
        policy = ScriptedPolicy.load(resumed, FRESH.seed)
    return Node(
        state,
        policy,
        exchange or LocalExchange(verifier, ["sums"], state.seed),
        checkpoints,
        strategy or make("paper", foreign=num_foreign),
        experience=read_experience(resumed),
        num_heldout=num_heldout,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
        status=Status(),
        reward=reward,
        clock=lambda: 1000.0,
    )


def record_batches(node: Node) -> list[Sequence[Lesson]]:
    """The batches that the node's policy learns from, from now on."""
    batches: list[Sequence[Lesson]] = []
    learn = node.policy.learn

    def recording(batch: Sequence[Lesson]) -> Update:
        batches.append(batch)
        return learn(batch)

    node.policy.learn = recording  # type: ignore[method-assign]
    return batches


def test_own_terms_are_learned_from_and_told_to_nobody(tmp_path: Path, verifier: Verifier) -> None:
    terms = RewardTerms(length=1.0, free_bytes=0, max_bytes=50, answer_formats={"sums": "tags"})
    peers = [foreign("a", "x" * 5), foreign("b", "y" * 50)]
    peers[0] = replace(peers[0], answers=(Answer("x" * 50, True), Answer("x" * 0, True)))
    exchange = OfferingExchange(verifier, FRESH.seed, peers)
    node = make_node(tmp_path, verifier, exchange=exchange, num_foreign=2, reward=terms)
    batches = record_batches(node)
    report = node.run_round()
    plain = make_node(tmp_path / "plain", verifier).run_round()
    *own, peer = [lesson.rollout for lesson in batches[0]]
    assert all(one.terms == () for one in exchange.shared) and len(exchange.shared) == len(own) == 4
    for one in own:
        sizes = [len(answer.text) / 50 for answer in one.answers]
        expected = [correct - size for correct, size in zip(one.correct, sizes, strict=True)]
        assert one.rewards == pytest.approx(expected)
    # 1 - 1 and 0 - 0: no advantage for this node, whatever it has for others.
    assert [group.fate for group in report.foreign] == [
        ForeignFate.ZERO_ADVANTAGE,
        ForeignFate.USED,
    ]
    assert peer.rewards == (0.0, -1.0)
    assert report.own_reward == plain.own_reward and plain.shaped_reward is None
    assert report.shaped_reward is not None and report.shaped_reward < report.own_reward


def without_seconds(reports: Sequence[RoundReport]) -> list[RoundReport]:
    return [msgspec.structs.replace(report, seconds={}) for report in reports]


def test_a_round_draws_answers_verifies_and_learns(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier)
    report = node.run_round()
    assert report.round == node.state.round == 1
    assert (report.num_questions, report.num_answers) == (4, 32)
    assert 0 < report.own_reward < 0.6
    assert report.batch_reward == report.own_reward
    assert report.update_skipped is None
    assert node.state.total_tokens == report.own_tokens > 0
    stages = ["drawing", "generating", "verifying", "sharing", "mixing", "updating", "syncing"]
    assert list(report.seconds) == stages
    assert (report.foreign_wanted, report.foreign, report.num_shared) == (0, (), 0)
    assert report.finished_at == 1000.0


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
    figures = without_seconds(whole.status.reports)
    assert without_seconds(parts.status.reports) == figures[3:]


def test_rounds_of_one_node_differ_and_nodes_differ(tmp_path: Path, verifier: Verifier) -> None:
    exchanges = [LocalExchange(verifier, ["sums"], seed) for seed in (1, 2)]
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


def test_a_stop_during_the_update_ends_the_round_with_a_checkpoint(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, checkpoint_every=1000)
    learn = node.policy.learn

    def stop_during_the_second_update(batch: Sequence[Lesson]) -> Update:
        if node.state.round == 1:
            node.stop_asked.set()
        return learn(batch)

    node.policy.learn = stop_during_the_second_update  # type: ignore[method-assign]
    node.run()
    latest = node.checkpoints.latest()
    assert latest is not None
    assert latest[0].round == 2


@pytest.mark.parametrize("stage", ["drawing", "generating", "verifying", "sharing", "mixing"])
def test_a_stop_before_the_update_abandons_the_round_without_a_trace(
    tmp_path: Path, verifier: Verifier, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(tmp_path / "stopped", verifier)
    stages: list[str] = []

    def stop_in_the_second_round() -> None:
        stages.append(node.status.stage)
        if node.state.round == 1 and node.status.stage == stage:
            node.stop_asked.set()

    node.status.on_change = stop_in_the_second_round
    with caplog.at_level(logging.INFO):
        node.run()
    assert stages[-2:] == [stage, "checkpointing"]
    assert "round 1 is the last: stopped before" in caplog.text
    assert node.state.round == len(node.status.reports) == 1
    assert node.status.take_seconds().keys() == {"checkpointing"}
    resumed, whole = make_node(tmp_path / "stopped", verifier), make_node(tmp_path, verifier)
    resumed.run(3)
    whole.run(3)
    assert resumed.state == whole.state
    assert without_seconds(resumed.status.reports) == without_seconds(whole.status.reports)[1:]


def test_a_node_that_is_told_to_stop_before_it_begins_writes_its_state_and_ends(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, num_heldout=4)
    node.stop_asked.set()
    assert node.run(3).name == "round-00000000"
    assert not node.heldout_dir.exists()
    with pytest.raises(StopAsked, match="before drawing"):
        node.run_round()


def test_a_round_learns_from_as_many_foreign_rollouts_as_it_wants(
    tmp_path: Path, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = OfferingExchange(verifier, 5, [foreign(f"peer {number}") for number in range(6)])
    node = make_node(tmp_path, verifier, exchange=exchange, num_foreign=4)
    batches = record_batches(node)
    with caplog.at_level(logging.INFO):
        reports = [node.run_round() for _ in range(3)]
    assert [want.num_groups for want in exchange.asked] == [4, 4, 4]
    assert [report.foreign_wanted for report in reports] == [4, 4, 4]
    assert [report.foreign_groups_used for report in reports] == [4, 2, 0]
    assert [len(batch) for batch in batches] == [8, 6, 4]
    assert [one.source for one in batches[1]] == [Source.OWN] * 4 + [Source.FOREIGN] * 2
    for text in ("round 1: ", "foreign 4 of 4,", "foreign 2 of 4,", "foreign 0 of 4,"):
        assert text in caplog.text
    assert [report.num_shared for report in reports] == [3, 3, 3]
    assert exchange.shared[:4] == [lesson.rollout for lesson in batches[0][:4]]
    assert reports[0].batch_reward == pytest.approx((reports[0].own_reward * 32 + 4) / 40)


def test_a_node_that_learns_from_nobody_asks_nobody(tmp_path: Path, verifier: Verifier) -> None:
    exchange = OfferingExchange(verifier, 5, [foreign("peer")])
    node = make_node(tmp_path, verifier, exchange=exchange)
    report = node.run_round()
    assert exchange.asked == []
    assert (report.foreign_wanted, report.foreign) == (0, ())
    assert report.num_shared == 3


def test_fresh_questions_replace_those_that_teach_nothing(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, strategy=make("own-dynamic", token_budget=50))
    batches = record_batches(node)
    report = node.run_round()
    assert report.num_questions > 4, "some of the first four are all wrong"
    assert [one.rollout.has_advantage for one in batches[0]] == [True] * 4
    alike = make_node(tmp_path / "again", verifier, strategy=make("own-dynamic", token_budget=50))
    assert alike.run_round().own_reward == report.own_reward
    frugal = make_node(tmp_path / "frugal", verifier, strategy=make("own-dynamic", token_budget=1))
    assert frugal.run_round().num_questions == 4


def test_what_was_replayed_is_remembered_over_a_restart(tmp_path: Path, verifier: Verifier) -> None:
    strategy = make("own-replay", groups=6, replay_rounds=2)
    whole = make_node(tmp_path / "whole", verifier, strategy=strategy)
    batches = record_batches(whole)
    whole.run(5)
    make_node(tmp_path / "parts", verifier, strategy=strategy).run(3)
    parts = make_node(tmp_path / "parts", verifier, strategy=strategy)
    again = record_batches(parts)
    parts.run(5)
    assert again == batches[3:]
    replayed = [one for one in batches[4] if one.source is Source.REPLAY]
    assert len(batches[4]) == 6 and replayed
    assert all(one.rollout.policy_round in (2, 3) for one in replayed)


def test_part_of_the_questions_is_common_and_their_failures_are_remembered(
    tmp_path: Path, verifier: Verifier
) -> None:
    exchange = OfferingExchange(verifier, 5, [])
    node = make_node(
        tmp_path, verifier, exchange=exchange, strategy=make("rescue", foreign=2, common_share=0.5)
    )
    common = {one.question for one in exchange.draw_common(1, 2)}
    batches = record_batches(node)
    node.run_round()
    own = [one.rollout for one in batches[0]]
    assert len(own) == 4
    assert common == {one.expansion.question for one in own[:2]}
    failed = [one.expansion.question for one in own if not any(one.correct)]
    assert failed
    assert exchange.asked[0].questions == set(failed)
    assert node.experience.failed == [one for one in failed if one in common]


def test_the_brake_stops_asking_peers_and_says_so(
    tmp_path: Path, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    peers = [foreign(f"peer {number}") for number in range(8)]
    exchange = OfferingExchange(verifier, 5, peers)
    braked = make("paper", foreign=2, brake=True)
    node = make_node(tmp_path, verifier, exchange=exchange, strategy=braked)
    node.experience.rewards = [0.9] * 20 + [0.1] * 20
    report = node.run_round()
    assert "own reward fell from 0.900 to 0.100" in report.brake
    assert (report.foreign_wanted, report.foreign) == (0, ())
    assert exchange.asked == [Want()], "what is fetched stops, too"
    assert caplog.text.count("own reward fell") == 1
    node.experience.brake_until = 1
    assert node.run_round().foreign_groups_used == 2
    unbraked = make_node(
        tmp_path / "b",
        verifier,
        exchange=OfferingExchange(verifier, 5, peers),
        strategy=make("paper", foreign=2, brake=False),
    )
    unbraked.experience.rewards = [0.9] * 20 + [0.1] * 20
    assert unbraked.run_round().foreign_groups_used == 2


def test_every_foreign_rollout_that_was_drawn_is_reported_with_its_fate(
    tmp_path: Path, verifier: Verifier
) -> None:
    drawn = [
        foreign("long", "x" * 257),
        foreign("good"),
        foreign("mastered", correct=[True, True]),
        foreign("empty", ""),
        foreign("failed", correct=[False, False]),
        foreign("longest", "x" * 256),
    ]
    node = make_node(
        tmp_path, verifier, exchange=OfferingExchange(verifier, 5, drawn), num_foreign=8
    )
    batches = record_batches(node)
    report = node.run_round()
    assert [one.rollout for one in batches[0][4:]] == [drawn[1], drawn[5]], (
        "and nothing else beside the own ones"
    )
    assert [(group.author, group.fate) for group in report.foreign] == [
        ("long", ForeignFate.TOO_LONG),
        ("good", ForeignFate.USED),
        ("mastered", ForeignFate.ZERO_ADVANTAGE),
        ("empty", ForeignFate.EMPTY),
        ("failed", ForeignFate.ZERO_ADVANTAGE),
        ("longest", ForeignFate.USED),
    ]
    assert report.foreign_groups_used == 2
    good = report.foreign[1]
    assert (good.hash[:4], good.task, good.policy_round, good.age_s) == (b"good", "sums", 7, 2.5)
    assert (good.mean_logp, good.weight) == (-1.0, 1.0)
    assert (report.foreign[0].mean_logp, report.foreign[0].weight) == (None, 0.0)


def test_each_used_rollout_gets_its_own_figures() -> None:
    fates = [ForeignFate.USED, ForeignFate.EMPTY, ForeignFate.USED]
    drawn = [(foreign(name), fate) for name, fate in zip("abc", fates, strict=True)]
    update = Update(step=1, foreign=(ForeignWeight(-1.0, 0.75), ForeignWeight(-2.0, 0.25)))
    groups = foreign_groups(drawn, update)
    assert [(one.author, one.mean_logp, one.weight) for one in groups] == [
        ("a", -1.0, 0.75),
        ("b", None, 0.0),
        ("c", -2.0, 0.25),
    ]


def test_held_out_questions_are_asked_before_the_first_and_after_the_last_round(
    tmp_path: Path, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(tmp_path, verifier, num_heldout=PART + 6)
    heard: list[int] = []
    node.status.on_change = lambda: heard.append(len(node.status.heldout))
    with caplog.at_level(logging.INFO):
        node.run(4)
    kept = read_heldout(node.heldout_dir)
    assert list(kept) == [one.round for one in node.status.heldout] == [0, 4]
    assert [one.num_questions for one in node.status.heldout] == [PART + 6] * 2
    last = node.status.heldout[1]
    assert sum(one.num_questions for one in last.tasks.values()) == PART + 6
    assert last.mean == kept[4].overall.mean
    assert (last.k, last.pass_k) == (8, kept[4].pass_at(8).mean)
    assert (last.greedy, last.diversity) == (kept[4].greedy.mean, fmean(kept[4].vendi))
    assert rise(kept[0], kept[4]).num_questions == PART + 6
    assert heard[-1] == 2
    assert "evaluating" not in node.status.reports[0].seconds
    assert f"held-out questions: {PART} of {PART + 6}" in caplog.text
    assert "held-out accuracy after round 4: " in caplog.text


def test_an_evaluation_on_disk_is_shown_and_not_repeated(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, num_heldout=8)
    node.run(2)
    again = make_node(tmp_path, verifier, num_heldout=8)
    stages: list[str] = []
    again.status.on_change = lambda: stages.append(again.status.stage)
    again.run(2)
    assert stages == []
    assert again.status.heldout == node.status.heldout
    again.run(3)
    assert [one.round for one in again.status.heldout] == [0, 2, 3]


def test_a_node_is_examined_every_n_rounds_too(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier, num_heldout=4, evaluate_every=2)
    node.run(5)
    assert [one.round for one in node.status.heldout] == [0, 2, 4, 5]
    assert node.state.round == 5


def test_an_evaluation_after_the_last_checkpoint_is_made_again_after_a_crash(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, checkpoint_every=2, num_heldout=4, evaluate_every=3)
    node.run(2)
    write_heldout(node.heldout_dir, 3, HeldOut((0.75,), ("sums",), 8, accuracy([1.0])))
    again = make_node(tmp_path, verifier, num_heldout=4, evaluate_every=3)
    again.run(4)
    assert [one.round for one in again.status.heldout] == [0, 2, 3, 4]
    assert read_heldout(node.heldout_dir)[3].overall.num_questions == 4


def test_a_stop_between_two_parts_of_an_evaluation_keeps_nothing_of_it(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, num_heldout=3 * PART)
    parts = 0

    def stop_in_the_second_part() -> None:
        nonlocal parts
        parts += node.status.stage == Stage.EVALUATING
        if parts == 3:  # drawing the questions is the first
            node.stop_asked.set()

    node.status.on_change = stop_in_the_second_part
    assert node.run(2).name == "round-00000000"
    assert parts == 3
    assert read_heldout(node.heldout_dir) == {}
    again = make_node(tmp_path, verifier, num_heldout=3 * PART)
    again.run(1)
    assert [one.round for one in again.status.heldout] == [0, 1]


def test_a_node_that_runs_on_and_on_is_examined_only_before(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, num_heldout=4)
    sync = stopping_sync(node, after=2)
    node.policy.sync = lambda: next(sync)  # type: ignore[method-assign]
    node.run()
    assert node.state.round == 2
    assert [one.round for one in node.status.heldout] == [0]


def stopping_sync(node: Node, after: int) -> Iterator[None]:
    for _ in range(after - 1):
        yield
    node.stop_asked.set()
    yield


def test_a_crash_in_the_policy_is_not_swallowed(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier)

    def crash(batch: Sequence[Lesson]) -> Update:
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
    return VerifiedRollout(
        Expansion(Question("sums", 1), "text", "truth"),
        tuple(Answer("x", True, 2, -0.5) for _ in verdicts),
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
    report = report_round(1, [one], [of_own(one)], Update(step=1), {})
    assert report.num_unscorable == 1
    assert report.own_reward == 0.5


def test_figures_of_a_round_are_what_their_names_say() -> None:
    mixed, failed = rollout([Judged(True), Judged(False)]), rollout([Judged(False)] * 2)
    old = Lesson(mixed, Source.REPLAY, advantages(mixed.rewards))
    update = Update(step=1, effective_sample_size=0.75, kl_to_start=0.5)
    report = report_round(3, [mixed, failed], [of_own(mixed), old], update, {"generating": 2.0})
    assert (report.num_groups, report.num_replayed) == (2, 1)
    assert (report.effective_sample_size, report.kl_to_start) == (0.75, 0.5)
    assert report.zero_advantage_share == 0.5
    assert report.own_reward == 0.25
    (task,) = {one.expansion.question.task for one in (mixed, failed)}
    assert report.own_tasks == {task: TaskAnswers(num_answers=4, num_correct=1)}
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


def test_a_pause_waits_between_rounds_and_counts_for_none(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, num_heldout=8)
    stages: list[str] = []
    written: list[int] = []
    paused = threading.Event()

    def watch() -> None:
        stages.append(node.status.stage)
        if node.status.stage == Stage.PAUSED:
            paused.set()
        if len(node.status.reports) == 1 and node.status.stage == Stage.UPDATING:
            node.orders.pause(True)  # while a round is under way, which is finished

    node.status.on_change, node.hear_checkpoint = watch, written.append
    node.orders.pause(True)
    thread = threading.Thread(target=node.run, args=(3,))
    thread.start()
    assert paused.wait(60) and set(stages) == {Stage.PAUSED}, "not even an exam was begun"
    node.clock = lambda: 2000.0
    paused.clear()
    node.orders.pause(False)
    assert paused.wait(60)
    assert node.state.round == 2 and written == []
    node.orders.ask_checkpoint()
    paused.clear()
    assert paused.wait(60), "it is paused again when the checkpoint is written"
    assert written == [2]
    latest = node.checkpoints.latest()
    assert latest is not None and latest[0].round == 2
    node.orders.pause(False)
    thread.join(60)
    assert node.state.round == 3 and written == [2]
    assert all(Stage.PAUSED not in report.seconds for report in node.status.reports)


def test_a_checkpoint_is_ordered_in_between_and_written_once(
    tmp_path: Path, verifier: Verifier
) -> None:
    node = make_node(tmp_path, verifier, checkpoint_every=100)
    written: list[int] = []
    node.hear_checkpoint = written.append

    def order() -> None:
        if len(node.status.reports) == 2 and node.status.stage == Stage.GENERATING:
            node.orders.ask_checkpoint()

    node.status.on_change = order
    node.run(5)
    assert written == [3]
    assert [path.name[-1] for path in node.checkpoints.rounds()] == ["3", "5"]


def test_a_stop_ends_a_pause(tmp_path: Path, verifier: Verifier) -> None:
    node = make_node(tmp_path, verifier)
    paused = threading.Event()
    node.status.on_change = lambda: paused.set() if node.status.stage == Stage.PAUSED else None
    node.orders.pause(True)
    thread = threading.Thread(target=node.run)
    thread.start()
    assert paused.wait(60)
    node.orders.stop()
    thread.join(60)
    assert not thread.is_alive() and node.state.round == 0
