"""The Task seam, and the one place that knows which kinds of task exist."""

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

import msgspec

from rewards.extract import AnswerFormat
from rewards.program import Program, Ran
from rewards.question import Example, Expansion

ENTRY_POINTS = "sapo.tasks"
"""Group in which an installed package names its kinds: `kind = "package.module:build"`."""

KINDS = {
    "reasoning_gym": "rewards.tasks.reasoning_gym:build",
    "rows": "rewards.tasks.rows:build",
    "code": "rewards.tasks.code:build",
}
"""The kinds of this package. No other package can take their place."""


class TaskSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of a manifest, as data: what every node must agree on.

    A field at its default is left out of the swarm's id (swarm/manifest.py): a default never
    changes.
    """

    name: str
    """Name within the manifest: [a-z0-9_]{1,64}."""
    kind: str
    """What builds it: a key of KINDS, or an entry point of an installed package."""
    dataset: str
    """Which data set of that kind: "base_conversion"; of rows: a file (rewards/tasks/rows.py)."""
    version: str
    """What pins it: the version of the library or package that defines it, e.g. "0.1.25"; of rows
    "sha256:" and the hash of the file's bytes."""
    params: dict[str, int | float | bool | str | list[int | float | bool | str]] = {}
    """Parameters of the kind; unknown ones are refused."""
    answer_format: str = "last_line"
    """How the final answer is marked: "last_line", "tags", "boxed", "code_block"
    (rewards/extract.py)."""
    system: str = ""
    """What the policy is told before the question, as its system message; empty for none."""
    examples: tuple[Example, ...] = ()
    """Questions and answers shown before the question, as turns of the conversation."""
    digest: str = ""
    """SHA-256 of its expansions and verdicts (rewards/digest.py); empty only while authoring."""


class Task(Protocol):
    """A kind of question that anybody can expand and judge. Lives inside a worker process."""

    spec: TaskSpec
    deterministic: bool
    """Whether a verdict depends on question and answer alone: then, and only then, two nodes that
    differ about one cannot both be right. Not so where time or a library's heuristics decide."""
    num_questions: int | None
    """How many addresses lead to different questions; None if they are made without end."""

    def expand(self, index: int) -> Expansion:
        """The question at `index`, the same on every machine. 0 <= index < MAX_INDEX.

        Where several indices lead to one question, the expansion names the lowest.
        """
        ...

    def judge(self, index: int, answer_text: str, finished: bool) -> bool | Program:
        """Whether the answer is correct, strictly. May raise or hang on hostile text: the worker
        is killed and the result is Unscorable, never a guess.

        A Program is run elsewhere, and `compare` decides: no code of an answer runs in here."""
        ...


class ProgramTask(Task, Protocol):
    """A task whose answers are programs."""

    def compare(self, index: int, ran: Ran) -> bool:
        """Whether what the program of an answer put out is correct."""
        ...


Build = Callable[[TaskSpec, Path | None], Task]
"""From a manifest's entry, and the file of its data set where it has one, to the task. Runs within
the limits of rewards/sandbox.py; imports that need more belong to the module's top.

Raises TaskRefused."""


class TaskFacts(msgspec.Struct, frozen=True, tag="facts"):
    """What a worker found out about a task that it built."""

    digest: str
    """See rewards/digest.py."""
    deterministic: bool
    num_questions: int | None
    rule: str = ""
    """What counts as correct, in a few words for people: the task's `rule`, where it has one."""


class TaskRefused(ValueError):
    """This machine cannot or must not build the task; the message says why and what to change."""


def find_kind(spec: TaskSpec) -> Build:
    """The function that builds the spec's kind; imports its module (2 s for reasoning_gym).

    Raises:
        TaskRefused: bad name, no such kind, or a package in another version than the pinned one.
        ImportError, AttributeError: the package that names the kind is broken.
    """
    if not re.fullmatch("[a-z0-9_]{1,64}", spec.name):
        raise TaskRefused(f"task name {spec.name!r}: use 1 to 64 of a-z, 0-9 and _")
    if (own := KINDS.get(spec.kind)) is not None:
        found = EntryPoint(spec.kind, own, ENTRY_POINTS)
    else:
        found = _installed_kind(spec)
    build: Build = found.load()
    return build


def build_task(spec: TaskSpec, data: Path | None = None) -> Task:
    """The task that a manifest's entry describes.

    Args:
        data: the file of its data set, where it has one.

    Raises:
        TaskRefused: as `find_kind`; unknown answer format, data set not allowed, another version
            installed, a parameter unknown or out of range, data that is not the pinned one.

    Not checked: whether the task's digest is `spec.digest` (rewards/digest.py).
    """
    if spec.answer_format not in list(AnswerFormat):
        known = ", ".join(AnswerFormat)
        raise TaskRefused(
            f"task {spec.name!r}: unknown answer_format {spec.answer_format!r}; there are {known}"
        )
    return find_kind(spec)(spec, data)


def _installed_kind(spec: TaskSpec) -> EntryPoint:
    found = list(entry_points(group=ENTRY_POINTS, name=spec.kind))
    if not found:
        known = ", ".join(sorted({*KINDS, *entry_points(group=ENTRY_POINTS).names}))
        raise TaskRefused(
            f"task {spec.name!r}: unknown kind {spec.kind!r}; there are {known}. Other kinds come "
            "with packages: install the one that the swarm's description names"
        )
    if len(found) > 1:
        names = " and ".join(sorted(entry.dist.name if entry.dist else "?" for entry in found))
        raise TaskRefused(
            f"task {spec.name!r}: kind {spec.kind!r} is defined by {names}: uninstall all but one"
        )
    package = found[0].dist
    if package is None or package.version != spec.version:
        installed = "an unnamed package" if package is None else f"{package.name} {package.version}"
        raise TaskRefused(f"task {spec.name!r}: needs version {spec.version!r}, has {installed}")
    return found[0]
