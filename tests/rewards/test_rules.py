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
    (
        rules.any_number,
        "380,753.50",
        ["380,753.50", "380753.5", "3.807535e5", "+380,753.5", "380753.50"],
        [
            "38,0753.50",
            "380.753,50",
            "380 753.5",
            "$380,753.50",
            ",380,753.5",
            "380,753.50,",
            "nan",
        ],
    ),
    (rules.any_number, "1e3", ["1,000", "1000", "1.0E+3"], ["1,0,0,0", "1_000", "10**3", "1e03x"]),
    (
        rules.complex_number,
        "-10.0 - 4.0i",
        ["-10.0 - 4.0i", "-10-4i", "-10 - 4i", "-10.00 -4i"],
        [
            *[
                "nan",
                "nan + nani",
                "-10",
                "-4i",
                "10 - 4i",
                "-10 + 4i",
                "-10 - 4j",
                "-10 - 4",
                "inf",
            ],
            *["(-10 - 4i)", "-4i - 10", "-10 - -4i", "-10  - 4i", "-10 - 4*i", "-10 − 4i", "i", ""],
        ],
    ),
    (rules.complex_number, "1.00i", ["i", "1i", "+i", "0 + i", "0+1.0i"], ["1", "-i", "ii", "1 i"]),
    (
        rules.complex_number,
        "5.00",
        ["5", "5.0", "5 + 0i", "5 - 0i"],
        ["5i", "0 + 5i", "5 +", "5 i"],
    ),
    (
        rules.ratio,
        "3/8",
        ["3/8", "6/16", "0.375", "0.3750", r"\frac{3}{8}", "$6/16$"],
        ["0.37", "0.38", "37.5%", "3/0", "0/0", "3:8", ".375", "3.75e-1", "nan", "-3/8", "3/8/1"],
    ),
    (rules.ratio, "1", ["1", "1.0", "4/4", "1/1"], ["0.9999999999", "1/0", "100%", "one"]),
    (
        rules.number_matrix,
        "1.0 2.25\n3 4",
        ["1 2.25\n3 4", "1.00  2.250 \n 3.0\t4"],
        [
            "1 2.25 3 4",
            "1 2.2\n3 4",
            "1 2.25\n3",
            "[[1, 2.25], [3, 4]]",
            "1 nan\n3 4",
            "1 2.25\n\n3 4",
        ],
    ),
    (
        rules.arrays,
        "[[0,1],[1,0]]",
        ["[[0,1],[1,0]]", "[[0, 1],\n [1, 0]]", "[ [ 0,1 ] , [1,0] ]"],
        [
            *[
                "[[0,1],[1,0]",
                "[0,1,1,0]",
                "[[0,1,1,0]]",
                "[[0,1],[1,1]]",
                "[[0,1],[1,0],]",
                "[[]]",
            ],
            *["[[0,1],[1,0,]]", "[[0 1],[1 0]]", "0 1\n1 0", "[[false,true],[true,false]]", "[]"],
            *[
                "[[0,1],[1,0]].",
                "((0,1),(1,0))",
                "[[0,1],[1,٠]]",
                "[[0.0,1],[1,0]]",
                "[[[0,1],[1,0]]]",
            ],
        ],
    ),
    (
        rules.groups,
        '[["anoles", "lanose"], ["tan", "nat"]]',
        [
            '[["nat","tan"],["lanose","anoles"]]',
            "[['tan', 'nat'],\n ['anoles', 'lanose']]",
        ],
        [
            *[
                '[["tan", "nat"]]',
                '[["tan"], ["nat"], ["anoles", "lanose"]]',
                "[[tan, nat]]",
                "[[]]",
            ],
            *['[["tan", "anoles"], ["nat", "lanose"]]', '[["tan", "nat", "anoles", "lanose"]]'],
            *[
                '[["tan", "nat", "tan"], ["anoles", "lanose"]]',
                '[["Tan", "nat"], ["anoles", "lanose"]]',
            ],
            *['[["t an", "nat"], ["anoles", "lanose"]]', '[["tan\', "nat"], ["anoles", "lanose"]]'],
        ],
    ),
    (
        rules.partitions,
        '[["a", "a", "b"], ["aa", "b"]]',
        ['[["aa","b"],["a","a","b"]]'],
        [
            '[["a", "b", "a"], ["aa", "b"]]',
            '[["aa", "b"]]',
            '[["aa","b"],["aa","b"],["a","a","b"]]',
        ],
    ),
    (
        rules.roles,
        "Owen is an angel, Ava is a devil, and Mia is an angel.",
        [
            "Owen is an angel, Ava is a devil, and Mia is an angel.",
            "Mia is a angel, Owen is a angel and Ava is a devil",
            "owen is an angel and ava is a devil and mia is an angel",
        ],
        [
            *[
                "Owen is an angel, Ava is a devil",
                "Owen is a devil, Ava is a devil, and Mia is an angel",
            ],
            "Owen is an angel/devil, Ava is an angel/devil, and Mia is an angel/devil",
            "Owen is an angel, Ava is a devil, Mia is an angel, and Ava is an angel",
            "Owen is an angel, Ava is a devil, and Mia is an angel, so there.",
            "Owen is an angel; Ava is a devil; Mia is an angel",
            "Owen is an angel\u017f, Ava is a devil, and Mia is an angel",
        ],
    ),
    (
        rules.polynomial,
        "-7*x**9 + 5*x**2/3 - x/2 + C",
        [
            "-7*x**9 + 5*x**2/3 - x/2 + C",
            "C - 1/2*x + 5/3*x**2 - 7*x**9",
            "(5/3)*x**2-7*x**9-x/2+C",
            "-7*x**9 + 10*x**2/6 - 1*x/2 + C",
            "-7*x*x**8 + 5*x**2/3 - x**1/2 + C",
        ],
        [
            *[
                "-7*x**9 + 5*x**2/3 - x/2",
                "-7x**9 + 5x**2/3 - x/2 + C",
                "-7*x^9 + 5*x^2/3 - x/2 + C",
            ],
            "x**2 - 7*x**9 + 5*x**2/3 - x/2 + C",
            *["-7*x**9 + x**2 + 2*x**2/3 - x/2 + C", "-(7*x**9) + 5*x**2/3 - x/2 + C", "C", "x/0"],
            *[
                "-7*x**9 + 5*x**2/3 - x/2 + C + 0",
                "-7*x**9 + 5*x**2/3 - 0.5*x + C",
                "nan",
                "+",
                "-",
            ],
            *[
                "-7*x**9 + 5*x**2/3 - - x/2 + C",
                "-7*x**9 + 5*x**2/3 - x/2 + c",
                "(-7*x**9 + C)",
                "9**9**9",
            ],
            *[
                "-7*x**9 + (5/3*x**2 - x/2 + C",
                "-7*x**9 + 5*x**2/3 -x/2 + 1 *C",
                "-7*x**9 + 5*x**2/3*1/x",
            ],
        ],
    ),
    (rules.polynomial, "2*x*y + 1", ["1 + 2*y*x", "1+x*2*y"], ["2*x*y", "x*(2*y) + 1", "2*xy + 1"]),
    (rules.polynomial, "0", ["0"], ["", "1", "0*x", "x - x"]),
]


