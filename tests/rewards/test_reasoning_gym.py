# ruff: noqa: RUF001 - look-alike signs are the point here
"""Every allowed data set: its own truth is right, anything around it and anything hostile is
wrong, nothing runs, and a question depends on its address alone."""

import ast
import decimal
import importlib
import random
from functools import cache
from pathlib import Path

import pytest

from rewards.extract import mark_answer
from rewards.tasks import TaskRefused, TaskSpec, build_task
from rewards.tasks.audit import ALLOWED, REFUSED
from rewards.tasks.reasoning_gym import ReasoningGymTask, _seed

VERSION = "0.1.25"
DATASETS = sorted(ALLOWED)
SLOW = {
    *["acre", "arc_agi", "game_of_life", "game_of_life_halting", "group_anagrams", "jugs"],
    *["mahjong_puzzle", "polynomial_multiplication", "puzzle24", "simple_integration", "sudoku"],
}
"""Data sets of which few questions are made here: making one takes 3 to 60 ms, or the first 1 s."""


def spec(dataset: str, **changes: object) -> TaskSpec:
    """A spec at the library's defaults, with changes."""
    fields: dict[str, object] = {
        "name": dataset,
        "kind": "reasoning_gym",
        "dataset": dataset,
        "version": VERSION,
        "answer_format": "tags",
    }
    return TaskSpec(**(fields | changes))  # type: ignore[arg-type]


def build(dataset: str, **changes: object) -> ReasoningGymTask:
    task = build_task(spec(dataset, **changes))
    assert isinstance(task, ReasoningGymTask)
    return task


@cache
def shared(dataset: str) -> ReasoningGymTask:
    """One task for all tests that leave no trace in it: some take a second to build."""
    return build(dataset)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_own_truth_is_correct_and_nothing_that_merely_contains_it(dataset: str) -> None:
    task = shared(dataset)
    for index in range(5 if dataset in SLOW else 40):
        truth = task.expand(index).truth

        def judged(answer: str, index: int = index) -> bool:
            return task.judge(index, f"<answer>{answer}</answer>", True)

        assert judged(truth) and judged(f" {truth}\n"), (index, truth)
        around = [f"{truth} it is", f"The answer is {truth}", f"{truth}.", f"`{truth}`"]
        around += [f"{truth}\n{truth}", f"{truth} or {truth}", f"{truth};", f"\\boxed{{{truth}}}"]
        around += [f"\u200b{truth}", f"\u00a0{truth}", f"{truth}\x00", f"{truth}!", f"~{truth}"]
        assert [answer for answer in around if judged(answer)] == [], (index, truth)
        assert not task.judge(index, truth, True), "without its tags"
        assert not task.judge(index, f"<answer>{truth}", True), "tags not closed"


def hostile(canary: Path) -> list[str]:
    """Answers that attack a careless checker; the code in them would create the canary."""
    touch = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    code = [
        touch,
        f"[{touch}]",
        f"[[{touch}]]",
        f"({touch} or 1)",
        f"1 if {touch} else 1",
        f"eval({touch!r})",
        f"exec({touch!r})",
        f"__import__('os').system('touch {canary}')",
        f"open({str(canary)!r}, 'w')",
        f"(lambda: {touch})()",
        f"[x for x in [{touch}]]",
        f"{{{touch}}}",
        f'f"{{{touch}}}"',
        f"().__class__.__base__.__subclasses__() or {touch}",
        f"Symbol('x'); {touch}",
        f"P ∧ {touch}",
        f"['1', {touch}]",
        f"0x1 + {touch}",
        f"cos({touch})\nbuiltins\n(S'touch {canary}'\ntR.",
        f"!!python/object/apply:os.system ['touch {canary}']",
    ]
    heavy = [
        "9**9**9**9",
        "10**10**10",
        "2^(2^(2^(2^(2^9))))",
        "1e999999999",
        "-1E+999999999",
        "factorial(10**9)",
        "9" * 15_000,
        "0x" + "f" * 15_000,
        "1/" + "9" * 15_000,
        "0." + "3" * 15_000,
        "1 " * 8_000,
        "[" * 8_000 + "]" * 8_000,
        "(" * 8_000 + ")" * 8_000,
        "[" + "1, " * 5_000 + "1]",
        "(" * 7_000 + "P" + ")" * 7_000,
        "¬" * 8_000 + "P",
        "P ∧ " * 4_000 + "P",
        "2 × " * 4_000 + "2",
        "a, " * 5_000,
        "\\frac{" * 2_000 + "1" + "}" * 2_000,
        "$" * 16_000,
        "\n" * 16_000 + ".",
    ]
    odd = [
        *[
            "nan",
            "NaN",
            "inf",
            "-inf",
            "Infinity",
            "sNaN123",
            "None",
            "null",
            "true;",
            "1_0",
            "0b1",
        ],
        *[
            "٣",
            "３",
            "²",
            "½",
            "−1",
            "1\u200b",
            "\ufeff1",
            "\u202e1",
            "\x00",
            "\x1b[31m1",
            "1j",
            "😀",
        ],
        *["<answer>", "%s%n", "{0}", "${7*7}", "'; --", "../../etc/passwd", "\ud7ff", "\U0010ffff"],
    ]
    return code + heavy + odd


