import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.evaluate import (
    PART,
    Accuracy,
    HeldOut,
    accuracy,
    difference,
    evaluate,
    in_common,
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


def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_that_hold_a_correct_one() -> None:
    num, correct, k = 6, 2, 3
    answers = [True] * correct + [False] * (num - correct)
    choices = [any(chosen) for chosen in combinations(answers, k)]
    found = HeldOut((correct / num,), ("a",), num, GREEDY)
    assert found.pass_at_per_question(k) == pytest.approx([sum(choices) / len(choices)])


@given(correct=st.lists(st.integers(0, 8), min_size=1, max_size=20))
def test_pass_at_k_grows_from_the_mean_to_any_correct(correct: list[int]) -> None:
    found = HeldOut(tuple(one / 8 for one in correct), ("a",) * len(correct), 8, GREEDY)
    assert found.pass_at(1).mean == pytest.approx(found.overall.mean)
    assert found.pass_at_per_question(8) == tuple(float(one > 0) for one in correct)
    means = [found.pass_at(k).mean for k in range(1, 9)]
    assert means == sorted(means)


@pytest.mark.parametrize("k", [0, 9])
def test_pass_at_more_than_was_asked_cannot_be_told(k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} cannot be told from 8 answers"):
        HeldOut((0.5,), ("a",), 8, GREEDY).pass_at(k)


def made(correct: dict[int, float], task: str = "a") -> HeldOut:
    """Question -> share of correct answers."""
    shares = tuple(correct.values())
    greedy = tuple(float(share > 0.5) for share in shares)
    vendi = tuple(1 + share for share in shares)
    return HeldOut(
        shares, (task,) * len(shares), 2, accuracy(greedy), tuple(correct), greedy, vendi
    )


def test_policies_are_compared_on_the_questions_that_fit_both() -> None:
    before, after = in_common(made({5: 1.0, 6: 0.5, 7: 0.0}), made({7: 1.0, 9: 0.0, 5: 0.5}))
    assert before == made({7: 0.0, 5: 1.0})
    assert after == made({7: 1.0, 5: 0.5})
    assert difference(before.vendi, after.vendi) == accuracy([1.0, -0.5])
    with pytest.raises(ValueError, match="no question fits both"):
        in_common(made({5: 1.0}), made({5: 1.0}, task="b"))


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
    assert sure.greedy_per_question == (1.0,) * 5
    assert sure.indices == tuple(one.question.index for one in questions[:5])
    # It says the truth or one wrong thing.
    assert all(
        one == pytest.approx(1) if share in (0, 1) else 1.1 < one <= 2
        for one, share in zip(sure.vendi, sure.per_question, strict=True)
    )
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
        HeldOut((0.5, 1.0), ("a", "b"), 8, GREEDY, (7, 2**31), (1.0, 0.0), (1.0, 7 / 3)),
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


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "round-00000007.json").write_text(
        '{"per_question":[0.25,0.0],"tasks":["a","b"],"answers_per_question":4,"greedy_mean":0.5,'
        '"greedy_standard_error":0.5,"greedy_questions":2}\n'
    )
    found = read_heldout(tmp_path)[7]
    assert found == HeldOut((0.25, 0.0), ("a", "b"), 4, Accuracy(0.5, 0.5, 2))
    assert found.pass_at(4).mean == 0.5
    assert found.diversity is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"per_question": [1.0]',
        '{"per_question": [0.5], "tasks": [], "answers_per_question": 8, "greedy_mean": 0.5, '
        '"greedy_standard_error": null, "greedy_questions": 1}',
        '{"per_question": [0.5], "tasks": ["a"], "answers_per_question": 8, "greedy_mean": 0.5, '
        '"greedy_standard_error": null, "greedy_questions": 1, "vendi": [1.0, 2.0]}',
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
