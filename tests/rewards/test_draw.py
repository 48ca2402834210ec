import itertools
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import rewards
from rewards.draw import (
    COMMON_QUESTIONS,
    DrawFailed,
    draw_common,
    draw_held_out,
    draw_training,
    epoch_of,
)
from rewards.question import Example, Expansion, is_held_out, normalise
from rewards.tasks import TaskSpec
from rewards.verifier import Verifier

ROOT = Path(rewards.__file__).resolve().parents[1]
WORKER = (sys.executable, "-P", str(Path(__file__).with_name("hostile_worker.py")), str(ROOT))
EASY = ROOT / "configs" / "swarms" / "easy.toml"

PLENTY = ["a", "b", "c"]
# Tasks of one text each, "NAME: say 0", which is held out or not according to the name.
NAMES = [f"only{number}" for number in itertools.islice(itertools.count(), 200)]
ONE_HELD_OUT = next(name for name in NAMES if is_held_out(f"{name}: say 0"))
ONE_FREE = next(name for name in NAMES if not is_held_out(f"{name}: say 0"))

SHOWN = tuple(Example(f"Shown:  say {number}", str(number)) for number in range(0, 40, 2))


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    specs = [
        *(TaskSpec(name, "honest", "", "1") for name in PLENTY),
        TaskSpec("few", "honest", "", "1", {"num_texts": 40}),
        TaskSpec("shown", "honest", "", "1", {"num_texts": 40}, examples=SHOWN),
        TaskSpec("broken", "honest", "", "1", {"fails": True}),
        TaskSpec(ONE_HELD_OUT, "honest", "", "1", {"num_texts": 1}),
        TaskSpec(ONE_FREE, "honest", "", "1", {"num_texts": 1}),
    ]
    with Verifier(specs, command=WORKER) as verifier:
        yield verifier


def texts(expansions: list[Expansion]) -> list[str]:
    return [normalise(expansion.text) for expansion in expansions]


def tasks(expansions: list[Expansion]) -> list[str]:
    return [expansion.question.task for expansion in expansions]


def test_the_same_round_draws_the_same_questions_in_any_order_of_tasks(verifier: Verifier) -> None:
    drawn = draw_training(verifier, PLENTY, seed=1, round_number=2, num_questions=20)
    assert drawn == draw_training(verifier, PLENTY[::-1], 1, 2, 20)
    assert len(drawn) == 20


def test_another_seed_or_round_draws_other_questions(verifier: Verifier) -> None:
    rounds = [
        draw_training(verifier, PLENTY, seed, round_number, 50)
        for seed in (1, 2)
        for round_number in (1, 2, 11)
    ]
    indices = [expansion.question.index for drawn in rounds for expansion in drawn]
    assert len(set(indices)) == len(indices) == 300


def test_a_round_begins_alike_however_long_it_is(verifier: Verifier) -> None:
    assert draw_training(verifier, PLENTY, 1, 1, 30)[:10] == draw_training(
        verifier, PLENTY, 1, 1, 10
    )


def test_indices_are_never_neighbours(verifier: Verifier) -> None:
    drawn = draw_training(verifier, PLENTY, 1, 1, 5000)
    indices = sorted(expansion.question.index for expansion in drawn)
    assert min(b - a for a, b in itertools.pairwise(indices)) > 1000
    assert indices[0] < 2**45 and indices[-1] > 2**53 - 2**45


def test_tasks_are_drawn_uniformly(verifier: Verifier) -> None:
    counts = Counter(tasks(draw_training(verifier, PLENTY, 1, 1, 6000)))
    assert all(1850 < counts[name] < 2150 for name in PLENTY)


def test_tasks_are_drawn_by_weight(verifier: Verifier) -> None:
    weights = {"a": 0.5, "b": 2.5}
    drawn = draw_training(verifier, PLENTY, 1, 1, 4000, task_weights=weights)
    counts = Counter(tasks(drawn))
    assert 420 < counts["a"] < 580 and 2350 < counts["b"] < 2650 and 900 < counts["c"] < 1100
    assert drawn == draw_training(verifier, PLENTY[::-1], 1, 1, 4000, task_weights=weights)


def test_further_questions_of_a_round_follow_those_before(verifier: Verifier) -> None:
    whole = draw_training(verifier, PLENTY, 1, 1, 30)
    assert draw_training(verifier, PLENTY, 1, 1, 20, first=10) == whole[10:]


def common(verifier: Verifier, names: list[str], num: int, **changes: int) -> list[Expansion]:
    """Common questions of PLENTY's swarm for a node that can ask `names`."""
    of = {"epoch": 3, "seed": 1, "round_number": 1} | changes
    return draw_common(verifier, names, num_questions=num, tasks_of_swarm=PLENTY, **of)


def test_common_questions_are_the_same_for_all_and_change_with_the_epoch(
    verifier: Verifier,
) -> None:
    shared = common(verifier, PLENTY, COMMON_QUESTIONS)
    assert len(set(texts(shared))) == COMMON_QUESTIONS
    assert set(tasks(shared)) == set(PLENTY)
    for other in ({"seed": 2}, {"round_number": 2}):
        again = common(verifier, PLENTY[::-1], 999, **other)
        assert sorted(texts(again)) == sorted(texts(shared)) and again != shared
    assert common(verifier, PLENTY, 8) == shared[:8]
    assert not set(texts(common(verifier, PLENTY, 999, epoch=4))) & set(texts(shared))
    assert not any(is_held_out(one.text) for one in shared)
    assert (epoch_of(7199.9, 3600), epoch_of(7200.0, 3600)) == (1, 2)


