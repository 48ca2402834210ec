"""Verdicts of a run: one verifier for all its nodes, which remembers what it found.

A rollout is judged by its author and by everybody who fetches it. Verdicts depend on nothing but
question and answer, so within a run they are found once. What is left out: second opinions of fresh
workers (there is one installation, and nobody to doubt it), and the seconds that an ordinary answer
holds a worker, which differ from run to run and are far below every budget.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Generic, TypeVar

from node.config import NodeConfig
from node.tasks import find_usable_tasks, open_verifier
from rewards.question import Answer, Expansion, Question, Reason, Unscorable, Verdict
from rewards.tasks import TaskFacts
from rewards.verifier import Verifier
from swarm.manifest import Manifest, load_manifest

MAX_EXPANSIONS = 2**14
MAX_VERDICTS = 2**17
"""Remembered: those of some hundred rounds of eight nodes; beyond, what was used least lately is
found again."""

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Found(Generic[_Key, _Value]):
    """What was found for the keys used last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[_Key, _Value] = OrderedDict()

    def look_up(
        self, keys: Sequence[_Key], find: Callable[[list[_Key]], Sequence[_Value]]
    ) -> list[_Value]:
        """The value of each key, in order; `find` is asked once for all that are not here."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._values]
        found = dict(zip(missing, find(missing), strict=True)) if missing else {}
        values = [found[key] if key in found else self._values[key] for key in keys]
        for key, value in zip(keys, values, strict=True):
            self._values[key] = value
            self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)
        return values


class RememberingVerifier(Verifier):
    """A verifier that finds everything once. Used by one thread at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As of Verifier."""
        super().__init__(*args, **kwargs)
        self._expansions = Found[Question, Expansion | Unscorable](MAX_EXPANSIONS)
        self._verdicts = Found[tuple[Question, str, bool], Verdict](MAX_VERDICTS)

    def expand(self, questions: Sequence[Question]) -> list[Expansion | Unscorable]:
        """See Verifier."""
        return self._expansions.look_up(questions, super().expand)

    def judge(
        self, requests: Sequence[tuple[Question, Sequence[Answer]]], afresh: bool = False
    ) -> list[list[Verdict]]:
        """See Verifier; nothing is judged afresh."""
        keys = [
            (question, answer.text, answer.finished)
            for question, answers in requests
            for answer in answers
        ]
        verdicts = iter(self._verdicts.look_up(keys, self._judge_new))
        return [[next(verdicts) for _ in answers] for _, answers in requests]

    def _judge_new(self, keys: Sequence[tuple[Question, str, bool]]) -> list[Verdict]:
        requests = [(question, [Answer(text, finished)]) for question, text, finished in keys]
        return [verdict for (verdict,) in super().judge(requests)]


class InlineJudge:
    """The `Judge` (swarm/judge.py) of a run: asks the verifier at once, in the caller's thread.

    An answer or question that met a deadline costs its author that deadline, anything else nothing.
    """

    def __init__(self, verifier: Verifier, deadline_s: float) -> None:
        self._verifier = verifier
        self._deadline_s = deadline_s

    async def expand(self, question: Question) -> tuple[Expansion | Unscorable, float]:
        """See Judge."""
        (found,) = self._verifier.expand([question])
        return found, self._held_s(found)

    async def judge(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """See Judge."""
        ((verdict,),) = self._verifier.judge([(question, [answer])])
        return verdict, self._held_s(verdict)

    async def judge_afresh(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """See Judge; what was found before is what a fresh worker would find."""
        return await self.judge(question, answer)

    def _held_s(self, found: Expansion | Verdict) -> float:
        is_late = isinstance(found, Unscorable) and found.reason is Reason.DEADLINE
        return self._deadline_s if is_late else 0.0


class Judging:
    """Everything that is needed to expand and judge; may serve one run after another."""

    def __init__(self, verifier: Verifier, manifest: Manifest, deadline_s: float) -> None:
        self.verifier = verifier
        self.judge = InlineJudge(verifier, deadline_s)
        self.manifest = manifest

    @cached_property
    def tasks(self) -> Mapping[str, TaskFacts]:
        """Those of the manifest that this machine judges as it says: waits for the workers.

        Raises:
            ConfigError: none.
            VerifierBroken: the tasks cannot be expanded and judged here.
        """
        usable, _ = find_usable_tasks(self.verifier, self.manifest)
        return usable


@contextmanager
def open_judging(config: NodeConfig) -> Iterator[Judging]:
    """Workers for the manifest that the settings name; returns while they still start.

    Raises:
        ConfigError: a file of rows is missing, or is not the one that the manifest pins.
        ManifestError: the manifest is wrong.
    """
    manifest = load_manifest(config.manifest_file)
    with open_verifier(config, manifest, kind=RememberingVerifier) as verifier:
        yield Judging(verifier, manifest, config.verify.deadline_s)
