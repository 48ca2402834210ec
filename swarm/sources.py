"""Whom to ask for which rollout: its author, then the carrier of its announcement, then some of the
others that are connected, for whoever used it serves it.

A peer that fails or is slow is paused, longer each time, and such peers together get half of the
places, so that they keep nobody else out. Nobody is charged: connections break.
"""

import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

import trio

from swarm.gossip import Gossip
from swarm.offers import Offer


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """How many peers are asked, and how often."""

    max_fetches: int = 4
    """Peers asked at once."""
    patience_s: float = math.inf
    """Who is silent for so long takes no place any more; twice as many peers at most are asked."""
    retry_s: float = 5.0
    """A peer that failed is paused for so long, twice as long after each further failure."""
    max_pause_s: float = 80.0
    slow_s: float = 10.0
    """Who takes longer gets no more places than those that failed."""
    num_holders: int = 0
    """Of each offer: connected peers besides author and carrier that are asked."""


class Sources:
    """Which peers are asked now, and which had better not be."""

    def __init__(self, gossip: Gossip, limits: SourceLimits, rng: random.Random) -> None:
        self._gossip = gossip
        self._limits = limits
        self._rng = rng
        self._asked: dict[str, float] = {}
        """Peers that are asked now -> since when, by trio's clock."""
        self._troubled: dict[str, tuple[int, float]] = {}
        """Peers that failed or were slow the last time -> how often they failed in a row, and when
        they were asked, by trio's clock."""
        self._paused: dict[str, float] = {}
        """Peers that failed -> not to be asked until then, by trio's clock."""

    @property
    def num_free(self) -> int:
        """So many more peers may be asked now."""
        before = trio.current_time() - self._limits.patience_s
        num_late = sum(since <= before for since in self._asked.values())
        most = self._limits.max_fetches
        return most - len(self._asked) + min(most, num_late)

    def begin(self, node_id: str) -> None:
        """A peer is asked from now on."""
        self._asked[node_id] = trio.current_time()

    def answered(self, node_id: str) -> None:
        """It has replied, whatever it said."""
        since = self._asked[node_id]
        self._troubled.pop(node_id, None)
        if trio.current_time() - since > self._limits.slow_s:
            self._troubled[node_id] = 0, since

    def failed(self, node_id: str) -> None:
        """It did not reply, or not as it should."""
        num, _ = self._troubled.get(node_id, (0, 0.0))
        pause_s = min(self._limits.max_pause_s, self._limits.retry_s * 2 ** min(num, 16))
        self._paused[node_id] = trio.current_time() + pause_s
        self._troubled[node_id] = num + 1, self._asked[node_id]

    def end(self, node_id: str) -> None:
        """Its place is free again."""
        del self._asked[node_id]

    def look(self) -> Callable[[Offer], str | None]:
        """Whom to ask for an offer now, or None; for one look at all offers."""
        now = trio.current_time()
        connected = [connection.node_id for connection in self._gossip.connections()]
        self._forget(now, set(connected))
        out = {*self._asked, *self._paused, *self._crowding(connected)}
        others: list[str] = []

        def source_of(offer: Offer) -> str | None:
            if offer.not_before > now:
                return None
            if not self._limits.num_holders:
                source = offer.source(connected)
                return None if source in out else source
            for one in (offer.author, offer.carrier):
                is_next = one in connected and one not in offer.tried
                if is_next and one not in self._paused:
                    return None if one in out else one
            if not others:  # the same order for all offers, so that one peer is asked for many
                others.extend(self._rng.sample(sorted(connected), len(connected)))
            return next((one for one in self._holders(offer, others) if one not in out), None)

        return source_of

    def was_last(self, offer: Offer) -> bool:
        """Whether nobody is left to be asked for an offer that was not asked yet."""
        connected = [connection.node_id for connection in self._gossip.connections()]
        return not (self._untried(offer, connected) or self._holders(offer, connected))

    def _untried(self, offer: Offer, connected: Collection[str]) -> list[str]:
        sources = dict.fromkeys((offer.author, offer.carrier))
        return [one for one in sources if one in connected and one not in offer.tried]

    def _holders(self, offer: Offer, connected: Collection[str]) -> list[str]:
        firsts = {offer.author, offer.carrier}
        if len(offer.tried - firsts) >= self._limits.num_holders:
            return []
        return [one for one in connected if one not in firsts and one not in offer.tried]

    def _crowding(self, connected: Collection[str]) -> list[str]:
        """Peers in trouble that get no place now, since others like them have theirs, or have
        waited for longer."""
        troubled = [one for one in connected if one in self._troubled and one not in self._asked]
        num_asked = sum(one in self._troubled for one in self._asked)
        num_free = max(0, self._limits.max_fetches // 2 - num_asked)
        ready = [one for one in troubled if one not in self._paused]
        return sorted(ready, key=lambda one: self._troubled[one][1])[num_free:]

    def _forget(self, now: float, connected: Collection[str]) -> None:
        """Whoever is gone and not paused has nothing against it any more."""
        self._paused = {one: until for one, until in self._paused.items() if until > now}
        self._troubled = {
            one: trouble
            for one, trouble in self._troubled.items()
            if one in connected or one in self._paused or one in self._asked
        }
