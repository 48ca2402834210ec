"""Which newly connected peers are asked soon what this node missed: after a network was parted and
joined again they know what no old peer can tell.

A peer is new with every connection, so the asking is bounded: a token bucket for all of them, from
which every ask takes a little and every record that was told a little more, and one for each node
id. Beyond it they wait, and the regular asking (swarm/catch_up.py) stands as it was.

Not covered: a node that has no new peer itself, but only peers of peers; somebody with so many keys
that its connections use up the bucket of all.
"""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from swarm.debts import Debts
from swarm.gossip import Connection

MAX_KEYS = 1024
"""Node ids whose buckets are remembered."""
_ALL = ""


@dataclass(frozen=True, slots=True)
class NewcomerLimits:
    """How much new peers are asked. Buckets hold seconds, and are filled by one a second."""

    wait_s: float = 2.0
    """After a peer has connected, and up to twice as long, so that not all of a healed network ask
    at once."""
    ask_s: float = 10.0
    """What an ask takes from the bucket of all: six at once, then one in 10 s."""
    record_s: float = 0.015
    """The same for a record that was told: as many a second as regular asking may bring, of the
    most that one peer may tell."""
    burst_s: float = 60.0
    one_ask_s: float = 60.0
    """What an ask takes from the bucket of its node id: three at once, then one a minute."""
    one_burst_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A peer that has connected and was not asked yet."""

    node_id: str
    not_before: float
    """Seconds of trio's clock."""
    num_kept: int
    """Announcements that this node had taken when the peer came."""


class Newcomers:
    """The new peers among the connected ones."""

    def __init__(self, limits: NewcomerLimits, rng: random.Random) -> None:
        self._limits = limits
        self._rng = rng
        self._since: dict[str, float] = {}
        """Connected peers -> since when."""
        self._waiting: dict[str, Newcomer] = {}
        self._debts: Debts[str] = Debts(MAX_KEYS)

    def look(self, connections: Iterable[Connection], num_kept: int, now: float) -> None:
        """Notes who has come, also again, and who has gone since the last look.

        Args:
            num_kept: announcements that this node has taken so far.
            now: seconds of trio's clock, here and below.
        """
        since = {one.node_id: one.since for one in connections}
        for node_id in since:
            if self._since.get(node_id) != since[node_id]:
                wait_s = self._limits.wait_s * self._rng.uniform(1, 2)
                self._waiting[node_id] = Newcomer(node_id, now + wait_s, num_kept)
        self._waiting = {one: new for one, new in self._waiting.items() if one in since}
        self._since = since

    def drop(self, node_ids: Iterable[str]) -> None:
        """They need not be asked any more for having come."""
        for one in node_ids:
            self._waiting.pop(one, None)

    def drop_all(self) -> None:
        """The same for all."""
        self._waiting.clear()

    def take(self, now: float, out: Collection[str]) -> Newcomer | None:
        """One that is to be asked now, at random; None while there is none or the buckets are
        empty.

        Args:
            out: node ids that are not to be asked now.
        """
        limits = self._limits
        if not self._has_room(_ALL, limits.ask_s, limits.burst_s, now):
            return None
        ready = [
            one
            for one, new in self._waiting.items()
            if new.not_before <= now
            and one not in out
            and self._has_room(one, limits.one_ask_s, limits.one_burst_s, now)
        ]
        if not ready:
            return None
        chosen = self._waiting.pop(self._rng.choice(sorted(ready)))
        self._debts.add(_ALL, limits.ask_s, now)
        self._debts.add(chosen.node_id, limits.one_ask_s, now)
        return chosen

    def put_back(self, newcomer: Newcomer) -> None:
        """It was busy, and is to be asked again."""
        if newcomer.node_id in self._since:
            self._waiting.setdefault(newcomer.node_id, newcomer)

    def spend(self, num_records: int, now: float) -> None:
        """Notes how many records one has told."""
        if num_records:
            self._debts.add(_ALL, num_records * self._limits.record_s, now)

    def _has_room(self, key: str, seconds: float, burst_s: float, now: float) -> bool:
        return self._debts.left_s(key, now) + seconds <= burst_s
