# ruff: noqa: RUF001 - look-alike signs are the point here
"""Expressions over given numbers: evaluated exactly, refused otherwise."""

import ast
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.tasks.arithmetic import MAX_CHARS, MAX_DEPTH, MalformedExpression, evaluate


@pytest.mark.parametrize(
    ("expression", "numbers", "expected"),
    [
        ("6*2*(8 - 6)", [8, 6, 6, 2], 24),
        ("8/(3-8/3)", [3, 3, 8, 8], 24),
        ("1 - 2 - 3", [1, 2, 3], -4),
        ("8/4/2", [2, 4, 8], 1),
        ("-(1 - 3)*\t5", [1, 3, 5], 10),
        ("((7))", [7], 7),
        ("1+0*2", [0, 1, 2], 1),
    ],
)
def test_an_expression_has_its_exact_value(
    expression: str, numbers: list[int], expected: int
) -> None:
    assert evaluate(expression, numbers) == expected


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "1", "1 + 1", "1 + 2 + 2", "12", "1 2", "1 + 3", "2 + 1 + 0", "1 + 2.0"],
        *["1 ++ 2", "1 + -2", "1 - -2", "--1 + 2", "+1 + 2", "1 +", "* 1 2", "1 ** 2", "1 // 2"],
        *["(1 + 2", "1 + 2)", "()1 + 2", "1(+)2", "1(2)", "(1)(2)", "1 + 2 = 3", "1 + 02"],
        *["1 + 2;", "1 x 2", "1 × 2", "1 ÷ 2", "1 − 2", "１ + 2", "1 + ²", "٣ + 1", "1\n+ 2"],
        *["1\u00a0+ 2", "1_0", "1e2", "0x1 + 2", "1j + 2", "abs(1) + 2", "print()", "\x00"],
        *["9**9**9", "(" * 5000 + "1" + ")" * 5000, "1 + " * 2000 + "2", "9" * 5000],
        "(" * (MAX_DEPTH + 1) + "1 + 2" + ")" * (MAX_DEPTH + 1),
        " " * MAX_CHARS + "1 + 2",
    ],
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(MalformedExpression):
        evaluate(text, [1, 2])


@pytest.mark.parametrize("text", ["1/(2 - 2)", "1/0", "2/(1/0)"])
def test_a_division_by_zero_is_malformed(text: str) -> None:
    with pytest.raises(MalformedExpression):
        evaluate(text, [int(sign) for sign in text if sign.isdigit()])


def test_only_the_named_operators_may_be_used() -> None:
    assert evaluate("3 - 1", [1, 3], "+-") == 2
    for text in ("3*1", "3/1", "3 + 1"):
        with pytest.raises(MalformedExpression, match="operators"):
            evaluate(text, [1, 3], "-")


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda parts: st.builds(
        "{0}{1}{2}{3}{4}".format,
        st.sampled_from(["(", "(-"]),
        parts,
        st.sampled_from(["+", " - ", "*", " / "]),
        parts,
        st.just(")"),
    ),
    max_leaves=10,
)


def python_value(expression: str) -> Fraction | None:
    """By Python's own grammar, with exact numbers."""

    class Exact(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Call:
            return ast.Call(ast.Name("Fraction", ast.Load()), [node], [])

    tree = ast.fix_missing_locations(Exact().visit(ast.parse(expression, mode="eval")))
    try:
        return Fraction(eval(compile(tree, "", "eval"), {"Fraction": Fraction}))
    except ZeroDivisionError:
        return None


@settings(max_examples=80, deadline=None)
@given(EXPRESSIONS)
def test_values_are_those_of_python_with_exact_numbers(expression: str) -> None:
    numbers = [int(part) for part in "".join(c if c.isdigit() else " " for c in expression).split()]
    expected = python_value(expression)
    if expected is None:
        with pytest.raises(MalformedExpression):
            evaluate(expression, numbers)
    else:
        assert evaluate(expression, numbers) == expected
        with pytest.raises(MalformedExpression):
            evaluate(expression, [*numbers, 1])
        with pytest.raises(MalformedExpression):
            evaluate(expression, numbers[1:])


@settings(max_examples=150, deadline=None)
@given(st.text("0123456789+-*/() .e_x", max_size=60))
def test_what_is_evaluated_python_reads_alike(text: str) -> None:
    numbers = [int(part) for part in "".join(c if c.isdigit() else " " for c in text).split()]
    try:
        value = evaluate(text, numbers)
    except MalformedExpression:
        return
    assert value == python_value(text.strip())


def test_shuffled_signs_raise_nothing_else() -> None:
    draw = random.Random(3)
    for _ in range(2000):
        signs = list("(1+2)*3-4/5()")
        draw.shuffle(signs)
        try:
            evaluate("".join(signs), [1, 2, 3, 4, 5])
        except MalformedExpression:
            continue
