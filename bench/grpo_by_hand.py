"""One GRPO step written by hand, to compare TRL's with: same result, and what TRL costs on top.

Nothing here is shared with node/learn.py. The loss is the paper's, with the mean over all answer
tokens of the batch ("dapo"); padding by the longest sequence; the head only where an answer is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from node.groups import Group


def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Group],
    *,
    temperature: float = 1.0,
    epsilon: float = 0.2,
    epsilon_high: float = 0.28,
    max_grad_norm: float = 1.0,
    num_iterations: int = 1,
    kl_weight: float = 0.0,
    reference: torch.nn.Module | None = None,
    mask: Tensor | None = None,
) -> tuple[float, float]:
    """`num_iterations` optimizer steps on the batch; loss and gradient norm of the first.

    Args:
        mask: float of shape [answers], a weight on each answer; for what a wrong step would do.
    """
    tokens = _pad(batch)
    flat = torch.tensor([one for group in batch for one in weighted(group)], dtype=torch.float64)
    weight = torch.ones_like(flat) if mask is None else mask.double()
    per_token = tokens.answer_mask * weight[:, None]
    normaliser = per_token.sum()
    model.train()
    old = None
    with torch.no_grad():
        reference_logp = None if reference is None else _logp(reference, tokens, temperature)
    first: tuple[float, float] | None = None
    for _ in range(num_iterations):
        logp = _logp(model, tokens, temperature)
        old = logp.detach() if old is None else old
        ratio = (logp - old).exp()
        clipped = ratio.clamp(1 - epsilon, 1 + epsilon_high)
        advantage = flat.to(logp.dtype)[:, None]
        loss = -torch.minimum(ratio * advantage, clipped * advantage)
        if reference_logp is not None:
            difference = reference_logp - logp
            loss = loss + kl_weight * (difference.exp() - difference - 1)
        total = (loss * per_token.to(logp.dtype)).sum() / normaliser.to(logp.dtype)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        first = first or (float(total.detach()), float(norm))
    assert first is not None
    return first


def weighted(group: Group) -> list[float]:
    """What the answers' log-probabilities are multiplied by."""
    weights = group.weights or [1.0] * len(group.advantages)
    return [a * weight for a, weight in zip(group.advantages, weights, strict=True)]


def normalised(rewards: Sequence[float]) -> list[float]:
    """(r - mean) / (std + 1e-4), the standard deviation with n - 1."""
    values = torch.tensor(rewards, dtype=torch.float64)
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    scaled: list[float] = ((values - values.mean()) / (values.std() + 1e-4)).tolist()
    return scaled


class _Tokens:
    def __init__(self, ids: Tensor, attention: Tensor, answers: Tensor, answer_mask: Tensor):
        self.ids = ids
        """[answers, longest prompt + longest answer]; prompts end and answers begin together."""
        self.attention = attention
        self.answers = answers
        """[answers, longest answer]"""
        self.answer_mask = answer_mask


def _pad(batch: Sequence[Group]) -> _Tokens:
    rows = [(group.prompt_ids, ids) for group in batch for ids in group.answer_ids]
    longest_prompt = max(len(prompt) for prompt, _ in rows)
    longest_answer = max(len(answer) for _, answer in rows)
    ids = torch.zeros(len(rows), longest_prompt + longest_answer, dtype=torch.long)
    attention = torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(rows):
        start, end = longest_prompt - len(prompt), longest_prompt + len(answer)
        ids[row, start:end] = torch.tensor(prompt + answer)
        attention[row, start:end] = 1
    answer_mask = attention[:, longest_prompt:].double()
    return _Tokens(ids, attention, ids[:, longest_prompt:], answer_mask)


def _logp(model: torch.nn.Module, tokens: _Tokens, temperature: float) -> Tensor:
    """[answers, longest answer]: log-probability of each answer token."""
    num = tokens.answers.shape[1]
    output = model(
        input_ids=tokens.ids,
        attention_mask=tokens.attention,
        logits_to_keep=num + 1,
        use_cache=False,
    )
    logits = output.logits[:, :-1] / temperature
    logp: Tensor = log_softmax(logits, dim=-1).gather(-1, tokens.answers[..., None])[..., 0]
    return logp
