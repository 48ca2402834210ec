"""Groups of answers on their way from a question to the learner: the data of a round."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from rewards.question import Answer, Expansion, Judged, Verdict, is_correct


def differ(rewards: Sequence[float]) -> bool:
    """Whether not all rewards are equal, so that some advantage is not zero."""
    return len(set(rewards)) > 1


@dataclass(frozen=True, slots=True)
class OwnRollout:
    """A rollout of this node: what may be shared, and what only its author knows."""

    expansion: Expansion
    answers: tuple[Answer, ...]
    policy_round: int
    """Updates that the policy had made when it answered."""
    token_ids: tuple[tuple[int, ...], ...]
    """Each answer as sampled, the end-of-sequence token included if it was reached."""


class Origin(msgspec.Struct, frozen=True):
    """Where a foreign rollout comes from."""

    author: str
    """Node id."""
    hash: bytes
    """Of the signed bytes: names the rollout everywhere."""
    policy_round: int
    """Updates that the author's policy had made; its claim."""
    age_s: float
    """Since this node first heard of it."""


@dataclass(frozen=True, slots=True)
class VerifiedRollout:
    """A rollout that this node's own verifier has judged."""

    expansion: Expansion
    answers: tuple[Answer, ...]
    verdicts: tuple[Verdict, ...]
    """One per answer."""
    token_ids: tuple[tuple[int, ...], ...] | None
    """Of an own rollout; None for a foreign one, which is re-encoded from its text."""
    policy_round: int = 0
    """Of an own rollout: updates that the policy had made when it answered."""
    origin: Origin | None = None
    """Of a foreign rollout; None for an own one."""
    terms: tuple[float, ...] = ()
    """What this node adds to the rewards by terms of its own (node/reward.py): one per answer, or
    none at all. Known to nobody else."""

    @property
    def correct(self) -> tuple[bool, ...]:
        """One per answer; false also for an own answer that is unscorable."""
        return tuple(is_correct(verdict) for verdict in self.verdicts)

    @property
    def rewards(self) -> tuple[float, ...]:
        """1 for a correct answer, else 0 (an own answer that is unscorable trains as wrong), and
        this node's own terms."""
        terms = self.terms or (0.0,) * len(self.verdicts)
        return tuple(correct + term for correct, term in zip(self.correct, terms, strict=True))

    @property
    def is_informative(self) -> bool:
        """Whether the verdicts differ: what every node can see, whatever its own terms."""
        return differ([float(one) for one in self.correct])

    @property
    def has_advantage(self) -> bool:
        """Whether this node's rewards differ, so that some advantage is not zero."""
        return differ(self.rewards)

    @property
    def is_shareable(self) -> bool:
        """Whether every answer was judged: others cannot check what we could not."""
        return all(isinstance(verdict, Judged) for verdict in self.verdicts)


class Source(StrEnum):
    """Where a rollout of a batch comes from."""

    OWN = "own"
    """This round's."""
    REPLAY = "replay"
    """This node's, of an earlier round."""
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Lesson:
    """A rollout of a batch, and what its answers are worth."""

    rollout: VerifiedRollout
    source: Source
    advantages: tuple[float, ...]
    """One per answer, from within this rollout and never across rollouts (SAPO, step 5). An answer
    with 0 has no gradient, but its tokens count in the mean over the batch's tokens."""
    weight: float = 1.0
    """Multiplies the advantages: below 1 for what is old."""


@dataclass(frozen=True, slots=True)
class Group:
    """All answers of one rollout as token ids: what the policy learns from."""

    prompt_ids: tuple[int, ...]
    """The question through the own chat template, generation prompt included."""
    answer_ids: tuple[tuple[int, ...], ...]
    """Own answers: as sampled. Foreign ones: re-encoded text, special tokens split."""
    advantages: tuple[float, ...]
    """One per answer."""
    weights: tuple[float, ...] = ()
    """Multiply the advantages, one per answer, none meaning 1: below 1 for answers that are old,
    or unlike the own policy. An answer of weight 0 has no gradient, but its tokens count in the
    mean over the batch's tokens: they did at every weight above."""

    @property
    def answer_weights(self) -> tuple[float, ...]:
        """One per answer."""
        return self.weights or (1.0,) * len(self.answer_ids)

    @property
    def taught(self) -> "Group":
        """The group with only those answers that have an advantage."""
        kept = [place for place, advantage in enumerate(self.advantages) if advantage]
        return Group(
            self.prompt_ids,
            tuple(self.answer_ids[place] for place in kept),
            tuple(self.advantages[place] for place in kept),
            tuple(self.answer_weights[place] for place in kept),
        )

    def times(self, factors: Sequence[float]) -> "Group":
        """The group with its answers' weights multiplied, one factor per answer."""
        pairs = zip(self.answer_weights, factors, strict=True)
        return replace(self, weights=tuple(weight * factor for weight, factor in pairs))


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a batch may hold; beyond it TRL or the model would crash in the middle of a step."""

    max_answers: int
    max_answer_tokens: int
    max_positions: int
    vocab_size: int

    def check(self, batch: Sequence[Group]) -> None:
        """Raises ValueError with the index of the first group that breaks a limit."""
        num_answers = sum(len(group.answer_ids) for group in batch)
        if num_answers > self.max_answers:
            raise ValueError(f"a batch of {num_answers} answers, at most {self.max_answers}")
        self.check_groups(batch)

    def check_groups(self, batch: Sequence[Group]) -> None:
        """The same, however many answers there are."""
        for index, group in enumerate(batch):
            if problem := self._problem(group):
                raise ValueError(f"group {index} of the batch: {problem}")

    def _problem(self, group: Group) -> str | None:
        if len(group.advantages) != len(group.answer_ids):
            return f"{len(group.answer_ids)} answers, but {len(group.advantages)} advantages"
        if not all(math.isfinite(one) for one in group.advantages):
            return "an advantage is not finite"
        if len(group.answer_weights) != len(group.answer_ids):
            return f"{len(group.answer_ids)} answers, but {len(group.weights)} weights"
        for weight in group.weights:
            if not (math.isfinite(weight) and weight >= 0):
                return f"the weight {weight} is not a number of at least 0"
        if not group.prompt_ids:
            return "the prompt is empty"
        for number, ids in enumerate((group.prompt_ids, *group.answer_ids)):
            name = f"answer {number - 1}" if number else "the prompt"
            if not ids:
                return f"{name} is empty; drop it, or append the end of sequence"
            if min(ids) < 0 or max(ids) >= self.vocab_size:
                return f"{name} has a token id outside of the vocabulary of {self.vocab_size}"
            if number and len(ids) > self.max_answer_tokens:
                return f"{name} has {len(ids)} tokens, at most {self.max_answer_tokens}"
            if number and len(group.prompt_ids) + len(ids) > self.max_positions:
                return f"{name} and its prompt exceed the model's {self.max_positions} positions"
        return None
