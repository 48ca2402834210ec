"""Token buckets of many keys: what each has used, less what has been forgiven since.

A debt is kept as the time at which it will have been forgiven: so it falls at a steady rate, and
nothing has to be done meanwhile.
"""

from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


class Debts(dict[K, float]):
    """Key -> when its debt will be forgiven, in seconds of the caller's clock. Bounded: whoever
    owes nothing is forgotten, and of too many debtors the one that owes least."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def add(self, key: K, seconds: float, now: float) -> None:
        """So many seconds more until it is forgiven."""
        since = max(self.pop(key, now), now)
        self[key] = since + seconds
        if len(self) > self._most:
            for one in [one for one, when in self.items() if when <= now]:
                del self[one]
        if len(self) > self._most:
            del self[min(self, key=lambda one: self[one])]

    def left_s(self, key: K, now: float) -> float:
        """Seconds until its debt is forgiven."""
        return max(0.0, self.get(key, now) - now)
