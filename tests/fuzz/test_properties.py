# ruff: noqa: RUF001 - signs of logic and products
"""What holds for all questions and answers of a form: right ones in each of their spellings, wrong
ones, and texts made of a part's own words."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS
from words import WORDS

from rewards.extract import ASCII_SPACE, AnswerFormat, final_answer, mark_answer
from rewards.program import Ran
from rewards.tasks import arithmetic, rules
from rewards.tasks.checks import build_check
from rewards.tasks.code import parse_tests, passed
from rewards.tasks.formulas import follows
from rewards.tasks.rules import Item, Rule, is_correct
from rewards.tasks.schema import satisfies

quick = settings(deadline=None, derandomize=True, max_examples=40)
few = settings(deadline=None, derandomize=True, max_examples=20)


@pytest.mark.parametrize("target", TARGETS)
def test_no_text_of_its_own_words_breaks_a_part(target: str) -> None:
    words = st.sampled_from(WORDS[target]) | st.text(max_size=2)

    @(few if target == "latex" else quick)
    @given(st.lists(words, max_size=20).map("".join))
    def holds(text: str) -> None:
        TARGETS[target](text)

    holds()


class Counted(str):
    """A text that counts the characters that its methods look at, at most."""

    num_seen = 0

    def __getitem__(self, key: Any) -> "Counted":
        return counted(super().__getitem__(key))


def counted(found: Any) -> Any:
    if isinstance(found, list | tuple):
        return [counted(part) for part in found]
    if not isinstance(found, str):
        return found
    Counted.num_seen += len(found)
    return Counted(found)


def _counting(name: str) -> Callable[..., Any]:
    def method(self: Counted, *args: Any) -> Any:
        Counted.num_seen += 1 if name == "startswith" else len(self)
        return counted(getattr(str, name)(self, *args))

    return method


METHODS = ("find", "rfind", "partition", "rpartition", "split", "strip", "rstrip", "startswith")
for name in (*METHODS, "__contains__"):
    setattr(Counted, name, _counting(name))


@pytest.mark.parametrize("answer_format", AnswerFormat)
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        *[("<answer>", "</answer>"), ("<answer></answer>", ""), ("</answer>", "<answer>")],
        *[("\\boxed{", "}"), ("\\boxed{}", ""), ("{", "\\boxed{}"), ("\\", "\\boxed{}"), ("}", "")],
        *[("```\n", "\n```"), ("```\n\n```\n", ""), ("```py\n", "x\n"), ("\n", " "), ("x", "\n")],
    ],
)
def test_work_grows_no_faster_than_the_text(
    answer_format: AnswerFormat, opening: str, closing: str
) -> None:
    def seen(num: int) -> int:
        Counted.num_seen = 0
        final_answer(Counted(opening * num + "7" + closing * num), True, answer_format)
        return Counted.num_seen

    assert seen(800) <= 4.5 * seen(200) + 100


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
PLAIN = st.text(st.characters(exclude_characters="\\{}`<\n", exclude_categories=["Cs"]), min_size=1)


@quick
@given(PLAIN, PLAIN.filter(lambda text: text.strip(ASCII_SPACE)), st.sampled_from(AnswerFormat))
def test_a_marked_answer_is_found_in_what_surrounds_it(
    chat: str, answer: str, answer_format: AnswerFormat
) -> None:
    text = f"{chat}\n{mark_answer(answer, answer_format)}\n"
    if answer_format != AnswerFormat.LAST_LINE:
        text += chat
    found = final_answer(text, True, answer_format)
    is_code = answer_format == AnswerFormat.CODE_BLOCK
    assert found == (answer if is_code else answer.strip(ASCII_SPACE))


def is_right(rule: Rule, answer: str, truth: str) -> bool:
    return is_correct(rule, answer, Item("", truth))


NUMBERS = st.decimals(-(10**6), 10**6, places=3) | st.integers(-99, 99).map(Decimal)


@quick
@given(NUMBERS, NUMBERS, st.integers(0, 3))
def test_a_number_is_right_in_each_of_its_spellings(
    number: Decimal, other: Decimal, zeros: int
) -> None:
    sign, digits = ("-" if number.is_signed() else ""), f"{abs(number):f}"
    padded = f"{sign}{'0' * zeros}{digits}"
    longer = padded + ("" if "." in digits else ".0") + "0" * zeros
    spellings = [f"{number:f}", padded, longer, f"{sign or '+'}{digits}"]
    grouped = f"{number:,f}"
    check = build_check("number", {})(f"{number:f}")
    for spelling in spellings:
        assert is_right(rules.number, spelling, f"{number:f}")
        assert is_right(rules.any_number, spelling, grouped)
        assert is_right(rules.ratio, spelling, f"{number:f}")
    assert check(f"{sign}${digits}%.") and check(grouped) and check(f"{number:f}e0")
    assert is_right(rules.number, f"{other:f}", f"{number:f}") == (number == other)
    assert check(f"{other:f}") == (number == other)
    near = build_check("number", {"tolerance": 0.5})(f"{number:f}")
    assert near(f"{other:f}") == (abs(number - other) <= Decimal("0.5"))
    assert near(f"{number + Decimal('0.5'):f}") and not near(f"{number - Decimal('0.501'):f}")


@quick
@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(2, 9))
def test_a_fraction_is_right_reduced_only_and_a_ratio_anyhow(a: int, b: int, by: int) -> None:
    for spelling in (f"{a}/{b}", f"{a} / {b}", rf"\frac{{{a}}}{{{b}}}", rf"$\dfrac{{{a}}}{{{b}}}$"):
        assert is_right(rules.fraction, spelling, f"{a}/{b}")
        assert is_right(rules.ratio, spelling, f"{a * by}/{b * by}")
        assert not is_right(rules.fraction, spelling, f"{a * by}/{b * by}") or a == 0
    assert not is_right(rules.ratio, f"{a + 1}/{b}", f"{a}/{b}")


MATRICES = st.lists(st.lists(st.integers(-9, 99), min_size=1, max_size=3), min_size=1, max_size=3)


@quick
@given(MATRICES, MATRICES, st.sampled_from([" ", "  ", "\t", " \t"]))
def test_a_matrix_is_right_with_its_cells_in_their_places(
    rows: list[list[int]], others: list[list[int]], blank: str
) -> None:
    def plain(rows: list[list[int]], blank: str = " ") -> str:
        return "\n".join(blank.join(map(str, row)) for row in rows)

    for rule in (rules.matrix, rules.number_matrix):
        assert is_right(rule, plain(rows, blank), plain(rows))
        assert is_right(rule, plain(others), plain(rows)) == (rows == others)
    arrays = json.dumps(rows, separators=(blank + ",", blank))
    assert is_right(rules.arrays, arrays, json.dumps(rows))
    assert is_right(rules.arrays, json.dumps(others), json.dumps(rows)) == (rows == others)
    row, other = rows[0], others[0]
    quoted = f"[{','.join(repr(str(cell)) for cell in row)}]"
    assert is_right(rules.number_list, quoted, str(row))
    assert is_right(rules.number_list, str(other), str(row)) == (row == other)


WORD = st.text("ab", min_size=1, max_size=2)
GROUPS = st.lists(st.lists(WORD, min_size=1, max_size=3), min_size=1, max_size=3)


@quick
@given(GROUPS, GROUPS, st.randoms(use_true_random=False))
def test_groups_are_right_in_any_order(
    lists: list[list[str]], others: list[list[str]], draw: Any
) -> None:
    mixed = [draw.sample(words, len(words)) for words in draw.sample(lists, len(lists))]
    truth = json.dumps(lists)
    assert is_right(rules.groups, str(mixed), truth)
    assert is_right(rules.partitions, str(draw.sample(lists, len(lists))), truth)
    same = sorted(map(sorted, lists)) == sorted(map(sorted, others))
    assert is_right(rules.groups, json.dumps(others), truth) == same
    same = sorted(lists) == sorted(others)
    assert is_right(rules.partitions, json.dumps(others), truth) == same
    words = [word for group in lists for word in group]
    assert is_right(rules.words, ",".join(words), ", ".join(words))
    assert is_right(rules.words, ",".join(words).upper(), ", ".join(words)) is False


@quick
@given(st.dictionaries(WORD, st.sampled_from(["knight", "angel"]), min_size=1, max_size=4))
def test_roles_are_right_in_any_order(roles: dict[str, str]) -> None:
    truth = ", and ".join(f"{name} is a {role}" for name, role in roles.items()) + "."
    turned = " and ".join(f"{name.title()} is an {role}" for name, role in [*roles.items()][::-1])
    assert is_right(rules.roles, turned, truth)
    for role, other in (("knight", "angel"), ("angel", "knight")):
        changed = turned.replace(role, other, 1)
        assert is_right(rules.roles, changed, truth) == (changed == turned)


FACTORS = st.lists(st.sampled_from([2, 3, 5, 7]), min_size=1, max_size=6)
TERMS = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 2)),
    st.fractions(-9, 9, max_denominator=3).filter(bool),
    min_size=1,
    max_size=4,
)


@quick
@given(FACTORS, FACTORS, TERMS, TERMS, st.randoms(use_true_random=False))
def test_factors_and_terms_are_right_in_any_order(
    some: list[int], others: list[int], terms: Any, other_terms: Any, draw: Any
) -> None:
    def product(factors: list[int]) -> str:
        return " × ".join(map(str, factors))

    assert is_right(rules.factors, product(draw.sample(some, len(some))), product(some))
    assert is_right(rules.factors, product(others), product(some)) == (
        sorted(some) == sorted(others)
    )

    def term(powers: tuple[int, int], coefficient: Fraction) -> str:
        over, under = coefficient.as_integer_ratio()
        letters = "".join(
            f"*{letter}" + (f"**{power}" if power > 1 else "")
            for letter, power in zip("xy", powers, strict=True)
            if power
        )
        return f"{abs(over)}/{under}{letters}" if under > 1 else f"{abs(over)}{letters}"

    def polynomial(terms: list[tuple[tuple[int, int], Fraction]]) -> str:
        text = "".join(f" {'-+'[c > 0]} {term(powers, c)}" for powers, c in terms)
        return text.removeprefix(" + ").replace(" - ", "-", 1) if text[1] == "-" else text[3:]

    mixed = draw.sample([*terms.items()], len(terms))
    truth = polynomial([*terms.items()])
    assert is_right(rules.polynomial, polynomial(mixed), truth)
    other = polynomial([*other_terms.items()])
    assert is_right(rules.polynomial, other, truth) == (terms == other_terms)


Formula = tuple[str, Callable[[dict[str, bool]], bool]]
OPERATIONS: list[tuple[str, Callable[[bool, bool], bool]]] = [
    ("∧", lambda a, b: a and b),
    ("∨", lambda a, b: a or b),
    ("→", lambda a, b: not a or b),
    ("↔", lambda a, b: a == b),
]


def _joined(parts: tuple[Formula, tuple[str, Callable[[bool, bool], bool]], Formula]) -> Formula:
    (left, left_of), (sign, of), (right, right_of) = parts
    return f"({left} {sign} {right})", lambda row: of(left_of(row), right_of(row))


FORMULAS: st.SearchStrategy[Formula] = st.recursive(
    st.sampled_from("PQR").map(lambda name: (name, lambda row: row[name])),
    lambda of: st.one_of(
        of.map(lambda part: (f"¬{part[0]}", lambda row: not part[1](row))),
        st.tuples(of, st.sampled_from(OPERATIONS), of).map(_joined),
    ),
    max_leaves=8,
)


@quick
@given(FORMULAS, st.lists(FORMULAS, min_size=1, max_size=3))
def test_a_conclusion_follows_if_no_values_speak_against_it(
    conclusion: Formula, premises: list[Formula]
) -> None:
    texts = ["P → P", "(Q ∨ ¬R) ↔ (Q ∨ ¬R)", *(text for text, _ in premises)]  # name all variables
    rows = [dict(zip("PQR", (n & 1, n & 2, n & 4), strict=True)) for n in range(8)]
    true = [bool(conclusion[1](row)) for row in rows]
    possible = [all(of(row) for _, of in premises) for row in rows]
    expected = not all(true) and all(t or not p for t, p in zip(true, possible, strict=True))
    says_something = any(sign in conclusion[0] for sign in "¬∧∨→↔")
    assert follows(conclusion[0], texts) == (expected and says_something)


Calculation = tuple[str, Fraction | None]


def _calculated(parts: tuple[Calculation, str, Calculation]) -> Calculation:
    (left, a), sign, (right, b) = parts
    text = f"({left}{sign}{right})"
    if a is None or b is None or (sign == "/" and b == 0):
        return text, None
    return text, {"+": a + b, "-": a - b, "*": a * b, "/": a / (b or 1)}[sign]


EXPRESSIONS: st.SearchStrategy[Calculation] = st.recursive(
    st.integers(0, 20).map(lambda number: (str(number), Fraction(number))),
    lambda of: st.tuples(of, st.sampled_from("+-*/"), of).map(_calculated),
    max_leaves=8,
)


@quick
@given(EXPRESSIONS)
def test_an_expression_has_its_value_or_divides_by_zero(expression: Calculation) -> None:
    text, expected = expression
    numbers = [int(number) for number in re.findall("[0-9]+", text)]
    if expected is None:
        with pytest.raises(arithmetic.MalformedExpression):
            arithmetic.evaluate(text, numbers)
    else:
        assert arithmetic.evaluate(f" - {text} ", numbers) == -expected
        with pytest.raises(arithmetic.MalformedExpression):
            arithmetic.evaluate(text, [*numbers, 1])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=2), of, max_size=3),
    max_leaves=8,
)


@quick
@given(VALUES, VALUES, st.sampled_from([None, 1, "\t"]))
def test_json_is_right_however_it_is_spaced(value: Any, other: Any, indent: Any) -> None:
    same = satisfies(json.dumps({"const": value}))
    assert same(json.dumps(value, indent=indent)) and satisfies("true")(json.dumps(other))
    tests = {"inputs": [[]], "outputs": [[value, True]], "fn_name": "f"}
    hidden = parse_tests(json.dumps(tests))
    assert passed(hidden, Ran((json.dumps([value, True], indent=indent),)))
    assert not passed(hidden, Ran((json.dumps([value, 1]),)))
    if not _resembles(value, other):
        assert not same(json.dumps(other))
        assert not passed(hidden, Ran((json.dumps([other, True]),)))


def _resembles(one: object, other: object) -> bool:
    """Whether JSON and a tolerance could make them one."""
    return re.sub(r"[\d.e+-]+", "0", json.dumps(one)) == re.sub(
        r"[\d.e+-]+", "0", json.dumps(other)
    )


@quick
@given(st.lists(PLAIN.filter(str.strip), min_size=1, max_size=4), st.sampled_from(["", " ", "\t"]))
def test_what_is_printed_is_right_whatever_blanks_end_its_lines(
    lines: list[str], blank: str
) -> None:
    hidden = parse_tests({"inputs": [""], "outputs": ["\n".join(lines)]})
    assert passed(hidden, Ran((f"{blank}\n".join(lines) + f"{blank}\n\n",)))
    assert not passed(hidden, Ran(("\n".join(lines) + "\n.",)))
    assert not passed(hidden, Ran((None,)))


@quick
@given(TEXTS, st.sampled_from("abcj"))
def test_a_text_is_itself_and_a_letter_is_one_choice(text: str, letter: str) -> None:
    assert is_right(rules.exact, text, text) and not is_right(rules.exact, text + text, text)
    assert is_right(rules.word, text.swapcase(), text) == (
        text.swapcase().isascii() and text.isascii()
    )
    choice = build_check("choice", {})(letter)
    for spelling in (letter, letter.upper(), f"({letter})", f"{letter}.", f"{letter})"):
        assert choice(spelling) and choice(rf"\text{{{spelling}}}")
        assert not choice(f"{spelling}{spelling}") and not choice(f"{spelling} or a")
