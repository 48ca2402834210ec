import math

import numpy as np
import pytest
from made_results import made_arm, made_role, made_run

from node.experiment import measures
from node.experiment.figures import (
    Declared,
    Verdict,
    at_edge,
    best_control,
    choose_rate,
    curve,
    difference,
    in_order,
    measured_runs,
    per_seed,
    ratio,
    spread,
    tail_probability,
    tried_rates,
)
from node.experiment.results import RunResult


def tuning(rate: float, *accuracies: float, arm: str = "own", seed: int = 11) -> RunResult:
    return made_run(arm, seed, made_role(1.0, accuracies), rate=rate, is_tuning=True)


def test_the_rate_is_that_of_the_best_held_out_curve_without_its_first_point() -> None:
    results = [
        tuning(1e-4, 0.9, 0.2, 0.4),
        tuning(3e-4, 0.1, 0.4, 0.3),
        tuning(1e-3, 0.1, 0.1, 0.5),
    ]
    assert choose_rate(results) == {"own": 3e-4}
    (first, *_) = tried_rates(results)["own"]
    assert first.area == pytest.approx(0.3)


def test_the_rate_is_best_in_the_mean_over_tuning_seeds() -> None:
    results = [
        tuning(1e-4, 0.0, 0.3),
        tuning(1e-4, 0.0, 0.3, seed=12),
        tuning(1e-3, 0.0, 0.5),
        tuning(1e-3, 0.0, 0.0, seed=12),
    ]
    assert choose_rate(results) == {"own": 1e-4}


def test_of_equal_rates_the_smaller_is_chosen_even_if_sums_round_differently() -> None:
    results = [tuning(1e-3, 0.0, 0.1, 0.2, 0.3), tuning(1e-4, 0.0, 0.3, 0.2, 0.1)]
    assert choose_rate(results) == {"own": 1e-4}


def test_each_node_counts_equally_in_the_choice_of_a_rate() -> None:
    weak = made_role(1.0, (0.0, 0.25), name="weak", num_nodes=6)
    strong = made_role(1.0, (0.0, 0.75), name="strong", num_nodes=2)
    (tried,) = tried_rates([made_run("own", 11, weak, strong, is_tuning=True)])["own"]
    assert tried.area == 0.375


def test_measuring_runs_choose_no_rate() -> None:
    better = made_run("own", 0, made_role(1.0, (0.0, 0.9)), rate=1e-3)
    assert choose_rate([tuning(1e-4, 0.0, 0.1), better]) == {"own": 1e-4}


@pytest.mark.parametrize(("best", "expected"), [(0, True), (1, False), (2, True)])
def test_a_best_rate_with_none_beyond_it_is_at_the_edge(best: int, expected: bool) -> None:
    results = [
        tuning(rate, 0.0, 0.5 if number == best else 0.25)
        for number, rate in enumerate((1e-4, 3e-4, 1e-3))
    ]
    assert at_edge(tried_rates(results)["own"]) is expected


def test_only_runs_at_the_chosen_rate_are_measured_and_one_made_twice_counts_once() -> None:
    again = made_run("own", 1, made_role(5.0), rate=1e-4)
    results = [
        tuning(1e-4, 0.0, 0.5),
        tuning(1e-3, 0.0, 0.25),
        made_run("own", 1, made_role(4.0), rate=1e-4),
        again,
        made_run("own", 0, made_role(3.0), rate=1e-4),
        made_run("own", 2, made_role(9.0), rate=1e-3),
    ]
    runs = measured_runs(results)["own"]
    assert per_seed(runs, "node", measures.cumulative_reward) == {0: 3.0, 1: 5.0}


def test_nothing_chooses_between_rates_that_were_not_tuned() -> None:
    results = [made_run("own", 0, made_role(), rate=rate) for rate in (1e-4, 1e-3)]
    with pytest.raises(ValueError, match="arm own"):
        measured_runs(results)


