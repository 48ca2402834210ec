"""What counts as correct: one named, strict rule per shape of answer.

A rule gets the final answer (ASCII white space already stripped, not empty, at most
MAX_ANSWER_CHARS long) and the question's item. It never runs code from the answer, never raises,
and takes at most some milliseconds: every regular expression is matched as a whole and has one way
to match; numbers are parsed only after such a match, which also keeps out nan, inf, underscores
and digits outside of ASCII.

Numbers are compared by value: "007", "+5" and "5.0" are 7, 5 and 5. There is no partial credit,
and an answer that merely contains the truth is wrong. Rules of puzzles with many solutions are in
puzzles.py.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

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
    given: tuple[str, ...] = ()
    """What a rule needs beside the truth: the premises of a conclusion, the board of a puzzle."""


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


_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3}){1,100}(?:\.[0-9]{1,400})?")


def any_number(answer: str, item: Item) -> bool:
    """A number, plain, with an exponent or with commas between thousands; equal in value."""
    value = read_any_number(answer)
    return value is not None and value == read_any_number(item.truth)


def read_any_number(text: str) -> Decimal | None:
    """The value of a number in one of the forms of `any_number`; None if it is in none."""
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    is_number = _NUMBER.fullmatch(text) or _SCIENTIFIC.fullmatch(text)
    return Decimal(text) if is_number else None


_SIGNED, _UNSIGNED = r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?", r"[0-9]{1,40}(?:\.[0-9]{1,40})?"
_COMPLEX = re.compile(rf"({_SIGNED})(?: ?([+-]) ?({_UNSIGNED})?i)?")
_IMAGINARY = re.compile(rf"([+-]?)({_UNSIGNED})?i")


def complex_number(answer: str, item: Item) -> bool:
    """a + bi, a or bi, where a and b are numbers and b may be left out; equal in both parts."""
    value = _complex(answer)
    return value is not None and value == _complex(item.truth)


def _complex(text: str) -> tuple[Decimal, Decimal] | None:
    if match := _COMPLEX.fullmatch(text):
        real, sign, imaginary = match.groups()
        return Decimal(real), Decimal(sign + (imaginary or "1")) if sign else Decimal(0)
    if match := _IMAGINARY.fullmatch(text):
        return Decimal(0), Decimal(match[1] + (match[2] or "1"))
    return None


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


def ratio(answer: str, item: Item) -> bool:
    """A fraction, reduced or not, or a decimal; exactly equal in value."""
    value = _ratio(answer)
    return value is not None and value == _ratio(item.truth)


def _ratio(text: str) -> Fraction | None:
    if parts := _fraction(text):
        return Fraction(*parts) if parts[1] else None
    return Fraction(text) if _NUMBER.fullmatch(text) else None


_INTEGER = re.compile(r"-?[0-9]{1,20}")
_BLANKS = re.compile(r"[ \t]+")


def matrix(answer: str, item: Item) -> bool:
    """Rows on lines, integers between blanks; the same integers in the same rows. A list of
    integers is a matrix of one row."""
    rows = read_matrix(answer)
    return rows is not None and rows == read_matrix(item.truth)


def read_matrix(text: str) -> list[list[int]] | None:
    """The rows of a matrix of integers, which may differ in length; None if it is none."""
    rows = _cells(text, _INTEGER)
    return None if rows is None else [[int(cell) for cell in row] for row in rows]


def _cells(text: str, shape: re.Pattern[str]) -> list[list[str]] | None:
    rows = [_BLANKS.split(line.strip(ASCII_SPACE)) for line in text.split("\n")]
    return rows if all(shape.fullmatch(cell) for row in rows for cell in row) else None


_DECIMAL = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")


def number_matrix(answer: str, item: Item) -> bool:
    """As `matrix`, of numbers with or without decimals, equal in value."""
    rows = _number_matrix(answer)
    return rows is not None and rows == _number_matrix(item.truth)


def _number_matrix(text: str) -> list[list[Decimal]] | None:
    rows = _cells(text, _DECIMAL)
    return None if rows is None else [[Decimal(cell) for cell in row] for row in rows]


def _list_of_lists(element: str) -> re.Pattern[str]:
    """Matches [[..., ...], [...]] with white space between the signs; no list is empty."""
    space = r"[ \t\r\n]*"
    inner = rf"\[{space}{element}(?:{space},{space}{element})*{space}\]"
    return re.compile(rf"\[{space}{inner}(?:{space},{space}{inner})*{space}\]")


_ROW = re.compile(r"\[([^\[\]]*)\]")
_INTEGER_LISTS = _list_of_lists("-?[0-9]{1,20}")
_WORD_LISTS = _list_of_lists("""(?:"[a-z]{1,40}"|'[a-z]{1,40}')""")


def arrays(answer: str, item: Item) -> bool:
    """A JSON array of arrays of integers; the same integers in the same places."""
    if _INTEGER_LISTS.fullmatch(answer) is None:
        return False
    return _integer_lists(answer) == _integer_lists(item.truth)


def _integer_lists(text: str) -> list[list[int]]:
    return [[int(part) for part in row.split(",")] for row in _ROW.findall(text[1:-1])]


def groups(answer: str, item: Item) -> bool:
    """A JSON list of lists of words (small ASCII letters, either kind of quotes); the same groups,
    in any order, with their words in any order."""
    if _WORD_LISTS.fullmatch(answer) is None:
        return False
    return sorted(map(sorted, _word_lists(answer))) == sorted(map(sorted, _word_lists(item.truth)))


def partitions(answer: str, item: Item) -> bool:
    """As `groups`, but only the order of the lists is free, not that of the words within."""
    if _WORD_LISTS.fullmatch(answer) is None:
        return False
    return sorted(_word_lists(answer)) == sorted(_word_lists(item.truth))


def _word_lists(text: str) -> list[list[str]]:
    return [re.findall("[a-z]+", row) for row in _ROW.findall(text[1:-1])]


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


_ROLE = re.compile(r"([a-z]{1,20}) is an? ([a-z]{1,20})")
_BETWEEN_ROLES = re.compile(r",? and |, ")


def roles(answer: str, item: Item) -> bool:
    """NAME is a ROLE, between commas or "and"; the truth's pairs in any order and case, with or
    without a point at the end and with either article."""
    found = _roles(answer)
    return found is not None and found == _roles(item.truth)


def _roles(text: str) -> list[tuple[str, str]] | None:
    parts = _BETWEEN_ROLES.split(text.removesuffix(".").lower()) if text.isascii() else [""]
    matches = [_ROLE.fullmatch(part) for part in parts]
    return None if None in matches else sorted((m[1], m[2]) for m in matches if m)


_FACTOR = re.compile(
    r"(\()?(?P<over>[0-9]{1,20})/(?P<under>[0-9]{1,20})(?(1)\))|(?P<whole>[0-9]{1,20})"
    r"|(?P<letter>[a-zA-Z])(?:\^(?P<power>[0-9]{1,3}))?(?:/(?P<by>[0-9]{1,20}))?"
)
_MAX_TERMS, _MAX_FACTORS = 60, 8


def polynomial(answer: str, item: Item) -> bool:
    """A sum of terms like 7*x**2, x**2/3 and 5/3*x; the same terms in any order. Products that
    are not multiplied out and like terms that are not collected are wrong."""
    terms = _polynomial(answer)
    return terms is not None and terms == _polynomial(item.truth)


def _polynomial(text: str) -> dict[tuple[tuple[str, int], ...], Fraction] | None:
    """The coefficient of each product of powers."""
    if "^" in text:  # the questions ask for **
        return None
    for sign in ("+", "-", "*", "/"):
        text = text.replace(f" {sign} ", sign)
    signed = re.split(r"(?=[+-])", text.replace("**", "^"), maxsplit=_MAX_TERMS)
    terms = {}
    for part in signed if signed[0] else signed[1:]:
        powers, coefficient = _term(part.lstrip("+-")) or ((), Fraction(0))
        if powers in terms or (coefficient == 0 and text != "0"):
            return None
        terms[powers] = -coefficient if part[0] == "-" else coefficient
    return terms


def _term(text: str) -> tuple[tuple[tuple[str, int], ...], Fraction] | None:
    factors = [_FACTOR.fullmatch(part) for part in text.split("*", maxsplit=_MAX_FACTORS)]
    powers, coefficient = Counter[str](), Fraction(1)
    for factor in factors:
        if factor is None or not (under := int(factor["under"] or factor["by"] or 1)):
            return None
        coefficient *= Fraction(int(factor["over"] or factor["whole"] or 1), under)
        if factor["letter"]:
            powers[factor["letter"]] += int(factor["power"] or 1)
    return tuple(sorted(powers.items())), coefficient


def entailment(answer: str, item: Item) -> bool:
    """A formula that follows from the premises, is no tautology, has an operator, and uses only
    the premises' variables. Many answers are correct; repeating a premise is one of them."""
    try:
        return follows(answer, item.given)
    except MalformedFormula:
        return False
