"""Asks peers for the announcements that this node missed: after a start, after it was alone, when a
peer has newly connected (swarm/newcomers.py), and now and then, since gossip loses some.

One peer at a time: pages of ids, the newest first (swarm/catalogue.py), then those records that are
not kept here. A peer is left at a page of which everything is known, once it has listed as many as
were heard since the last time, and the next one asked, until a few have been. What comes passes the
same checks as what is gossiped, with the peer as its carrier. A peer that says what is of no use is
left, and asked again later each time; nothing else happens to it.

Bounded per peer: seconds, requests, records and bytes. Not noticed: a peer that leaves
announcements out, which is why several are asked.
"""

import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import trio

from rewards.worker import escape
from swarm.announcements import Announcements
from swarm.catalogue import decode_listing, decode_records, encode_get, encode_list
from swarm.database import Offload
from swarm.gossip import AsksCatalogue, FetchFailed, PeerBusy, Received
from swarm.newcomers import Newcomer, NewcomerLimits, Newcomers
from swarm.protocol import MAX_TOLD
from swarm.refusal import Charge, Refusal

logger = logging.getLogger(__name__)

Hear = Callable[[Received], Awaitable[Refusal | None]]
"""What takes an announcement, or says why not: Intake.hear."""


@dataclass(frozen=True, slots=True)
class CatchUpLimits:
    """How a node catches up."""

    num_peers: int = 3
    """Asked one after another each time."""
    look_s: float = 1.0
    """Between looks at who is connected."""
    others_s: float = 10.0
    """So long is waited for further peers to ask."""
    repair_s: float = 300.0
    """Between the end of one time and the next, while there are peers."""
    retry_s: float = 20.0
    """The same where no peer could be asked to the end."""
    leave_s: float = 30.0
    """A peer that was of no use is asked again after so long, twice as long after each time; one
    that is busy after `retry_s`."""
    max_leave_s: float = 960.0
    peer_s: float = 60.0
    """For one peer, and below for each of them."""
    max_requests: int = 96
    max_records: int = 20_480
    max_bytes: int = 16 * 2**20
    max_useless: int = 2
    """Replies of which nothing was taken."""
    remembered: int = 32_768
    """Ids that are not asked for again, whatever became of their records."""
    newcomers: NewcomerLimits = field(default_factory=NewcomerLimits)


@dataclass(frozen=True, slots=True)
class CatchUpStats:
    """What was done since the start."""

    num_runs: int = 0
    """Times that peers were asked what was missed."""
    num_announcements: int = 0
    """Taken."""
    num_refused: int = 0
    num_bytes: int = 0
    """Of requests and replies."""
    num_answered: int = 0
    """Peers that were asked to the end."""
    num_left: int = 0
    """Peers that were of no use, were busy, or did not answer."""
    num_newcomers: int = 0
    """Peers asked for having newly connected, besides the runs."""


class _Asking:
    """What one peer has said so far in one catch-up."""

    def __init__(self, node_id: str, num_heard: int) -> None:
        """
        Args:
            num_heard: announcements that may have come since what was missed: a page that is known
                is not the end before so many were listed.
        """
        self.node_id = node_id
        self.num_heard = num_heard
        self.is_busy = False
        self.num_requests = self.num_records = self.num_bytes = 0
        self.num_taken = self.num_own = self.num_refused = self.num_useless = 0

    def is_over(self, limits: CatchUpLimits) -> bool:
        """Whether the peer has had its share."""
        return (
            self.num_requests >= limits.max_requests
            or self.num_records >= limits.max_records
            or self.num_bytes >= limits.max_bytes
        )