def test_the_spread_is_the_sample_standard_deviation() -> None:
    found = spread({0: 1.0, 1: 2.0, 2: 3.0})
    assert found is not None
    assert (found.mean, found.deviation, found.num) == (2.0, 1.0, 3)
    assert spread({0: 1.0}) == spread({7: 1.0})
    assert spread({}) is None


def test_the_best_control_has_the_highest_mean_and_is_never_an_arm_that_shares() -> None:
    figures = {"own": {0: 1.0, 1: 3.0}, "replay": {0: 2.0, 1: 4.0}, "fill": {0: 9.0}, "late": {}}
    assert best_control(figures, ("own", "replay", "late", "missing")) == "replay"
    assert best_control(figures, ("late",)) is None


def test_a_ratio_that_is_the_same_in_each_seed_has_no_width() -> None:
    """Paired: unpaired, the seeds' own differences would make it wide."""
    found = ratio({0: 2.0, 1: 20.0, 2: 200.0}, {0: 1.0, 1: 10.0, 2: 100.0})
    assert found is not None
    assert found.value == pytest.approx(2.0)
    assert found.interval == pytest.approx((2.0, 2.0))
    assert found.verdict is Verdict.BEATS


def test_with_three_seeds_the_interval_reaches_from_the_smallest_to_the_largest() -> None:
    found = difference({0: 1.0, 1: 3.0, 2: 5.0}, {0: 1.0, 1: 1.0, 2: 1.0})
    assert found is not None
    assert (found.value, found.interval) == (2.0, (0.0, 4.0))
    assert found.verdict is Verdict.UNDECIDED


def test_the_interval_is_that_of_students_distribution_where_many_normal_values_are_drawn() -> None:
    values = np.random.default_rng(1).normal(0.5, 2.0, 40)
    found = difference(dict(enumerate(values)), dict.fromkeys(range(40), 0.0))
    assert found is not None
    assert found.interval is not None
    half = 2.0227 * values.std(ddof=1) / math.sqrt(40)  # Student's quantile at 39 degrees
    assert found.interval[0] == pytest.approx(values.mean() - half, abs=0.06)
    assert found.interval[1] == pytest.approx(values.mean() + half, abs=0.06)


@pytest.mark.parametrize(("num_seeds", "student"), [(5, 2.776), (10, 2.262), (40, 2.023)])
def test_tails_are_widened_as_the_expanded_percentile_interval_says(
    num_seeds: int, student: float
) -> None:
    z = student * math.sqrt(num_seeds / (num_seeds - 1))
    exact = 0.5 * math.erfc(z / math.sqrt(2))
    assert tail_probability(num_seeds) == pytest.approx(exact, rel=0.03)


def test_an_arm_that_is_worse_in_each_seed_loses() -> None:
    arm, control = {0: 1.0, 1: 1.5, 2: 2.0}, {0: 2.0, 1: 2.0, 2: 2.5}
    worse, less = ratio(arm, control), difference(arm, control)
    assert worse is not None
    assert less is not None
    assert worse.verdict is less.verdict is Verdict.LOSES


def test_fewer_than_three_seeds_are_too_few_for_an_interval() -> None:
    found = ratio({0: 3.0, 1: 3.0}, {0: 1.0, 1: 1.0, 2: 1.0})
    assert found is not None
    assert (found.value, found.interval, found.verdict) == (3.0, None, Verdict.TOO_FEW)


def test_a_seed_that_only_one_side_has_is_not_compared() -> None:
    found = ratio({0: 2.0, 1: 2.0, 2: 2.0, 4: 77.0}, {0: 1.0, 1: 1.0, 2: 1.0, 3: 99.0})
    assert found is not None
    assert (found.value, found.interval) == (2.0, (2.0, 2.0))


def test_sides_without_a_common_seed_are_resampled_by_themselves() -> None:
    found = difference({0: 2.0, 1: 3.0, 2: 4.0}, {10: 1.0, 11: 2.0, 12: 3.0})
    assert found is not None
    assert found.value == 1.0
    assert found.interval == (-1.0, 3.0)


