"""Tasks made of the rows of a file: a column with questions, a column with what is correct.

Row = index % number of rows. Parameters name the columns and the check:

    question      column of the question's text ("question")
    truth         column of what is correct ("answer"); for "code" tests (rewards/tasks/code.py)
    check         "exact", "number", "choice", "math", "regex", "json", or "code"
    tolerance, pattern, schema   of number, regex, json (rewards/tasks/checks.py); without pattern
                  or schema the truth is one
    truth_after   the truth is what follows the last occurrence of this text in its column
    choices       column with a list of texts, shown as lettered lines; the truth is then a letter,
                  or a whole number that counts from 0
    example       column with a correct answer, where the truth is none itself
    cpu_s, memory_mib            of code: for all tests of an answer together

A row is a question only if its own answer is correct. Building looks at a few rows spread over the
file, so that a wrong column or check is told at once; a bad row elsewhere is an error when its
question is asked for. It costs nothing but that question: the file is the same everywhere.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rewards.extract import ASCII_SPACE, final_answer, instruction, mark_answer
from rewards.program import Program, Ran
from rewards.question import MAX_INDEX, Expansion, Question
from rewards.tasks import Task, TaskRefused, TaskSpec
from rewards.tasks.checks import CHECKS, Check, Truth, build_check
from rewards.tasks.code import CodeLimits, Tests, code_limits, parse_tests, passed, program
from rewards.tasks.table import Table, listed, open_table, table_file

MAX_TEXT_BYTES = 65536
"""Of a row's question, and of its answer."""
NUM_SAMPLES = 16
"""Rows that are looked at while a task is built."""

_LETTERS = "ABCDEFGHIJ"
"""Those that the check "choice" reads."""

_ONLY_FOR = {
    "tolerance": ("number",),
    "pattern": ("regex",),
    "schema": ("json",),
    "choices": ("choice",),
    "example": ("regex", "json", "code"),
    "truth_after": ("exact", "number", "choice", "math"),
    "cpu_s": ("code",),
    "memory_mib": ("code",),
}
"""Parameters that mean something for some checks only."""

