import math

import numpy as np
import pytest

from node.evaluate import HeldOut, accuracy
from node.interval import mean_interval, share_interval, student


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (1000, 1.9623)]
)
def test_students_quantile_is_that_of_the_tables(degrees: int, quantile: float) -> None:
    assert student(degrees) == pytest.approx(quantile, rel=0.04 if degrees < 4 else 0.003)


def test_one_answer_per_question_has_nearly_wilsons_interval() -> None:
    found = accuracy([1.0] * 81 + [0.0] * 182)  # Newcombe 1998, the example: .2553 to .3662
    low, high = share_interval(found.mean, found.standard_error, found.num_questions)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=1e-3)


def test_where_all_is_wrong_or_right_the_interval_has_a_width() -> None:
    assert share_interval(0.0, 0.0, 8) == pytest.approx((0.0, 0.3244), abs=1e-4)
    assert share_interval(1.0, 0.0, 8) == pytest.approx((0.6756, 1.0), abs=1e-4)


def test_a_single_question_says_little() -> None:
    low, high = share_interval(0.5, math.nan, 1)
    assert low < 0.1 and high > 0.9
    assert mean_interval(0.5, math.nan, 1, -1, 1) == (-1, 1)


def test_answers_to_one_question_are_not_counted_as_independent() -> None:
    alike, independent = accuracy([0.0, 1.0] * 32), accuracy([0.25, 0.75] * 32)
    wide = share_interval(alike.mean, alike.standard_error, 64)
    narrow = share_interval(independent.mean, independent.standard_error, 64)
    assert wide[1] - wide[0] > 1.9 * (narrow[1] - narrow[0])


def test_an_interval_of_a_mean_stays_within_what_is_possible() -> None:
    assert mean_interval(0.9, 0.2, 5, -1, 1)[1] == 1
    assert mean_interval(1.1, 0.2, 5, 1, 8)[0] == 1
    assert mean_interval(0.1, 0.05, 10, -1, 1) == pytest.approx(
        (0.1 - 2.2622 * 0.05, 0.1 + 2.2622 * 0.05), abs=1e-4
    )
    assert mean_interval(0.0, 0.0, 10, -1, 1) == (0.0, 0.0)


@pytest.mark.parametrize(("ability", "num"), [((0.1, 1.9), 16), ((0.3, 0.3), 8), ((2.0, 0.22), 64)])
@pytest.mark.parametrize("k", [1, 8])
def test_intervals_hold_the_truth_about_as_often_as_they_say(
    ability: tuple[float, float], num: int, k: int
) -> None:
    """Policies whose chance to solve a question is drawn from a beta distribution, 8 answers to
    each question. The normal interval holds the truth in 20 to 92 % of these cases."""
    draw = np.random.default_rng(0)
    truth = float((1 - (1 - draw.beta(*ability, 400_000)) ** k).mean())
    held = 0
    for correct in draw.binomial(8, draw.beta(*ability, (400, num))):
        shares = tuple(float(one) for one in correct / 8)
        found = HeldOut(shares, ("a",) * num, 8, accuracy([0.0])).pass_at(k)
        low, high = share_interval(found.mean, found.standard_error, num)
        held += low <= truth <= high
    assert held >= 0.85 * 400
