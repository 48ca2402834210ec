"""Rollouts that peers announced and that are worth fetching, until they are: bounded in memory."""

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from swarm.fetch import MAX_REPLY_BYTES
from swarm.protocol import MAX_FETCH_HASHES
from swarm.rollout import Entry
from swarm.wanted import draw_order

MAX_PER_AUTHOR = 64
MAX_OFFERS = 4096

MIN_NEWEST = 8
"""Of each author's offers that are wanted now, so many of the newest are drawn from, or twice its
equal share of what is missing. With all of them the draw would be of a backlog: older from round to
round, and mostly of whoever offers most."""

OfferKey = tuple[str, bytes]
"""Announcer and hash: somebody else's announcement of the same hash is another offer."""


@dataclass(eq=False, slots=True)
class Offer:
    """One entry of an announcement, and how it came."""

    entry: Entry
    author: str
    """Who signed the announcement."""
    sequence: int
    """Of the announcement."""
    carrier: str
    """Whose connection brought it: asked where the author is not connected."""
    announcement: bytes
    """As received: a proof, if the entry is a lie."""
    first_seen: float
    """Unix seconds."""
    expires: float
    """Unix seconds: not worth fetching from then on."""
    is_late: bool = False
    """Heard of later than others did: `first_seen` is when it was signed."""
    not_before: float = 0.0
    """Seconds of trio's clock: not to be tried again until then."""
    num_failures: int = 0
    """Times that all who were to be asked did not bring it."""
    tried: set[str] = field(default_factory=set)
    """Peers that did not bring it since the last of these times."""
    give_up_at: float = math.inf
    """Seconds of trio's clock: not to be tried again from then on."""

    @property
    def key(self) -> OfferKey:
        """What tells it from other offers."""
        return self.author, self.entry.hash

    def source(self, connected: Collection[str]) -> str | None:
        """Whom to ask next: the author first, after each failure the other one; None where
        neither is connected."""
        sources = [one for one in (self.author, self.carrier) if one in connected]
        return sources[self.num_failures % len(sources)] if sources else None


class Offers:
    """The newest offers of each author, bounded per author and over all."""

    def __init__(self, max_per_author: int = MAX_PER_AUTHOR, max_offers: int = MAX_OFFERS) -> None:
        self._max_per_author = max_per_author
        self._max_offers = max_offers
        self._authors: dict[str, OrderedDict[bytes, Offer]] = {}
        """The oldest offer of each first."""
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[Offer]:
        for offers in self._authors.values():
            yield from offers.values()

    def __contains__(self, key: OfferKey) -> bool:
        author, hash = key
        return hash in self._authors.get(author, {})

    def add(self, offer: Offer) -> list[Offer]:
        """Takes a new offer; returns those that had to give way: the oldest of its author, or of
        the author who has most."""
        offers = self._authors.setdefault(offer.author, OrderedDict())
        offers[offer.entry.hash] = offer
        if offer.is_late:  # others of its author may be newer
            by_age = sorted(offers.items(), key=lambda item: item[1].first_seen)
            self._authors[offer.author] = offers = OrderedDict(by_age)
        self._num += 1
        crowded_out = []
        if len(offers) > self._max_per_author:
            crowded_out.append(self._drop_oldest(offer.author))
        if self._num > self._max_offers:
            most = max(self._authors, key=lambda author: len(self._authors[author]))
            crowded_out.append(self._drop_oldest(most))
        return crowded_out

    def remove(self, offer: Offer) -> None:
        """Takes an offer away; no error where it is gone."""
        offers = self._authors.get(offer.author, OrderedDict())
        if offers.pop(offer.entry.hash, None) is not None:
            self._num -= 1
            if not offers:
                del self._authors[offer.author]

    def take_of(self, author: str) -> list[Offer]:
        """Removes and returns all offers of an author."""
        offers = list(self._authors.get(author, OrderedDict()).values())
        for offer in offers:
            self.remove(offer)
        return offers

    def take_expired(self, now: float) -> list[Offer]:
        """Removes and returns what has expired by now (Unix seconds)."""
        expired = [offer for offer in self if offer.expires <= now]
        for offer in expired:
            self.remove(offer)
        return expired

    def take_overdue(self, now: float) -> list[Offer]:
        """Removes and returns what was tried for too long, by trio's clock."""
        overdue = [offer for offer in self if offer.give_up_at <= now]
        for offer in overdue:
            self.remove(offer)
        return overdue

    def take(
        self,
        num: int,
        taken: Counter[str],
        max_per_author: int,
        source_of: Callable[[Offer], str | None],
        weigh: Callable[[Offer], float],
        have_place: Callable[[str, Collection[str]], bool],
        rng: random.Random,
    ) -> dict[str, list[Offer]]:
        """Removes up to `num` offers, drawn by weight from the newest of each author, and returns
        them by whom to ask for them.

        The same offers and the same generator give the same draw, in whatever order they came.

        Args:
            taken: how many of each author's rollouts are at hand already; counts for its cap.
            source_of: whom to ask, or None where an offer cannot be fetched now.
            weigh: relative chance to be drawn; 0 where an offer is not wanted now.
            have_place: whether a peer may be asked besides others that will be, each for at most
                one request's worth.
        """
        most = max(MIN_NEWEST, 2 * -(-num // max(1, len(self._authors))))
        newest = [
            one for author in self._authors for one in self._newest(author, most, source_of, weigh)
        ]
        ready = sorted(newest, key=lambda one: (one[0][0].entry.hash, one[0][0].author))
        authors, hashes = Counter(taken), set[bytes]()
        groups: dict[str, list[Offer]] = {}
        for offer, source in draw_order(ready, rng):
            if len(hashes) >= num:
                break
            group = groups.get(source, [])
            if (
                authors[offer.author] < max_per_author
                and offer.entry.hash not in hashes
                and (group or have_place(source, groups))
                and _fits(offer, group)
            ):
                groups[source] = [*group, offer]
                authors[offer.author] += 1
                hashes.add(offer.entry.hash)
                self.remove(offer)
        return groups

    def _newest(
        self,
        author: str,
        most: int,
        source_of: Callable[[Offer], str | None],
        weigh: Callable[[Offer], float],
    ) -> list[tuple[tuple[Offer, str], float]]:
        """An author's newest offers that are wanted and can be fetched now: with whom to ask, and
        the weight."""
        found: list[tuple[tuple[Offer, str], float]] = []
        offers = self._authors[author].values()
        for offer in sorted(offers, key=lambda one: (-one.first_seen, one.entry.hash)):
            if len(found) == most:
                break
            weight = weigh(offer)
            if weight > 0 and (source := source_of(offer)) is not None:
                found.append(((offer, source), weight))
        return found

    def _drop_oldest(self, author: str) -> Offer:
        offer = next(iter(self._authors[author].values()))
        self.remove(offer)
        return offer


def _fits(offer: Offer, group: list[Offer]) -> bool:
    """Whether one request and its reply hold the offer, too."""
    num_bytes = sum(one.entry.num_bytes + 8 for one in (*group, offer))
    return len(group) < MAX_FETCH_HASHES and num_bytes + 8 <= MAX_REPLY_BYTES
