"""The verifier as the trio side sees it: one answer at a time, never blocking the loop.

Whoever judges for peers says what it cost, so that it can be budgeted (swarm/budget.py).
"""

from collections import Counter
from collections.abc import Callable, Mapping
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

_T = TypeVar("_T")


class Judge(Protocol):
    """Every method also returns the seconds for which a worker was held, without those of waiting
    for one.

    Raises VerifierBroken or VerifierClosed where nothing can be judged any more.
    """

    async def expand(self, question: Question) -> tuple[Expansion | Unscorable, float]:
        """What the address expands to."""
        ...

    async def judge(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """The verdict on one answer."""
        ...

    async def judge_afresh(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """The verdict of a worker that has judged nothing before."""
        ...


class VerifierJudge:
    """Judges by a Verifier, in threads. On cancellation a thread finishes its call unheard."""

    def __init__(self, verifier: Verifier, num_workers: int = 1) -> None:
        """
        Args:
            num_workers: of the verifier. All but one of them may be busy here at once, so that one
                is always there for the node's own answers; where there is only one, an own call
                waits for one item of a peer at most.
        """
        self._verifier = verifier
        self._limiter = trio.CapacityLimiter(max(1, num_workers - 1))

    async def expand(self, question: Question) -> tuple[Expansion | Unscorable, float]:
        """See Judge."""
        return await self._in_thread(lambda: self._verifier.expand_one(question))

    async def judge(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """See Judge."""
        return await self._in_thread(lambda: self._verifier.judge_one(question, answer))

    async def judge_afresh(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """See Judge."""
        return await self._in_thread(lambda: self._verifier.judge_one(question, answer, True))

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(  # trio-typing's stubs are older than this argument
            call,
            abandon_on_cancel=True,  # type: ignore[call-arg]
            limiter=self._limiter,
        )


class NoJudge:
    """Of a node that wants nothing of its peers, so that nobody asks it."""

    async def expand(self, question: Question) -> tuple[Expansion | Unscorable, float]:
        """See Judge."""
        raise AssertionError("a node without a verifier has fetched something")

    async def judge(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """See Judge."""
        raise AssertionError("a node without a verifier has fetched something")

    judge_afresh = judge


class ScriptedJudge:
    """The Judge of tests: question i of a task asks for i, and "i" is the correct answer.

    The answer "hang" meets a limit.
    """

    def __init__(
        self, delay_s: float = 0.0, is_wrong: bool = False, costs_s: Mapping[str, float] = {}
    ) -> None:
        """
        Args:
            delay_s: of every call, by trio's clock: waiting, which costs nothing.
            is_wrong: turns every verdict around, like a broken installation.
            costs_s: text of an answer -> seconds for which it holds a worker, by trio's clock.
                Others, and questions, cost nothing.
        """
        self.delay_s = delay_s
        self.costs_s = costs_s
        self.is_wrong = is_wrong
        self.is_fickle = False
        """Whether a fresh worker finds the opposite of what the first found."""
        self.calls: Counter[str] = Counter()
        """Of each method."""
        self.held_s = 0.0
        """Seconds for which workers were held."""

    async def expand(self, question: Question) -> tuple[Expansion | Unscorable, float]:
        """See Judge."""
        self.calls["expand"] += 1
        await trio.sleep(self.delay_s)
        text = f"{question.task}: say {question.index}"
        return Expansion(question, text, str(question.index)), 0.0

    async def judge(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """See Judge."""
        self.calls["judge"] += 1
        return await self._judge(question, answer, self.is_wrong)

    async def judge_afresh(self, question: Question, answer: Answer) -> tuple[Verdict, float]:
        """See Judge."""
        self.calls["judge_afresh"] += 1
        return await self._judge(question, answer, self.is_wrong != self.is_fickle)

    async def _judge(
        self, question: Question, answer: Answer, is_wrong: bool
    ) -> tuple[Verdict, float]:
        cost_s = self.costs_s.get(answer.text, 0.0)
        await trio.sleep(self.delay_s + cost_s)
        self.held_s += cost_s
        if answer.text == "hang":
            return Unscorable(Reason.DEADLINE), cost_s
        return Judged((answer.text == str(question.index)) != is_wrong), cost_s
