"""What is done with an announcement: checked, counted, kept, and its entries made into offers.

Whether it was gossiped or came from a peer's catalogue, the checks are the same. Nothing is fetched
here (swarm/intake.py).
"""

import logging
import time
from collections import Counter
from collections.abc import Callable

from swarm.admission import Admission, Refused
from swarm.announcements import BATCH, Announcements, KeptAnnouncement
from swarm.database import Offload
from swarm.gossip import Received
from swarm.ledger import Ledger
from swarm.offers import MAX_OFFERS, Offer, Offers
from swarm.pool import Pool
from swarm.refusal import Charge, Refusal
from swarm.rollout import Announcement, Entry

logger = logging.getLogger(__name__)


class Hearing:
    """The way from announcements to offers. Used from the trio thread, by several tasks."""

    def __init__(
        self,
        admission: Admission,
        offers: Offers,
        pool: Pool,
        ledger: Ledger,
        offload: Offload,
        is_in_flight: Callable[[str, bytes], bool],
        kept: Announcements | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            is_in_flight: author and hash -> whether that offer is being fetched or judged.
            kept: where announcements are kept; None keeps none.
            clock: Unix seconds.
        """
        self._admission = admission
        self._offers = offers
        self._pool = pool
        self._ledger = ledger
        self._offload = offload
        self._is_in_flight = is_in_flight
        self._kept = kept
        self._clock = clock

    async def hear(self, received: Received) -> Refusal | None:
        """Takes an announcement; or says why it is not listened to."""
        heard = self._admission.hear(received)
        if isinstance(heard, Refused):
            if heard.reason.charge is Charge.AUTHOR:
                await self.charge(heard.node_id, heard.reason, heard.proof)
            else:
                self._ledger.count_refused(heard.node_id, heard.reason)
            return heard.reason
        first_seen = self._admission.first_seen(heard.created, received.is_late)
        self._ledger.count_announcement(heard.author, len(heard.entries))
        await self._keep(heard, received.record, first_seen)
        refusals: Counter[Refusal] = Counter()
        offered = []
        for entry in heard.entries:
            if refusal := self._admission.check_entry(entry):
                refusals[refusal] += 1
            else:
                offered.append(entry)
        for refusal, num in refusals.items():
            if refusal.charge is Charge.AUTHOR:  # one announcement is one lie
                await self.charge(heard.author, refusal, (received.record,))
                num -= 1
            self._ledger.count_refused(heard.author, refusal, num)
        offers = await self._make_offers(heard, received, offered, first_seen)
        if num_seen := len(offered) - len(offers):
            self._ledger.count_refused(heard.author, Refusal.SEEN, num_seen)
        for offer in offers:
            self.add(offer)
        return None

    async def recall(self) -> int:
        """Offers again what was heard before a restart and is not in the pool yet, and refuses it
        when it is repeated; returns how many announcements that are. Counts nothing again."""
        if self._kept is None:
            return 0
        num = 0
        for one in await self._offload(self._kept.recall, MAX_OFFERS):
            received = Received(one.record, one.author, is_late=True)
            heard = self._admission.hear(received)
            if isinstance(heard, Refused):
                continue
            num += 1
            wanted = [entry for entry in heard.entries if not self._admission.check_entry(entry)]
            for offer in await self._make_offers(heard, received, wanted, one.first_seen):
                self._offers.add(offer)
        return num

    async def flush(self) -> None:
        """Puts on disk what waits to be kept."""
        if self._kept is not None:
            await self._offload(self._kept.write)

    async def charge(self, author: str, reason: Refusal, proof: tuple[bytes, ...]) -> None:
        """Counts a lie of the author, on disk on return."""
        logger.warning("%s is charged: %s", author, reason)
        await self._offload(self._ledger.charge, author, reason, proof)

    def add(self, offer: Offer) -> None:
        """Takes an offer, and counts those that have to give way."""
        for gone in self._offers.add(offer):
            self._ledger.count_refused(gone.author, Refusal.CROWDED_OUT)

    async def _keep(self, announcement: Announcement, record: bytes, first_seen: float) -> None:
        if self._kept is None:
            return
        kept = KeptAnnouncement(
            record,
            announcement.author,
            announcement.sequence,
            first_seen,
            self._admission.expiry(announcement.created, first_seen),
            self._admission.shard(announcement),
        )
        if self._kept.keep(kept) >= BATCH:
            await self.flush()

    async def _make_offers(
        self,
        announcement: Announcement,
        received: Received,
        entries: list[Entry],
        first_seen: float,
    ) -> list[Offer]:
        """Of the entries whose rollouts are not known yet."""
        author = announcement.author
        seen = await self._offload(self._pool.has_seen, [entry.hash for entry in entries])
        offers: dict[bytes, Offer] = {}
        for entry in entries:
            is_known = (author, entry.hash) in self._offers or self._is_in_flight(
                author, entry.hash
            )
            if is_known or entry.hash in seen or entry.hash in offers:
                continue
            offers[entry.hash] = Offer(
                entry=entry,
                author=author,
                sequence=announcement.sequence,
                carrier=received.carrier,
                announcement=received.record,
                first_seen=first_seen,
                expires=self._admission.expiry(announcement.created, first_seen),
                is_late=received.is_late,
            )
        return list(offers.values())