def test_nodes_of_different_tasks_share_all_that_both_can_ask(verifier: Verifier) -> None:
    shared = common(verifier, PLENTY, COMMON_QUESTIONS)
    few = common(verifier, ["c", "b"], COMMON_QUESTIONS, seed=2)
    assert sorted(texts(few)) == sorted(texts([o for o in shared if o.question.task != "a"]))
    assert common(verifier, ["broken", "d"], 8) == []


def test_a_common_question_of_a_task_that_fails_is_passed_over(verifier: Verifier) -> None:
    names = ["broken", *PLENTY]
    drawn = draw_common(verifier, names, 3, 1, 1, 8, tasks_of_swarm=names)
    assert len(drawn) == 8 and "broken" not in tasks(drawn)
    assert texts(draw_common(verifier, [ONE_FREE], 3, 1, 1, 8)) == [f"{ONE_FREE}: say 0"]


def test_texts_differ_within_a_round_where_there_are_enough(verifier: Verifier) -> None:
    for round_number in range(20):
        drawn = texts(draw_training(verifier, ["few"], 1, round_number, 8))
        assert len(set(drawn)) == 8


def test_texts_repeat_where_there_are_too_few(verifier: Verifier) -> None:
    drawn = draw_training(verifier, [ONE_FREE], 1, 1, 8)
    assert texts(drawn) == [f"{ONE_FREE}: say 0"] * 8


def test_a_task_that_fails_is_left_out_loudly(
    verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        drawn = draw_training(verifier, ["broken", *PLENTY], 1, 1, 40)
    assert len(drawn) == 40 and set(tasks(drawn)) == set(PLENTY)
    assert "task broken yields no training questions" in caplog.text
    assert "RuntimeError: no such question" in caplog.text


def test_a_task_whose_texts_are_all_held_out_is_left_out_loudly(
    verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        drawn = draw_training(verifier, [ONE_HELD_OUT, "a"], 1, 1, 20)
    assert tasks(drawn) == ["a"] * 20
    assert f"task {ONE_HELD_OUT} yields no training questions" in caplog.text


@pytest.mark.parametrize("names", [["broken"], [ONE_HELD_OUT], ["broken", ONE_HELD_OUT], []])
def test_without_a_usable_task_drawing_fails(verifier: Verifier, names: list[str]) -> None:
    with pytest.raises(DrawFailed, match="no task yields training questions"):
        draw_training(verifier, names, 1, 1, 8)


@pytest.mark.parametrize("names", [["broken"], [ONE_FREE], []])
def test_without_a_held_out_text_there_is_no_exam(verifier: Verifier, names: list[str]) -> None:
    with pytest.raises(DrawFailed, match="no task yields held-out questions"):
        draw_held_out(verifier, names, 1, 8)


def test_an_exam_is_held_out_distinct_and_spread_evenly(verifier: Verifier) -> None:
    exam = draw_held_out(verifier, PLENTY, 1, 200)
    assert len(set(texts(exam))) == 200
    assert all(is_held_out(expansion.text) for expansion in exam)
    assert sorted(Counter(tasks(exam)).values()) == [66, 67, 67]
    assert set(Counter(tasks(exam[:30])).values()) == {10}


def test_an_exam_depends_on_the_seed_alone(verifier: Verifier) -> None:
    exam = draw_held_out(verifier, PLENTY, 1, 50)
    assert exam == draw_held_out(verifier, PLENTY[::-1], 1, 50)
    assert not set(texts(exam)) & set(texts(draw_held_out(verifier, PLENTY, 2, 50)))


def test_a_question_that_its_task_shows_as_an_example_is_never_drawn(verifier: Verifier) -> None:
    exam = draw_held_out(verifier, ["shown"], 1, 40)
    drawn = exam + [
        one for number in range(20) for one in draw_training(verifier, ["shown"], 1, number, 16)
    ]
    assert set(texts(drawn)) == {f"shown: say {number}" for number in range(1, 40, 2)}
    assert drawn[0].examples == SHOWN


def test_others_fill_the_share_of_a_task_with_few_held_out_texts(
    verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        exam = draw_held_out(verifier, [ONE_HELD_OUT, "broken", "a", "b"], 1, 61)
    assert Counter(tasks(exam)) == {ONE_HELD_OUT: 1, "a": 30, "b": 30}
    for name, num in ((ONE_HELD_OUT, 1), ("broken", 0)):
        assert f"task {name} has no more held-out questions than {num}" in caplog.text


def test_an_exam_takes_all_there_is_and_says_that_it_is_short(
    verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {text for i in range(40) if is_held_out(text := f"few: say {i}")}
    with caplog.at_level(logging.WARNING):
        exam = draw_held_out(verifier, ["few"], 1, 20)
    assert set(texts(exam)) == expected and len(exam) == len(expected)
    assert f"only {len(expected)} held-out questions instead of 20" in caplog.text


def easy_tasks() -> list[TaskSpec]:
    """Of the easy manifest; without a checkout, some of the same kind."""
    if EASY.exists():
        from swarm.manifest import load_manifest

        return list(load_manifest(EASY).rules.tasks)
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    return [TaskSpec("sums", "reasoning_gym", "chain_sum", "0.1.25", params)]


def test_no_held_out_text_is_among_100_000_training_draws() -> None:
    specs = easy_tasks()
    names = [spec.name for spec in specs]
    with Verifier(specs) as verifier:
        trained: Counter[str] = Counter()
        for round_number in range(1000):
            trained.update(texts(draw_training(verifier, names, 1, round_number, 100)))
        exam = draw_held_out(verifier, names, 1, 200)
    assert trained.total() == 100_000
    assert not any(is_held_out(text) for text in trained)
    assert exam and not trained.keys() & set(texts(exam))
