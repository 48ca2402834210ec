"""What must hold before a foreign rollout goes into the pool, checked in the order of its cost.

announced -> wanted -> fetched -> size -> signature -> the announcer's, as announced -> not expired
-> not seen, not copied -> length -> author within its budget -> question regenerated, not held out
-> every answer judged -> claimed bits equal own ones. The first check that fails names the refusal
(swarm/refusal.py).
"""

import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import trio

from rewards.question import Expansion, Judged, Unscorable, Verdict, is_held_out
from swarm.bans import IsBanned, nobody
from swarm.budget import Budget
from swarm.claims import Claims
from swarm.gossip import Received
from swarm.heard import Heard
from swarm.judge import Judge
from swarm.limits import Kind, PeerLimits
from swarm.manifest import Rules
from swarm.offers import Offer
from swarm.protocol import CLOCK_TOLERANCE_S, MAX_ROLLOUT_BYTES
from swarm.refusal import Refusal as Refusal
from swarm.rollout import Announcement, Entry, Rollout
from swarm.shards import shard_of
from swarm.wire import WireError, WireProblem, open_announcement, open_rollout, rollout_hash

_OF_ANNOUNCEMENTS = {
    WireProblem.TOO_LARGE: Refusal.TOO_LARGE,
    WireProblem.MALFORMED: Refusal.MALFORMED,
    WireProblem.BAD_SIGNATURE: Refusal.BAD_SIGNATURE,
}
_OF_ROLLOUTS = {
    WireProblem.TOO_LARGE: Refusal.ROLLOUT_TOO_LARGE,
    WireProblem.MALFORMED: Refusal.ROLLOUT_MALFORMED,
    WireProblem.BAD_SIGNATURE: Refusal.ROLLOUT_BAD_SIGNATURE,
}

FindKnown = Callable[[bytes, Rollout], Awaitable[Refusal | None]]
"""Hash and rollout -> SEEN, COPIED or None (swarm/pool.py)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An announcement that is not listened to."""

    reason: Refusal
    node_id: str
    """At whom it is counted: the author if it alone can have caused it, else the carrier."""
    proof: tuple[bytes, ...] = ()
    """Records that the author signed, where it is charged."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A rollout that passed."""

    rollout: Rollout
    expansion: Expansion
    correct: tuple[bool, ...]
    """Own verdicts, equal to the claimed ones."""


@dataclass(slots=True)
class Seen:
    """What a check of a rollout brought to light, whatever came of it: for people to read."""

    rollout: Rollout | None = None
    """None where the bytes are none."""
    expansion: Expansion | None = None
    """None where it did not come to that."""
    verdicts: list[Verdict] = field(default_factory=list)
    """Own ones, of the first answers or of all."""


