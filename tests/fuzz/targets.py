"""What holds for any text that a stranger writes, as one function for each part that reads it.

A target takes a text and raises where the part raised what it must not, or where its result is not
that of a second reading (oracles.py). Three call them: a fuzzer (__main__.py), Hypothesis
(test_properties.py), and every run of the tests with the texts that were kept (test_corpus.py).
"""

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache

import oracles
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from oracles import Oracle

from rewards.extract import ASCII_SPACE, AnswerFormat, final_answer, mark_answer
from rewards.program import Ran
from rewards.tasks import arithmetic, formulas, puzzles, rules
from rewards.tasks.checks import Truth, build_check
from rewards.tasks.code import Tests, parse_tests, passed
from rewards.tasks.rules import Item, Rule, is_correct
from rewards.tasks.schema import satisfies

_SURVO = "4 0 9\n0 6 8\n6 11 17"
_BOARD = "_ Q _ _\n_ _ _ _\n_ _ _ _\n_ _ _ _"
_GRID = "* O X\nX O O\nO O #"
_FORMULAS = ("P → Q", "(Q ∨ ¬R)", "P", "R ↔ S")  # noqa: RUF001

RULES: tuple[tuple[Rule, Oracle, Item], ...] = (
    (rules.exact, oracles.same_text, Item("", "1af")),
    (rules.word, oracles.same_letters, Item("", "Monday")),
    (rules.number, oracles.same_number, Item("", "-12.50")),
    (rules.number, oracles.same_number, Item("", "0")),
    (rules.word_or_number, oracles.same_number, Item("", "7")),
    (rules.word_or_number, oracles.same_letters, Item("", "Yes")),
    (rules.scientific, oracles.same_number, Item("", "1.23e+4")),
    (rules.any_number, oracles.same_number, Item("", "1,234.5")),
    (rules.complex_number, oracles.same_complex, Item("", "3.0 - 2.0i")),
    (rules.complex_number, oracles.same_complex, Item("", "-1.0i")),
    (rules.hexadecimal, oracles.same_hexadecimal, Item("", "-0x1f")),
    (rules.fraction, oracles.same_integers, Item("", "3/4")),
    (rules.ratio, oracles.same_ratio, Item("", "3/4")),
    (rules.matrix, oracles.same_table, Item("", "1 -2\n3 4")),
    (rules.number_matrix, oracles.same_table, Item("", "1.5 -2\n3 4.25")),
    (rules.arrays, oracles.same_json, Item("", "[[1,-2],[3,4]]")),
    (rules.groups, oracles.same_groups, Item("", '[["ab", "ba"], ["c", "c"]]')),
    (rules.partitions, oracles.same_partitions, Item("", '[["a", "b"], ["ab"]]')),
    (rules.number_list, oracles.same_number_list, Item("", "['1.50', '-2']")),
    (rules.number_list, oracles.same_number_list, Item("", "[]")),
    (rules.words, oracles.same_words, Item("", "to, Be, or")),
    (rules.factors, oracles.same_factors, Item("", "2 × 2 × 3")),  # noqa: RUF001
    (rules.roles, oracles.same_roles, Item("", "Ann is a knight, and Bo is a knave.")),
    (rules.polynomial, oracles.same_polynomial, Item("", "x**2/3 - 5*x*y + 7")),
    (rules.polynomial, oracles.same_polynomial, Item("", "0")),
    (rules.entailment, oracles.is_entailed, Item("", "Q", _FORMULAS)),
    (puzzles.equation, oracles.is_equation, Item("", "", ("24", "+-*/", "1", "3", "4", "6"))),
    (puzzles.palindrome, oracles.is_palindrome, Item("", "abcba")),
    (puzzles.letter_sum, oracles.is_letter_sum, Item("", "", ("SEND", "MORE", "MONEY"))),
    (puzzles.coloring, oracles.is_coloring, Item("", "", ("0 1 2", "1 2", "0 1", "1 2"))),
    (puzzles.queens, oracles.is_board_of_queens, Item("", "", (_BOARD,))),
    (puzzles.hanoi, oracles.is_tower, Item("", "", ("2", "3", "1", "3"))),
    (puzzles.jugs, oracles.is_pouring, Item("", "", ("4", "3", "5"))),
    (puzzles.shortest_path, oracles.is_path, Item("", "right down right down", (_GRID,))),
    (puzzles.weighted_sums, oracles.has_same_sums, Item("", "1 0 1\n0 1 0\n1 1 1")),
    (puzzles.survo, oracles.is_filled, Item("", "4 5 9\n2 6 8\n6 11 17", (_SURVO,))),
)
"""Each rule with what must hold of an answer that it calls correct, and questions."""