@pytest.mark.parametrize(("rule", "truth", "accepted", "refused"), TABLE)
def test_a_rule_accepts_the_truth_in_its_forms_and_nothing_else(
    rule: Rule, truth: str, accepted: list[str], refused: list[str]
) -> None:
    item = Item("", truth)
    assert [answer for answer in accepted if not is_correct(rule, answer, item)] == []
    assert [answer for answer in refused if is_correct(rule, answer, item)] == []


@pytest.mark.parametrize(
    "form", ["1+", "x*", "9", "+-", " ", '"a",', "[", "(1/", " + ", "1,", "1 "]
)
def test_long_answers_raise_nothing_and_are_wrong(form: str) -> None:
    text = (form * MAX_ANSWER_CHARS)[:MAX_ANSWER_CHARS]
    for rule, truth, *_ in TABLE:
        for answer in (text, f"[[{text}"[:MAX_ANSWER_CHARS], text[:-2] + "]]", text[:-1] + "i"):
            assert is_correct(rule, answer, Item("", truth)) is False


def test_no_answer_and_an_overlong_one_are_wrong_under_every_rule() -> None:
    long = "1" * (MAX_ANSWER_CHARS + 1)
    assert not is_correct(rules.exact, None, Item("", ""))
    assert not is_correct(rules.exact, "", Item("", ""))
    assert not is_correct(rules.exact, long, Item("", long))


def test_numbers_are_compared_exactly_whatever_the_decimal_context_is() -> None:
    with decimal.localcontext(decimal.Context(prec=3)):
        assert not rules.number("1.2345", Item("", "1.2346"))
        assert rules.number("1.23460", Item("", "1.2346"))
