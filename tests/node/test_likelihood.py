"""What an answer weighs by its likelihood: no claim of a peer can raise it."""

import math
import random

import pytest

from node.groups import OwnRollout
from node.likelihood import (
    balanced,
    claimed_logp,
    importance_ratio,
    likeness,
    own_mean_logp,
    token_mean,
)
from rewards.question import Answer, Expansion, Question

QUESTION = Expansion(Question("sums", 7), "3 + 4 =", "7")
HOSTILE = (
    *(math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-300, 0.5, 1e6, 1.7e308, -1.7e308),
    *(-1e-300, -0.1, -1.0, -2.0, -1e6, None),
)
HOSTILE_COUNTS = (0, 1, -1, -(10**30), 2**31, 10**400)


def rollout(*answers: Answer) -> OwnRollout:
    return OwnRollout(QUESTION, answers, 0, tuple((5,) * one.num_tokens for one in answers))


def test_means_are_over_tokens_and_leave_out_what_is_not_known() -> None:
    assert token_mean([-0.5, -2.5], [3, 1]) == pytest.approx(-1.0)
    assert token_mean([-0.5, None], [3, 1]) == -0.5
    assert token_mean([0.0, -1.0], [1, 1]) == -0.5, "0 is a value, too"
    assert token_mean([None], [3]) is None
    assert token_mean([], []) is None


def test_own_answers_are_averaged_over_all_rollouts() -> None:
    one = rollout(Answer("7", True, 3, -0.5), Answer("8", True, 1, -2.5))
    sure = rollout(Answer("7", True, 4, 0.0))
    assert own_mean_logp([one]) == pytest.approx(-1.0)
    assert own_mean_logp([one, sure]) == pytest.approx(-0.5)
    assert own_mean_logp([]) is None


@pytest.mark.parametrize(
    ("logp", "own_logp", "weight"),
    [
        (-1.0, -1.0, 1.0),
        (-0.5, -1.0, 1.0),
        (-2.0, -1.0, math.exp(-1.0)),
        (0.0, -1e6, 1.0),
        (-1e6, -1.0, 0.0),
        (-math.inf, -1.0, 0.0),
        (math.nan, -1.0, 0.0),
        (None, -1.0, 0.0),
        (-1.0, math.nan, 0.0),
        (-1.0, None, 0.0),
    ],
)
def test_likeness_is_at_most_one_and_zero_where_nothing_can_be_compared(
    logp: float | None, own_logp: float | None, weight: float
) -> None:
    assert likeness(logp, own_logp, None) == pytest.approx(weight)


def test_the_lower_of_both_comparisons_counts() -> None:
    assert likeness(-2.0, -1.5, -0.5) == pytest.approx(math.exp(-1.5))
    assert likeness(-2.0, -0.5, -1.5) == pytest.approx(math.exp(-1.5))
    assert likeness(-2.0, -3.0, -1.5) == pytest.approx(math.exp(-0.5))
    assert likeness(-2.0, -3.0, -9.0) == 1.0


def test_a_claim_that_cannot_be_true_is_none() -> None:
    assert claimed_logp(Answer("a", True, 10**6, -1.0)) == -1.0
    assert claimed_logp(Answer("a", True, 1, 0.0)) == 0.0
    for lie in (math.nan, math.inf, -math.inf, 0.5, None):
        assert claimed_logp(Answer("a", True, 1, lie)) is None


def test_no_claim_whatever_raises_a_weight_or_breaks_it() -> None:
    draw = random.Random(1)
    lowered = 0
    for _ in range(5000):
        answer = Answer("7", True, draw.choice(HOSTILE_COUNTS), draw.choice(HOSTILE))
        logp = draw.choice([-1.0, draw.uniform(-9, 0), -math.inf, math.nan])
        own_logp = draw.choice([-1.0, draw.uniform(-9, 0), None])
        silent = likeness(logp, own_logp, None)
        weight = likeness(logp, own_logp, claimed_logp(answer))
        assert 0.0 <= weight <= silent <= 1.0
        assert 0.0 <= likeness(logp, own_logp, draw.choice(HOSTILE)) <= silent
        lowered += weight < silent
    assert lowered > 250, "or this test would show nothing"


def test_failures_weigh_no_more_than_what_is_left_of_the_successes() -> None:
    assert balanced([0.0, 1.0, 0.5], [1.0, -0.5, -0.5]) == [0.0, 0.0, 0.0]
    assert balanced([0.5, 1.0, 1.0, 0.5], [1.0, 3.0, 0.0, -2.0]) == [0.5, 1.0, 1.0, 0.4375]
    assert balanced([0.5, 0.25], [-1.0, 0.0]) == [0.5, 0.25]
    assert balanced([1.0, 1.0], [1.0, -1.0]) == [1.0, 1.0]


def test_an_importance_ratio_is_cut_at_the_cap_and_needs_two_figures() -> None:
    assert importance_ratio(-1.0, -1.0, 2.0) == 1.0
    assert importance_ratio(-1.0, -1.5, 2.0) == pytest.approx(math.exp(0.5))
    assert importance_ratio(-1.5, -1.0, 2.0) == pytest.approx(math.exp(-0.5))
    assert importance_ratio(-1.0, -1e6, 2.0) == pytest.approx(2.0)
    assert importance_ratio(-1.0, -1.5, 1.0) == 1.0
    assert importance_ratio(-1e6, -1.0, 2.0) == 0.0
    assert importance_ratio(-math.inf, -1.0, 2.0) == 0.0
    assert importance_ratio(-1.0, None, 2.0) == 1.0
    assert importance_ratio(math.nan, -1.0, 2.0) == 0.0