def extract(text: str) -> None:
    """An answer is a part of the text, and one that is marked is found again."""
    for answer_format in AnswerFormat:
        for finished in (True, False):
            answer = final_answer(text, finished, answer_format)
            assert answer is None or (answer in text and answer.strip(ASCII_SPACE))
            if answer is not None and answer_format != AnswerFormat.CODE_BLOCK:
                assert answer == answer.strip(ASCII_SPACE)
        if answer_format == AnswerFormat.LAST_LINE:
            assert final_answer(text, False, answer_format) is None
        if not _holds_mark(text, answer_format):
            found = final_answer(mark_answer(text, answer_format), True, answer_format)
            is_code = answer_format == AnswerFormat.CODE_BLOCK
            stripped = text.strip(ASCII_SPACE)
            assert found == ((text if is_code else stripped) if stripped else None)
    assert final_answer(text, True, "boxed") == oracles.boxed(text)


def _holds_mark(text: str, answer_format: AnswerFormat) -> bool:
    """Whether a text is not, or may not be, one answer of that format."""
    match answer_format:
        case AnswerFormat.LAST_LINE:
            return "\n" in text.strip(ASCII_SPACE)
        case AnswerFormat.TAGS:
            return "<answer>" in text or "</answer>" in text
        case AnswerFormat.BOXED:
            return bool(re.search(r"[{}\\]", text))
        case AnswerFormat.CODE_BLOCK:
            return "```" in text


def decide(text: str) -> None:
    """Every rule decides, and nothing is correct that a second reading calls wrong."""
    answer = text.strip(ASCII_SPACE)
    for rule, oracle, item in RULES:
        found = is_correct(rule, answer, item)
        assert type(found) is bool, rule.__name__
        assert not found or oracle(answer, item), f"{rule.__name__} of {item.truth!r}"


def conclude(text: str) -> None:
    """A conclusion after premises, between lines, follows where trying all values says so."""
    conclusion, *premises = text.split("\n")
    try:
        found = formulas.follows(conclusion, premises)
    except formulas.MalformedFormula:
        return
    if re.search("[↔→∨∧¬]", conclusion) and len(set(re.findall("[A-Z]", text))) <= 5:  # noqa: RUF001
        assert found == oracles.follows(conclusion, premises)
    else:
        assert type(found) is bool


def calculate(text: str) -> None:
    """An expression of the numbers that stand in it has the value that Python finds."""
    numbers = [int(number) for number in re.findall("[0-9]{1,9}", text)]
    try:
        found = arithmetic.evaluate(text, numbers)
    except arithmetic.MalformedExpression:
        return
    assert found == oracles.value(text)


CHECKS: tuple[tuple[str, Mapping[str, object], Truth, Callable[[str], bool]], ...] = (
    ("exact", {}, "Paris", lambda answer: answer == "Paris"),
    ("number", {}, "1,234.5", lambda answer: oracles.is_near(answer, "1234.5", Fraction(0))),
    ("number", {"tolerance": 0.25}, 7, lambda answer: oracles.is_near(answer, "7", Fraction(1, 4))),
    ("choice", {}, "c", lambda answer: oracles.is_letter(answer, "C")),
)
"""Row checks with parameters and a truth, and what must hold of an answer that is correct."""

