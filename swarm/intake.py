"""Hears announcements, fetches what the node can use, has it judged, and puts it into the pool.

Fetched is only what is wanted and missing: a node's traffic depends on what it learns from, not on
how much is announced. Nobody is charged for being late, slow or gone.
"""

import logging
import math
import random
import statistics
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import trio

from rewards.tasks import TaskFacts
from rewards.worker import escape
from swarm.admission import Admission, Admitted, Seen
from swarm.announcements import Announcements
from swarm.bans import IsBanned, nobody
from swarm.budget import Budget, BudgetLimits
from swarm.claims import WINDOW_S
from swarm.database import Offload
from swarm.fetch import MAX_REPLY_BYTES
from swarm.gossip import FetchFailed, Gossip, PeerBusy, Received
from swarm.hearing import Hearing
from swarm.judge import Judge
from swarm.ledger import Ledger
from swarm.limits import PeerLimits
from swarm.manifest import Rules
from swarm.offers import MAX_OFFERS, MAX_PER_AUTHOR, Offer, Offers
from swarm.pool import Pool
from swarm.protocol import CLOCK_TOLERANCE_S
from swarm.refusal import Charge, Refusal
from swarm.sources import SourceLimits, Sources
from swarm.wanted import Wanted

logger = logging.getLogger(__name__)

_NOT_REMEMBERED = {
    Refusal.MISMATCH,
    Refusal.NOT_THE_ANNOUNCERS,
    Refusal.SEEN,
    Refusal.OVER_BUDGET,
    Refusal.BANNED,
}
"""Refusals that say nothing about the hash: whoever named somebody else's rollout wrongly must not
keep that rollout out."""


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """How much an Intake keeps and does at once."""

    offers_per_author: int = MAX_PER_AUTHOR
    max_offers: int = MAX_OFFERS
    max_fetches: int = 4
    """Peers asked at once, and as many again that are late; each reply is at most MAX_REPLY_BYTES
    long."""
    fetch_timeout_s: float = 30.0
    retry_s: float = 5.0
    """After a failure, twice as long after each further one; and between looks at who is connected,
    while wanted offers wait for peers that are not."""
    max_attempts: int = 3
    """Of each offer."""
    num_holders: int = 0
    """Connected peers that are asked for an offer, in each attempt, where its author and its
    carrier did not deliver it."""
    max_visits: int = 0
    """Authors at once, of `max_fetches`, that are found and connected in order to be asked."""
    deadline_s: float = math.inf
    """From the first failure to the end of the last attempt."""
    patience_s: float = math.inf
    """What a peer has not delivered after so long counts as missing: others are asked for more, in
    its place."""
    gather_s: float = 0.05
    """Between announcements and the fetch, so that several go into one request."""
    flush_s: float = 30.0
    """Between writes of the ledger's counts."""
    keep_s: float = 2.0
    """Between writes of the announcements that are kept."""
    budget: BudgetLimits = field(default_factory=BudgetLimits)
    """Of the verifier's time."""


@dataclass(frozen=True, slots=True)
class IntakeStats:
    """What an Intake did since its start."""

    offers: int
    """Announced, wanted, and not fetched yet."""
    fetched_bytes: int
    """Of admitted and refused rollouts."""
    num_admitted: int
    announced_to_pool_s: float | None
    """Median seconds from first sight of an announcement to the pool, of the last 256."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a rollout that was fetched."""

    offer: Offer
    seen: Seen
    refusal: Refusal | None
    """None: it is in the pool."""


HearOutcome = Callable[[Outcome], Awaitable[None]]


async def unheard(outcome: Outcome) -> None:
    """The `HearOutcome` of a node whose rollouts nobody reads."""


