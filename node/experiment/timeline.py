"""The time of a run: it stands still until the driver lets it go on, from event to event.

What is due at one instant, trio does in an order of its own. So a run leaves nothing that matters
to one instant: turns begin at times drawn at random, and fetches by one node end one by one
(`Spread`). Then the order of all that happens follows from the plan, and a run can be repeated.
"""

from collections.abc import Sequence

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from swarm.gossip import Connection, Gossip, Received, Traffic

START = 1_735_689_600.0
"""Unix seconds at which every run begins: 2025-01-01."""
QUIET_S = 0.1
"""Twice the time for which a node gathers announcements before it fetches (IntakeLimits)."""
TICK_S = 1e-9
"""The clock's smallest step: above the rounding of its sums."""
SPREAD_S = 1e-6


class Timeline:
    """A trio clock, `clock`, and who moves it. Used from the trio thread, but for `now`."""

    def __init__(self) -> None:
        self.clock = MockClock()

    def now(self) -> float:
        """Unix seconds in the run."""
        return START + self.clock.current_time()

    async def settle(self) -> None:
        """Returns when nothing is left to happen within QUIET_S: announcements are heard, and what
        is wanted of them is fetched and judged, unless the network delays it for longer."""
        await wait_all_tasks_blocked()
        while _next_event_s() <= QUIET_S:
            await self._jump(_next_event_s())

    async def go_to(self, second: float) -> None:
        """Lets everything happen that is due until so many seconds after the start; nothing where
        that is over."""
        await wait_all_tasks_blocked()
        while (rest_s := second - self.clock.current_time()) > 0:
            await self._jump(min(rest_s, _next_event_s()))

    async def _jump(self, seconds: float) -> None:
        self.clock.jump(max(seconds, TICK_S))
        await wait_all_tasks_blocked()


def _next_event_s() -> float:
    return trio.lowlevel.current_statistics().seconds_to_next_deadline


class Spread:
    """A `Gossip` (swarm/gossip.py) whose fetches from different peers never end together."""

    def __init__(self, gossip: Gossip, order: dict[str, int]) -> None:
        """
        Args:
            order: node id -> a number of its own; those who join later are added to it.
        """
        self.node_id = gossip.node_id
        self.received: trio.MemoryReceiveChannel[Received] = gossip.received
        self._gossip = gossip
        self._order = order

    async def announce(self, record: bytes) -> None:
        """See Gossip."""
        await self._gossip.announce(record)

    async def fetch(
        self, node_id: str, hashes: Sequence[bytes], max_bytes: int
    ) -> dict[bytes, bytes]:
        """See Gossip."""
        await trio.sleep(SPREAD_S * self._order[node_id])
        return await self._gossip.fetch(node_id, hashes, max_bytes)

    def connections(self) -> list[Connection]:
        """See Gossip."""
        return self._gossip.connections()

    def traffic(self) -> Traffic:
        """See Gossip."""
        return self._gossip.traffic()

    def addresses(self) -> list[str]:
        """See Gossip."""
        return self._gossip.addresses()