PATTERN = r"(ab|c)+[^d]?[0-9]{2,4}(x|\.)*"
SCHEMA = {
    "type": "object",
    "required": ["a"],
    "properties": {
        "a": {"type": "array", "items": {"$ref": "#/$defs/n"}, "uniqueItems": True},
        "b": {"enum": [1, None, "x", [True]]},
        "c": {"oneOf": [{"type": "string", "maxLength": 3}, {"multipleOf": 0.5}]},
    },
    "additionalProperties": {"not": {"type": "null"}},
    "$defs": {"n": {"anyOf": [{"minimum": 0, "maximum": 9}, {"type": ["boolean", "object"]}]}},
}


@cache
def _matches() -> list[tuple[str, Callable[[str], bool], Callable[[str], bool]]]:
    return [(name, build_check(name, params)(truth), then) for name, params, truth, then in CHECKS]


@cache
def _pattern() -> Callable[[str], bool]:
    return build_check("regex", {"pattern": PATTERN})("ab12")


def check(text: str) -> None:
    """Every check of rows decides; a pattern matches as Python's own engine says."""
    answer = text.strip(ASCII_SPACE)
    for name, matches, oracle in _matches():
        found = matches(answer)
        assert type(found) is bool, name
        assert not found or oracle(answer), name
    if "\n" not in answer:  # which [^d] excludes in RE2, and in Python not
        assert _pattern()(answer) == (re.fullmatch(PATTERN, answer) is not None)


@cache
def _schema() -> tuple[Callable[[str], bool], Validator]:
    return satisfies(json.dumps(SCHEMA)), Draft202012Validator(SCHEMA)


def read_json(text: str) -> None:
    """What satisfies a schema here is JSON that satisfies it by the library."""
    is_satisfied, library = _schema()
    found = is_satisfied(text)
    assert type(found) is bool
    assert not found or library.is_valid(json.loads(text, object_pairs_hook=oracles.unique))


VALUES = ("1", "1.0", "true", "null", '"a"', "[]", "[1, 1.0]", "[1, true]", '{"a": [{}]}')


def read_schema(text: str) -> None:
    """A schema is refused with a reason, or decides as the library does."""
    try:
        is_satisfied = satisfies(text)
    except ValueError:
        return
    library = Draft202012Validator(json.loads(text))
    for value in VALUES:
        assert is_satisfied(value) == library.is_valid(json.loads(value)), value


def read_pattern(text: str) -> None:
    """A pattern is refused with a reason, or decides."""
    try:
        matches = build_check("regex", {"pattern": ""})(text)
    except ValueError:
        return
    for answer in ("", "a", text):
        assert type(matches(answer)) is bool


PRINTED = Tests(("",), ("1 2\n\n  3",))
RETURNED = Tests(("[]",), ('{"a": [1, 0.5, true, null, "x"]}',), "f")


def compare_output(text: str) -> None:
    """What a program put out passes a test only if it is the same, and what it says is bounded."""
    assert passed(PRINTED, Ran((text,))) == oracles.same_lines(PRINTED.outputs[0], text)
    if passed(RETURNED, Ran((text,))):
        assert oracles.same_value(RETURNED.outputs[0], text)


def read_tests(text: str) -> None:
    """Hidden tests are refused with a reason, or can be passed."""
    try:
        tests = parse_tests(text)
    except ValueError:
        return
    assert passed(tests, Ran(tests.outputs))


@cache
def _latex() -> Callable[[str], bool]:
    return build_check("math", {})(r"\frac{7 x^{2}}{3}")


def compare_latex(text: str) -> None:
    """A formula is the same or not; what is read has only listed commands, and bounded depth."""
    assert type(_latex()(text)) is bool


TARGETS: Mapping[str, Callable[[str], None]] = {
    "extract": extract,
    "rules": decide,
    "formulas": conclude,
    "arithmetic": calculate,
    "checks": check,
    "json": read_json,
    "schema": read_schema,
    "pattern": read_pattern,
    "output": compare_output,
    "tests": read_tests,
    "latex": compare_latex,
}
