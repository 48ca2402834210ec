"""Generation with the trainer's own model object: nothing to install, and nothing to sync."""

from collections.abc import Sequence

import torch

from node.generate import Completion, Sampling, check_request, stream_seed, token_logps


class TransformersGenerator:
    """Batched sampling with a cache of keys and values, in the trainer's process.

    `model.generate` is not used: it has one random stream for a whole batch, so that an answer
    would depend on what else is sampled beside it.
    """

    name = "transformers"

    def __init__(
        self,
        model: torch.nn.Module,
        eos_token_ids: Sequence[int],
        pad_token_id: int = 0,
        *,
        max_len: int | None = None,
        max_rows: int = 64,
    ) -> None:
        """
        Args:
            model: a causal language model of transformers that takes attention_mask,
                position_ids, past_key_values and logits_to_keep, or one wrapped by PEFT.
            max_len: tokens of prompt and answer together; None takes the model's own limit.
            max_rows: answers sampled at once; bounds the memory of the cache and the logits.
        """
        self.model = model
        self.eos_token_ids = frozenset(eos_token_ids)
        self.pad_token_id = pad_token_id
        self.max_rows = max_rows
        config = getattr(model, "config", None)
        own_limit = getattr(config, "max_position_embeddings", None) or 1 << 20
        self.max_len = max_len or own_limit

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        check_request(prompts, seeds, sampling, self.max_len)
        rows = [(i, j) for i in range(len(prompts)) for j in range(sampling.num_answers)]
        completions: list[list[Completion]] = [[] for _ in prompts]
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(rows), self.max_rows):
                    some = rows[start : start + self.max_rows]
                    streams = [stream_seed(seeds[i], j) for i, j in some]
                    sampled = self._sample([prompts[i] for i, _ in some], streams, sampling)
                    for (i, _), completion in zip(some, sampled, strict=True):
                        completions[i].append(completion)
        finally:
            self.model.train(was_training)
        return completions

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `Generator.score`."""
        return token_logps(self.model, token_ids)

    def sync(self, model: torch.nn.Module) -> None:
        """Nothing to copy: the model is the trainer's."""
        self.model = model

    def close(self) -> None:
        """Nothing to free: the model is the trainer's."""

    def _sample(
        self, prompts: Sequence[Sequence[int]], streams: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """One completion per prompt; equal prompts are read once."""
        device = next(self.model.parameters()).device
        distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        ids, mask = self._pad_left(distinct, device)
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        rows = torch.tensor([row_of[tuple(prompt)] for prompt in prompts], device=device)
        cache, logits, mask = out.past_key_values, out.logits[rows, -1], mask[rows]
        cache.batch_select_indices(rows)

        uniforms = _uniforms(streams, sampling.max_new_tokens).to(device)
        tokens: list[list[int]] = [[] for _ in prompts]
        logps: list[list[float]] = [[] for _ in prompts]
        running = list(range(len(prompts)))  # the answer that each row of the batch belongs to
        for step in range(sampling.max_new_tokens):
            chosen, chosen_logps = _draw(logits / sampling.temperature, uniforms[:, step])
            for answer, token, logp in zip(
                running, chosen.tolist(), chosen_logps.tolist(), strict=True
            ):
                tokens[answer].append(token)
                logps[answer].append(logp)
            keep = [
                row
                for row, answer in enumerate(running)
                if tokens[answer][-1] not in self.eos_token_ids
            ]
            if not keep or step + 1 == sampling.max_new_tokens:
                break
            if len(keep) < len(running):
                kept = torch.tensor(keep, device=device)
                cache.batch_select_indices(kept)
                chosen, mask, uniforms = chosen[kept], mask[kept], uniforms[kept]
                running = [running[row] for row in keep]
            mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=-1)
            logits = self.model(
                input_ids=chosen[:, None],
                attention_mask=mask,
                position_ids=mask.sum(-1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return [
            Completion(tuple(ids), tuple(ps), ids[-1] in self.eos_token_ids)
            for ids, ps in zip(tokens, logps, strict=True)
        ]

    def _pad_left(
        self, prompts: Sequence[Sequence[int]], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, both [prompts, longest]; padded left, so that all end in one column."""
        longest = max(len(prompt) for prompt in prompts)
        pads = [longest - len(prompt) for prompt in prompts]
        ids = [
            [self.pad_token_id] * pad + list(prompt)
            for pad, prompt in zip(pads, prompts, strict=True)
        ]
        mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _uniforms(streams: Sequence[int], num_steps: int) -> torch.Tensor:
    """Random numbers in [0, 1), float64 [streams, num_steps]: a row depends on its seed alone."""
    rows = []
    for seed in streams:
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.rand(num_steps, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def _draw(logits: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens drawn from logits [rows, vocabulary] by inverting the distribution, and their logps.

    In float64, since sums over a vocabulary of 150,000 in fp32 would lose its rare tokens.
    """
    logps = logits.float().log_softmax(-1)
    sums = logps.double().exp().cumsum(-1)
    targets = uniforms[:, None] * sums[:, -1:]
    chosen = torch.searchsorted(sums, targets, right=True).clamp(max=logits.shape[-1] - 1)
    return chosen[:, 0], logps.gather(-1, chosen)[:, 0]
