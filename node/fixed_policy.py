"""A policy whose weights stay as they are: of mode "generate", and of exams.

There is no trainer and no optimizer. With vLLM no second copy of the weights is kept either: an
engine that died gets them read again. Not covered: weights that are changed in their directory
while the policy is open.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from node.generate import Generator, Sampling
from node.groups import Lesson, OwnRollout
from node.policy import LanguagePolicy
from node.update import Update
from rewards.question import Expansion

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from node.learn import Learner


class FixedPolicy(LanguagePolicy):
    """Answers as any policy of a language model, and learns nothing."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        generator: Generator,
        sampling: Sampling,
        read_weights: "Callable[[], torch.nn.Module]",
        *,
        max_prompt_tokens: int,
        seed: int,
    ) -> None:
        """
        Args:
            read_weights: the model as it was read at first, for an engine that has to be new.
        """
        super().__init__(
            tokenizer,
            generator,
            cast("Learner", _NoLearner()),
            sampling,
            max_prompt_tokens=max_prompt_tokens,
            seed=seed,
        )
        self._read_weights = read_weights

    def roll_out(
        self, questions: Sequence[Expansion], round_number: int, *, greedy: bool = False
    ) -> list[OwnRollout]:
        """As a `LanguagePolicy`, but all by the policy of round 0: it has learned in none."""
        rollouts = super().roll_out(questions, round_number, greedy=greedy)
        self._fresh = []
        return [replace(one, policy_round=0) for one in rollouts]

    def learn(self, batch: Sequence[Lesson]) -> Update:
        """Nothing, and that is no update that was skipped."""
        return Update(step=0)

    def sync(self) -> None:
        """Nothing: the engine has the only weights that there are."""

    def save(self, directory: Path) -> None:
        """Nothing: where it was read from, it stands."""

    def _renew_engine(self) -> None:
        self.generator.sync(self._read_weights())


class _NoLearner:
    """Stands where a learner would."""

    def close(self) -> None:
        """Nothing to end."""
