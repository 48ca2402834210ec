"""How much of the verifier's time peers may use: each author, and all of them together.

Counted are seconds for which an author's questions and answers held a worker, measured by the
verifier, never seconds of waiting. An author's debt is what it used less what has been forgiven
since, at a steady rate: a token bucket. Own answers are not counted anywhere.

NOT counted: the CPU time in which a killed worker's spare starts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from swarm.debts import Debts

MAX_AUTHORS = 1024
TOTAL_BURSTS = 2
"""Bursts that all authors together may use at once."""


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Seconds of verification, and shares of time.

    The defaults are for programs: 8 answers of 0.1 s are 0.8 s a rollout. A burst holds 37 of
    them, and what is forgiven 7 a minute for ever; of arithmetic a hundred times as many. An answer
    that hangs takes 5 s: six of them, and then one in 50 s.
    """

    author_burst_s: float = 30.0
    """What one author may use at once."""
    author_share: float = 0.1
    """Seconds per second that are forgiven to one author: a share of one worker's time."""
    total_share: float = 0.5
    """The same for all authors together."""


class Budget:
    """Who may still be judged. Bounded in memory: whoever owes nothing is forgotten, and of too
    many debtors the one that owes least."""

    def __init__(
        self, limits: BudgetLimits = BudgetLimits(), clock: Callable[[], float] = trio.current_time
    ) -> None:
        """
        Args:
            clock: seconds that never jump back.
        """
        self._limits = limits
        self._clock = clock
        self._paid_off: Debts[str] = Debts(MAX_AUTHORS)
        """The debt is so many seconds times the share."""
        self._total_paid_off = 0.0

    def spend(self, author: str, seconds: float) -> None:
        """Notes that an author's text held a worker for so long."""
        now, limits = self._clock(), self._limits
        self._total_paid_off = max(self._total_paid_off, now) + seconds / limits.total_share
        self._paid_off.add(author, seconds / limits.author_share, now)

    def allows(self, author: str) -> bool:
        """Whether one more answer of this author may be judged now."""
        return self._debt_s(author) < self._limits.author_burst_s

    def has_room(self, author: str) -> bool:
        """Whether to fetch from this author: half a burst is free. So whoever was cut off is
        fetched from again when whole rollouts fit, and not for one answer of one."""
        return self._debt_s(author) <= self._limits.author_burst_s / 2

    @property
    def wait_s(self) -> float:
        """Seconds until anybody's next answer may be judged: 0 while all together are within
        their bound."""
        limits = self._limits
        burst_s = TOTAL_BURSTS * limits.author_burst_s
        return max(0.0, self._total_paid_off - self._clock() - burst_s / limits.total_share)

    def _debt_s(self, author: str) -> float:
        return self._paid_off.left_s(author, self._clock()) * self._limits.author_share
