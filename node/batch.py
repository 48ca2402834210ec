"""Rollouts with their verdicts, groups to learn from, and how a batch is mixed."""

from collections.abc import Sequence
from dataclasses import dataclass

from rewards.question import Expansion, Judged, Verdict, is_correct
from swarm.rollout import Rollout


@dataclass(frozen=True, slots=True)
class OwnRollout:
    """A rollout of this node: what is shared, and what only its author knows."""

    rollout: Rollout
    expansion: Expansion
    token_ids: tuple[tuple[int, ...], ...]
    """Each answer as sampled, the end-of-sequence token included if it was reached."""


@dataclass(frozen=True, slots=True)
class VerifiedRollout:
    """A rollout that this node's own verifier has judged."""

    rollout: Rollout
    expansion: Expansion
    verdicts: tuple[Verdict, ...]
    """One per answer."""
    token_ids: tuple[tuple[int, ...], ...] | None
    """Of an own rollout; None for a foreign one, which is re-encoded from its text."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """1 for a correct answer, else 0: an own answer that is unscorable trains as wrong."""
        return tuple(float(is_correct(verdict)) for verdict in self.verdicts)

    @property
    def is_informative(self) -> bool:
        """Whether the rewards differ, so that some advantage is not zero."""
        return len(set(self.rewards)) > 1

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

    @property
    def is_informative(self) -> bool:
        """Whether the rewards differ, so that some advantage is not zero."""
        return len(set(self.rewards)) > 1


def mix(own: Sequence[VerifiedRollout]) -> list[VerifiedRollout]:
    """The training set T of a node alone (J = 0): its own rollouts, all of them.

    Step 2 adds what peers offer: I own and J foreign rollouts (SAPO, step 4).
    """
    return list(own)