class Intake:
    """The way from announcements to the pool. `run` it in the trio loop."""

    def __init__(
        self,
        gossip: Gossip,
        judge: Judge,
        pool: Pool,
        ledger: Ledger,
        offload: Offload,
        rules: Rules,
        swarm_id: str,
        wanted: Wanted,
        judged_tasks: Mapping[str, TaskFacts] | None = None,
        limits: IntakeLimits = IntakeLimits(),
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        kept: Announcements | None = None,
        peer_limits: PeerLimits | None = None,
        is_banned: IsBanned = nobody,
        hear_outcome: HearOutcome = unheard,
    ) -> None:
        """
        Args:
            wanted: see `want`.
            judged_tasks: see `judge_tasks`.
            clock: Unix seconds.
            kept: where announcements are kept over restarts; None keeps none.
            peer_limits: how often an author may announce; None is no limit.
            is_banned: of authors: nothing that they signed is taken.
            hear_outcome: is told of each rollout that was fetched.
        """
        self._gossip = gossip
        self._pool = pool
        self._ledger = ledger
        self._offload = offload
        self._wanted = wanted
        self._limits = limits
        self._clock = clock
        self._rng = rng or random.Random()
        self._admission = Admission(
            swarm_id,
            gossip.node_id,
            rules,
            judge,
            lambda hash, rollout: offload(pool.known, hash, rollout),
            lambda entry: self._wanted.could_use(entry),
            clock,
            Budget(limits.budget),
            peer_limits,
            is_banned,
        )
        self._is_banned = is_banned
        self._hear_outcome = hear_outcome
        self.judge_tasks(judged_tasks or {})
        self._remember_s = rules.lifetime_s + 2 * CLOCK_TOLERANCE_S
        self._offers = Offers(limits.offers_per_author, limits.max_offers)
        self._in_flight: dict[bytes, Offer] = {}
        """By hash: being fetched or judged."""
        self._keeps = kept is not None
        self._hearing = Hearing(
            self._admission,
            self._offers,
            pool,
            ledger,
            offload,
            self._is_in_flight,
            kept,
            clock,
        )
        self._sources = Sources(
            gossip,
            SourceLimits(
                limits.max_fetches,
                limits.patience_s,
                limits.retry_s,
                num_holders=limits.num_holders,
                max_visits=limits.max_visits,
            ),
            self._rng,
        )
        self._waiting: dict[str, tuple[float, list[Offer]]] = {}
        """Peers that were asked and have not replied -> since when, and for what."""
        self._wake = trio.Event()
        self._more = trio.Event()
        self._fetched_bytes = 0
        self._num_admitted = 0
        self._seconds: deque[float] = deque(maxlen=256)

    def judge_tasks(self, tasks: Mapping[str, TaskFacts]) -> None:
        """Takes rollouts of these tasks, whose digests here are the manifest's; those of others
        are refused, for free."""
        self._admission.judged_tasks = frozenset(tasks)
        self._admission.claims.deterministic = frozenset(
            name for name, facts in tasks.items() if facts.deterministic
        )

    def want(self, wanted: Wanted) -> None:
        """From now on this is wanted. Offers stay: what has no weight now may have one later."""
        self._wanted = wanted
        self.wake()

    @property
    def suspicion(self) -> str:
        """Why this node suspects its own verifier, as a sentence; empty while it does not."""
        return self._admission.claims.suspicion

    async def run(self) -> None:
        """Runs until it is cancelled or gossip ends. What goes wrong in it is raised.

        Raises:
            ExceptionGroup: of VerifierBroken, VerifierClosed, sqlite3.Error or a bug.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._plan_fetches)
                nursery.start_soon(self._flush_ledger)
                if self._keeps:
                    nursery.start_soon(self._flush_kept)
                    await self._recall()
                async for received in self._gossip.received:
                    await self.hear(received)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._hearing.flush()
                await self._offload(self._ledger.flush)

    async def hear(self, received: Received) -> Refusal | None:
        """Takes an announcement that did not come by gossip; or says why it is not listened to."""
        refusal = await self._hearing.hear(received)
        if refusal is None:
            self.wake()
        return refusal

    def drop_author(self, author: str) -> int:
        """Forgets the offers of an author who was banned; returns how many. What is fetched or
        judged of it at the moment is refused at its end."""
        offers = self._offers.take_of(author)
        for offer in offers:
            self._ledger.count_refused(offer.author, Refusal.BANNED)
        return len(offers)

    def hear_again(self, author: str) -> None:
        """After a ban: what was heard of an author before counts as new when it comes again."""
        self._admission.forget(author)

    def wake(self) -> None:
        """Tells that rollouts were taken from the pool, or that a peer has come."""
        self._wake.set()

    async def wait_for_more(self) -> None:
        """Returns when the pool got a rollout since the last call. One caller at a time."""
        await self._more.wait()
        self._more = trio.Event()

    def stats(self) -> IntakeStats:
        """A snapshot."""
        return IntakeStats(
            offers=len(self._offers) + len(self._in_flight),
            fetched_bytes=self._fetched_bytes,
            num_admitted=self._num_admitted,
            announced_to_pool_s=statistics.median(self._seconds) if self._seconds else None,
        )

    async def _plan_fetches(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()  # before looking: what comes meanwhile is not missed
                wait_s = await self._start_fetches(nursery)
                with trio.move_on_after(wait_s):
                    await self._wake.wait()
                await trio.sleep(self._limits.gather_s)

    async def _start_fetches(self, nursery: trio.Nursery) -> float:
        """Asks for what is missing; returns after how many seconds to look again by itself."""
        for offer in self._offers.take_expired(self._clock()):
            self._ledger.count_refused(offer.author, Refusal.EXPIRED)
        for offer in self._offers.take_overdue(trio.current_time()):
            self._ledger.count_refused(offer.author, Refusal.FETCH_FAILED)
        wanted, weigh = self._wanted, self._weigh
        taken = Counter(await self._offload(self._pool.fresh_by_author, wanted.weigh))
        late = self._late()
        taken.update(
            offer.author
            for offer in self._in_flight.values()
            if offer.entry.hash not in late and weigh(offer)
        )
        missing = wanted.num_fresh - taken.total()
        if missing <= 0 or not any(map(weigh, self._offers)):
            return self._limits.patience_s if self._waiting else float("inf")
        source_of, have_place = self._sources.look()
        groups = self._offers.take(
            missing,
            taken,
            wanted.max_from_one_author,
            self._if_ready(source_of),
            weigh,
            have_place,
            self._rng,
        )
        for source, offers in groups.items():
            self._sources.begin(source)
            self._waiting[source] = trio.current_time(), offers
            self._in_flight.update((offer.entry.hash, offer) for offer in offers)
            nursery.start_soon(self._fetch, source, offers)
        return self._limits.retry_s

    def _weigh(self, offer: Offer) -> float:
        """How much an offer is wanted now."""
        if self._is_banned(offer.author):  # it was being heard when the ban came
            return 0.0
        age_s = max(0.0, self._clock() - offer.first_seen)
        return self._wanted.weigh(offer.entry.question, offer.entry.correct, age_s)

    def _if_ready(self, source_of: Callable[[Offer], str | None]) -> Callable[[Offer], str | None]:
        """The same, but nobody for an offer that is on its way or whose author has no time left."""

        def source_if_ready(offer: Offer) -> str | None:
            has_room = self._admission.budget.has_room(offer.author)
            is_ready = has_room and offer.entry.hash not in self._in_flight
            return source_of(offer) if is_ready else None

        return source_if_ready

    def _late(self) -> set[bytes]:
        """Hashes that were asked for and that nobody should wait for any more."""
        before = trio.current_time() - self._limits.patience_s
        waiting = [offers for since, offers in self._waiting.values() if since <= before]
        return {offer.entry.hash for offers in waiting for offer in offers}

    async def _fetch(self, source: str, offers: list[Offer]) -> None:
        """Fetches from one peer, and judges what came."""
        hashes, is_cut = [offer.entry.hash for offer in offers], False
        try:
            with trio.fail_after(self._limits.fetch_timeout_s):
                records = await self._gossip.fetch(source, hashes, MAX_REPLY_BYTES)
            self._sources.answered(source)
        except PeerBusy:
            records, is_cut = {}, self._sources.was_busy(source)
        except (FetchFailed, trio.TooSlowError) as error:
            logger.info("no rollouts from %s: %s", source, escape(str(error)))
            records, is_cut = {}, self._sources.failed(source)
        del self._waiting[source]
        for offer in offers:
            if (record := records.get(offer.entry.hash)) is None:
                self._postpone(offer, source, is_cut)
            else:
                await self._take_in(offer, record)
            del self._in_flight[offer.entry.hash]
        self._sources.end(source)
        self.wake()

    def _postpone(self, offer: Offer, source: str, is_cut: bool) -> None:
        """Whoever is next is asked at once; where nobody is left, all are again later."""
        if self._is_banned(offer.author):
            self._ledger.count_refused(offer.author, Refusal.BANNED)
            return
        now, limits = trio.current_time(), self._limits
        offer.give_up_at = min(offer.give_up_at, now + limits.deadline_s)
        is_cut = is_cut and limits.num_holders > 0  # else its attempts are all that ends an offer
        if not is_cut:
            offer.tried.add(source)
        if not is_cut and (not limits.num_holders or self._sources.was_last(offer)):
            offer.tried.clear()
            offer.num_failures += 1
            offer.not_before = now + limits.retry_s * 2 ** (offer.num_failures - 1)
        if offer.num_failures >= limits.max_attempts or offer.give_up_at <= now:
            blamed = source if source in (offer.author, offer.carrier) else offer.author
            self._ledger.count_refused(blamed, Refusal.FETCH_FAILED)
        else:
            self._hearing.add(offer)

    async def _take_in(self, offer: Offer, record: bytes) -> None:
        self._fetched_bytes += len(record)
        self._ledger.count_fetched(offer.author, len(record))
        seen = Seen()
        found = await self._admission.admit(offer, record, seen)
        refusal = (
            await self._pool_it(offer, record, found) if isinstance(found, Admitted) else found
        )
        await self._hear_outcome(Outcome(offer, seen, refusal))
        if refusal is None:
            self._num_admitted += 1
            self._ledger.count_admitted(offer.author)
            if not offer.is_late:
                self._seconds.append(self._clock() - offer.first_seen)
            self._more.set()
            return
        if refusal.charge is Charge.AUTHOR:
            await self._hearing.charge(offer.author, refusal, (offer.announcement, record))
        else:
            self._ledger.count_refused(offer.author, refusal)
        if refusal is Refusal.DISAGREEMENT and self.suspicion:
            await self._take_back()
        if refusal not in _NOT_REMEMBERED:
            until = self._clock() + self._remember_s
            await self._offload(self._pool.refuse, offer.entry.hash, until)

    async def _pool_it(self, offer: Offer, record: bytes, found: Admitted) -> Refusal | None:
        if self._is_banned(offer.author):  # while it was judged
            return Refusal.BANNED
        return await self._offload(
            self._pool.add_foreign,
            record,
            found.rollout,
            found.expansion,
            found.correct,
            offer.first_seen,
        )

    async def _take_back(self) -> None:
        """What was charged for claims before this node suspected itself was probably wrong."""
        since = self._clock() - WINDOW_S
        wrong, free = Refusal.WRONG_CLAIM, Refusal.DISAGREEMENT
        num = await self._offload(self._ledger.take_back, wrong, free, since)
        if num:
            logger.warning("%d charges for wrong claims are taken back", num)

    async def _recall(self) -> None:
        if num := await self._hearing.recall():
            logger.info("%d announcements are known from before", num)
            self.wake()

    def _is_in_flight(self, author: str, hash: bytes) -> bool:
        in_flight = self._in_flight.get(hash)
        return in_flight is not None and in_flight.author == author

    async def _flush_ledger(self) -> None:
        while True:
            await trio.sleep(self._limits.flush_s)
            await self._offload(self._ledger.flush)

    async def _flush_kept(self) -> None:
        while True:
            await trio.sleep(self._limits.keep_s)
            await self._hearing.flush()
