import math
from pathlib import Path

import pytest

from node.evaluate import Accuracy, HeldOut, accuracy, evaluate, rise
from node.exchange import Exchange
from node.policy import ScriptedPolicy
from rewards.question import is_held_out
from rewards.verifier import Verifier

GREEDY = Accuracy(0.5, 0.1, 2)


def test_accuracy_has_the_standard_error_of_a_mean() -> None:
    found = accuracy([0.0, 1.0, 1.0, 0.0])
    assert found.mean == 0.5
    assert found.standard_error == pytest.approx(math.sqrt(1 / 3) / 2)
    assert found.num_questions == 4


def test_a_single_question_has_no_standard_error() -> None:
    assert math.isnan(accuracy([1.0]).standard_error)


def test_a_rise_is_paired_by_question() -> None:
    before = HeldOut((0.0, 1.0, 0.5), ("a", "a", "b"), 2, GREEDY)
    after = HeldOut((0.5, 1.0, 1.0), ("a", "a", "b"), 2, GREEDY)
    assert rise(before, after) == accuracy([0.5, 0.0, 0.5])
    with pytest.raises(ValueError, match="zip"):
        rise(before, HeldOut((1.0,), ("a",), 2, GREEDY))


def test_each_task_has_its_own_accuracy() -> None:
    per_task = HeldOut((0.0, 1.0, 0.5), ("b", "a", "b"), 2, GREEDY).per_task
    assert list(per_task) == ["a", "b"]
    assert per_task["b"].mean == 0.25


def test_evaluation_asks_held_out_questions_and_finds_the_skill(verifier: Verifier) -> None:
    exchange = Exchange(verifier, ["sums"], seed=3)
    questions = exchange.draw_held_out(100)
    assert len({one.text for one in questions}) == 100
    assert all(is_held_out(one.text) for one in questions)
    found = evaluate(ScriptedPolicy(seed=3, skill=0.3), exchange, questions).overall
    assert abs(found.mean - 0.3) < 4 * found.standard_error
    assert found.num_questions == 100
    sure = evaluate(ScriptedPolicy(seed=3, skill=0.6), exchange, questions[:5])
    assert sure.greedy.mean == 1.0
    assert evaluate(ScriptedPolicy(seed=3, skill=0.4), exchange, questions[:5]).greedy.mean == 0.0


def test_the_same_weights_have_the_same_accuracy(verifier: Verifier, tmp_path: Path) -> None:
    exchange = Exchange(verifier, ["sums"], seed=3)
    questions = exchange.draw_held_out(20)
    first = evaluate(ScriptedPolicy(seed=3), exchange, questions)
    assert evaluate(ScriptedPolicy(seed=3), exchange, questions) == first