class CatchUp:
    """`run` it in the trio loop, beside the intake."""

    def __init__(
        self,
        gossip: AsksCatalogue,
        kept: Announcements,
        hear: Hear,
        offload: Offload,
        limits: CatchUpLimits = CatchUpLimits(),
        rng: random.Random | None = None,
    ) -> None:
        """
        Args:
            kept: what this node knows.
        """
        self._gossip = gossip
        self._kept = kept
        self._hear = hear
        self._offload = offload
        self._limits = limits
        self._rng = rng or random.Random()
        self._stats = CatchUpStats()
        self._stops_at_known = True
        """Not after a peer that was not asked to the end: newer ones are known then, older ones
        not."""
        self._num_kept_before = kept.num_kept
        """When the last catch-up ended."""
        self._told: OrderedDict[bytes, None] = OrderedDict()
        """Ids whose records peers have told."""
        self._left: dict[str, tuple[int, float]] = {}
        """Peers of no use -> how often in a row, and until when they are left alone."""
        self._newcomers = Newcomers(limits.newcomers, self._rng)

    def ask_again(self) -> None:
        """What peers told before and was not taken is asked for again, in the regular way."""
        self._told.clear()

    def stats(self) -> CatchUpStats:
        """A snapshot."""
        return self._stats

    async def run(self) -> None:
        """Runs until it is cancelled. What goes wrong in it is raised.

        Raises:
            sqlite3.Error: or a bug.
        """
        due = 0.0
        while True:
            connections, now = self._gossip.connections(), trio.current_time()
            self._newcomers.look(connections, self._kept.num_kept, now)
            if not connections:
                due = 0.0
            elif now >= due:
                if not due:  # all are new, and a few of them are asked
                    self._newcomers.drop_all()
                wait_s = self._limits.retry_s
                if await self._catch_up():
                    wait_s = self._limits.repair_s
                due = trio.current_time() + wait_s * self._rng.uniform(0.75, 1.25)
            elif (newcomer := self._newcomers.take(now, self._left_alone(now))) is not None:
                await self._ask_newcomer(newcomer)
            await trio.sleep(self._limits.look_s)

    async def _catch_up(self) -> bool:
        """Asks a few peers; whether one at least was asked to the end."""
        asked: set[str] = set()
        num_answered = num_taken = 0
        give_up = trio.current_time() + self._limits.others_s
        while num_answered < self._limits.num_peers and self._gossip.connections():
            if (node_id := self._choose(asked)) is None:
                if trio.current_time() >= give_up:
                    break
                await trio.sleep(self._limits.look_s)
                continue
            asked.add(node_id)
            asking = _Asking(node_id, self._kept.num_kept - self._num_kept_before)
            is_answered = await self._ask_in_time(asking)
            give_up = trio.current_time() + self._limits.others_s
            num_answered += is_answered
            num_taken += asking.num_taken
        is_news = num_taken or not self._stats.num_runs
        level = logging.INFO if is_news else logging.DEBUG
        logger.log(level, "caught up %d announcements from %d peers", num_taken, num_answered)
        self._count(num_runs=1)
        self._newcomers.drop(asked)
        if num_answered:
            self._num_kept_before = self._kept.num_kept
        return num_answered > 0

    async def _ask_newcomer(self, newcomer: Newcomer) -> None:
        """Asks one peer that has newly connected."""
        asking = _Asking(newcomer.node_id, self._kept.num_kept - newcomer.num_kept)
        await self._ask_in_time(asking)
        if asking.is_busy:
            self._newcomers.put_back(newcomer)
        self._count(num_newcomers=1)
        self._newcomers.spend(asking.num_records, trio.current_time())
        level = logging.INFO if asking.num_taken else logging.DEBUG
        num, node_id = asking.num_taken, newcomer.node_id
        logger.log(level, "caught up %d announcements from %s, which is new here", num, node_id)

    def _left_alone(self, now: float) -> set[str]:
        return {node_id for node_id, (_, until) in self._left.items() if until > now}

    def _choose(self, asked: set[str]) -> str | None:
        """A peer that was not asked yet and is not left alone."""
        out = asked | self._left_alone(trio.current_time())
        peers = [one.node_id for one in self._gossip.connections() if one.node_id not in out]
        return self._rng.choice(sorted(peers)) if peers else None

    async def _ask_in_time(self, asking: _Asking) -> bool:
        """Whether the peer was asked to the end; else it is left alone for a while. Counted."""
        is_answered = await self._is_asked_to_the_end(asking)
        self._count(
            num_announcements=asking.num_taken,
            num_refused=asking.num_refused,
            num_bytes=asking.num_bytes,
            num_answered=is_answered,
            num_left=not is_answered,
        )
        return is_answered

    async def _is_asked_to_the_end(self, asking: _Asking) -> bool:
        reason = f"it took more than {self._limits.peer_s:.0f} s"
        with trio.move_on_after(self._limits.peer_s):
            try:
                await self._ask(asking)
                self._left.pop(asking.node_id, None)
                self._stops_at_known = not asking.is_over(self._limits)
                return True
            except FetchFailed as error:
                reason = escape(str(error))
                asking.is_busy = isinstance(error, PeerBusy)
        logger.info("%s is not asked what was missed any more for now: %s", asking.node_id, reason)
        self._stops_at_known &= not asking.num_taken
        self._leave(asking.node_id, asking.is_busy)
        return False

    def _leave(self, node_id: str, is_busy: bool) -> None:
        limits, now = self._limits, trio.current_time()
        connected = {one.node_id for one in self._gossip.connections()}
        self._left = {
            one: (num, until)
            for one, (num, until) in self._left.items()
            if one in connected or until > now
        }
        num, _ = self._left.get(node_id, (0, 0.0))
        pause_s = min(limits.max_leave_s, limits.leave_s * 2 ** min(num, 16))
        self._left[node_id] = (num, now + limits.retry_s) if is_busy else (num + 1, now + pause_s)

    async def _ask(self, asking: _Asking) -> None:
        """Takes from one peer what is missing.

        Raises:
            FetchFailed: it does not answer, or what it says is of no use.
        """
        cursor = num_listed = 0
        shards = self._gossip.heard_shards()
        while not asking.is_over(self._limits):
            page = decode_listing(await self._request(asking, encode_list(cursor, shards)), cursor)
            untold = [one for one in page.ids if one not in self._told]
            missing = await self._offload(self._kept.unknown, untold)
            num_listed += len(page.ids)
            if not missing and self._stops_at_known and num_listed >= asking.num_heard:
                return
            for start in range(0, len(missing), MAX_TOLD):
                await self._get(asking, missing[start : start + MAX_TOLD])
            if not page.next:
                return
            cursor = page.next

    async def _get(self, asking: _Asking, ids: Sequence[bytes]) -> None:
        """Takes these announcements, in as many replies as the peer needs for them."""
        while ids and not asking.is_over(self._limits):
            records = decode_records(await self._request(asking, encode_get(ids)), ids)
            self._remember(records)
            num_of_use = asking.num_taken + asking.num_own
            for record in records.values():
                await self._take(asking, record)
            if asking.num_taken + asking.num_own == num_of_use:
                asking.num_useless += 1
                if asking.num_useless >= self._limits.max_useless:
                    raise FetchFailed("nothing that it told was of use")
            if not records:
                return
            ids = [one for one in ids if one not in records]

    async def _take(self, asking: _Asking, record: bytes) -> None:
        asking.num_records += 1
        refusal = await self._hear(Received(record, asking.node_id, is_late=True))
        if refusal is None:
            asking.num_taken += 1
            return
        if refusal in (Refusal.OWN, Refusal.BANNED):
            # Of a node that lost what it had kept, or of one whom only this node will not hear:
            # true, and no news. Whoever tells it is not of less use for that.
            asking.num_own += 1
            return
        asking.num_refused += 1
        if refusal.charge is Charge.CARRIER:
            raise FetchFailed(f"it told an announcement that is {refusal}")

    async def _request(self, asking: _Asking, request: bytes) -> bytes:
        asking.num_requests += 1
        reply = await self._gossip.ask_catalogue(asking.node_id, request)
        asking.num_bytes += len(request) + len(reply)
        return reply

    def _remember(self, ids: Iterable[bytes]) -> None:
        for one in ids:
            self._told[one] = None
        while len(self._told) > self._limits.remembered:
            self._told.popitem(last=False)

    def _count(self, **more: int) -> None:
        counted = {name: getattr(self._stats, name) + num for name, num in more.items()}
        self._stats = replace(self._stats, **counted)
