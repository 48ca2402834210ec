r"""Equal mathematics, and that no text of an answer runs, hangs or fills the memory."""

import builtins

import math_verify
import pytest
import sympy.parsing.sympy_parser

from rewards.tasks.latex import MAX_CHARS, MalformedLatex, equals


@pytest.mark.parametrize(
    ("truth", "answers"),
    [
        (
            "5",
            ["5", "5.", "5.0", "$5$", r"\(5\)", r"\[5\]", r"5\text{ cm}", "x = 5", r"\$5", "5!/4!"],
        ),
        (r"\frac{1}{2}", ["1/2", "0.5", r"\frac12", r"\dfrac{2}{4}", r"50\%", r"2^{-1}"]),
        ("1,234", ["1234", "1,234", "1234.0"]),
        (r"2\sqrt{2}", [r"\sqrt{8}", r"\sqrt8", "8^{1/2}", r"2 \cdot \sqrt{2}"]),
        ("x^2+2x+1", ["(x+1)^2", "1+2x+x^2", "y = (x+1)^2"]),
        ("y = 2x + 1", ["y=2x+1", "y - 2x = 1"]),
        ("(1,2)", ["(1,2)", r"\left(1, \frac{4}{2}\right)"]),
        (r"\{1,2\}", ["1,2", r"\{2,1\}", r"1 \text{ and } 2"]),
        (r"(-\infty,2]\cup[3,\infty)", [r"[3,\infty)\cup(-\infty,2]"]),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", [r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"]),
        (r"90^\circ", ["90", r"90^{\circ}"]),
        (r"\text{Monday}", [r"\text{monday}"]),
        ("2^{2023}", ["2^{2023}", r"2 \cdot 2^{2022}"]),
    ],
)
def test_equal_expressions_are_correct(truth: str, answers: list[str]) -> None:
    is_equal = equals(truth)
    assert [answer for answer in answers if not is_equal(answer)] == []


@pytest.mark.parametrize(
    ("truth", "answers"),
    [
        (
            "5",
            [
                "-5",
                "--5!",
                "5, 6",
                "5+x-x+y",
                "5x",
                r"\frac{5}{0}",
                r"\frac{0}{0}",
                r"\text{5}",
                "",
            ],
        ),
        ("x", ["y", r"\frac{d}{dx}", "x!", "x+10^{-9}", "x^{101}"]),
        ("(1,2)", ["(2,1)", "[1,2]", r"\{1,2\}3", "1"]),
        (r"\text{Monday}", ["Monday", r"\text{Sunday}", r"\text{Monday or Sunday}"]),
        (
            "2",
            [
                "listen",
                "two",
                r"\two",
                "\uff12",
                "2\u200b",
                "{2",
                "2}",
                r"\sqrt",
                "^",
                "_",
                "|",
                "&",
            ],
        ),
    ],
)
def test_other_expressions_are_wrong(truth: str, answers: list[str]) -> None:
    is_equal = equals(truth)
    assert [answer for answer in answers if is_equal(answer)] == []


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "9^{9^{9^9}}",
            "(9^{9^{9^9}}, 1)",
            "[1, 9^{9^{9^9}}]",
            r"\sqrt[9^{9^9}]{2}",
            "((9^{999})^{99})^{9}",
        ),
        *(
            "e^{9^{9^9}}",
            r"[\lfloor e^{9999999999} \rfloor, 1]",
            r"\lfloor \cosh(9999999999) \rfloor",
        ),
        *(
            "9999999999!",
            "9!!!",
            "(9!)!",
            "999!^{999}",
            r"\binom{1000000000}{500000000}",
            "9E999999999",
        ),
        *(
            r"(\pi+e+1)^{99}",
            "(x+y+z+1)^{99}",
            r"\frac{1}{(x+1)(y+1)(z+1)(x+2)(y+2)(z+2)(x+3)}",
            "x^{999}",
        ),
        *(
            r"\sum_{n=1}^{10^9} n",
            r"\prod_{n=1}^{10^9} n",
            r"\int \sin(x^x) dx",
            r"\lim_{x\to 0} x",
        ),
        *(r"\\sum_{n=1}^{10^9} n", r"\gamma(10^9)", r"\operatorname{eye}(10^5)", r"\zeros(10^5)"),
        *(
            "(" * 6 + "1" + ")" * 6,
            "{" * 30 + "1" + "}" * 30,
            "[" * 140 + "]" * 140,
            r"\frac{" * 40,
        ),
        *("1," * 25 + "1", r"[0,1]\cup" * 5 + "[0,1]", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"),
        *(
            r"\begin{pmatrix}x&1\\1&x\end{pmatrix}^{99}",
            r"(\begin{pmatrix}x&1\\1&x\end{pmatrix})^{2}",
        ),
        *("1+" * (MAX_CHARS // 2) + "1", "x" * 200, "-" * 299 + "1"),
    ],
)
def test_what_would_grow_is_refused_before_it_does(answer: str) -> None:
    with pytest.raises(MalformedLatex):
        equals(answer)
    assert not equals("x+y+z+1")(answer)


def test_a_number_far_from_the_truth_is_not_simplified(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise AssertionError("the library was asked")

    is_equal = equals(r"\sqrt{2}+\pi")
    monkeypatch.setattr("rewards.tasks.latex.verify", fail)
    assert not is_equal(r"\sqrt{2+\sqrt{3}}+\sqrt{5+\sqrt{7}}+\sqrt{11}")
    with pytest.raises(AssertionError, match="asked"):
        is_equal(r"\pi+\sqrt{2}")


class Canary:
    """Notes whether anybody touched it."""

    def __init__(self) -> None:
        self.was_touched = False

    def __getitem__(self, key: int) -> int:
        self.was_touched = True
        return key


def test_the_name_of_a_symbol_does_not_run_as_code(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = Canary()
    monkeypatch.setattr(builtins, "canary", canary, raising=False)
    answer = r"\sum_{n=0}^{\infty}\frac{\text{canary[7]}^n}{n!}+1"
    assert not equals(r"\sqrt{2}+\pi")(answer)
    with pytest.raises(MalformedLatex):
        equals(answer)
    assert not canary.was_touched

    gold, found = (
        math_verify.parse(f"${text}$", parsing_timeout=None) for text in (r"\sqrt{2}+\pi", answer)
    )
    math_verify.verify(gold, found, timeout_seconds=None)
    assert canary.was_touched  # else the library is mended, and this test shows nothing


def test_no_text_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[object] = []

    def note(text: object, *_: object, **__: object) -> object:
        evaluated.append(text)
        raise AssertionError("a text was evaluated")

    monkeypatch.setattr(sympy.parsing.sympy_parser, "parse_expr", note)
    monkeypatch.setattr("math_verify.parser.parse_expr", note)
    monkeypatch.setattr("latex2sympy2_extended.latex2sympy2.parse_expr", note)
    monkeypatch.setattr(builtins, "eval", note)
    for truth, answer in (
        ("7", "7.25"),
        ("1,234", "1,234.5"),
        ("0,123", "12,345,678"),
        ("1,2,3", "1, 234, 567"),
        (r"50\%", "1,234\\%"),
        ("2E5", "3.5E-2"),
        (r"\frac{1}{3}", "0.3333"),
        ("x_1+2", "x_{1}+y_{12}"),
        ("[1,2.5)", r"\{1.5, 2\}"),
        ("x=2", "x<3"),
        (r"\text{a b}", r"\text{a 7}"),
    ):
        equals(truth)(answer)
    assert evaluated == []
    with pytest.raises(AssertionError):
        sympy.sympify("7")  # what is noted is what sympy calls
