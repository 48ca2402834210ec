"""Rollouts with their verdicts, groups to learn from, and the rule by which a batch is mixed.

The rule (SAPO, step 4): T = the node's own I rollouts, all of them, and up to J foreign ones,
drawn uniformly from those whose rewards differ. `wants`, `max_from_one_peer` and `mix` are its
parts; the draw itself is made where the foreign rollouts lie, in the pool of the control process.
`may_share` is the other end: which own rollouts peers may have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from node.config import Share
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
        return wants(self.correct)

    @property
    def has_advantage(self) -> bool:
        """Whether this node's rewards differ, so that some advantage is not zero."""
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
    """Multiplies the advantages; below 1 for a foreign group that is unlike the own policy. A
    group of weight 0 has no gradient, but its tokens count in the mean over the batch's tokens:
    they did at every weight above."""


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
        if not (math.isfinite(group.weight) and group.weight >= 0):
            return f"the weight {group.weight} is not a number of at least 0"
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


def wants(correct: Sequence[bool]) -> bool:
    """Whether the mixing rule takes a foreign rollout with these verdicts: not all are equal.

    Asked of an announcement's claimed bits before a rollout is fetched, and again of what this
    node's own verifier found.
    """
    return differ([float(one) for one in correct])


def max_from_one_peer(num_foreign: int, peer_share: float) -> int:
    """Foreign rollouts of one round that one peer may have written: J * share rounded up, >= 1."""
    # Rounded first: 100 * 0.07 is 7.000000000000001.
    return max(1, math.ceil(round(num_foreign * peer_share, 9)))


def mix(
    own: Sequence[VerifiedRollout], foreign: Sequence[VerifiedRollout]
) -> list[VerifiedRollout]:
    """The training set T: all own rollouts, then those foreign ones that have an advantage."""
    return [*own, *(one for one in foreign if one.has_advantage)]


def may_share(own: Sequence[VerifiedRollout], share: Share) -> list[VerifiedRollout]:
    """Those of a round's own rollouts that are offered to peers, in order.

    Never one with an answer that was not judged. `none`: none. `informative`: those whose verdicts
    differ. `lessons`: these, and the first all-correct one of each task: it has no advantage, but
    without it a master of a task would have nothing to teach. `all`: all.
    """
    judged = [] if share == "none" else [one for one in own if one.is_shareable]
    if share == "all":
        return judged
    lessons: dict[str, VerifiedRollout] = {}
    if share == "lessons":
        for one in judged:
            if all(one.correct):
                lessons.setdefault(one.expansion.question.task, one)
    return [
        one
        for one in judged
        if one.is_informative or lessons.get(one.expansion.question.task) is one
    ]
