"""Tasks made of one data set of the reasoning-gym library: index -> question, answer -> verdict."""

import contextlib
import decimal
import hashlib
import importlib
import io
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reasoning_gym.factory import DATASETS

from rewards.extract import AnswerFormat, final_answer, instruction
from rewards.question import MAX_INDEX, Expansion, Question
from rewards.sandbox import shadow_eval
from rewards.tasks import TaskRefused, TaskSpec
from rewards.tasks.audit import ALLOWED, Audited, why_not
from rewards.tasks.rules import Item, is_correct

LIBRARY = "reasoning-gym"

# Their scorers, which are not called, eval the answer. In other modules (basic_arithmetic,
# bitwise_arithmetic) eval reads the generator's own expressions and is needed.
shadow_eval(
    *(
        importlib.import_module(f"reasoning_gym.{name}")
        for name in (
            "algorithmic.binary_matrix",
            "algorithmic.number_sorting",
            "algorithmic.spiral_matrix",
            "algorithmic.string_insertion",
            "games.n_queens",
        )
    )
)

_NOT_PARAMETERS = {"seed", "size", "data_file"}
"""Fields of the library's configurations that no manifest sets; the last one is a path."""

_MAX_ATTEMPTS = 64
"""Seeds tried for one question. Each task needs less than 3 on average, at its defaults."""

_GAVE_UP = (ArithmeticError, ValueError, RuntimeError)
"""What the library's generators raise for a seed that gives no question."""


class ReasoningGymTask:
    """One data set with fixed parameters. Question i depends on the task's name and i alone."""

    def __init__(self, spec: TaskSpec, dataset: Any, audited: Audited) -> None:
        self.spec = spec
        self.deterministic = True
        self.num_questions = None
        self.rule = audited.rule.__name__
        self._dataset = dataset
        self._audited = audited
        self._instruction = instruction(spec.answer_format)
        # the answers of a group come one after the other, and some questions are slow to make
        self._item: Callable[[int], Item] = lru_cache(maxsize=16)(self._find_item)

    def expand(self, index: int) -> Expansion:
        """The question at `index`, the same in every process.

        Raises:
            ValueError: the index is out of range, or no seed tried gave a sound question.
        """
        item = self._item(index)
        question = Question(self.spec.name, index)
        text = item.text.strip() + self._instruction
        return Expansion(question, text, item.truth, self.spec.system, self.spec.examples)

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        """Whether the final answer in the text is correct under the data set's rule.

        Runs no code of the answer and takes about a millisecond for one of 16 kB.

        Raises:
            ValueError: as `expand`; never because of the answer.
        """
        item = self._item(index)
        answer = final_answer(answer_text, finished, self.spec.answer_format)
        return is_correct(self._audited.rule, answer, item)

    def _find_item(self, index: int) -> Item:
        if not 0 <= index < MAX_INDEX:
            raise ValueError(f"index {index} is not in [0, 2**53)")
        for attempt in range(_MAX_ATTEMPTS):
            item = self._generate(_seed(self.spec.name, index, attempt))
            if item is not None and is_correct(self._audited.rule, item.truth, item):
                return item
        raise ValueError(f"task {self.spec.name!r}: no sound question at index {index}")

    def _generate(self, seed: int) -> Item | None:
        # item i of every audited data set is made by Random(self.seed + i) alone: reseeding the
        # object is the same as making a new one, and up to 2,000 times cheaper
        self._dataset.seed = seed
        with (
            # decimal_arithmetic sets the thread's precision; others would round to it afterwards
            decimal.localcontext(decimal.Context(prec=28)),
            # the compiler of bf prints dots, and standard output may be a worker's pipe
            contextlib.redirect_stdout(io.StringIO()),
        ):
            try:
                return self._audited.read(self._dataset[0])
            except _GAVE_UP:
                return None


def _seed(name: str, index: int, attempt: int) -> int:
    """0 <= seed < 2**31, spread by hash: neighbouring seeds give reasoning-gym's same questions."""
    address = f"sapo-question-1\n{name}\n{index}\n{attempt}"
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:4]) >> 1


def build(spec: TaskSpec, data: Path | None = None) -> ReasoningGymTask:
    """The task of a spec whose kind is "reasoning_gym".

    Takes up to 1 s, since some data sets read a file first, and the time of one question.

    Raises:
        TaskRefused: data set not allowed, another version of the library, a parameter unknown,
            of the wrong type or out of range, or an answer format that the answers do not fit.
    """
    audited = ALLOWED.get(spec.dataset)
    if audited is None:
        raise _refusal(spec, f"data set {spec.dataset!r} is not allowed: {why_not(spec.dataset)}")
    if spec.version != (installed := version(LIBRARY)):
        raise _refusal(spec, f"needs {LIBRARY} {spec.version!r}, installed is {installed!r}")
    if audited.has_lines and spec.answer_format == AnswerFormat.LAST_LINE:
        raise _refusal(spec, "its answers have several lines; use answer_format = 'tags'")
    try:
        task = ReasoningGymTask(spec, _dataset(spec, audited), audited)
        task.expand(0)
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise _refusal(spec, f"its parameters are refused: {error}") from error
    return task


def _dataset(spec: TaskSpec, audited: Audited) -> Any:
    make, make_config = DATASETS[spec.dataset]
    defaults = vars(make_config())
    for name, value in spec.params.items():
        if name in _NOT_PARAMETERS or name not in defaults:
            known = ", ".join(sorted(defaults.keys() - _NOT_PARAMETERS))
            raise TypeError(f"there is no parameter {name!r}; there are {known}")
        if not _fits(value, defaults[name]):
            raise TypeError(f"{name} = {value!r}, but the default is {defaults[name]!r}")
        if isinstance(value, int | float) and value > audited.max_params.get(name, value):
            raise ValueError(f"{name} = {value!r} is above {audited.max_params[name]}")
    config = make_config(**spec.params, seed=0)
    if hasattr(config, "validate"):
        config.validate()
    dataset = make(config)
    if audited.tune is not None:
        audited.tune(dataset)
    return dataset


def _fits(value: object, default: object) -> bool:
    """Whether a manifest's value has the type of the library's default."""
    if isinstance(default, list | tuple):
        return isinstance(value, list) and all(_fits(part, default[0]) for part in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _refusal(spec: TaskSpec, reason: str) -> TaskRefused:
    return TaskRefused(f"task {spec.name!r}: {reason}")
