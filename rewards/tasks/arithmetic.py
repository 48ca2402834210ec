"""Arithmetic expressions over given integers: parsed with limits, evaluated exactly, never run.

    sum      = ["-"] product (("+" | "-") product)*
    product  = operand (("*" | "/") operand)*
    operand  = integer | "(" sum ")"

An integer has no sign and no leading zeros. Blanks between signs are ignored.
"""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

MAX_CHARS = 400
MAX_DEPTH = 60
"""Of parentheses within each other; keeps the parser off Python's recursion limit."""

_SIGN = re.compile(r"0|[1-9][0-9]{0,8}|[-+*/()]")
_BLANKS = " \t"


class MalformedExpression(ValueError):
    """Not an expression of exactly the given numbers and operators, or it divides by zero."""


def evaluate(expression: str, numbers: Sequence[int], operators: str = "+-*/") -> Fraction:
    """The exact value of an expression that uses each of the numbers once, in any order.

    A number that is given twice is used twice. What is evaluated has no more operations than
    there are numbers, so that no expression is expensive.

    Raises:
        MalformedExpression.
    """
    if len(expression) > MAX_CHARS:
        raise MalformedExpression(f"longer than {MAX_CHARS} characters")
    signs = _signs(expression)
    if Counter(int(sign) for sign in signs if sign.isdigit()) != Counter(numbers):
        raise MalformedExpression("not exactly the given numbers")
    if not {sign for sign in signs if sign in "+-*/"} <= set(operators):
        raise MalformedExpression(f"has operators other than {operators}")
    value, end = _sum(signs, 0, 0)
    if end != len(signs):
        raise MalformedExpression(f"unexpected sign at {end}")
    return value


def _signs(expression: str) -> list[str]:
    signs, at = [], 0
    while at < len(expression):
        if expression[at] in _BLANKS:
            at += 1
            continue
        match = _SIGN.match(expression, at)
        if match is None:
            raise MalformedExpression(f"unexpected character at {at}")
        signs.append(match[0])
        at = match.end()
    return signs


def _sum(signs: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    negated = _sign(signs, at) == "-"
    value, at = _product(signs, at + negated, depth)
    value = -value if negated else value
    while (sign := _sign(signs, at)) in ("+", "-"):
        right, at = _product(signs, at + 1, depth)
        value = value + right if sign == "+" else value - right
    return value, at


def _product(signs: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _operand(signs, at, depth)
    while (sign := _sign(signs, at)) in ("*", "/"):
        right, at = _operand(signs, at + 1, depth)
        if sign == "/" and right == 0:
            raise MalformedExpression("divides by zero")
        value = value * right if sign == "*" else value / right
    return value, at


def _operand(signs: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    sign = _sign(signs, at)
    if sign.isdigit():
        return Fraction(int(sign)), at + 1
    if sign == "(" and depth < MAX_DEPTH:
        value, at = _sum(signs, at + 1, depth + 1)
        if _sign(signs, at) == ")":
            return value, at + 1
    raise MalformedExpression(f"unexpected sign at {at}, or nested deeper than {MAX_DEPTH}")


def _sign(signs: list[str], at: int) -> str:
    return signs[at] if at < len(signs) else ""
