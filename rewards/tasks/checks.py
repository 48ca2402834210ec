r"""What counts as correct for a row of a data set: one named, strict check per shape of answer.

A check is built once from a task's parameters, given a row's truth, and then asked about final
answers (ASCII white space stripped, as rewards/extract.py gives them). A mistake of the author of
the manifest or of the data is a ValueError that says what to change. Whatever the answer is, it is
correct or not: no code of it runs, and nothing is raised unless memory runs out.

How long one answer takes: microseconds; at worst 0.4 ms for `number`, 20 ms for `regex`, 50 ms for
`json`; for `math` milliseconds, at worst what the verifier's deadline allows
(rewards/tasks/latex.py).
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from rewards.extract import ASCII_SPACE

Truth = str | int | float | bool | None | list["Truth"] | dict[str, "Truth"]
"""A row's truth as the data set holds it."""
Matches = Callable[[str], bool]
"""Whether a final answer is correct for one row."""
Check = Callable[[Truth], Matches]
"""From a row's truth to what judges its answers. Raises ValueError: the check has no such truth."""

MAX_NUMBER_CHARS = 1000
MAX_PATTERN_CHARS = 1000
MAX_PATTERN_STEPS = 2000
"""Instructions of a compiled pattern; a match takes at most so many steps per byte."""
MAX_MATCHED_BYTES = 4096
"""A longer answer matches no pattern."""


@dataclass(frozen=True, slots=True)
class CheckKind:
    """A check by name, before it has its parameters."""

    build: Callable[..., Check]
    """Takes the parameters by name. Imports what it needs: a second for `math`."""
    defaults: Mapping[str, float | str] = field(default_factory=dict)
    """Every parameter there is; a value has its default's type."""
    deterministic: bool = True
    """Whether nodes must agree; not where a library's heuristics decide."""


def build_check(name: str, params: Mapping[str, object]) -> Check:
    """The check of that name with these parameters; what is left out is at its default.

    Raises:
        ValueError: there is no such check or parameter, or a value does not fit.
    """
    kind = CHECKS.get(name)
    if kind is None:
        raise ValueError(f"there is no check {name!r}; there are {', '.join(CHECKS)}")
    for key, value in params.items():
        if key not in kind.defaults:
            known = ", ".join(kind.defaults) or "none"
            raise ValueError(f"check {name!r} has no parameter {key!r}; there are: {known}")
        wanted = (int, float) if isinstance(kind.defaults[key], float) else (str,)
        if type(value) not in wanted:
            raise ValueError(f"check {name!r}: {key} = {value!r} has the wrong type")
    return kind.build(**{**kind.defaults, **params})


def _exact() -> Check:
    """The same characters as the truth."""

    def check(truth: Truth) -> Matches:
        text = _text(truth)
        return lambda answer: answer == text

    return check


_NUMBER = re.compile(
    r"([+-]?)\\?\$?(-?)"
    r"((?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,100}|[0-9]{1,400})(?:\.[0-9]{1,400})?|\.[0-9]{1,400})"
    r"((?:[eE][+-]?[0-9]{1,3})?)(?:\\?%)?\.?"
)


