import json
from collections.abc import Callable

import pytest

from rewards.program import Program, Ran
from rewards.tasks import TaskRefused, TaskSpec
from rewards.tasks.code import (
    MAX_NESTING,
    MAX_SOURCE_BYTES,
    MAX_TESTS_BYTES,
    CodeLimits,
    build,
    code_limits,
    parse_tests,
    passed,
    program,
)

STDIN = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
CALLS = {"inputs": [[1, 2], [[3], {"é": None}]], "outputs": [3, [True, 0.5]], "fn_name": "add"}


def results(*values: object) -> Ran:
    return Ran(tuple(json.dumps(value) for value in values))


def test_tests_become_a_program_that_knows_inputs_only() -> None:
    limits = CodeLimits(cpu_s=2, memory_mib=128)
    made = program("pass", parse_tests(STDIN), limits)
    assert made == Program("pass", ("1 2\n", "3 4\n"), "", 2, 128, 65536)
    made = program("pass", parse_tests(json.dumps(CALLS)), limits)
    assert made == Program("pass", ("[1, 2]", '[[3], {"\\u00e9": null}]'), "add", 2, 128, 65536)


@pytest.mark.parametrize("tests", [STDIN, CALLS])
def test_text_and_value_are_the_same_tests(tests: dict[str, object]) -> None:
    assert parse_tests(json.dumps(tests)) == parse_tests(tests)


