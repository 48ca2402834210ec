# ruff: noqa: RUF001 - look-alike signs are the point here
"""One table per rule: what it accepts and what it must not."""

import decimal

import pytest

from rewards.tasks import rules
from rewards.tasks.rules import MAX_ANSWER_CHARS, Item, Rule, is_correct

# rule, truth, accepted, refused
TABLE: list[tuple[Rule, str, list[str], list[str]]] = [
    (rules.exact, "1af", ["1af"], ["1AF", "01af", "0x1af", "1af.", "1 af", "\u00a01af", "1ａf"]),
    (rules.word, "Monday", ["Monday", "monday", "MONDAY"], ["Mon", "Monday.", "tuesday", "Mondaу"]),
    # the Kelvin sign's lower case is the letter k
    (rules.word, "kit", ["Kit"], ["\u212ait"]),
    (
        rules.number,
        "5",
        ["5", "+5", "005", "5.0", "5.000"],
        [
            *["5.", ".5e1", "5e0", "0x5", "5,0", "5 apples", "x = 5", "$5$", "-5", "5.01", "--5"],
            *["1_0", "٥", "５", "nan", "inf", "Infinity", "5j", "5/1", "10/2", "5\n", "5\x00"],
            *["5" * 500, "1e999999", "5.0000000000000000000000000000000001"],
        ],
    ),
    (rules.number, "-0.5", ["-0.5", "-0.50", "-00.5"], ["0.5", "-.5", "−0.5", "-1/2"]),
    (rules.number, "0", ["0", "-0", "0.0"], ["", "O", "00x", "1e-999"]),
    (rules.word_or_number, "12", ["12", "12.0"], ["twelve"]),
    (rules.word_or_number, "Yes", ["yes"], ["No", "1", "True"]),
    (
        rules.scientific,
        "1.23e+4",
        ["1.23e+4", "1.23E4", "1.230e+04", "12.3e3"],
        ["12300", "1.23*10^4", "1.234e4", "1.23e4e1", "1.23e99999", "nan", "1.23e+4 or so"],
    ),
    (
        rules.hexadecimal,
        "-0x1f",
        ["-0x1f", "-0X1F", "-0x01f"],
        ["0x1f", "-31", "-1f", "-0x1g", "-0x1_f", "-0x", "0x" + "f" * 500],
    ),
    (
        rules.fraction,
        "3/4",
        ["3/4", "3 / 4", "$3/4$", r"\frac{3}{4}", r"$\dfrac{3}{4}$", "03/4"],
        ["6/8", "0.75", "-3/4", "3/4/1", "$3/4", "3//4", "3/0", r"\sfrac{3}{4}", "$", "$$", "/"],
    ),
    (rules.fraction, r"$\frac{3}{4}$", ["3/4", r"\frac{3}{4}"], ["6/8"]),
    (
        rules.matrix,
        "1 2\n3 4",
        ["1 2\n3 4", "1  2 \n 3\t4", "1 2\r\n3 4"],
        [
            "1 2 3 4",
            "1 2\n3 4\n",
            "[[1, 2], [3, 4]]",
            "1 2\n\n3 4",
            "1 2\n3",
            "1,2\n3,4",
            "١ 2\n3 4",
        ],
    ),
    (rules.matrix, "0 -1", ["0 -1", "00 -1"], ["0 - 1", "0 1", "0-1", "0\x1c-1", "9" * 30]),
    (
        rules.number_list,
        "['1.50', '-2']",
        ["['1.50', '-2']", "[1.5, -2]", '["1.5","-2.0"]', "[ 1.5 ,-2 ]"],
        [
            "1.5, -2",
            "[1.5 -2]",
            "['-2', '1.5']",
            "[1.5, -2,]",
            "(1.5, -2)",
            "[1.5, -2",
            "['1.5\", -2]",
        ],
    ),
    (rules.number_list, "[]", ["[]", "[ ]"], ["['']", "[0]", "][", "[", "]", "[[]]", "[,]"]),
    (
        rules.words,
        "to, Be, or",
        ["to, Be, or", "to,Be,or"],
        ["to, be, or", "to Be or", "to, Be, or,"],
    ),
    (
        rules.factors,
        "2 × 2 × 3",
        ["2 × 2 × 3", "3×2×2"],
        ["2 * 2 * 3", "4 × 3", "2 x 2 x 3", "2² × 3", "12", "2 × 2 × 3 ×", "1 × 2 × 2 × 3"],
    ),
]


@pytest.mark.parametrize(("rule", "truth", "accepted", "refused"), TABLE)
def test_a_rule_accepts_the_truth_in_its_forms_and_nothing_else(
    rule: Rule, truth: str, accepted: list[str], refused: list[str]
) -> None:
    item = Item("", truth)
    assert [answer for answer in accepted if not is_correct(rule, answer, item)] == []
    assert [answer for answer in refused if is_correct(rule, answer, item)] == []


def test_no_answer_and_an_overlong_one_are_wrong_under_every_rule() -> None:
    long = "1" * (MAX_ANSWER_CHARS + 1)
    assert not is_correct(rules.exact, None, Item("", ""))
    assert not is_correct(rules.exact, "", Item("", ""))
    assert not is_correct(rules.exact, long, Item("", long))


def test_numbers_are_compared_exactly_whatever_the_decimal_context_is() -> None:
    with decimal.localcontext(decimal.Context(prec=3)):
        assert not rules.number("1.2345", Item("", "1.2346"))
        assert rules.number("1.23460", Item("", "1.2346"))
