"""Programs as answers: what the hidden tests of a row are, and which outputs pass them.

The tests of a row are JSON, as the data sets of the field have them:

    {"inputs": ["1 2\\n", "3 4\\n"], "outputs": ["3\\n", "7\\n"]}
    {"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "fn_name": "add"}

Without `fn_name` the program reads an input from standard input and writes the output to standard
output. With it an input is the list of the function's arguments, an output its result; the
function may be a method of a class `Solution`. A result is not wrapped in a list of one, as some
data sets have it: whoever makes the rows unwraps it.

Correct means that all tests pass. Whether they do can depend on the machine: time is limited. So
such a task is never deterministic, and a difference about it is charged to nobody.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from rewards.extract import ASCII_SPACE
from rewards.program import Program, Ran
from rewards.tasks import Task, TaskRefused, TaskSpec

MAX_TESTS = 64
MAX_TESTS_BYTES = 256 * 2**10
MAX_SOURCE_BYTES = 64 * 2**10
MAX_OUTPUT_BYTES = 64 * 2**10
"""Of what a program may put out for one test."""
MAX_NESTING = 64
"""Of lists and objects in arguments and results."""

FLOAT_TOLERANCE = 1e-9
"""Relative or absolute, whichever is more: the order of a sum may differ, the method not."""


class Tests(msgspec.Struct, frozen=True):
    """What a program has to do."""

    inputs: tuple[str, ...]
    """Standard input; with `function`, the JSON list of its arguments."""
    outputs: tuple[str, ...]
    """Standard output; with `function`, its result as JSON."""
    function: str = ""


class CodeLimits(msgspec.Struct, frozen=True):
    """What a program may use for all tests together: rules of the task."""

    cpu_s: Annotated[int, msgspec.Meta(ge=1, le=30)] = 4
    memory_mib: Annotated[int, msgspec.Meta(ge=64, le=2048)] = 512


def code_limits(params: Mapping[str, object]) -> CodeLimits:
    """The limits among a task's parameters; others are not looked at.

    Raises:
        ValueError: a limit is not an integer or out of range.
    """
    try:
        return msgspec.convert(params, CodeLimits)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def parse_tests(found: object) -> Tests:
    """The hidden tests of a row, from JSON text or what it stands for.

    Raises:
        ValueError: what is wrong with them, for the author of the data.
    """
    if isinstance(found, str):
        found = _load(found)
    if not isinstance(found, dict) or not {"inputs", "outputs"} <= found.keys():
        raise ValueError('tests are an object {"inputs": [...], "outputs": [...], "fn_name": ...}')
    inputs, outputs, function = found["inputs"], found["outputs"], found.get("fn_name") or ""
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise ValueError("inputs and outputs of tests are lists")
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs have {len(outputs)} outputs")
    if not 1 <= len(inputs) <= MAX_TESTS:
        raise ValueError(f"there are {len(inputs)} tests; from 1 to {MAX_TESTS} can be run")
    if not isinstance(function, str) or (function and not function.isidentifier()):
        raise ValueError(f"fn_name {function!r} is not the name of a function")
    if function and not all(isinstance(arguments, list) for arguments in inputs):
        raise ValueError("with fn_name each input is the list of the function's arguments")
    if not function and not all(isinstance(text, str) for text in [*inputs, *outputs]):
        raise ValueError("without fn_name inputs and outputs are strings")
    to_text = _dump if function else str
    tests = Tests(tuple(map(to_text, inputs)), tuple(map(to_text, outputs)), function)
    _check(tests)
    return tests


def program(source: str, tests: Tests, limits: CodeLimits) -> Program | bool:
    """What is to be run for an answer; False for one that is too long to be correct."""
    if len(source.encode()) > MAX_SOURCE_BYTES:
        return False
    return Program(
        source, tests.inputs, tests.function, limits.cpu_s, limits.memory_mib, MAX_OUTPUT_BYTES
    )


def passed(tests: Tests, ran: Ran) -> bool:
    """Whether all tests passed.

    Standard output: equal but for white space (ASCII) at the ends of lines and of the whole.

    Results: equal as JSON. Numbers by value, so that 1 is 1.0; true is not 1. Whole numbers are
    exact; where a fraction was expected or returned, FLOAT_TOLERANCE holds. A tuple is a list.
    """
    if len(ran.outputs) != len(tests.outputs):
        return False
    is_same = _is_same_result if tests.function else _is_same_output
    pairs = zip(tests.outputs, ran.outputs, strict=True)
    return all(put_out is not None and is_same(expected, put_out) for expected, put_out in pairs)


def build(spec: TaskSpec, data: Path | None) -> Task:
    """Rows whose check is `code`: kind `rows` under the name of what it checks.

    Raises:
        TaskRefused: as kind `rows`; another check.
    """
    from rewards.tasks.rows import build as build_rows  # imports this file

    if (check := spec.params.get("check", "code")) != "code":
        raise TaskRefused(f"task {spec.name!r}: kind 'code' has no check {check!r}; rows have")
    params = {**spec.params, "check": "code"}
    return build_rows(msgspec.structs.replace(spec, params=params), data)


def _check(tests: Tests) -> None:
    try:
        num_bytes = sum(len(text.encode()) for text in (*tests.inputs, *tests.outputs))
    except UnicodeEncodeError:
        raise ValueError("the tests hold half of a surrogate pair, which is not text") from None
    if num_bytes > MAX_TESTS_BYTES:
        raise ValueError(f"the tests have {num_bytes} bytes; up to {MAX_TESTS_BYTES} can be run")
    if any(len(text.encode()) > MAX_OUTPUT_BYTES for text in tests.outputs):
        raise ValueError(f"an output has more than {MAX_OUTPUT_BYTES} bytes, which no program has")
    nothing = "null" if tests.function else ""
    if all(text.strip(ASCII_SPACE) == nothing for text in tests.outputs):
        raise ValueError("all outputs are empty: a program that does nothing would be correct")


def _is_same_output(expected: str, put_out: str) -> bool:
    return _lines(expected) == _lines(put_out)


def _lines(text: str) -> list[str]:
    return [line.rstrip(ASCII_SPACE) for line in text.rstrip(ASCII_SPACE).split("\n")]


def _is_same_result(expected: str, put_out: str) -> bool:
    try:
        return _is_same(_load(expected), _load(put_out))
    except (ValueError, RecursionError):
        return False


def _is_same(expected: object, found: object) -> bool:
    match expected, found:
        case (bool() | None | str(), _) | (_, bool() | None | str()):
            return type(expected) is type(found) and expected == found
        case (int(), int()):
            return expected == found
        case (int() | float(), int() | float()):
            return _is_close(expected, found)
        case (list(), list()):
            return len(expected) == len(found) and all(map(_is_same, expected, found))
        case (dict(), dict()):
            return expected.keys() == found.keys() and all(
                _is_same(value, found[key]) for key, value in expected.items()
            )
    return False


def _is_close(expected: float, found: float) -> bool:
    try:
        return math.isclose(expected, found, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    except OverflowError:  # a whole number that no float holds
        return False


def _dump(value: object) -> str:
    if not _is_nested_within(MAX_NESTING, value):
        raise ValueError(f"an argument or output is nested more than {MAX_NESTING} deep")
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"an argument or output has no form in JSON: {error}") from None


def _is_nested_within(levels: int, value: object) -> bool:
    match value:
        case list():
            return levels > 0 and all(_is_nested_within(levels - 1, one) for one in value)
        case dict():
            return _is_nested_within(levels, list(value.values()))
    return True


def _load(text: str) -> object:
    """Raises: ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