def _number(tolerance: float) -> Check:
    r"""Equal in value to the truth, or at most `tolerance` away from it, in exact arithmetic.

    A number is: sign, digits (with a comma before every three, or with none), point, digits,
    exponent of at most three digits. A $ before it (with \ or not), a % after it and a full stop
    at the end say nothing: 50% is 50.
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"the tolerance {tolerance} is no number of at least 0")
    most = Fraction(Decimal(repr(tolerance)))

    def check(truth: Truth) -> Matches:
        text = _text(truth)
        wanted = _value(text)
        if wanted is None:
            raise ValueError(f"the truth {_short(text)} is no number")

        def matches(answer: str) -> bool:
            found = _value(answer)
            if found is None or found == wanted or most == 0:
                return found == wanted
            return abs(Fraction(found) - Fraction(wanted)) <= most

        return matches

    return check


def _value(text: str) -> Decimal | None:
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_CHARS else None
    if match is None or (match[1] and match[2]):
        return None
    return Decimal(match[1] + match[2] + match[3].replace(",", "") + match[4])


_CHOICE = re.compile(r"\(([A-Ja-j])\)|([A-Ja-j])[.):]?")


def _choice() -> Check:
    r"""A letter from A to J in either case: alone, in parentheses, or before one of . ) : - and any
    of these within \text{} or not. Whatever else stands beside it makes it wrong."""

    def check(truth: Truth) -> Matches:
        wanted = _letter(_text(truth))
        if wanted is None:
            raise ValueError(f"the truth {_short(truth)} is no letter from A to J")
        return lambda answer: _letter(answer) == wanted

    return check


def _letter(text: str) -> str | None:
    if text.startswith(r"\text{") and text.endswith("}"):
        text = text[len(r"\text{") : -1]
    match = _CHOICE.fullmatch(text)
    return (match[1] or match[2]).upper() if match else None


def _math() -> Check:
    """The same mathematics as the truth; both are LaTeX. See rewards/tasks/latex.py."""
    from rewards.tasks import latex

    # what sympy imports late would take a second of the first answers' time in every worker
    for truth, answer in (("x^2 + 2x + 1", "(x + 1)^2"), ("49.0001", "7 * 7")):
        latex.equals(truth)(answer)

    def check(truth: Truth) -> Matches:
        try:
            return latex.equals(_text(truth))
        except latex.MalformedLatex as error:
            raise ValueError(f"the truth {_short(truth)} cannot be compared: {error}") from error

    return check


def _regex(pattern: str) -> Check:
    """The whole answer matches a pattern in RE2's syntax, in linear time: the parameter or, where
    that is empty, the truth. With the parameter, the truth is an example of a correct answer: it
    must match."""
    compiled = _compiled(pattern) if pattern else None

    def check(truth: Truth) -> Matches:
        text = _text(truth)
        if compiled is None:
            return _compiled(text)
        if not compiled(text):
            raise ValueError(f"the truth {_short(truth)} does not match the pattern")
        return compiled

    return check


def _compiled(pattern: str) -> Matches:
    import re2

    options = re2.Options()
    options.max_mem = 4 * 2**20  # bytes, for the program and for the states of a match
    options.log_errors = False
    options.never_capture = True
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"the pattern {_short(pattern)} is longer than {MAX_PATTERN_CHARS}")
    try:
        compiled = re2.compile(pattern.encode(), options)
    except (UnicodeEncodeError, re2.error) as error:
        raise ValueError(f"the pattern {_short(pattern)}: {error}") from error
    if compiled.programsize > MAX_PATTERN_STEPS:
        raise ValueError(f"the pattern {_short(pattern)} is too large once compiled")

    def matches(answer: str) -> bool:
        text = answer.encode(errors="surrogatepass")
        return len(text) <= MAX_MATCHED_BYTES and compiled.fullmatch(text) is not None

    return matches


def _json(schema: str) -> Check:
    """JSON that satisfies a schema (rewards/tasks/schema.py): the parameter or, where that is
    empty, the truth. With the parameter, the truth is an example of a correct answer: it must
    satisfy the schema. A truth is a JSON text, or the data set's own objects and lists."""
    from rewards.tasks.schema import satisfies

    compiled = satisfies(schema) if schema else None

    def check(truth: Truth) -> Matches:
        text = truth if isinstance(truth, str) else json.dumps(truth)
        if compiled is None:
            return satisfies(text)
        if not compiled(text):
            raise ValueError(f"the truth {_short(truth)} does not satisfy the schema")
        return compiled

    return check


CHECKS: Mapping[str, CheckKind] = {
    "exact": CheckKind(_exact),
    "number": CheckKind(_number, {"tolerance": 0.0}),
    "choice": CheckKind(_choice),
    "math": CheckKind(_math, deterministic=False),
    "regex": CheckKind(_regex, {"pattern": ""}),
    "json": CheckKind(_json, {"schema": ""}),
}
"""By name. What a check calls correct stands in the docstring of the function that builds it."""


def _text(truth: Truth) -> str:
    """A truth that is a text or a number, as an answer would give it."""
    text = truth.strip(ASCII_SPACE) if isinstance(truth, str) else ""
    if type(truth) in (int, float):
        text = repr(truth)
    if not text:
        raise ValueError(f"the truth {_short(truth)} is neither a text nor a number")
    return text


def _short(truth: object) -> str:
    return ascii(truth)[:80]
