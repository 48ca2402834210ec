"""How much of each kind a peer may do in a while: token buckets, counted where they are empty; and
how much all of them together are sent (swarm/quota.py).

What is over a limit is dropped or turned away, and nothing else: nobody is charged, and nothing is
said about anybody. A limit holds for a node id whatever its connections are, so that connecting
again fills no bucket. Limits are far above what an honest peer does (docs/swarm.md has the sums).
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import trio

from swarm.debts import Debts
from swarm.quota import Quota
from swarm.seldom import Seldom

logger = logging.getLogger(__name__)

MAX_KEYS = 4096
"""Peers times kinds that are remembered (swarm/debts.py)."""

_ROUNDING = 1e-6


class Kind(StrEnum):
    """What is limited: per peer, but for the last."""

    ANNOUNCEMENTS = "announcements"
    """Brought by it, own ones and others' that it passes on."""
    FETCHES = "fetches"
    """Requests for rollouts."""
    CATALOGUE = "catalogue"
    """Requests for what it missed."""
    PEERS = "peers"
    """Requests for addresses of further peers."""
    BYTES = "bytes"
    """Replies to all of its requests."""
    AUTHOR = "author"
    """Announcements that it signed, whoever brought them."""
    ALL_BYTES = "all_bytes"
    """Replies to the requests of all peers together."""


def _message(kind: Kind) -> str:
    if kind is Kind.ALL_BYTES:
        return "%d requests were answered with 'busy': all peers together have had enough for now"
    return f"%d times a peer was over its limit: {kind}"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second for ever, and so many at once."""

    per_s: float
    burst: float


def make_rates(
    announcements_per_s: float = 100.0,
    author_announcements_per_s: float = 2.0,
    fetches_per_s: float = 4.0,
    catalogue_per_s: float = 2.0,
    peer_questions_per_s: float = 0.2,
    served_mib_per_s: float = 2.0,
) -> dict[Kind, Rate]:
    """The rates that the settings of a node name, with their bursts (node/config.py)."""
    return {
        Kind.ANNOUNCEMENTS: Rate(announcements_per_s, 20 * announcements_per_s),
        Kind.AUTHOR: Rate(author_announcements_per_s, 60 * author_announcements_per_s),
        Kind.FETCHES: Rate(fetches_per_s, 10 * fetches_per_s),
        Kind.CATALOGUE: Rate(catalogue_per_s, 60 * catalogue_per_s),
        Kind.PEERS: Rate(peer_questions_per_s, 50 * peer_questions_per_s),
        Kind.BYTES: Rate(served_mib_per_s * 2**20, 16 * served_mib_per_s * 2**20),
    }


@dataclass(slots=True)
class PeerLimits:
    """The buckets of all peers. A kind without a rate is not limited."""

    rates: Mapping[Kind, Rate] = field(default_factory=lambda: make_rates())
    clock: Callable[[], float] = trio.current_time
    """Seconds that never jump back."""
    num_limited: Counter[str] = field(default_factory=Counter)
    """How often a limit was met, by kind."""
    quota: Quota | None = None
    """Of what all peers together are sent; None is no limit."""
    _said: Mapping[Kind, Seldom] = field(
        default_factory=lambda: {kind: Seldom(logger, _message(kind)) for kind in Kind}
    )
    _paid_off: Debts[tuple[str, Kind]] = field(default_factory=lambda: Debts(MAX_KEYS))
    """The debt is so many seconds times the rate."""

    def allows(self, node_id: str, kind: Kind) -> bool:
        """Whether one more of this kind is within the peer's limit, which then counts it (but for
        bytes, which are spent when it is known how many)."""
        rate = self.rates.get(kind)
        if rate is None:
            return True
        debt = self._paid_off.left_s((node_id, kind), self.clock()) * rate.per_s
        if debt + 1 > max(1.0, rate.burst) + _ROUNDING:
            self.count(kind)
            return False
        if kind is not Kind.BYTES:
            self.spend(node_id, kind, 1)
        return True

    def allows_request(self, node_id: str, kind: Kind) -> bool:
        """Whether one more request of this kind is within the peer's limits, that of bytes
        included."""
        return self.allows(node_id, Kind.BYTES) and self.allows(node_id, kind)

    def is_busy(self, node_id: str) -> bool:
        """Whether the peer has to wait since all of them together have had enough for now; counted
        and logged."""
        if self.quota is None or self.quota.has_left(node_id):
            return False
        self.count(Kind.ALL_BYTES)
        return True

    def count(self, kind: Kind) -> None:
        """Notes that a limit was met; logged once a minute at most."""
        self.num_limited[kind] += 1
        self._said[kind].note()

    def spend_reply(self, node_id: str, num_bytes: int) -> None:
        """Notes what the peer was sent."""
        self.spend(node_id, Kind.BYTES, num_bytes)
        if self.quota is not None:
            self.quota.spend(node_id, num_bytes)

    def spend(self, node_id: str, kind: Kind, num: float) -> None:
        """Notes what the peer has used."""
        if (rate := self.rates.get(kind)) is None:
            return
        self._paid_off.add((node_id, kind), num / rate.per_s, self.clock())
