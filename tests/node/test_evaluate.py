import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from node.evaluate import (
    PART,
    Accuracy,
    HeldOut,
    accuracy,
    evaluate,
    read_heldout,
    rise,
    write_heldout,
)
from node.exchange import LocalExchange
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
    exchange = LocalExchange(verifier, ["sums"], seed=3)
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
    exchange = LocalExchange(verifier, ["sums"], seed=3)
    questions = exchange.draw_held_out(20)
    first = evaluate(ScriptedPolicy(seed=3), exchange, questions)
    assert evaluate(ScriptedPolicy(seed=3), exchange, questions) == first


def test_questions_are_asked_in_parts_that_can_be_ended(verifier: Verifier) -> None:
    exchange = LocalExchange(verifier, ["sums"], seed=3)
    questions = exchange.draw_held_out(2 * PART + 1)
    policy = ScriptedPolicy(seed=3, num_answers=2)
    entered: list[int] = []
    asked: list[int] = []
    roll_out = policy.roll_out

    def counting(some, round_number, *, greedy=False):  # type: ignore[no-untyped-def]
        asked.append(len(some))
        return roll_out(some, round_number, greedy=greedy)

    policy.roll_out = counting  # type: ignore[method-assign]

    @contextmanager
    def part() -> Iterator[None]:
        entered.append(len(asked))
        if len(asked) >= most:
            raise InterruptedError
        yield

    most = 100
    whole = evaluate(policy, exchange, questions, part)
    assert asked == [PART] * 4 + [1] * 2
    assert entered == [0, 2, 4]
    assert whole.per_question[:PART] == evaluate(policy, exchange, questions[:PART]).per_question
    most = len(asked) + 2
    with pytest.raises(InterruptedError):
        evaluate(policy, exchange, questions, part)


def test_an_exam_that_does_not_fit_the_policy_says_what_to_change(verifier: Verifier) -> None:
    policy = ScriptedPolicy(seed=3)
    policy.roll_out = lambda questions, round_number, *, greedy=False: []  # type: ignore[method-assign]
    exchange = LocalExchange(verifier, ["sums"], seed=3)
    with pytest.raises(ValueError, match="max_prompt_tokens"):
        evaluate(policy, exchange, exchange.draw_held_out(2))


@pytest.mark.parametrize(
    "heldout",
    [
        HeldOut((0.1 + 0.2, 1 / 3, 1.0), ("a", "ä", "b"), 8, Accuracy(1 / 3, 1 / 7, 3)),
        HeldOut((), (), 1, Accuracy(0.0, 0.0, 1)),
    ],
)
def test_what_is_kept_is_what_was_found(tmp_path: Path, heldout: HeldOut) -> None:
    file = write_heldout(tmp_path / "heldout", 12, heldout)
    assert file.name == "round-00000012.json"
    assert [one.name for one in file.parent.iterdir()] == [file.name], "nothing is left aside"
    assert read_heldout(file.parent) == {12: heldout}


def test_an_unknown_standard_error_is_kept_as_unknown(tmp_path: Path) -> None:
    heldout = HeldOut((1.0,), ("a",), 8, accuracy([1.0]))
    file = write_heldout(tmp_path, 0, heldout)
    assert "null" in file.read_text()
    [found] = read_heldout(tmp_path).values()
    assert math.isnan(found.greedy.standard_error)
    sure = Accuracy(1.0, 0.0, 1)
    assert replace(found, greedy=sure) == replace(heldout, greedy=sure)


def test_evaluations_come_in_the_order_of_their_rounds(tmp_path: Path) -> None:
    for number in (200, 0, 10**8, 30):
        write_heldout(tmp_path, number, HeldOut((1.0,), ("a",), 8, GREEDY))
    assert list(read_heldout(tmp_path)) == [0, 30, 200, 10**8]
    assert read_heldout(tmp_path / "never written") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"per_question": [1.0]',
        '{"per_question": [0.5], "tasks": [], "answers_per_question": 8, "greedy_mean": 0.5, '
        '"greedy_standard_error": null, "greedy_questions": 1}',
    ],
)
def test_a_file_that_cannot_be_read_is_reported_and_passed_over(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_heldout(tmp_path, 4, HeldOut((1.0,), ("a",), 8, GREEDY))
    (tmp_path / "round-00000002.json").write_text(text)
    (tmp_path / ".round-00000003.json.17").write_text("a write that was cut off")
    with caplog.at_level(logging.ERROR):
        assert list(read_heldout(tmp_path)) == [4]
    assert "round-00000002.json is unusable" in caplog.text
    assert len(caplog.messages) == 1
