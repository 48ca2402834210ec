"""The seam of generation: answers sampled from token ids, by an engine whose weights follow the
trainer's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn; plain temperature sampling, since anything else is off-policy."""

    num_answers: int
    """Answers per question."""
    max_new_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer as token ids, before it becomes text."""

    token_ids: tuple[int, ...]
    """As sampled, the end-of-sequence token included if it was reached. Never empty."""
    logps: tuple[float, ...]
    """Log-probability in nats of each token under the sampling distribution; same length."""
    finished: bool
    """True if the last token is an end-of-sequence token."""


class GenerationFailed(RuntimeError):
    """The engine is unusable and could not be rebuilt; the message says what to do."""


class ProbeMismatch(GenerationFailed):
    """The engine's log-probabilities differ from the trainer's: its weights are not ours."""


class Generator(Protocol):
    """An engine that samples answers. Not thread-safe."""

    name: str
    """"vllm", "vllm-process" or "transformers"; shown to the user."""

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Completion]]:
        """`sampling.num_answers` completions for each prompt (token ids, special ones included).

        The same weights, prompts, seeds and sampling give the same completions. `seeds[i]`
        (0 <= seed < 2**31) belongs to prompt i; answers of one prompt differ from each other.
        """
        ...

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probability in nats of each token after the first, at temperature 1 (the probe)."""
        ...

    def sync(self, model: "torch.nn.Module") -> None:
        """Takes over the trainer's current weights; generation before it would be stale."""
        ...

    def close(self) -> None:
        """Frees the engine's memory and processes. Idempotent."""
        ...
