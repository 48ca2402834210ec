"""The two things that nodes exchange: rollouts, and announcements of them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from rewards.question import MAX_INDEX, Answer
from rewards.question import Question as Question
from swarm.protocol import (
    MAX_ANSWERS,
    MAX_ENTRIES,
    MAX_MODEL_NAME_CHARS,
    MAX_POLICY_ROUND,
    MAX_ROLLOUT_BYTES,
    MAX_SEQUENCE,
    MIN_ANSWERS,
)

NodeId = Annotated[str, Meta(min_length=40, max_length=64)]
"""A libp2p peer id of an ed25519 key in base58: the key itself can be read from it."""
SwarmId = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
RolloutHash = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""SHA-256 of a rollout's signed bytes (swarm/wire.py)."""
Sequence = Annotated[int, Meta(ge=1, lt=MAX_SEQUENCE)]
PolicyRound = Annotated[int, Meta(ge=0, lt=MAX_POLICY_ROUND)]
UnixSeconds = Annotated[float, Meta(ge=0, lt=2**40)]


class Rollout(msgspec.Struct, frozen=True):
    """All answers of one node to one question (a rollout group of the paper), as its author
    signs it. Everything but swarm, author and sequence is a claim until it was verified."""

    swarm_id: SwarmId
    author: NodeId
    sequence: Sequence
    """Of the announcement that names it first."""
    question: Question
    answers: Annotated[tuple[Answer, ...], Meta(min_length=MIN_ANSWERS, max_length=MAX_ANSWERS)]
    model: Annotated[str, Meta(max_length=MAX_MODEL_NAME_CHARS)]
    """Name of the author's model."""
    policy_round: PolicyRound
    """Updates that the author's policy had made when it answered."""
    created: UnixSeconds


class Entry(msgspec.Struct, frozen=True):
    """One rollout of an announcement: what a peer needs to know before it fetches."""

    hash: RolloutHash
    question: Question
    num_bytes: Annotated[int, Meta(ge=1, le=MAX_ROLLOUT_BYTES)]
    """Of the rollout's signed bytes."""
    correct: Annotated[tuple[bool, ...], Meta(min_length=MIN_ANSWERS, max_length=MAX_ANSWERS)]
    """What the author's verifier found, one per answer: its claim."""
    policy_round: PolicyRound

    @property
    def is_informative(self) -> bool:
        """Whether the claimed rewards differ."""
        return len(set(self.correct)) > 1


class Announcement(msgspec.Struct, frozen=True):
    """Rollouts that their author offers."""

    swarm_id: SwarmId
    author: NodeId
    sequence: Sequence
    """Strictly rising per author, over restarts, checkpoints and backups."""
    incarnation: Sequence
    """The sequence with which the author's process started."""
    created: UnixSeconds
    entries: Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=MAX_ENTRIES)]


def is_address(question: Question) -> bool:
    """Whether a question is well-formed: a short task name and an index in range."""
    return 1 <= len(question.task) <= 64 and 0 <= question.index < MAX_INDEX
