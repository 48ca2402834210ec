"""A rollout as people read it: question, answers side by side with verdicts, and what became of it.

Text is as it came, of strangers, too: whoever shows it escapes it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from rewards.question import Answer, Example, Expansion, Judged, Question, Unscorable, Verdict
from swarm.intake import Outcome
from swarm.rollout import Rollout

PREVIEW_CHARS = 200


class Kind(StrEnum):
    """Whose rollout it is."""

    OWN = "own"
    FOREIGN = "foreign"


class Fate(StrEnum):
    """What became of a rollout."""

    SHARED = "shared"
    """Own: peers were offered it."""
    NOT_SHARED = "not_shared"
    """Own: this node alone learned from it, if it had an advantage (`swarm.share`)."""
    IN_POOL = "in_pool"
    """Foreign: admitted, and not used yet."""
    DRAWN = "drawn"
    """Foreign: handed to the learner; its round is not finished, or was never."""
    USED = "used"
    """Foreign: in the batch of `round`."""
    REFUSED = "refused"
    """Foreign: not taken, or drawn for `round` and left out; `reason` says why."""
    GONE = "gone"
    """Foreign: in the pool no more, and no round is known to have used it."""


class ShownAnswer(msgspec.Struct, frozen=True):
    """One answer, and what was found of it."""

    text: str
    finished: bool
    """Ended by itself; a claim when foreign, as the next two."""
    num_tokens: int
    mean_logp: float | None
    """Mean log-probability per token in nats under its author's policy."""
    correct: bool | None
    """What this node's verifier found; null where it did not come to that."""
    unscorable: str | None = None
    """Why this node's verifier could not decide."""
    claimed: bool | None = None
    """What its author announced; null for an own one."""


class RolloutSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout in a list."""

    number: int = 0
    """Rises with each that is kept: where the next page begins."""
    hash: bytes
    """SHA-256 of its signed bytes. Of its question and answers, where it is an own one that was
    never signed."""
    kind: Kind
    author: str
    sequence: int | None
    """Of the announcement that named it first; null where it was not shared."""
    task: str
    index: int
    preview: str | None
    """The question's first 200 characters; null where it was refused before it was made."""
    num_answers: int
    num_correct: int
    """Of those that this node's verifier judged."""
    num_judged: int
    policy_round: int
    """Updates that its author's policy had made; a claim when foreign, as the next two."""
    model: str
    created: float
    """Unix seconds."""
    seen: float
    """Unix seconds of its announcement's arrival; when it was made, if it is an own one."""
    age_s: float = 0.0
    """Since then."""
    fate: Fate
    round: int | None = None
    """Own: in which it was made. Foreign: for which it was drawn."""
    reason: str | None = None
    """Of a refusal (docs/swarm.md lists them)."""


class RolloutText(msgspec.Struct, frozen=True):
    """What a list leaves out."""

    question: str | None
    """What the policy was asked; null where it was refused before the question was made."""
    system: str
    examples: tuple[Example, ...]
    """Turns before the question."""
    truth: str | None
    """A correct answer; where several are correct, one of them."""
    answers: tuple[ShownAnswer, ...]


class RolloutView(RolloutSummary, frozen=True, kw_only=True):
    """A whole rollout."""

    question: str | None
    """What the policy was asked; null where it was refused before the question was made."""
    system: str
    examples: tuple[Example, ...]
    """Turns before the question."""
    truth: str | None
    """A correct answer; where several are correct, one of them."""
    answers: tuple[ShownAnswer, ...]


@dataclass(frozen=True, slots=True)
class JudgedAnswers:
    """Own answers to one question."""

    answers: Sequence[Answer]
    verdicts: Sequence[Verdict]
    at: float
    """Unix seconds."""


def of_own(
    author: str,
    model: str,
    round_number: int,
    expansion: Expansion,
    judged: JudgedAnswers,
    shared: tuple[Rollout, bytes] | None,
) -> tuple[RolloutSummary, RolloutText]:
    """An own rollout.

    Args:
        shared: as peers may have it, and its hash; None where they may not.
    """
    rollout, hash = shared or (None, None)
    question, shown = expansion.question, tuple(map(_shown, judged.answers, judged.verdicts))
    summary = RolloutSummary(
        hash=hash or _content(question, judged.answers),
        kind=Kind.OWN,
        author=author,
        sequence=rollout.sequence if rollout else None,
        task=question.task,
        index=question.index,
        preview=_cut(expansion.text),
        num_answers=len(shown),
        num_correct=sum(one.correct is True for one in shown),
        num_judged=sum(one.correct is not None for one in shown),
        policy_round=rollout.policy_round if rollout else round_number - 1,
        model=model,
        created=rollout.created if rollout else judged.at,
        seen=judged.at,
        fate=Fate.SHARED if rollout else Fate.NOT_SHARED,
        round=round_number,
    )
    return summary, _text(expansion, shown)


def of_foreign(outcome: Outcome, rollout: Rollout) -> tuple[RolloutSummary, RolloutText]:
    """A peer's rollout that was fetched, whatever came of it."""
    offer, verdicts = outcome.offer, outcome.seen.verdicts
    claims = offer.entry.correct
    shown = tuple(
        _shown(
            answer,
            verdicts[place] if place < len(verdicts) else None,
            claims[place] if place < len(claims) else None,
        )
        for place, answer in enumerate(rollout.answers)
    )
    expansion = outcome.seen.expansion
    summary = RolloutSummary(
        hash=offer.entry.hash,
        kind=Kind.FOREIGN,
        author=rollout.author,
        sequence=rollout.sequence,
        task=rollout.question.task,
        index=rollout.question.index,
        preview=_cut(expansion.text) if expansion else None,
        num_answers=len(shown),
        num_correct=sum(one.correct is True for one in shown),
        num_judged=sum(one.correct is not None for one in shown),
        policy_round=rollout.policy_round,
        model=rollout.model,
        created=rollout.created,
        seen=offer.first_seen,
        fate=Fate.IN_POOL if outcome.refusal is None else Fate.REFUSED,
        reason=outcome.refusal,
    )
    return summary, _text(expansion, shown)


def _shown(answer: Answer, verdict: Verdict | None, claimed: bool | None = None) -> ShownAnswer:
    return ShownAnswer(
        answer.text,
        answer.finished,
        answer.num_tokens,
        answer.mean_logp,
        correct=verdict.correct if isinstance(verdict, Judged) else None,
        unscorable=verdict.reason.value if isinstance(verdict, Unscorable) else None,
        claimed=claimed,
    )


def _text(expansion: Expansion | None, answers: tuple[ShownAnswer, ...]) -> RolloutText:
    if expansion is None:
        return RolloutText(None, "", (), None, answers)
    return RolloutText(
        expansion.text, expansion.system, expansion.examples, expansion.truth, answers
    )


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW_CHARS else f"{text[: PREVIEW_CHARS - 1]}…"


def _content(question: Question, answers: Sequence[Answer]) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode((question, answers))).digest()
