"""Rollouts with their verdicts, groups to learn from, and how a batch is mixed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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

    @property
    def rewards(self) -> tuple[float, ...]:
        """1 for a correct answer, else 0: an own answer that is unscorable trains as wrong."""
        return tuple(float(is_correct(verdict)) for verdict in self.verdicts)

    @property
    def is_informative(self) -> bool:
        """Whether the rewards differ, so that some advantage is not zero."""
        return differ(self.rewards)

    @property
    def is_shareable(self) -> bool:
        """Whether every answer was judged: others cannot check what we could not."""
        return all(isinstance(verdict, Judged) for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Group:
    """All answers of one rollout as token ids: what the policy learns from.

    Advantages are computed within a group and never across groups (SAPO, step 5).
    """

    prompt_ids: tuple[int, ...]
    """The question through the own chat template, generation prompt included."""
    answer_ids: tuple[tuple[int, ...], ...]
    """Own answers: as sampled. Foreign ones: re-encoded text, special tokens split."""
    rewards: tuple[float, ...]
    """One per answer, from the node's own verifier."""
    weight: float = 1.0
    """Multiplies the advantages; below 1 for a foreign group that is unlike the own policy."""

    @property
    def is_informative(self) -> bool:
        """Whether the rewards differ, so that some advantage is not zero."""
        return differ(self.rewards)


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
        for index, group in enumerate(batch):
            if problem := self._problem(group):
                raise ValueError(f"group {index} of the batch: {problem}")

    def _problem(self, group: Group) -> str | None:
        if len(group.rewards) != len(group.answer_ids):
            return f"{len(group.answer_ids)} answers, but {len(group.rewards)} rewards"
        if not all(math.isfinite(reward) for reward in group.rewards):
            return "a reward is not finite"
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


def mix(own: Sequence[VerifiedRollout]) -> list[VerifiedRollout]:
    """The training set T of a node alone (J = 0): its own rollouts, all of them.

    Step 2 adds what peers offer: I own and J foreign rollouts (SAPO, step 4).
    """
    return list(own)
