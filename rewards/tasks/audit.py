"""Which data sets of reasoning-gym may be used, what decides each of them, and why others may not.

A data set is on the list after somebody has read its generator and written down here which rule
decides its answers and what of its output is unsound. None of the library's scorers is called:
several run code from the answer, and many reward one that merely contains the truth. docs/tasks.md
has the table for people.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from typing import Any

from rewards.tasks import rules
from rewards.tasks.formulas import MAX_VARIABLES, are_consistent
from rewards.tasks.rules import Item, Rule

RawItem = Mapping[str, Any]
"""What the library generates: question, answer, metadata. Not passed on beyond this file."""


def as_generated(raw: RawItem) -> Item | None:
    """The library's question and answer, unchanged."""
    return Item(raw["question"], raw["answer"])


def _with_exact_division(raw: RawItem) -> Item | None:
    """Skips the 1 % whose answer is that of floor division where the division is not exact."""
    exact = _evaluate(raw["metadata"]["expression"])
    return as_generated(raw) if exact == Fraction(raw["answer"]) else None


_SIGNIFICANT = re.compile(r"maximum of ([0-9]+) significant digits")


def _rounded_once(raw: RawItem) -> Item | None:
    """The exact result, rounded once and half up, as the question asks; the library rounds every
    step, and halves to even."""
    text: str = raw["question"]
    instruction, _, expression = text.partition("\n")
    digits = _SIGNIFICANT.search(instruction)
    exact = _evaluate(expression.removesuffix(" = ?"))
    assert digits is not None
    context = Context(prec=int(digits[1]), rounding=ROUND_HALF_UP)
    return Item(text, f"{context.divide(Decimal(exact.numerator), Decimal(exact.denominator)):f}")


