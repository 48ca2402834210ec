"""The Task seam, and the one place that knows which kinds of task exist."""

from typing import Protocol

import msgspec

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
    params: dict[str, int | float | bool | str | list[int] | list[float] | list[str]] = {}
    """Parameters of the data set; unknown ones are refused."""
    answer_format: str = "last_line"
    """How the final answer is marked: "last_line" or "tags" (rewards/extract.py)."""
    digest: str = ""
    """SHA-256 of its expansions and verdicts (rewards/digest.py); empty only while authoring."""


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
