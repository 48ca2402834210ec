"""What counts as correct: one named, strict rule per shape of answer.

A rule gets the final answer (ASCII white space already stripped, not empty, at most
MAX_ANSWER_CHARS long) and the question's item. It never runs code from the answer, never raises,
and takes at most a millisecond: every regular expression is matched as a whole and has one way to
match; numbers are parsed only after such a match, which also keeps out nan, inf, underscores and
digits outside of ASCII.

Numbers are compared by value: "007", "+5" and "5.0" are 7, 5 and 5. There is no partial credit,
and an answer that merely contains the truth is wrong.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from rewards.extract import ASCII_SPACE
from rewards.tasks.formulas import MalformedFormula, follows

MAX_ANSWER_CHARS = 4000
"""A longer final answer is wrong. Below the 4,300 digits from which int() raises."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question and what its answers are compared with."""

    text: str
    truth: str
    """A correct final answer."""
    premises: tuple[str, ...] = ()
    """Of `entailment` only: the formulas that a conclusion must follow from."""


Rule = Callable[[str, Item], bool]


def is_correct(rule: Rule, answer: str | None, item: Item) -> bool:
    """Whether a final answer is correct under a rule; no answer and an overlong one are not."""
    return bool(answer) and len(answer or "") <= MAX_ANSWER_CHARS and rule(answer or "", item)


def exact(answer: str, item: Item) -> bool:
    """The same characters as the truth."""
    return answer == item.truth


def word(answer: str, item: Item) -> bool:
    """The truth in any mixture of upper and lower case; ASCII only, since Unicode's case folding
    makes different letters equal."""
    return answer.isascii() and answer.lower() == item.truth.lower()


_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{1,400})?")


def number(answer: str, item: Item) -> bool:
    """Optional sign, digits, optionally a point and digits; equal to the truth in value."""
    return _NUMBER.fullmatch(answer) is not None and Decimal(answer) == Decimal(item.truth)


def word_or_number(answer: str, item: Item) -> bool:
    """`number` if the truth is one, else `word`."""
    return (number if _NUMBER.fullmatch(item.truth) else word)(answer, item)


_SCIENTIFIC = re.compile(_NUMBER.pattern + r"[eE][+-]?[0-9]{1,3}")


def scientific(answer: str, item: Item) -> bool:
    """A number with an exponent (1.23e+4), equal to the truth in value."""
    return _SCIENTIFIC.fullmatch(answer) is not None and Decimal(answer) == Decimal(item.truth)


_HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9a-fA-F]{1,400}")


def hexadecimal(answer: str, item: Item) -> bool:
    """Optional sign, 0x, digits in any case; equal to the truth in value."""
    return _HEXADECIMAL.fullmatch(answer) is not None and int(answer, 16) == int(item.truth, 16)


_FRACTION = re.compile(r"([0-9]{1,400}) ?/ ?([0-9]{1,400})")
_LATEX_FRACTION = re.compile(r"\\d?frac ?\{ ?([0-9]{1,400}) ?\} ?\{ ?([0-9]{1,400}) ?\}")


def fraction(answer: str, item: Item) -> bool:
    r"""a/b or \frac{a}{b} or \dfrac{a}{b}, also within $...$; both numbers as in the truth, so an
    unreduced fraction is wrong."""
    parts = _fraction(answer)
    return parts is not None and parts == _fraction(item.truth)


def _fraction(text: str) -> tuple[int, int] | None:
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1].strip(ASCII_SPACE)
    match = _FRACTION.fullmatch(text) or _LATEX_FRACTION.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


_INTEGER = re.compile(r"-?[0-9]{1,20}")
_BLANKS = re.compile(r"[ \t]+")


def matrix(answer: str, item: Item) -> bool:
    """Rows on lines, integers between blanks; the same integers in the same rows. A list of
    integers is a matrix of one row."""
    rows = _matrix(answer)
    return rows is not None and rows == _matrix(item.truth)


def _matrix(text: str) -> list[list[int]] | None:
    rows = [_BLANKS.split(line.strip(ASCII_SPACE)) for line in text.split("\n")]
    if any(_INTEGER.fullmatch(part) is None for row in rows for part in row):
        return None
    return [[int(part) for part in row] for row in rows]


def number_list(answer: str, item: Item) -> bool:
    """Numbers in square brackets, between commas, each in quotes or not; the same values in the
    same order."""
    numbers = _number_list(answer)
    return numbers is not None and numbers == _number_list(item.truth)


def _number_list(text: str) -> list[Decimal] | None:
    if len(text) < 2 or text[0] != "[" or text[-1] != "]":
        return None
    inner = text[1:-1].strip(ASCII_SPACE)
    parts = [_unquoted(part.strip(ASCII_SPACE)) for part in inner.split(",")] if inner else []
    if any(_NUMBER.fullmatch(part) is None for part in parts):
        return None
    return [Decimal(part) for part in parts]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"" else text


def words(answer: str, item: Item) -> bool:
    """The truth's words in its order, between commas; case counts, blanks around words do not."""
    return _words(answer) == _words(item.truth)


def _words(text: str) -> list[str]:
    return [part.strip(ASCII_SPACE) for part in text.split(",")]


def factors(answer: str, item: Item) -> bool:
    """The truth's prime factors in any order, between × signs."""
    found = _factors(answer)
    return found is not None and found == _factors(item.truth)


def _factors(text: str) -> list[int] | None:
    parts = [part.strip(ASCII_SPACE) for part in text.split("×")]  # noqa: RUF001
    if any(_INTEGER.fullmatch(part) is None for part in parts):
        return None
    return sorted(int(part) for part in parts)


def entailment(answer: str, item: Item) -> bool:
    """A formula that follows from the premises, is no tautology, has an operator, and uses only
    the premises' variables. Many answers are correct; repeating a premise is one of them."""
    try:
        return follows(answer, item.premises)
    except MalformedFormula:
        return False
