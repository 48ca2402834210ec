"""The verifier as the trio side sees it: one answer at a time, never blocking the loop."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import trio

from rewards.question import (
    Answer,
    Expansion,
    Judged,
    Question,
    Reason,
    Unscorable,
    Verdict,
)
from rewards.verifier import Verifier

MAX_CALLS = 8
"""Threads that may wait for the verifier at once."""

_T = TypeVar("_T")


class Judge(Protocol):
    """Raises VerifierBroken or VerifierClosed where nothing can be judged any more."""

    async def expand(self, question: Question) -> Expansion | Unscorable:
        """What the address expands to."""
        ...

    async def judge(self, question: Question, answer: Answer) -> Verdict:
        """The verdict on one answer."""
        ...

    async def judge_afresh(
        self, question: Question, answers: Sequence[Answer]
    ) -> tuple[Verdict, ...]:
        """The verdicts of a worker that has judged nothing before."""
        ...


class VerifierJudge:
    """Judges by a Verifier, in threads. On cancellation a thread finishes its call unheard."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._limiter = trio.CapacityLimiter(MAX_CALLS)

    async def expand(self, question: Question) -> Expansion | Unscorable:
        """See Judge."""
        return (await self._in_thread(lambda: self._verifier.expand([question])))[0]

    async def judge(self, question: Question, answer: Answer) -> Verdict:
        """See Judge."""
        verdicts = await self._in_thread(lambda: self._verifier.judge([(question, [answer])]))
        return verdicts[0][0]

    async def judge_afresh(
        self, question: Question, answers: Sequence[Answer]
    ) -> tuple[Verdict, ...]:
        """See Judge."""
        return tuple(await self._in_thread(lambda: self._verifier.judge_afresh(question, answers)))

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(  # trio-typing's stubs are older than this argument
            call,
            abandon_on_cancel=True,  # type: ignore[call-arg]
            limiter=self._limiter,
        )


class ScriptedJudge:
    """The Judge of tests: question i of a task asks for i, and "i" is the correct answer.

    The answer "hang" meets a limit.
    """

    def __init__(self, delay_s: float = 0.0, is_wrong: bool = False) -> None:
        """
        Args:
            delay_s: of every call, by trio's clock.
            is_wrong: turns every verdict around, like a broken installation.
        """
        self.delay_s = delay_s
        self.is_wrong = is_wrong
        self.is_fickle = False
        """Whether a fresh worker finds the opposite of what the first found."""
        self.calls: Counter[str] = Counter()
        """Of each method."""

    async def expand(self, question: Question) -> Expansion | Unscorable:
        """See Judge."""
        self.calls["expand"] += 1
        await trio.sleep(self.delay_s)
        text = f"{question.task}: say {question.index}"
        return Expansion(question, text, str(question.index))

    async def judge(self, question: Question, answer: Answer) -> Verdict:
        """See Judge."""
        self.calls["judge"] += 1
        await trio.sleep(self.delay_s)
        return self._verdict(question, answer, self.is_wrong)

    async def judge_afresh(
        self, question: Question, answers: Sequence[Answer]
    ) -> tuple[Verdict, ...]:
        """See Judge."""
        self.calls["judge_afresh"] += 1
        await trio.sleep(self.delay_s)
        is_wrong = self.is_wrong != self.is_fickle
        return tuple(self._verdict(question, answer, is_wrong) for answer in answers)

    def _verdict(self, question: Question, answer: Answer, is_wrong: bool) -> Verdict:
        if answer.text == "hang":
            return Unscorable(Reason.DEADLINE)
        return Judged((answer.text == str(question.index)) != is_wrong)
