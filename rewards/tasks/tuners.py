"""Changes to reasoning-gym's data set objects, each made once, after the object is made.

They make questions depend on the seed that is set for each (rewards/tasks/reasoning_gym.py), and
on nothing else.
"""

import operator
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from random import Random
from typing import Any


class _SortedLetters(tuple[str, ...]):
    """Replaces a set of letters whose order would depend on PYTHONHASHSEED."""

    def __sub__(self, other: set[str]) -> "_SortedLetters":
        return _SortedLetters(letter for letter in self if letter not in other)


def sort_letters(dataset: Any) -> None:
    dataset.letters = _SortedLetters(sorted(dataset.letters))


def sort_monomials(dataset: Any) -> None:
    """Makes the order of monomials independent of PYTHONHASHSEED."""
    unsorted = dataset._get_monomials
    dataset._get_monomials = lambda rng: sorted(unsorted(rng), key=str)


class _PresentSeed:
    """A configuration whose seed is the data set's, for one that reads the configuration's."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._config = dataset, dataset.config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset if name == "seed" else self._config, name)


def follow_seed(dataset: Any) -> None:
    """Lets survo's questions depend on the data set's seed, which is set for each."""
    dataset.config = _PresentSeed(dataset)


class _PresentQuestions:
    """The questions that acre would have made at its start, had it had the present seed."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> Any:
        made = self._dataset._generate_questions()
        return made[self._dataset.seed % len(made)]


def make_questions_late(dataset: Any) -> None:
    """Lets acre make some 40 questions for each seed, and give one."""
    dataset.config.size = 10
    dataset.questions = _PresentQuestions(dataset)


_SOUND_TEMPLATES = (0, 1, 5, 7, 8, 9)


class _PresentTemplate:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> int:
        return Random(f"template {self._dataset.seed}").choice(_SOUND_TEMPLATES)


def use_sound_templates(dataset: Any) -> None:
    """Draws one of six of gsm_symbolic's ten templates for each seed. Of the others, 2, 3 and 4
    round persons, hours and pans down, and 6 does not say what is a multiple of what."""
    dataset.task_indices = _PresentTemplate(dataset)


class _Formula:
    """What countdown and puzzle24 make of their symbols, without sympy, which takes most of a
    second for one question. The right operand is always a symbol."""

    def __init__(self, text: str, parts: tuple[str, "_Formula", "_Formula"] | None = None) -> None:
        self._text, self._parts = text, parts

    def __str__(self) -> str:
        return self._text

    def subs(self, numbers: Mapping["_Formula", int]) -> Fraction:
        """The value with numbers for symbols.

        Raises:
            ZeroDivisionError.
        """
        if self._parts is None:
            return Fraction(numbers[self])
        sign, left, right = self._parts
        return _OPERATIONS[sign](left.subs(numbers), right.subs(numbers))

    def __add__(self, other: "_Formula") -> "_Formula":
        return _Formula(f"{self} + {other}", ("+", self, other))

    def __sub__(self, other: "_Formula") -> "_Formula":
        return _Formula(f"{self} - {other}", ("-", self, other))

    def __mul__(self, other: "_Formula") -> "_Formula":
        return _Formula(f"{self._grouped()}*{other}", ("*", self, other))

    def __truediv__(self, other: "_Formula") -> "_Formula":
        return _Formula(f"{self._grouped()}/{other}", ("/", self, other))

    def _grouped(self) -> str:
        return f"({self})" if self._parts and self._parts[0] in "+-" else str(self)


_OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def _symbols(names: str) -> tuple[_Formula, ...]:
    """As sympy.symbols of "x:4" and "x_0:4"."""
    prefix, _, number = names.partition(":")
    return tuple(_Formula(f"{prefix.rstrip('0')}{i}") for i in range(int(number)))


def without_sympy(dataset: Any) -> None:
    """Replaces the symbols of the data set's module, for the whole process."""
    vars(sys.modules[type(dataset).__module__])["symbols"] = _symbols