def test_no_ratio_to_a_control_that_earned_nothing() -> None:
    assert ratio({0: 1.0}, {0: 0.0}) is None
    assert ratio({0: 0.0}, {0: 0.0}) is None
    assert difference({0: 1.0}, {}) is None


def test_a_control_with_one_seed_of_nothing_can_still_be_compared() -> None:
    found = ratio(dict.fromkeys(range(5), 2.0), {0: 0.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0})
    assert found is not None
    assert found.value == 2.5
    assert found.interval is not None
    assert found.interval[0] == 2.0


def test_a_comparison_is_the_same_each_time() -> None:
    arm, control = {0: 1.0, 1: 1.7, 2: 2.2, 3: 1.1}, {0: 1.1, 1: 1.2, 2: 2.5, 3: 1.0}
    assert ratio(arm, control) == ratio(arm, control)


def test_a_curve_is_mean_and_deviation_over_seeds_as_far_as_all_of_them_go() -> None:
    runs = [
        made_run("own", 0, made_role(own_reward=(0.25, 0.5, 0.75))),
        made_run("own", 1, made_role(own_reward=(0.75, 0.5))),
    ]
    found = curve(runs, "node", lambda role: role.rounds.own_reward)
    assert found.mean.tolist() == [0.5, 0.5]
    assert found.deviation == pytest.approx([math.sqrt(0.125), 0.0])
    alone = curve(runs[:1], "node", lambda role: role.rounds.own_reward)
    assert alone.deviation.tolist() == [0.0, 0.0, 0.0]
    assert curve(runs, "strong", lambda role: role.rounds.own_reward).mean.size == 0


def test_arms_stand_in_the_order_declared_and_others_after_them() -> None:
    runs = measured_runs([run for arm in "badc" for run in made_arm(arm, 1.0)])
    assert list(in_order(runs, Declared("", (), arms=("c", "missing", "b")))) == [
        "c",
        "b",
        "a",
        "d",
    ]


# --- measures of one run --------------------------------------------------------------------------


def test_the_cumulative_reward_is_the_mean_over_nodes() -> None:
    assert measures.cumulative_reward(made_role(7.0)) == 7.0
    assert measures.cumulative_batch_reward(made_role(own_reward=(0.25, 0.5))) == 1.5


@pytest.mark.parametrize(
    ("accuracies", "tokens"),
    [
        ((0.0, 0.1, 0.5), 150.0),
        ((0.1, 0.3, 0.2), 100.0),
        ((0.0, 0.5, 0.1), 60.0),
        ((0.3, 0.1, 0.5), 0.0),
        ((0.0, 0.1, 0.2), None),
    ],
)
def test_tokens_to_a_target_are_linear_between_exams(
    accuracies: tuple[float, ...], tokens: float | None
) -> None:
    found = measures.tokens_to(0.3)(made_role(1.0, accuracies))
    assert found == (None if tokens is None else pytest.approx(tokens))


def test_figures_per_round_are_means_over_the_rounds_and_costs_are_sums() -> None:
    role = made_role(own_reward=(0.1, 0.2, 0.3))
    assert measures.foreign_used(role) == 1.0
    assert measures.zero_advantage_share(role) == 0.75
    assert measures.own_tokens(role) == 300.0


def test_attack_success_is_the_mean_of_the_last_tenth_of_the_rounds() -> None:
    shares = [0.0] * 18 + [0.5, 1.0]
    role = made_role(poison_share=shares, answer_bytes=[10.0, 30.0, *[0.0] * 16, 40.0, 60.0])
    assert measures.attack_success(role) == 0.75
    assert measures.length_growth(role) == 2.5
    assert measures.honest_acceptance(role) == 0.9
    assert measures.hostile_used(role) == 3.0


def test_without_an_attack_there_is_no_success_of_one() -> None:
    assert measures.attack_success(made_role()) is None
    assert measures.length_growth(made_role()) is None
    assert measures.length_growth(made_role(answer_bytes=(0.0, 9.0))) is None