def test_a_program_that_is_too_long_is_wrong() -> None:
    tests = parse_tests(STDIN)
    assert isinstance(program("é" * (MAX_SOURCE_BYTES // 2), tests, CodeLimits()), Program)
    assert program("é" * (MAX_SOURCE_BYTES // 2) + "x", tests, CodeLimits()) is False


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested too deep"),
        ('{"inputs": [[NaN]], "outputs": [1], "fn_name": "f"}', "NaN is not JSON"),
        (5, "tests are an object"),
        ({"inputs": []}, "tests are an object"),
        ({"inputs": "ab", "outputs": "ab"}, "are lists"),
        ({"inputs": [], "outputs": []}, "there are 0 tests"),
        ({"inputs": ["1"] * 65, "outputs": ["1"] * 65}, "there are 65 tests"),
        ({"inputs": ["1", "2"], "outputs": ["1"]}, "2 inputs have 1 outputs"),
        ({"inputs": [1], "outputs": ["1"]}, "without fn_name inputs and outputs are strings"),
        ({"inputs": [1], "outputs": [1], "fn_name": "f"}, "list of the function's arguments"),
        ({"inputs": [[]], "outputs": [1], "fn_name": "f()"}, "not the name of a function"),
        ({"inputs": [[]], "outputs": [1], "fn_name": ["f"]}, "not the name of a function"),
        ({"inputs": [[]], "outputs": [{1}], "fn_name": "f"}, "no form in JSON"),
        ({"inputs": [[10**5000]], "outputs": [1], "fn_name": "f"}, "no form in JSON"),
        ({"inputs": [[]], "outputs": [1e999], "fn_name": "f"}, "no form in JSON"),
        ({"inputs": [""], "outputs": [" \n"]}, "all outputs are empty"),
        ({"inputs": [[]], "outputs": [None], "fn_name": "f"}, "all outputs are empty"),
        ({"inputs": ["x" * MAX_TESTS_BYTES], "outputs": ["1"]}, "bytes; up to"),
        ({"inputs": [""], "outputs": ["x" * 65537]}, "more than 65536 bytes"),
        ({"inputs": ["\ud800"], "outputs": ["1"]}, "surrogate"),
        ({"inputs": [""], "outputs": ["\udc80"]}, "surrogate"),
    ],
)
def test_tests_that_cannot_be_run_are_refused(tests: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_tests(tests)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}])
def test_deep_arguments_and_results_are_refused(wrap: Callable[[object], object]) -> None:
    nested: object = 0
    for _ in range(MAX_NESTING - 1):  # a list of arguments is a level
        nested = wrap(nested)
    tests = parse_tests({"inputs": [[nested]], "outputs": [nested], "fn_name": "f"})
    assert passed(tests, results(nested))
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_tests({"inputs": [[wrap(nested)]], "outputs": [1], "fn_name": "f"})
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_tests({"inputs": [[]], "outputs": [wrap(wrap(nested))], "fn_name": "f"})


@pytest.mark.parametrize(
    ("put_out", "is_correct"),
    [
        (("3\n", "7\n"), True),
        (("3", "7  \r\n\n \n"), True),
        (("3\n", " 7\n"), False),
        (("3\n", "7\u00a0\n"), False),
        (("3\n", "7.0\n"), False),
        (("3\n", "\n7\n"), False),
        (("3\n", ""), False),
        (("3\n", None), False),
        (("3\n",), False),
        ((), False),
        (("3\n", "7\n", "7\n"), False),
        (("7\n", "3\n"), False),
    ],
)
def test_standard_output_is_compared_but_for_trailing_space(
    put_out: tuple[str | None, ...], is_correct: bool
) -> None:
    assert passed(parse_tests(STDIN), Ran(put_out)) is is_correct


def test_white_space_within_the_output_counts() -> None:
    tests = parse_tests({"inputs": [""], "outputs": ["a b\n\n  c\n"]})
    assert passed(tests, Ran(("a b \n\t\n  c",)))
    for put_out in ("a  b\n\n  c\n", "a b\n  c\n", "a b\n\nc\n", "a b\n\n  c\nd"):
        assert not passed(tests, Ran((put_out,)))


@pytest.mark.parametrize(
    ("expected", "result", "is_same"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (1.0, 1, True),
        (1, True, False),
        (True, 1, False),
        (False, 0, False),
        (0, None, False),
        ("1", 1, False),
        (0.3, 0.1 + 0.2, True),
        (1e12, 1e12 + 1, True),
        (0.5, 0.5 + 1e-8, False),
        (1, 1 + 1e-8, False),
        (10**12, 10**12 + 1, False),
        (2**100, 2**100, True),
        (2**100, 2**100 + 1, False),
        (0.5, 10**400, False),
        ([1, [2]], (1, (2,)), True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([1], {"0": 1}, False),
        ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {}, False),
        ("a ", "a", False),
    ],
)
def test_results_are_compared_as_json(expected: object, result: object, is_same: bool) -> None:
    tests = parse_tests({"inputs": [[]], "outputs": [expected], "fn_name": "f"})
    assert passed(tests, results(result)) is is_same


@pytest.mark.parametrize(
    "text",
    ["", "{", "1 1", "NaN", "Infinity", "1e999", "9" * 5000, "[" * 60_000, "[" * 900 + "]" * 900],
)
def test_a_forged_result_is_wrong(text: str) -> None:
    for expected in (1.5, [[[]], 1]):
        tests = parse_tests({"inputs": [[]], "outputs": [expected], "fn_name": "f"})
        assert not passed(tests, Ran((text,)))


def test_limits_are_parameters_of_the_task() -> None:
    assert code_limits({"check": "code"}) == CodeLimits(4, 512)
    assert code_limits({"cpu_s": 30, "memory_mib": 64}) == CodeLimits(30, 64)


@pytest.mark.parametrize(
    "params",
    [
        *({"cpu_s": value} for value in (0, 31, 1.5, True)),
        *({"memory_mib": value} for value in (63, 2049, "64")),
    ],
)
def test_limits_out_of_range_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cpu_s|memory_mib"):
        code_limits(params)


def test_the_kind_code_checks_nothing_else() -> None:
    spec = TaskSpec("odd", "code", "rows.jsonl", "sha256:" + "0" * 64, {"check": "number"})
    with pytest.raises(TaskRefused, match="no check 'number'"):
        build(spec, None)