class Admission:
    """The checks of one node. Used by one trio task at a time, but for `admit`."""

    def __init__(
        self,
        swarm_id: str,
        node_id: str,
        rules: Rules,
        judge: Judge,
        find_known: FindKnown,
        wants: Callable[[Entry], bool],
        clock: Callable[[], float] = time.time,
        budget: Budget | None = None,
        limits: PeerLimits | None = None,
        is_banned: IsBanned = nobody,
    ) -> None:
        """
        Args:
            wants: whether a rollout with these claims could be of use.
            budget: of the verifier's time; None makes one with default limits.
            clock: Unix seconds.
            limits: how often an author may announce; None is no limit.
            is_banned: of authors: nothing that they signed is taken.
        """
        self.judged_tasks: Collection[str] = frozenset()
        """Tasks whose digest here is the manifest's."""
        self.budget = budget or Budget()
        self.claims = Claims(judge, self.budget, clock)
        self._swarm_id = swarm_id
        self._node_id = node_id
        self._rules = rules
        self._task_names = frozenset(spec.name for spec in rules.tasks)
        self._judge = judge
        self._find_known = find_known
        self._wants = wants
        self._clock = clock
        self._limits = limits or PeerLimits({})
        self._is_banned = is_banned
        self._heard = Heard()

    def hear(self, received: Received) -> Announcement | Refused:
        """The announcement in the bytes, or why it is not listened to."""
        try:
            announcement = open_announcement(received.record)
        except WireError as error:
            return Refused(_OF_ANNOUNCEMENTS[error.problem], received.carrier)
        author, sequence = announcement.author, announcement.sequence
        if announcement.swarm_id != self._swarm_id:
            return Refused(Refusal.WRONG_SWARM, received.carrier)
        if author == self._node_id:
            return Refused(Refusal.OWN, received.carrier)
        if self._is_banned(author):
            return Refused(Refusal.BANNED, author)
        if received.shard not in (None, self.shard(announcement)):
            return Refused(Refusal.WRONG_SHARD, received.carrier)
        if self._heard.is_repeated(author, sequence, received.record):
            return Refused(Refusal.REPEATED, received.carrier)
        first_seen = self.first_seen(announcement.created, received.is_late)
        if self.expiry(announcement.created, first_seen) <= self._clock():
            return Refused(Refusal.EXPIRED, received.carrier)
        if announcement.created > self._clock() + CLOCK_TOLERANCE_S:
            return Refused(Refusal.FROM_THE_FUTURE, author)
        if (earlier := self._heard.contradicted(author, sequence)) is not None:
            return Refused(Refusal.EQUIVOCATION, author, (earlier, received.record))
        if not received.is_late and not self._limits.allows(author, Kind.AUTHOR):
            return Refused(Refusal.TOO_OFTEN, author)
        self._heard.remember(author, sequence, received.record, received.is_late)
        return announcement

    def forget(self, author: str) -> None:
        """What was heard of an author before counts as new when it comes again."""
        self._heard.forget(author)

    def shard(self, announcement: Announcement) -> int:
        """On which it belongs (swarm/shards.py)."""
        author, created = announcement.author, announcement.created
        return shard_of(self._swarm_id, author, created, self._rules.shards)

    def check_entry(self, entry: Entry) -> Refusal | None:
        """Why an announced rollout is not worth fetching."""
        if entry.question.task not in self._task_names:
            return Refusal.UNKNOWN_TASK
        if entry.question.task not in self.judged_tasks:
            return Refusal.TASK_NOT_JUDGED_HERE
        if len(entry.correct) > self._rules.max_answers:
            return Refusal.TOO_MANY_ANSWERS
        return None if self._wants(entry) else Refusal.NOT_WANTED

    async def admit(
        self, offer: Offer, record: bytes, seen: Seen | None = None
    ) -> Admitted | Refusal:
        """A fetched rollout, judged; or the first reason against it.

        Answers are judged one by one, up to the first that is unscorable or that its author's
        budget does not hold: a hostile rollout meets one deadline at most, and own answers get
        their turn in between. Waits where all authors together are over their bound.

        Args:
            record: bytes that have the hash of the offer.
            seen: is filled as the checks go on.

        Raises:
            VerifierBroken, VerifierClosed: from the judge.
        """
        if self._is_banned(offer.author):
            return Refusal.BANNED
        if len(record) > MAX_ROLLOUT_BYTES:
            return Refusal.ROLLOUT_TOO_LARGE
        if len(record) != offer.entry.num_bytes:
            return Refusal.MISMATCH
        try:
            rollout = open_rollout(record)
        except WireError as error:
            return _OF_ROLLOUTS[error.problem]
        seen = seen or Seen()
        seen.rollout = rollout
        for check in (_check_author, _check_entry, self._check_swarm, self._check_age):
            if refusal := check(offer, rollout):
                return refusal
        if known := await self._find_known(rollout_hash(record), rollout):
            return known
        if self._is_too_long(rollout):
            return Refusal.TOO_LONG
        return await self._judge_rollout(offer, rollout, seen)

    def first_seen(self, created: float, is_late: bool) -> float:
        """When an announcement that comes now counts as first seen, in Unix seconds: one that this
        node missed, when it was signed. So it is as old here as where it was heard in time."""
        return min(created, self._clock()) if is_late else self._clock()

    def expiry(self, created: float, first_seen: float) -> float:
        """When something signed and first seen then stops being of use, in Unix seconds."""
        lifetime_s = self._rules.lifetime_s
        return min(created + lifetime_s + CLOCK_TOLERANCE_S, first_seen + lifetime_s)

    async def _judge_rollout(
        self, offer: Offer, rollout: Rollout, seen: Seen
    ) -> Admitted | Refusal:
        author = rollout.author
        if not await self._may_judge(author):
            return Refusal.OVER_BUDGET
        expansion, held_s = await self._judge.expand(rollout.question)
        self.budget.spend(author, held_s)
        if isinstance(expansion, Unscorable):
            return Refusal.UNSCORABLE
        seen.expansion = expansion
        if expansion.question != rollout.question:
            return Refusal.NOT_CANONICAL
        if is_held_out(expansion.text):
            return Refusal.HELD_OUT
        verdicts: list[Judged] = []
        for answer in rollout.answers:
            if not await self._may_judge(author):
                return Refusal.OVER_BUDGET
            verdict, held_s = await self._judge.judge(rollout.question, answer)
            self.budget.spend(author, held_s)
            seen.verdicts.append(verdict)
            if isinstance(verdict, Unscorable):
                return Refusal.UNSCORABLE
            verdicts.append(verdict)
        if refusal := await self.claims.compare(rollout, offer.entry.correct, verdicts):
            return refusal
        return Admitted(rollout, expansion, tuple(verdict.correct for verdict in verdicts))

    async def _may_judge(self, author: str) -> bool:
        await trio.sleep(self.budget.wait_s)
        return self.budget.allows(author)

    def _check_swarm(self, offer: Offer, rollout: Rollout) -> Refusal | None:
        return None if rollout.swarm_id == self._swarm_id else Refusal.WRONG_SWARM

    def _check_age(self, offer: Offer, rollout: Rollout) -> Refusal | None:
        now = self._clock()
        if self.expiry(rollout.created, offer.first_seen) <= now:
            return Refusal.EXPIRED
        return Refusal.FROM_THE_FUTURE if rollout.created > now + CLOCK_TOLERANCE_S else None

    def _is_too_long(self, rollout: Rollout) -> bool:
        limit = self._rules.max_answer_bytes
        return any(len(answer.text.encode()) > limit for answer in rollout.answers)


def _check_author(offer: Offer, rollout: Rollout) -> Refusal | None:
    return None if rollout.author == offer.author else Refusal.NOT_THE_ANNOUNCERS


def _check_entry(offer: Offer, rollout: Rollout) -> Refusal | None:
    """A rollout may be announced again later, so its sequence may be lower, but never higher."""
    entry = offer.entry
    is_as_announced = (
        rollout.question == entry.question
        and len(rollout.answers) == len(entry.correct)
        and rollout.policy_round == entry.policy_round
        and rollout.sequence <= offer.sequence
    )
    return None if is_as_announced else Refusal.MISMATCH
