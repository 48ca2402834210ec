"""What an answer weighs by its likelihood, if the policy that learns from it is not its author.

Pure. All log-probabilities are means over tokens, in nats, at the sampling temperature.
"""

import math
from collections.abc import Sequence

from node.groups import OwnRollout
from rewards.question import Answer


def token_mean(means: Sequence[float | None], num_tokens: Sequence[int]) -> float | None:
    """The mean over all tokens of answers whose own means are known (those with None are left out);
    None where there are none."""
    known = [(one, num) for one, num in zip(means, num_tokens, strict=True) if one is not None]
    total = sum(num for _, num in known)
    return sum(one * num for one, num in known) / total if total else None


def own_mean_logp(own: Sequence[OwnRollout]) -> float | None:
    """Of own answers as they were sampled; None without any."""
    answers = [answer for rollout in own for answer in rollout.answers]
    return token_mean([one.mean_logp for one in answers], [one.num_tokens for one in answers])


def claimed_logp(answer: Answer) -> float | None:
    """What a peer says of its answer; None where it says nothing that could be true."""
    claim = answer.mean_logp
    return claim if claim is not None and -math.inf < claim <= 0 else None


def likeness(logp: float | None, own_logp: float | None, claim: float | None) -> float:
    """min(1, exp(l - o), exp(l - c)): how much less likely a foreign answer's tokens are to the own
    policy than its own ones, and than they were to their author, if we believe it. At most 1.

    After GRAFT, whose comparison with the author's claim alone can be bought by a low claim. Of
    each answer by itself: over a group, what one answer smuggles is hidden by the others.

    0 where nothing can be compared: without own answers, or where `logp` is not a number. A claim
    can lower the weight and never raise it. Not covered: an author that claims nothing, or too
    little, has only the first bound; and means of different tokenizers are not alike.
    """
    if logp is None or own_logp is None or math.isnan(logp - own_logp):
        return 0.0
    weight = math.exp(min(0.0, logp - own_logp))
    if claim is None or math.isnan(logp - claim):
        return weight
    return min(weight, math.exp(min(0.0, logp - claim)))


def balanced(weights: Sequence[float], advantages: Sequence[float]) -> list[float]:
    """The weights of a group's answers, those of failures multiplied by what the weights leave of
    its successes: else a group whose successes count for nothing would still push its failures
    down, which may be all that it was made for. Unchanged where nothing succeeded."""
    successes = sum(one for one in advantages if one > 0)
    if not successes:
        return list(weights)
    pairs = list(zip(weights, advantages, strict=True))
    left = sum(weight * one for weight, one in pairs if one > 0) / successes
    return [weight * left if one < 0 else weight for weight, one in pairs]


def importance_ratio(now: float, then: float | None, cap: float) -> float:
    """min(cap, exp(now - then)) of an answer's log-probability now and when it was sampled: the
    importance ratio of a sequence, normalised by its length (GSPO, arXiv 2507.18071), truncated.

    1 where `then` is not known, 0 where the difference is not a number.
    """
    if then is None:
        return 1.0
    return 0.0 if math.isnan(now - then) else math.exp(min(math.log(cap), now - then))
