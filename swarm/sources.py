"""Whom to ask for which rollout: its author, then the carrier of its announcement, then the author
again where it is not connected, which is a visit, then some of the others that are connected, for
whoever used it serves it.

A peer that fails or is slow is paused, longer each time, and such peers together get half of the
places, so that they keep nobody else out. Nobody is charged: connections break.
"""

import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

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
    max_visits: int = 0
    """Authors asked at once, of `max_fetches`, that have to be found and connected first."""


class Sources:
    """Which peers are asked now, and which had better not be."""

    def __init__(self, gossip: Gossip, limits: SourceLimits, rng: random.Random) -> None:
        self._gossip = gossip
        self._limits = limits
        self._rng = rng
        self._asked: dict[str, float] = {}
        """Peers that are asked now -> since when, by trio's clock."""
        self._troubled: dict[str, int] = {}
        """Peers that failed or were slow the last time -> how often they failed in a row."""
        self._paused: dict[str, float] = {}
        """Peers that failed -> not to be asked until then, by trio's clock."""
        self._visited: set[str] = set()
        """Those of the asked that were not connected."""
        self._unreached: set[str] = set()
        """Those of the paused that could not be visited."""

    def _has_place(self, connected: Collection[str], node_id: str, others: Collection[str]) -> bool:
        """Whether a peer may be asked besides those that are asked, and others that will be."""
        before = trio.current_time() - self._limits.patience_s
        num_late = sum(since <= before for since in self._asked.values())
        most = self._limits.max_fetches
        if len(others) >= most - len(self._asked) + min(most, num_late):
            return False
        if node_id in self._troubled and self._is_crowded(others):
            return False
        num_visits = len(self._visited) + sum(one not in connected for one in others)
        return node_id in connected or num_visits < self._limits.max_visits

    def begin(self, node_id: str) -> None:
        """A peer is asked from now on."""
        self._asked[node_id] = trio.current_time()
        if node_id not in self._connected():
            self._visited.add(node_id)

    def answered(self, node_id: str) -> None:
        """It has replied, whatever it said."""
        since = self._asked[node_id]
        self._troubled.pop(node_id, None)
        if trio.current_time() - since > self._limits.slow_s:
            self._troubled[node_id] = 0

    def was_busy(self, node_id: str) -> bool:
        """It said that it is: it has not failed, and may be asked again after a while, which does
        not grow. Returns True, for it may be asked for the same again."""
        self._troubled.pop(node_id, None)
        self._paused[node_id] = trio.current_time() + self._limits.retry_s
        return True

    def failed(self, node_id: str) -> bool:
        """It did not reply, or not as it should. Returns whether that was nothing but a connection
        that ended, the first time in a row: then it may be asked as soon as it is back."""
        num = self._troubled.get(node_id, 0)
        is_cut = node_id not in self._visited and node_id not in self._connected() and not num
        pause_s = min(self._limits.max_pause_s, self._limits.retry_s * 2 ** min(num, 16))
        self._paused[node_id] = trio.current_time() + (0 if is_cut else pause_s)
        self._troubled[node_id] = num + 1
        if node_id in self._visited and node_id not in self._connected():
            self._unreached.add(node_id)
        return is_cut

    def end(self, node_id: str) -> None:
        """Its place is free again."""
        del self._asked[node_id]
        self._visited.discard(node_id)

    def look(self) -> tuple[Callable[[Offer], str | None], Callable[[str, Collection[str]], bool]]:
        """For one look at all offers: whom to ask for an offer now, or None; and whether a peer has
        a place besides others that will be asked."""
        now = trio.current_time()
        connected = self._connected()
        self._forget(now, connected)
        paused = {one for one, until in self._paused.items() if until > now}
        out = {*self._asked, *paused, *(self._troubled if self._is_crowded() else ())}
        others: list[str] = []

        def source_of(offer: Offer) -> str | None:
            if offer.not_before > now:
                return None
            if not self._limits.num_holders:
                source = offer.source(connected)
                return None if source in out else source
            for one in self._untried(offer, connected):
                if one not in paused:
                    return None if one in out else one
            if not others:  # the same order for all offers, so that one peer is asked for many
                others.extend(self._rng.sample(sorted(connected), len(connected)))
            return next((one for one in self._holders(offer, others) if one not in out), None)

        return source_of, partial(self._has_place, connected)

    def was_last(self, offer: Offer) -> bool:
        """Whether nobody is left to be asked for an offer that was not asked yet."""
        connected = self._connected()
        return not (self._untried(offer, connected) or self._holders(offer, connected))

    def _connected(self) -> dict[str, None]:
        """Node ids, in one order."""
        return dict.fromkeys(connection.node_id for connection in self._gossip.connections())

    def _untried(self, offer: Offer, connected: Collection[str]) -> list[str]:
        """Those that are asked before any other, the next one first."""
        firsts = [one for one in (offer.author, offer.carrier) if one in connected]
        visits = [offer.author] if self._limits.max_visits else []
        return [one for one in dict.fromkeys(firsts + visits) if one not in offer.tried]

    def _holders(self, offer: Offer, connected: Collection[str]) -> list[str]:
        firsts = {offer.author, offer.carrier}
        if len(offer.tried - firsts) >= self._limits.num_holders:
            return []
        return [one for one in connected if one not in firsts and one not in offer.tried]

    def _is_crowded(self, others: Collection[str] = ()) -> bool:
        """Whether peers in trouble have all the places that they may have."""
        num = sum(one in self._troubled for one in (*self._asked, *others))
        return num >= self._limits.max_fetches // 2

    def _forget(self, now: float, connected: Collection[str]) -> None:
        """Whoever is gone, and was not asked in vain lately, has nothing against it any more; nor
        whoever could not be visited, and came."""
        for one in self._unreached.intersection(connected):
            self._paused.pop(one, None)
            self._troubled.pop(one, None)
        since = now - self._limits.max_pause_s
        self._troubled = {
            one: trouble
            for one, trouble in self._troubled.items()
            if one in connected or one in self._asked or self._paused.get(one, since) > since
        }
        self._paused = {
            one: until
            for one, until in self._paused.items()
            if until > now or one in self._troubled
        }
        self._unreached = {
            one for one in self._unreached if one in self._paused and one not in connected
        }
