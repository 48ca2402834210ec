"""How many bytes a second all peers together may have of this node, shared between them.

What each peer has had fades: of what it had FADE_S ago a third (1/e) still counts. A peer is served
while it has had less than is left of what fits into FADE_S. So one that asks all the time gets half
of the rate, n of them n/(n+1) together, each as much as any other; whoever asks now and then finds
something left, or, where a share is less than one reply, after asking a few times. All together get
no more than the rate allows, FADE_S' worth at once, and one reply.

Not covered: somebody with many keys has as many shares as it has connections
(swarm/connection_limits.py).
"""

import math
from collections.abc import Callable

import trio

FADE_S = 16.0
MAX_PEERS = 1024
"""That are remembered; beyond it whoever has had least is forgotten, but not in the sum."""
_ALL = ""


class Quota:
    """Who has had how much lately."""

    def __init__(self, bytes_per_s: float, clock: Callable[[], float] = trio.current_time) -> None:
        """
        Args:
            bytes_per_s: of all peers together; more than 0.
            clock: seconds that never jump back.
        """
        self._most = FADE_S * bytes_per_s
        self._clock = clock
        self._had: dict[str, tuple[float, float]] = {}
        """Node id, or _ALL -> bytes, and at which time they were so many."""

    def has_left(self, node_id: str) -> bool:
        """Whether the peer may be served now."""
        return self.had(node_id) < self._most - self.had()

    def spend(self, node_id: str, num_bytes: int) -> None:
        """Notes what the peer was sent."""
        for key in (node_id, _ALL):
            self._had[key] = self.had(key) + num_bytes, self._clock()
        if len(self._had) > MAX_PEERS + 1:
            del self._had[min(self._had, key=self.had)]

    def had(self, key: str = _ALL) -> float:
        """Bytes that a peer has had, or all together, as far as they have not faded."""
        num_bytes, at = self._had.get(key, (0.0, 0.0))
        return num_bytes * math.exp((at - self._clock()) / FADE_S)
