"""Propositional formulas: parsed with limits, decided by truth table.

Operators from weak to strong: ↔, →, ∨, ∧, ¬; all binary ones group to the left. That is how
reasoning-gym's propositional_logic reads them.
"""

from collections.abc import Callable, Sequence

MAX_CHARS = 400
MAX_DEPTH = 60
"""Of parentheses and negations within each other; keeps the parser off Python's recursion limit."""
MAX_VARIABLES = 10
"""A truth table has two to this power rows."""

_BLANKS = " \t"
_OPERATIONS: tuple[tuple[str, Callable[[int, int, int], int]], ...] = (
    ("↔", lambda a, b, all_rows: all_rows & ~(a ^ b)),
    ("→", lambda a, b, all_rows: all_rows & (~a | b)),
    ("∨", lambda a, b, all_rows: a | b),  # noqa: RUF001
    ("∧", lambda a, b, all_rows: a & b),
)


class MalformedFormula(ValueError):
    """Not a formula over the given variables within the limits."""


def follows(conclusion: str, premises: Sequence[str]) -> bool:
    """Whether the conclusion follows from the premises and says something.

    It must have an operator, use only variables of the premises, be true in every row in which
    all premises are, and false in some row (no tautology).

    Raises:
        MalformedFormula: the conclusion or a premise is not a formula within the limits.
    """
    table = _Table("".join(premises))
    possible = table.all_rows
    for premise in premises:
        possible &= table.rows(premise)
    true = table.rows(conclusion)
    return (
        any(sign in conclusion for sign in "↔→∨∧¬")  # noqa: RUF001
        and true != table.all_rows
        and possible & ~true == 0
    )


def are_consistent(premises: Sequence[str]) -> bool:
    """Whether all premises can be true together; else everything follows from them.

    Raises:
        MalformedFormula: a premise is not a formula within the limits.
    """
    table = _Table("".join(premises))
    possible = table.all_rows
    for premise in premises:
        possible &= table.rows(premise)
    return possible != 0


class _Table:
    """The truth table over the variables (A-Z) in a text; a set of its rows is an int's bits."""

    def __init__(self, text: str) -> None:
        variables = sorted({char for char in text if "A" <= char <= "Z"})
        if len(variables) > MAX_VARIABLES:
            raise MalformedFormula(f"more than {MAX_VARIABLES} variables")
        num_rows = 1 << len(variables)
        self.all_rows = (1 << num_rows) - 1
        self._true = {
            name: sum(1 << row for row in range(num_rows) if row >> place & 1)
            for place, name in enumerate(variables)
        }

    def rows(self, formula: str) -> int:
        """The rows in which a formula is true, as bits."""
        if len(formula) > MAX_CHARS:
            raise MalformedFormula(f"longer than {MAX_CHARS} characters")
        signs = [char for char in formula if char not in _BLANKS]
        value, end = self._binary(signs, 0, 0, 0)
        if end != len(signs):
            raise MalformedFormula(f"unexpected sign at {end}")
        return value

    def _binary(self, signs: list[str], at: int, level: int, depth: int) -> tuple[int, int]:
        if level == len(_OPERATIONS):
            return self._unary(signs, at, depth)
        sign, operation = _OPERATIONS[level]
        value, at = self._binary(signs, at, level + 1, depth)
        while at < len(signs) and signs[at] == sign:
            right, at = self._binary(signs, at + 1, level + 1, depth)
            value = operation(value, right, self.all_rows)
        return value, at

    def _unary(self, signs: list[str], at: int, depth: int) -> tuple[int, int]:
        sign = signs[at] if at < len(signs) and depth < MAX_DEPTH else ""
        if sign in self._true:
            return self._true[sign], at + 1
        if sign == "¬":
            value, at = self._unary(signs, at + 1, depth + 1)
            return self.all_rows & ~value, at
        if sign == "(":
            value, at = self._binary(signs, at + 1, 0, depth + 1)
            if at < len(signs) and signs[at] == ")":
                return value, at + 1
        raise MalformedFormula(f"unexpected sign at {at}, or nested deeper than {MAX_DEPTH}")
