"""The Task seam, and the one place that knows which kinds of task exist."""

import re
from typing import Protocol

import msgspec

from rewards.extract import AnswerFormat
from rewards.question import Expansion


class TaskSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of a manifest, as data: what every node must agree on."""

    name: str
    """Name within the manifest: [a-z0-9_]{1,64}."""
    kind: str
    """Which file of rewards/tasks/ builds it, e.g. "reasoning_gym"."""
    dataset: str
    """Which data set of that kind, e.g. "base_conversion"."""
    version: str
    """Pinned version of the library or data that defines it, e.g. "0.1.25"."""
    params: dict[str, int | float | bool | str | list[int | float | bool | str]] = {}
    """Parameters of the data set; unknown ones are refused."""
    answer_format: str = "last_line"
    """How the final answer is marked: "last_line" or "tags" (rewards/extract.py)."""
    digest: str = ""
    """SHA-256 of its expansions and verdicts (rewards/digest.py); empty only while authoring."""

    @property
    def deterministic(self) -> bool:
        """Whether a verdict depends on question and answer alone: then, and only then, two nodes
        that differ about one cannot both be right. Not so where a checker measures time."""
        return self.kind == "reasoning_gym"


class Task(Protocol):
    """A kind of question that anybody can expand and judge. Lives inside a worker process."""

    spec: TaskSpec

    def expand(self, index: int) -> Expansion:
        """The question at `index`, the same on every machine. 0 <= index < MAX_INDEX."""
        ...

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        """Whether the answer is correct, strictly. May raise or hang on hostile text: the worker
        is killed and the result is Unscorable, never a guess."""
        ...


class TaskRefused(ValueError):
    """This machine cannot or must not build the task; the message says why and what to change."""


def build_task(spec: TaskSpec) -> Task:
    """The task that a manifest's entry describes.

    Imports what the kind needs (2 s and 100 MiB for reasoning_gym), so call it in a worker.

    Raises:
        TaskRefused: bad name, unknown kind or answer format, data set not allowed, another
            version installed, a parameter unknown or out of range.

    Not checked: whether the task's digest is `spec.digest` (rewards/digest.py).
    """
    if not re.fullmatch("[a-z0-9_]{1,64}", spec.name):
        raise TaskRefused(f"task name {spec.name!r}: use 1 to 64 of a-z, 0-9 and _")
    if spec.answer_format not in list(AnswerFormat):
        known = ", ".join(AnswerFormat)
        raise TaskRefused(
            f"task {spec.name!r}: unknown answer_format {spec.answer_format!r}; there are {known}"
        )
    match spec.kind:
        case "reasoning_gym":
            from rewards.tasks import reasoning_gym

            return reasoning_gym.build(spec)
    raise TaskRefused(f"task {spec.name!r}: unknown kind {spec.kind!r}; there is reasoning_gym")
