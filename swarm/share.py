"""Offers a node's own rollouts to its peers, and serves what peers ask for."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from rewards.question import Answer, Question
from swarm.announcements import Announcements, KeptAnnouncement
from swarm.database import Offload
from swarm.gossip import Gossip
from swarm.identity import Identity, Sequences
from swarm.manifest import Rules
from swarm.pool import Pool
from swarm.protocol import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_ENTRIES,
    MAX_MODEL_NAME_CHARS,
    MAX_ROLLOUT_BYTES,
    MIN_ANSWERS,
)
from swarm.rollout import Announcement, Entry, Rollout, is_address
from swarm.shards import shard_of
from swarm.wire import open_rollout, rollout_hash, seal

logger = logging.getLogger(__name__)

OwnRollout = tuple[Question, Sequence[Answer], Sequence[bool], int]
"""Question, answers, whether each is correct, and the policy round that gave them."""

HearKept = Callable[[Rollout, bytes], None]
"""An own rollout as it is shared, and its hash; called from the database's thread."""

_HEAD_BYTES = 512
"""Of an announcement without its entries, seal included: at most so many."""

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class ShareStats:
    """What a Publisher did since its start."""

    num_rollouts: int = 0
    num_announcements: int = 0
    num_left_out: int = 0
    """Rollouts that every peer would have refused for a limit of the swarm."""


class Publisher:
    """Seals, keeps and announces. Used from the trio thread; what is slow is offloaded."""

    def __init__(
        self,
        identity: Identity,
        swarm_id: str,
        rules: Rules,
        sequences: Sequences,
        pool: Pool,
        gossip: Gossip,
        offload: Offload,
        clock: Callable[[], float] = time.time,
        kept: Announcements | None = None,
        hear_kept: HearKept = lambda rollout, hash: None,
    ) -> None:
        """Takes a sequence: the incarnation of all announcements of this process.

        Args:
            clock: Unix seconds.
            kept: where announcements are kept for peers that are away; None keeps none.
            hear_kept: is told of each rollout that peers may have from now on.
        """
        self._identity = identity
        self._swarm_id = swarm_id
        self._rules = rules
        self._sequences = sequences
        self._pool = pool
        self._gossip = gossip
        self._offload = offload
        self._clock = clock
        self._kept = kept
        self._hear_kept = hear_kept
        self._incarnation = sequences.take()
        self._stats = ShareStats()

    @property
    def incarnation(self) -> int:
        """That of all announcements of this process."""
        return self._incarnation

    async def share(self, rollouts: Sequence[OwnRollout], model: str) -> int:
        """Offers rollouts to all peers; returns how many. They are served until they expire.

        One that breaks a limit of the swarm is left out, with a warning in the log: peers would
        refuse it, and charge this node for it.

        Args:
            model: name that peers see, cut to what they accept.
        """
        fit = [one for one in rollouts if self._fits(one)]
        announcements, num = await self._offload(self._keep, fit, model[:MAX_MODEL_NAME_CHARS])
        self._stats = ShareStats(
            self._stats.num_rollouts + num,
            self._stats.num_announcements + len(announcements),
            self._stats.num_left_out + len(rollouts) - num,
        )
        for record in announcements:
            await self._gossip.announce(record)
        return num

    async def find(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """What peers are served: own and foreign rollouts that have not expired."""
        return await self._offload(self._pool.find, hashes)

    def stats(self) -> ShareStats:
        """A snapshot."""
        return self._stats

    def _fits(self, rollout: OwnRollout) -> bool:
        question, answers, correct, _ = rollout
        if problem := self._problem(question, answers, correct):
            logger.warning(
                "own rollout of %s/%d is not shared: %s", question.task, question.index, problem
            )
        return problem is None

    def _problem(
        self, question: Question, answers: Sequence[Answer], correct: Sequence[bool]
    ) -> str | None:
        rules = self._rules
        if not is_address(question) or question.task not in {task.name for task in rules.tasks}:
            return "the swarm has no such question"
        if not MIN_ANSWERS <= len(answers) <= rules.max_answers or len(answers) != len(correct):
            return f"{len(answers)} answers, {MIN_ANSWERS} to {rules.max_answers} are allowed"
        try:
            longest = max(len(answer.text.encode()) for answer in answers)
        except UnicodeEncodeError:
            return "an answer's text has no UTF-8 form"
        if longest > rules.max_answer_bytes:
            return f"an answer of {longest} bytes, at most {rules.max_answer_bytes} are allowed"
        return None

    def _keep(self, rollouts: Sequence[OwnRollout], model: str) -> tuple[list[bytes], int]:
        """Seals rollouts and puts them into the pool; returns sealed announcements of them, and
        how many they announce."""
        announcements: list[bytes] = []
        num = 0
        for part in _parts(rollouts):
            sequence = self._sequences.take()
            entries = [
                entry
                for rollout in part
                if (entry := self._keep_one(rollout, model, sequence)) is not None
            ]
            if entries:
                announcement = Announcement(
                    self._swarm_id,
                    self._identity.node_id,
                    sequence,
                    self._incarnation,
                    self._clock(),
                    tuple(entries),
                )
                announcements.append(seal(announcement, self._identity))
                self._keep_announcement(announcement, announcements[-1])
                num += len(entries)
        if self._kept is not None:
            self._kept.write()  # at once: a crash must not cost what is told to peers now
        return announcements, num

    def _keep_announcement(self, announcement: Announcement, record: bytes) -> None:
        if self._kept is not None:
            author, created = announcement.author, announcement.created
            expires = created + self._rules.lifetime_s
            shard = shard_of(self._swarm_id, author, created, self._rules.shards)
            self._kept.keep(
                KeptAnnouncement(record, author, announcement.sequence, created, expires, shard)
            )

    def _keep_one(self, own: OwnRollout, model: str, sequence: int) -> Entry | None:
        question, answers, correct, policy_round = own
        rollout = Rollout(
            self._swarm_id,
            self._identity.node_id,
            sequence,
            question,
            tuple(answers),
            model,
            policy_round,
            self._clock(),
        )
        try:
            record = seal(rollout, self._identity)
            open_rollout(record)  # what peers would call malformed is found here first
        except ValueError as error:
            logger.warning(
                "own rollout of %s/%d is not shared: %s", question.task, question.index, error
            )
            return None
        self._pool.add_own(record, rollout, correct)
        hash = rollout_hash(record)
        self._hear_kept(rollout, hash)
        return Entry(hash, question, len(record), tuple(correct), policy_round)


def _parts(rollouts: Sequence[OwnRollout]) -> Iterator[list[OwnRollout]]:
    """Rollouts whose entries fit into one announcement each, by number and by bytes."""
    part: list[OwnRollout] = []
    num_bytes = _HEAD_BYTES
    for rollout in rollouts:
        question, _, correct, policy_round = rollout
        entry = Entry(bytes(32), question, MAX_ROLLOUT_BYTES, tuple(correct), policy_round)
        size = len(_encode(entry))
        if part and (len(part) == MAX_ENTRIES or num_bytes + size > MAX_ANNOUNCEMENT_BYTES):
            yield part
            part, num_bytes = [], _HEAD_BYTES
        part.append(rollout)
        num_bytes += size
    if part:
        yield part