@pytest.mark.parametrize("dataset", DATASETS)
def test_hostile_answers_are_wrong_and_never_run(dataset: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    task = shared(dataset)
    for index in range(1 if dataset in SLOW else 3):
        for answer in ["", " ", "\n", "\t\r\n", *hostile(canary)]:
            for text in (answer, mark_answer(answer, "tags")):
                assert task.judge(index, text, True) is False, (index, answer[:80])
    assert not canary.exists()


def test_the_canary_would_have_been_created() -> None:
    """Else the test above could not fail."""
    assert len(hostile(Path("canary"))) >= 60
    for answer in hostile(Path("canary"))[:4]:
        assert "touch" in answer and ast.parse(answer)


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_question_does_not_depend_on_what_was_asked_before(dataset: str) -> None:
    indices = [*range(2 if dataset in SLOW else 12), 2**52, 2**53 - 1]
    one, other, third = shared(dataset), build(dataset), build(dataset)
    forward = {index: one.expand(index) for index in indices}
    random.Random(1).shuffle(indices)
    for index in indices:
        other.judge(index, f"<answer>{forward[index].truth}</answer>", True)
        third.expand(0)
    assert {index: other.expand(index) for index in indices} == forward
    assert len({expansion.text for expansion in forward.values()}) > len(indices) // 2


def test_precision_set_by_one_task_does_not_round_another() -> None:
    before = decimal.getcontext().copy()
    alone = build("decimal_chain_sum").expand(5)
    build("decimal_arithmetic", params={"precision": 5}).expand(5)
    assert build("decimal_chain_sum").expand(5) == alone
    assert decimal.getcontext().prec == before.prec


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    build("bf").expand(1)
    assert capfd.readouterr().out == ""


def test_tasks_of_one_data_set_have_questions_of_their_own() -> None:
    one, other = build("chain_sum", name="one"), build("chain_sum", name="other")
    assert one.expand(3).text != other.expand(3).text
    assert one.expand(3).question.task == "one"


def test_seeds_are_spread_over_31_bits() -> None:
    seeds = {_seed("a", index, 0) for index in range(1000)}
    assert len(seeds) > 990 and min(seeds) >= 0 and 2**30 < max(seeds) < 2**31
    assert _seed("a", 0, 1) not in seeds


@pytest.mark.parametrize("index", [-1, 2**53])
def test_an_index_out_of_range_is_an_error(index: int) -> None:
    with pytest.raises(ValueError, match="index"):
        build("chain_sum").expand(index)


def test_the_instruction_of_the_format_follows_the_question() -> None:
    tags, line = build("chain_sum"), build("chain_sum", answer_format="last_line")
    assert tags.expand(1).text.startswith(line.expand(1).text)
    assert tags.expand(1).text.endswith("between <answer> and </answer>.")
    truth = line.expand(1).truth
    assert line.judge(1, f"well\n{truth}", True)
    assert not line.judge(1, truth, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gsm8k"}, "unknown kind 'gsm8k'"),
        ({"dataset": "composite"}, "no questions of its own"),
        ({"dataset": "rush_hour"}, "many answers are correct"),
        ({"dataset": "no_such_set"}, "the library has no such data set"),
        ({"version": "0.1.24"}, "needs reasoning-gym '0.1.24', installed is '0.1.25'"),
        ({"name": "Chain Sum"}, "a-z, 0-9 and _"),
        ({"name": ""}, "a-z, 0-9 and _"),
        ({"name": "a" * 65}, "a-z, 0-9 and _"),
        ({"answer_format": "roman"}, "there are last_line, tags"),
        ({"params": {"max_term": 3}}, "no parameter 'max_term'; there are allow_negation, max_"),
        ({"params": {"seed": 1}}, "no parameter 'seed'"),
        ({"params": {"size": 1}}, "no parameter 'size'"),
        ({"params": {"max_terms": "3"}}, "max_terms = '3', but the default is 6"),
        ({"params": {"max_terms": True}}, "max_terms = True"),
        ({"params": {"min_terms": 9}}, "max_terms must be >= min_terms"),
        ({"params": {"min_digits": 500, "max_digits": 500}}, "no sound question"),
        ({"dataset": "spell_backward", "params": {"data_file": "/etc/passwd"}}, "no parameter"),
        ({"dataset": "basic_arithmetic", "params": {"operators": [1]}}, "operators"),
        ({"dataset": "propositional_logic", "params": {"max_vars": 11}}, "above 10"),
        ({"dataset": "graph_color", "params": {"edge_probability": 0.5}}, "above 0.3"),
        ({"dataset": "cryptarithm", "params": {"allow_leading_zero": True}}, "above False"),
        ({"dataset": "rotate_matrix", "answer_format": "last_line"}, "several lines"),
        ({"dataset": "time_intervals", "params": {"min_time": "00:00"}}, "min_time"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_with_its_reason(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(TaskRefused, match="task ") as refusal:
        build_task(spec(**({"dataset": "chain_sum"} | changes)))  # type: ignore[arg-type]
    assert message in str(refusal.value)


def test_every_data_set_of_the_library_is_allowed_or_refused_with_a_reason() -> None:
    from reasoning_gym.factory import DATASETS as known

    assert ALLOWED.keys() | REFUSED.keys() == known.keys()
    assert not ALLOWED.keys() & REFUSED.keys()
    assert [name for name, reason in REFUSED.items() if len(reason) < 20] == []


@pytest.mark.parametrize(
    ("dataset", "answers"),
    [
        ("complex_arithmetic", ["nan", "nan + nani", "inf", "0", "1j"]),
        ("game_of_life_halting", ["yes", "halts", "0", "None", "truee", "True or False"]),
        ("graph_color", ["{}", "[]", "null", '{"0": null}']),
        ("coin_flip", ["0", "0.0", "nan"]),
        ("propositional_logic", ["P ∨ ¬P", "P", "True"]),
    ],
)
def test_answers_that_the_library_rewards_wrongly_are_wrong(
    dataset: str, answers: list[str]
) -> None:
    task = build(dataset)
    for index in range(5):
        for answer in {*answers} - {task.expand(index).truth}:
            assert not task.judge(index, f"<answer>{answer}</answer>", True), (index, answer)


def test_modules_whose_scorers_eval_the_answer_read_literals_only() -> None:
    for name in ("binary_matrix", "number_sorting", "spiral_matrix", "string_insertion"):
        module = importlib.import_module(f"reasoning_gym.algorithmic.{name}")
        assert vars(module)["eval"] is ast.literal_eval


def test_no_scorer_of_the_library_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for dataset in DATASETS:
        task = shared(dataset)

        def scorer(*_: object) -> float:
            raise AssertionError("called")

        monkeypatch.setattr(task._dataset, "score_answer", scorer)
        assert task.judge(1, f"<answer>{task.expand(1).truth}</answer>", True)