Column = Annotated[str, Meta(min_length=1, max_length=64)]


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the top of this file."""

    check: Literal["exact", "number", "choice", "math", "regex", "json", "code"]
    question: Column = "question"
    truth: Column = "answer"
    truth_after: Annotated[str, Meta(max_length=64)] = ""
    choices: Annotated[str, Meta(max_length=64)] = ""
    example: Annotated[str, Meta(max_length=64)] = ""
    tolerance: float = 0.0
    pattern: str = ""
    schema: str = ""
    cpu_s: int = CodeLimits().cpu_s
    memory_mib: int = CodeLimits().memory_mib

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that are read."""
        named = (self.question, self.truth, self.choices, self.example)
        return tuple(dict.fromkeys(filter(None, named)))

    @property
    def needs_example(self) -> bool:
        """Whether the truth is no answer, but what answers are judged by."""
        by_truth = {"code": True, "regex": not self.pattern, "json": not self.schema}
        return by_truth.get(self.check, False)

    def build_check(self) -> Check | None:
        """What judges answers where they are read; None for programs.

        Raises:
            ValueError: a parameter does not fit.
        """
        if self.check == "code":
            return None
        names = CHECKS[self.check].defaults
        return build_check(self.check, {name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True)
class Row:
    """A row as a question."""

    text: str
    """With the choices and the instruction how to answer."""
    truth: str
    """A correct final answer."""
    is_correct: Callable[[str], bool]
    """Of a final answer; of a program, whether it can be run at all."""
    tests: Tests | None = None
    """Of a program."""


class _Rows:
    """One file with fixed parameters: what all checks share."""

    def __init__(self, spec: TaskSpec, table: Table, params: Params) -> None:
        self.spec = spec
        self.deterministic = params.check != "code" and CHECKS[params.check].deterministic
        self.num_questions: int | None = table.num_rows
        self.rule = params.check
        self._table = table
        self._params = params
        self._check = params.build_check()
        # the answers of a group come one after the other
        self._row: Callable[[int], Row] = lru_cache(maxsize=16)(self._read)

    def expand(self, index: int) -> Expansion:
        """The question of a row, under the row's own number.

        Raises:
            ValueError: the index is out of range, or the row is no sound question; says why.
        """
        number = self._number(index)
        row = self._row(number)
        question = Question(self.spec.name, number)
        return Expansion(question, row.text, row.truth, self.spec.system, self.spec.examples)

    def _answered(self, index: int, answer_text: str, finished: bool) -> tuple[Row, str | None]:
        answer = final_answer(answer_text, finished, self.spec.answer_format)
        return self._row(self._number(index)), answer

    def _number(self, index: int) -> int:
        if not 0 <= index < MAX_INDEX:
            raise ValueError(f"index {index} is not in [0, 2**53)")
        return index % self._table.num_rows

    def _read(self, number: int) -> Row:
        try:
            row = self._make(self._table.row(number))
            marked = mark_answer(row.truth, self.spec.answer_format)
            answer = final_answer(marked, True, self.spec.answer_format)
            if answer is None or not row.is_correct(answer):
                raise ValueError(
                    f"its own answer {row.truth[:80]!r} is not correct by the check "
                    f"{self._params.check!r} in the answer format {self.spec.answer_format!r}"
                )
        except ValueError as error:
            raise ValueError(f"row {number} of {self.spec.dataset}: {error}") from None
        return row

    def _make(self, columns: dict[str, Any]) -> Row:
        params = self._params
        text = _text(columns, params.question)
        choices = _choices(columns, params.choices) if params.choices else []
        if choices:
            lines = [f"{letter}. {one}" for letter, one in zip(_LETTERS, choices, strict=False)]
            text = "\n".join([text, "", *lines])
        text += instruction(self.spec.answer_format)
        if len(text.encode()) > 2 * MAX_TEXT_BYTES:
            raise ValueError(f"question and choices together have {len(text)} characters")
        example = _text(columns, params.example) if params.example else ""
        if params.truth not in columns:
            raise ValueError(f"there is no column {params.truth!r}; there are {listed(columns)}")
        found = columns[params.truth]
        if self._check is None:
            return Row(text, example, lambda answer: answer.strip() == example, parse_tests(found))
        truth = _truth(found, params, len(choices))
        matches = self._check(truth)
        return Row(text, example or _bounded(_as_text(truth), params.truth), matches)


class RowsTask(_Rows):
    """Rows whose answers are compared where they are read."""

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        """Whether the final answer in the text is correct by the task's check.

        Raises:
            ValueError: as `expand`; never because of the answer.
        """
        row, answer = self._answered(index, answer_text, finished)
        return answer is not None and row.is_correct(answer)


class ProgramRowsTask(_Rows):
    """Rows whose answers are programs."""

    def judge(self, index: int, answer_text: str, finished: bool) -> bool | Program:
        """What is to be run; False where the text holds no program.

        Raises:
            ValueError: as `expand`; never because of the answer.
        """
        row, answer = self._answered(index, answer_text, finished)
        assert row.tests is not None
        return answer is not None and program(answer, row.tests, self._limits)

    def compare(self, index: int, ran: Ran) -> bool:
        """Whether the program passed all tests of the row.

        Raises:
            ValueError: as `expand`; never because of what the program put out.
        """
        tests = self._row(self._number(index)).tests
        assert tests is not None
        return passed(tests, ran)

    @property
    def _limits(self) -> CodeLimits:
        return CodeLimits(self._params.cpu_s, self._params.memory_mib)


def build(spec: TaskSpec, data: Path | None) -> Task:
    """The task of a file. Of kind "code" the check is "code" without being named.

    Reads the file once (rewards/tasks/table.py), then NUM_SAMPLES rows of it.

    Raises:
        TaskRefused: a parameter unknown, of the wrong type or out of place; a file that is missing,
            is not the pinned one or has no such column; a row among those sampled that is no sound
            question.
    """
    try:
        params = read_params(spec)
        file = table_file(spec)
        if data is None:
            raise ValueError(f"{file.name} is not here")
        task: Task = (ProgramRowsTask if params.check == "code" else RowsTask)(
            spec, open_table(data, file, params.columns), params
        )
        num_rows = task.num_questions or 0
        for number in sorted({place * num_rows // NUM_SAMPLES for place in range(NUM_SAMPLES)}):
            task.expand(number)
    except (ValueError, OSError) as error:
        raise TaskRefused(f"task {spec.name!r}: {error}") from error
    return task


def read_params(spec: TaskSpec) -> Params:
    """The task's parameters, checked as far as they can be without its file.

    Raises:
        ValueError: says which one is wrong.
    """
    known = Params.__struct_fields__
    if unknown := sorted(spec.params.keys() - set(known)):
        raise ValueError(f"there is no parameter {unknown[0]!r}; there are {', '.join(known)}")
    given = {"check": "code", **spec.params} if spec.kind == "code" else spec.params
    try:
        params = msgspec.convert(given, Params)
    except msgspec.ValidationError as error:
        raise ValueError(f"its parameters are refused: {error}") from None
    if spec.kind == "code" and params.check != "code":
        raise ValueError("of kind 'code' the check is 'code'")
    code_limits({"cpu_s": params.cpu_s, "memory_mib": params.memory_mib})
    for name, checks in _ONLY_FOR.items():
        if name in given and params.check not in checks:
            raise ValueError(f"{name} is for the check {' or '.join(checks)} only")
    if params.needs_example and not params.example:
        raise ValueError(f"the check {params.check!r} needs `example`: a column of correct answers")
    return params


def _text(columns: dict[str, Any], name: str) -> str:
    """A column's text without white space around it."""
    text = columns.get(name)
    if not isinstance(text, str):
        there = f"is {type(text).__name__}" if name in columns else "is missing"
        raise ValueError(f"column {name!r} {there}, not a text; there are {listed(columns)}")
    return _bounded(text.strip(ASCII_SPACE), name)


def _bounded(text: str, name: str) -> str:
    if not text or len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"column {name!r}: 1 to {MAX_TEXT_BYTES} bytes of text are allowed")
    return text


def _choices(columns: dict[str, Any], name: str) -> list[str]:
    found = columns.get(name)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"column {name!r} is not a list of texts; there are {listed(columns)}")
    if not 2 <= len(found) <= len(_LETTERS):
        raise ValueError(f"column {name!r}: {len(found)} choices; 2 to {len(_LETTERS)} are allowed")
    return [one.strip(ASCII_SPACE) for one in found]


def _truth(found: Truth, params: Params, num_choices: int) -> Truth:
    """What the check is given of a column."""
    if num_choices and type(found) is int:
        if not 0 <= found < num_choices:
            raise ValueError(f"column {params.truth!r}: {found} is none of {num_choices} choices")
        return _LETTERS[found]
    if params.truth_after:
        text = found if isinstance(found, str) else ""
        _, mark, found = text.rpartition(params.truth_after)
        if not mark:
            raise ValueError(f"column {params.truth!r} has no {params.truth_after!r}")
    return found.strip(ASCII_SPACE) if isinstance(found, str) else found


def _as_text(truth: Truth) -> str:
    """A truth as the answer that it is."""
    return truth if isinstance(truth, str) else json.dumps(truth)
