"""Which topic an author announces on, and how many of the topics a node hears.

A swarm file names a number of shards (`rules.shards`), one for each topic of announcements. An
author's shard is a hash that changes daily, so that no two authors meet, or miss each other, for
good. A node hears its own shard, and as many more as its budget of bytes allows: what it hears
depends on its budget, not on how large the swarm is. It announces on its own shard alone.

Not covered: a key that is chosen so as to fall into a shard today falls anywhere tomorrow, but
nothing stops whoever makes a new key every day.
"""

from collections.abc import Callable
from hashlib import sha256

from swarm.protocol import SHARD_TOPIC, TOPIC
from swarm.wire import open_announcement

DAY_S = 86_400
LOOK_S = 10.0
"""Between two looks at how much is heard: at most twice as many shards after one as before it."""
MEMORY = 0.7
"""Of the rate that was measured so far, at each look."""


def shard_of(swarm_id: str, author: str, created: float, num_shards: int) -> int:
    """The shard of what an author signed at a time (Unix seconds): 0 <= shard < num_shards."""
    if num_shards == 1:
        return 0
    return _hash(f"sapo-shard-1 {swarm_id} {int(created // DAY_S)} {author}") % num_shards


def shard_of_record(record: bytes, num_shards: int) -> int:
    """The shard of an own announcement. One in a swarm of a single shard is not looked at.

    Raises:
        WireError: it is no announcement.
    """
    if num_shards == 1:
        return 0
    opened = open_announcement(record)
    return shard_of(opened.swarm_id, opened.author, opened.created, num_shards)


def shard_topics(swarm_id: str, num_shards: int) -> list[str]:
    """The topic of each shard; of a single one it has no number."""
    if num_shards == 1:
        return [TOPIC.format(swarm_id=swarm_id)]
    return [SHARD_TOPIC.format(swarm_id=swarm_id, shard=shard) for shard in range(num_shards)]


class ShardChoice:
    """The shards that one node hears, as time goes on."""

    def __init__(
        self,
        swarm_id: str,
        node_id: str,
        num_shards: int,
        max_bytes_per_s: float,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            max_bytes_per_s: of announcements, those that are heard twice not counted. One shard is
                heard however much comes.
            clock: Unix seconds.
        """
        self.num_shards = num_shards
        self._swarm_id = swarm_id
        self._node_id = node_id
        self._max_bytes_per_s = max_bytes_per_s
        self._clock = clock
        self._num_heard = 1
        self._looked = clock()
        self._num_bytes = 0
        self._rate = 0.0
        self._day = -1
        self._order: list[int] = []
        """Of `_day`: its own shard, then the others as it would hear them."""

    def note(self, num_bytes: int) -> None:
        """Counts an announcement that was heard."""
        self._num_bytes += num_bytes

    def heard(self) -> frozenset[int]:
        """The shards to hear now. Looks at the rate when LOOK_S have passed since the last look."""
        now = self._clock()
        passed = now - self._looked
        if passed >= LOOK_S or passed < 0:  # or the clock was set back
            self._look(max(passed, LOOK_S))
            self._looked = now
        if (day := int(now // DAY_S)) != self._day:
            self._day, self._order = day, self.order_on(day)
        return frozenset(self._order[: self._num_heard])

    def _look(self, passed_s: float) -> None:
        measured, self._num_bytes = self._num_bytes / passed_s, 0
        self._rate = MEMORY * self._rate + (1 - MEMORY) * measured if self._rate else measured
        rate = max(self._rate, measured)
        fitting = self.num_shards
        if rate > 0:
            fitting = int(self._num_heard * self._max_bytes_per_s / rate)
        self._num_heard = max(1, min(fitting, 2 * self._num_heard, self.num_shards))

    def order_on(self, day: int) -> list[int]:
        """Its own shard, then the others in an order of this node and day."""
        own = shard_of(self._swarm_id, self._node_id, day * DAY_S, self.num_shards)
        return sorted(
            range(self.num_shards),
            key=lambda one: (one != own, _hash(f"sapo-hear-1 {self._node_id} {day} {one}")),
        )


def _hash(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8])
