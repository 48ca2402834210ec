"""Checks for rows: what is right, what is wrong, what no data may ask for, and hostile answers."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.hostile import hostile_answers
from rewards.tasks.checks import CHECKS, Matches, Truth, build_check

SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


def matches(name: str, truth: Truth, **params: float | str) -> Matches:
    return build_check(name, params)(truth)


EXAMPLES = {
    "exact": matches("exact", "The cat"),
    "number": matches("number", "72"),
    "number within": matches("number", "72", tolerance=0.5),
    "choice": matches("choice", "B"),
    "math": matches("math", r"\frac{1}{2}"),
    "regex": matches("regex", "(a+)+b"),
    "json": matches("json", SCHEMA),
}


@pytest.mark.parametrize(
    ("name", "truth", "right"),
    [
        ("exact", "The cat", ["The cat"]),
        ("exact", "  The cat\n", ["The cat"]),
        ("exact", 7, ["7"]),
        ("number", "72", ["72", "072", "+72", "72.", "72.0", "72.00.", "7.2e1", "720E-1", "$72"]),
        ("number", 72, ["$72.00", r"\$72", "72%", r"72\%", "72%.", "7200000e-5"]),
        ("number", 0.5, ["0.5", ".5", "+.50", "5e-1", "50e-2"]),
        ("number", "-5", ["-5", "-$5", "$-5", "-5.0"]),
        ("number", "1,234,567.25", ["1234567.25", "1,234,567.250", "$1,234,567.25"]),
        ("number", "0", ["0", "-0", "0.000", "0e999"]),
        ("choice", "B", ["B", "b", "(B)", "B.", "B)", "B:", r"\text{B}", r"\text{(b)}"]),
        ("choice", "(b)", ["B"]),
        ("regex", "[a-z]+@[a-z]+[.]org", ["a@b.org", "abc@example.org"]),
        ("regex", "(?i)é+", ["é", "ÉÉ"]),
        ("regex", "a|ab", ["a", "ab"]),
        ("json", SCHEMA, ['{"n": 1}', '{"n":1.0,"m":[]}', ' {"n" : -0 } ']),
        ("json", {"enum": [None, [1]]}, ["null", "[1]", "[1.0]"]),
    ],
)
def test_these_are_correct(name: str, truth: Truth, right: list[str]) -> None:
    check = matches(name, truth)
    assert [answer for answer in right if not check(answer)] == []


@pytest.mark.parametrize(
    ("name", "truth", "wrong"),
    [
        ("exact", "The cat", ["the cat", "The cat.", "The  cat", "", "The cat\u200b"]),
        (
            "number",
            "72",
            ["71", "72 apples", "72, 71", "7 2", "72..", "$$72", "72$", "", "٧٢", "\uff17\uff12"],
        ),
        (
            "number",
            "1234567",
            ["12,34567", "1,234,56", "1,2345,67", ",234,567", "1234,567", "1_234_567"],
        ),
        (
            "number",
            "234",
            ["0,234", "234,", "--234", "+-234", "-$-234", "0x234", "234e", "234e0000"],
        ),
        (
            "number",
            "1",
            ["1e999", "1e-999", "1e9999999999", "nan", "inf", "1/1", ".", "", "$", "%"],
        ),
        ("number", "72.5", ["72,5", "72.50000000001"]),
        (
            "choice",
            "B",
            ["A", "C", "AB", "B or A", "(B", "((B))", "B).", r"\text{B", "B}", "\u0412", "2", ""],
        ),
        ("regex", "[a-z]+@[a-z]+[.]org", ["a@b.org ", "x a@b.org", "a@b.com", "a@b.org\n", ""]),
        ("regex", "(?:a|b)*c", ["ab" * 2000, "ab" * 2000 + "d"]),
        ("json", SCHEMA, ["{}", "[]", '{"n": 1.5}', '{"n": true}', '{"n": "1"}', '{"n": 1', ""]),
    ],
)
def test_these_are_wrong(name: str, truth: Truth, wrong: list[str]) -> None:
    check = matches(name, truth)
    assert [answer for answer in wrong if check(answer)] == []


def test_the_tolerance_is_exact_and_includes_its_bound() -> None:
    near = matches("number", "0.3", tolerance=0.1)
    assert near("0.2") and near("0.4") and near("0.25")  # 0.3 - 0.2 is above 0.1 in floats
    assert not near("0.4000000000000000000000000000000000001")
    assert not near("1e999") and not near("-1e999")
    assert matches("number", "1e30", tolerance=1)("1000000000000000000000000000001")


@pytest.mark.parametrize(
    ("name", "truths"),
    [
        ("exact", ["", " ", None, True, ["a"], {}]),
        ("number", ["", "seven", "1/2", "nan", float("nan"), float("inf"), None, False, [1]]),
        ("choice", ["K", "AB", "", "1", None, 1]),
        ("math", [r"\input{x}", "seven apples", "", "(1", None, "9^{9^9}", "x" * 301, "²"]),
        (
            "regex",
            ["(", "[", "a{2000}", r"(a)\1", "(?=a)", "\\pL{200}", "a" * 1001, "", None, "\ud800"],
        ),
        ("json", ["", "{", "[]", '{"type": "no"}', 7, None, ["a"], {"pattern": "a"}]),
    ],
)
def test_a_truth_that_is_none_is_told(name: str, truths: list[Truth]) -> None:
    for truth in truths:
        with pytest.raises(ValueError):
            matches(name, truth)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("levenshtein", {}, "there is no check 'levenshtein'; there are exact"),
        ("exact", {"tolerance": 1}, "no parameter 'tolerance'; there are: none"),
        ("number", {"tolerance": "1"}, "wrong type"),
        ("number", {"tolerance": True}, "wrong type"),
        ("number", {"tolerance": -1}, "at least 0"),
        ("number", {"tolerance": float("nan")}, "at least 0"),
        ("number", {"tolerance": float("inf")}, "at least 0"),
        ("regex", {"pattern": "("}, "missing"),
        ("json", {"schema": "{"}, "Expecting"),
    ],
)
def test_a_mistake_in_the_parameters_is_told(
    name: str, params: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        build_check(name, params)


def test_with_a_pattern_or_schema_for_all_rows_the_truth_is_an_example() -> None:
    dates = build_check("regex", {"pattern": "[0-9]{4}-[0-9]{2}"})
    assert dates("2026-01")("1999-12")
    numbers = build_check("json", {"schema": SCHEMA})
    assert numbers('{"n": 1}')('{"n": 2}') and numbers({"n": 1})('{"n": 2}')
    for check, truth in ((dates, "January"), (numbers, "{}"), (numbers, None)):
        with pytest.raises(ValueError, match="does not"):
            check(truth)


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_hostile_answer_is_correct_or_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for answers in hostile_answers(canary).values():
        for answer in answers:
            assert not EXAMPLES[name](answer), answer[:100]
    assert not canary.exists()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.text()
    | st.text(st.sampled_from("0123456789.,+-eE$%\\ \ud800"))
    | st.text(st.sampled_from('{}[]",:1n\\ \ud800')),
)
def test_whatever_the_answer_is_it_is_correct_or_not(answer: str) -> None:
    for name, check in EXAMPLES.items():
        if name != "math":
            assert check(answer) in (True, False)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9
    )
)
def test_a_number_is_found_with_and_without_commas(value: object) -> None:
    assert matches("number", str(value))(f"{value:,}")


def test_heavy_libraries_are_not_imported_with_the_checks() -> None:
    names = "{'sympy', 'math_verify', 'jsonschema', 're2'}"
    code = f"import sys, rewards.tasks.checks; sys.exit(str({names} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stderr.strip() == "set()"


def test_only_checks_by_heuristics_are_not_deterministic() -> None:
    assert {name for name, kind in CHECKS.items() if not kind.deterministic} == {"math"}
