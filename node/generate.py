"""The seam of generation: answers sampled from token ids, by an engine whose weights follow the
trainer's."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

PROBE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15}
"""Nats between engine and trainer (measured: 4e-6 and 3e-2; stale weights were off by 4)."""

MIN_TEMPERATURE = 0.01
"""vLLM raises anything lower to this, so its log-probabilities would not be the ones asked for."""


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

        The same weights, prompts, seeds and sampling give the same completions on the same
        machine. `seeds[i]` (0 <= seed < 2**31) belongs to prompt i; answers of one prompt are
        drawn from streams of their own. What the other prompts of a call are has no part in the
        random numbers, but it changes the last bits of logits, and so, rarely, a token.

        Raises:
            ValueError: a prompt is empty or leaves no room for `max_new_tokens`, seeds and prompts
                differ in number, or `sampling` is out of range.
            GenerationFailed: the engine died. `sync` starts a new one.
        """
        ...

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probability in nats of each token after the first, at temperature 1 (the probe)."""
        ...

    def sync(self, model: "torch.nn.Module") -> None:
        """Takes over the trainer's current weights; generation before it would be stale.

        Raises:
            GenerationFailed: the engine could not take them, nor could a new one.
        """
        ...

    def close(self) -> None:
        """Frees the engine's memory and processes. Idempotent."""
        ...


def check_request(
    prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling, max_len: int
) -> None:
    """Refuses what an engine would answer wrongly, or not at all; `max_len` in tokens.

    Raises:
        ValueError: says what to change.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts, but {len(seeds)} seeds")
    if sampling.num_answers < 1 or sampling.max_new_tokens < 1:
        raise ValueError("num_answers and max_new_tokens must be at least 1")
    if sampling.temperature < MIN_TEMPERATURE:
        raise ValueError(f"temperature must be at least {MIN_TEMPERATURE}")
    room = max_len - sampling.max_new_tokens
    for prompt in prompts:
        if not 1 <= len(prompt) <= room:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens: it must have 1 to {room}, so that "
                f"{sampling.max_new_tokens} new ones fit the engine's {max_len}"
            )


def stream_seed(seed: int, stream: int = 0) -> int:
    """A seed below 2**62 for one stream of random numbers, so that neighbouring seeds do not meet.

    vLLM numbers the answers of a prompt seed, seed + 1, ...: with seeds 5 and 6 for two prompts,
    answer 1 of the first would see the same random numbers as answer 0 of the second.
    """
    digest = hashlib.sha256(f"{seed} {stream}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 2


def token_logps(model: "torch.nn.Module", token_ids: Sequence[int]) -> list[float]:
    """The model's log-probability in nats of each token after the first, without dropout."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            ids = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            logps = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            return [float(logp) for logp in logps]
    finally:
        model.train(was_training)


def check_probe(
    generator: Generator,
    model: "torch.nn.Module",
    prompt_ids: Sequence[int],
    tolerance: float | None = None,
) -> float:
    """The largest difference in nats between engine and trainer on a prompt of 2 tokens or more.

    Args:
        tolerance: None takes PROBE_TOLERANCE by the width of the trainer's weights.

    Not checked: the cache of prefixes (an engine does not read it for this), and sampling itself.

    Raises:
        ProbeMismatch: the difference is above the tolerance, or not a number.
    """
    if tolerance is None:
        is_wide = next(model.parameters()).element_size() >= 4
        tolerance = PROBE_TOLERANCE["float32" if is_wide else "bfloat16"]
    engine, trainer = generator.score(prompt_ids), token_logps(model, prompt_ids)
    differences = [abs(one - other) for one, other in zip(engine, trainer, strict=True)]
    # Compared this way round, since a comparison with nan is false.
    if all(difference <= tolerance for difference in differences):
        return max(differences)
    worst = max(
        range(len(differences)),
        key=lambda i: float("inf") if differences[i] != differences[i] else differences[i],
    )
    raise ProbeMismatch(
        f"{generator.name} gives token {worst + 1} of the probe the log-probability "
        f"{engine[worst]:.4f}, the trainer {trainer[worst]:.4f} (tolerance {tolerance}): the "
        "engine does not run the trainer's weights. Use --engine transformers, and report this"
    )
