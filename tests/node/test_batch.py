"""The mixing rule, part by part: what is wanted, from whom, what goes in, what is given."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from node.batch import (
    BatchLimits,
    Group,
    Origin,
    VerifiedRollout,
    max_from_one_peer,
    may_share,
    mix,
    wants,
)
from node.config import Share
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable

HUNG = Unscorable(Reason.DEADLINE)


def rollout(task: str, verdicts: Sequence[bool | Unscorable], index: int = 0) -> VerifiedRollout:
    question = Question(task, index)
    return VerifiedRollout(
        Expansion(question, "text", "truth"),
        tuple(Answer("x", True, 1, -0.5) for _ in verdicts),
        tuple(one if isinstance(one, Unscorable) else Judged(one) for one in verdicts),
        tuple((1,) for _ in verdicts),
    )


def foreign(verdicts: Sequence[bool]) -> VerifiedRollout:
    origin = Origin("peer", b"\0" * 32, policy_round=3, age_s=1.0)
    return replace(rollout("a", verdicts), token_ids=None, origin=origin)


@pytest.mark.parametrize(
    ("correct", "wanted"),
    [
        ((True, False), True),
        ((False, False, False, True), True),
        ((True, True), False),
        ((False, False), False),
        ((True,), False),
        ((), False),
    ],
)
def test_wanted_is_what_has_an_advantage(correct: tuple[bool, ...], wanted: bool) -> None:
    assert wants(correct) is wanted


@pytest.mark.parametrize(
    ("num_foreign", "share", "most"),
    [(4, 0.5, 2), (5, 0.5, 3), (4, 1.0, 4), (1, 0.5, 1), (4, 0.01, 1), (100, 0.07, 7), (3, 0.4, 2)],
)
def test_one_peer_may_fill_its_share_rounded_up(num_foreign: int, share: float, most: int) -> None:
    assert max_from_one_peer(num_foreign, share) == most


def test_the_batch_is_all_own_rollouts_then_the_foreign_ones_with_an_advantage() -> None:
    own = [rollout("a", [True, False]), rollout("a", [False, False]), rollout("b", [True, HUNG])]
    good, better = foreign([True, False, False]), foreign([False, True])
    assert mix(own, [good, foreign([True, True]), better, foreign([False, False])]) == [
        *own,
        good,
        better,
    ]
    assert mix(own, []) == own
    assert mix([], [good]) == [good]


OWN = {
    "mixed": rollout("a", [True, False]),
    "lesson": rollout("a", [True, True], 1),
    "second lesson": rollout("a", [True, True], 2),
    "other task": rollout("b", [True, True]),
    "failed": rollout("b", [False, False]),
    "mixed too": rollout("b", [False, True]),
    "hung": rollout("a", [True, HUNG]),
    "hung lesson": rollout("c", [True, True, HUNG]),
}


@pytest.mark.parametrize(
    ("share", "names"),
    [
        ("none", []),
        ("informative", ["mixed", "mixed too"]),
        ("lessons", ["mixed", "lesson", "other task", "mixed too"]),
        ("all", ["mixed", "lesson", "second lesson", "other task", "failed", "mixed too"]),
    ],
)
def test_each_setting_shares_exactly_what_it_says(share: Share, names: list[str]) -> None:
    assert may_share(list(OWN.values()), share) == [OWN[name] for name in names]
    assert may_share([], share) == []


def test_the_lesson_of_a_task_is_its_first_one_even_among_equals() -> None:
    twins = [OWN["lesson"], OWN["lesson"], OWN["mixed"]]
    assert may_share([replace(one) for one in twins], "lessons") == [twins[0], twins[2]]


def test_an_unscorable_answer_counts_as_wrong_and_keeps_its_rollout_at_home() -> None:
    hung = OWN["hung"]
    assert hung.correct == (True, False)
    assert hung.rewards == (1.0, 0.0)
    assert hung.is_informative
    assert not hung.is_shareable


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -0.5])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    limits = BatchLimits(max_answers=4, max_answer_tokens=4, max_positions=8, vocab_size=9)
    group = Group((1,), ((2,), (3,)), (1.0, 0.0), weight=0.5)
    limits.check([group])
    with pytest.raises(ValueError, match=r"group 1 of the batch: the weight .* at least 0"):
        limits.check([group, replace(group, weight=weight)])
