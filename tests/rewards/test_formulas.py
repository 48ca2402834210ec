# ruff: noqa: RUF001 - look-alike signs are the point here
"""Conclusions decided by truth table, against the library's own reading of formulas."""

import itertools
import random

import pytest

from rewards.tasks.formulas import MAX_DEPTH, MalformedFormula, are_consistent, follows


@pytest.mark.parametrize(
    ("conclusion", "premises", "expected"),
    [
        ("P ∨ Q", ("P", "Q"), True),
        ("Q ∧ P", ("P", "Q"), True),
        ("Q ∧ P", ("P", "P → Q"), True),
        ("P ∧ Q", ("P ∨ Q",), False),
        ("¬Q → ¬P", ("P → Q",), True),
        ("Q → P", ("P → Q",), False),
        ("P", ("P", "Q"), False),  # says nothing new: no operator
        ("(P)", ("P", "Q"), False),
        ("P ∨ ¬P", ("P", "Q"), False),  # a tautology
        ("P → Q → R", ("P → Q", "R"), True),
        ("P ∧ ¬P", ("P", "¬P"), True),  # from a contradiction all follows
        ("P ↔ Q ↔ R", ("(P ↔ Q) ↔ R",), True),
    ],
)
def test_a_conclusion_follows_if_it_is_true_wherever_the_premises_are(
    conclusion: str, premises: tuple[str, ...], expected: bool
) -> None:
    assert follows(conclusion, premises) is expected


@pytest.mark.parametrize(
    "text",
    [
        *["", "(", ")", "()", "P Q", "PP ∨ Q", "P ∨", "∨ P", "P ∨ S", "p ∨ q", "P and Q", "P ∧ Q)"],
        *[
            "((P ∧ Q)",
            "¬",
            "P ¬ Q",
            "P => Q",
            "P ∧ 1",
            "P ∧ Q.",
            "P ∧ Q\n",
            "P\u00a0∧ Q",
            "P ∧ ∧ Q",
        ],
        *["(" * 5000 + "P" + ")" * 5000, "¬" * (MAX_DEPTH + 1) + "P", "P ∧ " * 200 + "P"],
    ],
)
def test_a_malformed_formula_is_an_error_and_no_hang(text: str) -> None:
    with pytest.raises(MalformedFormula):
        follows(text, ("P", "Q"))


def test_too_many_variables_are_an_error() -> None:
    with pytest.raises(MalformedFormula, match="variables"):
        follows("A ∧ B", tuple("ABCDEFGHIJK"))


def test_contradictory_premises_are_recognised() -> None:
    assert are_consistent(("P ∨ Q", "¬P"))
    assert not are_consistent(("P ∨ Q", "¬P", "¬Q"))


def test_formulas_are_read_as_the_library_reads_them() -> None:
    from reasoning_gym.logic.propositional_logic import Expression

    draw = random.Random(5)
    rows = [
        dict(zip("PQR", row, strict=True)) for row in itertools.product([False, True], repeat=3)
    ]
    premises = [  # one premise per row: true in that row only
        " ∧ ".join(name if value else f"¬{name}" for name, value in row.items()) for row in rows
    ]
    judged = set()
    for _ in range(300):
        formula = draw.choice(["", "¬"]) + draw.choice("PQR")
        for _ in range(draw.randint(1, 5)):
            formula += f" {draw.choice('↔→∨∧')} {draw.choice(['', '¬'])}{draw.choice('PQR')}"
            if draw.random() < 0.3:
                formula = f"{draw.choice(['', '¬'])}({formula})"
        library = [Expression.from_string(formula).evaluate(row) for row in rows]
        expected = library if not all(library) else [False] * 8  # a tautology says nothing
        assert [follows(formula, (premise,)) for premise in premises] == expected, formula
        judged |= set(library)
    assert judged == {True, False}