_ARITHMETIC: dict[type[ast.AST], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _evaluate(expression: str) -> Fraction:
    """The exact value of a generated expression of + - * / and parentheses.

    Raises:
        ZeroDivisionError.
    """

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=number):
                return Fraction(str(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=sign, right=right):
                return _ARITHMETIC[type(sign)](value(left), value(right))
        raise ValueError(f"not arithmetic: {expression}")

    return value(ast.parse(expression, mode="eval").body)


def _within_its_year(raw: RawItem) -> Item | None:
    """Skips counts of business days that end in the next year: the text names the wrong year."""
    about = raw["metadata"]
    if about["task"] == "count_business_days" and about["start_date"][:4] != about["end_date"][:4]:
        return None
    return as_generated(raw)


def _with_example(raw: RawItem) -> Item | None:
    """The example conclusion as truth; skips contradictory premises, from which all follows."""
    premises = tuple(raw["metadata"]["premises"])
    item = Item(raw["question"], raw["metadata"]["example_answer"], premises)
    return item if are_consistent(premises) else None


def _power(raw: RawItem) -> Item | None:
    """Three significant digits of the exact power; the library's float depends on the platform."""
    base, exponent = Fraction(str(raw["metadata"]["base"])), raw["metadata"]["exponent"]
    exact = base**exponent
    context = Context(prec=3, rounding=ROUND_HALF_UP)
    power = context.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    return Item(raw["question"], f"{power:.2e}")


def _sound_interval(raw: RawItem) -> Item | None:
    """Skips negative durations, milliseconds cut wrongly, and one format whose time of day the
    library's own answer ignores."""
    about = raw["metadata"]
    start, end = (datetime.fromisoformat(about[key]) for key in ("start_time", "end_time"))
    milliseconds = (end - start).microseconds // 1000
    if (
        end < start
        or "(%A) %H" in about["format"]
        or (about["task_type"] == "time_ms" and int(raw["answer"][-3:]) != milliseconds)
        or (about["task_type"].startswith("time") and end - start >= timedelta(days=1))
    ):
        return None
    return as_generated(raw)


def _convex(raw: RawItem) -> Item | None:
    """Skips polygons called convex whose last angle is 180 degrees or more."""
    return as_generated(raw) if Fraction(raw["answer"]) < 180 else None


class _SortedLetters(tuple[str, ...]):
    """Replaces a set of letters whose order would depend on PYTHONHASHSEED."""

    def __sub__(self, other: set[str]) -> "_SortedLetters":
        return _SortedLetters(letter for letter in self if letter not in other)


def _sort_letters(dataset: Any) -> None:
    dataset.letters = _SortedLetters(sorted(dataset.letters))


@dataclass(frozen=True, slots=True)
class Audited:
    """How one data set is used."""

    rule: Rule
    read: Callable[[RawItem], Item | None] = as_generated
    """Turns what the library generated into an item; None for a question that is not sound."""
    tune: Callable[[Any], None] | None = None
    """Changes the data set object once, after it is made."""
    has_lines: bool = False
    """Whether answers have several lines, so that "last_line" cannot mark them."""
    max_params: Mapping[str, int] = field(default_factory=dict)
    """Largest values of parameters that would make a question or its judgement too expensive."""


ALLOWED: Mapping[str, Audited] = {
    # the paper's nine
    "arc_1d": Audited(rules.matrix),
    "base_conversion": Audited(rules.exact),
    "basic_arithmetic": Audited(rules.number, read=_with_exact_division),
    "bf": Audited(rules.exact),
    "binary_matrix": Audited(rules.matrix, has_lines=True),
    "calendar_arithmetic": Audited(rules.word_or_number, read=_within_its_year),
    "decimal_arithmetic": Audited(rules.number, read=_rounded_once),
    "fraction_simplification": Audited(rules.fraction),
    "propositional_logic": Audited(
        rules.entailment,
        read=_with_example,
        max_params={"max_vars": MAX_VARIABLES, "max_complexity": 5, "max_statements": 10},
    ),
    # numbers
    "binary_alternation": Audited(rules.number),
    "bitwise_arithmetic": Audited(rules.hexadecimal, max_params={"difficulty": 5}),
    "chain_sum": Audited(rules.number),
    "count_bits": Audited(rules.number),
    "count_primes": Audited(rules.number, max_params={"max_n": 100_000}),
    "decimal_chain_sum": Audited(rules.number),
    "dice": Audited(rules.fraction, max_params={"num_dice": 20, "max_dice_size": 100}),
    "gcd": Audited(rules.number),
    "largest_island": Audited(rules.number),
    "lcm": Audited(rules.number),
    "leg_counting": Audited(rules.number),
    "letter_counting": Audited(rules.number),
    "maze": Audited(rules.number),
    "power_function": Audited(rules.scientific, read=_power),
    "prime_factorization": Audited(rules.factors, max_params={"max_value": 10**9}),
    "products": Audited(rules.number),
    "rotten_oranges": Audited(rules.number),
    "simple_equations": Audited(rules.number),
    "simple_geometry": Audited(rules.number, read=_convex),
    "time_intervals": Audited(rules.exact, read=_sound_interval),
    # lists and matrices
    "number_filtering": Audited(rules.number_list),
    "number_sorting": Audited(rules.number_list),
    "rotate_matrix": Audited(rules.matrix, has_lines=True),
    "spiral_matrix": Audited(rules.matrix),
    "string_splitting": Audited(rules.matrix),
    "string_synthesis": Audited(rules.matrix),
    "word_sequence_reversal": Audited(rules.words),
    "word_sorting": Audited(rules.words),
    # words
    "ab": Audited(rules.exact),
    "caesar_cipher": Audited(rules.word),
    "course_schedule": Audited(rules.word),
    "isomorphic_strings": Audited(rules.word, tune=_sort_letters),
    "ransom_note": Audited(rules.word, tune=_sort_letters),
    "spell_backward": Audited(rules.word),
    "string_insertion": Audited(rules.exact),
}

_PARSE_EXPR = "its answers are formulas that only sympy.parse_expr reads, which runs code in them"
_HASH_SEED = "its questions depend on PYTHONHASHSEED"
_OWN_ANSWER = "its own answers get a reward of 0"

REFUSED: Mapping[str, str] = {
    "countdown": _PARSE_EXPR,
    "puzzle24": _PARSE_EXPR,
    "simple_integration": _PARSE_EXPR,
    "intermediate_integration": _PARSE_EXPR,
    "polynomial_multiplication": _PARSE_EXPR,
    "boxnet": _OWN_ANSWER,
    "graph_color": _OWN_ANSWER,
    "rubiks_cube": _OWN_ANSWER,
    "rush_hour": _OWN_ANSWER,
    "complex_arithmetic": "its scorer gives nan a full reward",
    "game_of_life_halting": "its scorer gives any text a full reward",
    "knight_swap": _HASH_SEED,
    "word_ladder": _HASH_SEED,
    "n_queens": "its scorer runs code from the answer, and many answers are correct",
    "family_relationships": "its answers swap the two persons for nieces, nephews and in-laws",
    "mahjong_puzzle": 'its answer is "Pass" also where a random card completes a Peng or a Chi',
    "color_cube_rotation": "bringing the bottom to the top has two results; it asks for one",
    "coin_flip": "its answers are rounded, and its tolerance accepts 0 for small probabilities",
    "number_format": "its answers are floats whose digits differ from those in the question",
    "number_sequence": "several rules continue a sequence, but one is accepted",
    "string_manipulation": "nothing bounds its generator's loop",
}
"""Named reasons; every other data set is refused because nobody has audited it."""


def why_not(dataset: str) -> str:
    """The reason why a data set that is not in ALLOWED is refused."""
    return REFUSED.get(dataset, "nobody has audited it yet")
