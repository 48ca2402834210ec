"""How many refusals there were when: counts by reason in buckets of time, since the start."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import msgspec

WIDTH_S = 300
NUM_BUCKETS = 288
"""A day."""


class RefusalBucket(msgspec.Struct, frozen=True):
    """The refusals of one stretch of time."""

    begin: float
    """Unix seconds: a multiple of the width."""
    refused: dict[str, int]
    """Reason -> count."""


class RefusalTimes:
    """Notes the totals again and again, and keeps by how much they grew. Bounded; in memory only,
    so that it begins anew with the process. Used from the trio thread."""

    def __init__(
        self,
        width_s: int = WIDTH_S,
        num_buckets: int = NUM_BUCKETS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            clock: Unix seconds.
        """
        self.width_s = width_s
        self.since = clock()
        """Unix seconds: nothing is known of before."""
        self._clock = clock
        self._totals: dict[str, int] | None = None
        self._buckets: deque[tuple[float, Counter[str]]] = deque(maxlen=num_buckets)

    def note(self, totals: Mapping[str, int]) -> None:
        """Takes in the present totals. The first ones are of earlier: they count for no time. A
        total that fell (charges that were taken back) counts as no refusal."""
        before, self._totals = self._totals, dict(totals)
        if before is None:
            return
        grown = {name: num - before.get(name, 0) for name, num in totals.items()}
        if more := {name: num for name, num in grown.items() if num > 0}:
            begin = self._clock() // self.width_s * self.width_s
            if not self._buckets or self._buckets[-1][0] != begin:
                self._buckets.append((begin, Counter()))
            self._buckets[-1][1].update(more)

    def buckets(self) -> tuple[RefusalBucket, ...]:
        """Those of the last day with any refusals, oldest first."""
        return tuple(RefusalBucket(begin, dict(counts)) for begin, counts in self._buckets)
