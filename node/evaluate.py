"""Held-out accuracy: pass@1 on questions that no node trains on, with standard errors."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from node.exchange import Exchange
from node.policy import Policy
from rewards.question import Expansion

EVALUATION_ROUND = 0
"""Training rounds count from 1, so evaluation never draws the same samples."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A mean over questions and how sure it is."""

    mean: float
    standard_error: float
    """Over questions: answers to one question are not independent."""
    num_questions: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """pass@1, estimated by sampling at the policy's own temperature."""

    per_question: tuple[float, ...]
    """Share of correct answers per question, in the order of the questions."""
    tasks: tuple[str, ...]
    """The task of each question."""
    answers_per_question: int
    greedy: Accuracy
    """Of the most likely answer to each question. Where sampled accuracy rises and this does not,
    the policy has become surer of what it knew, not abler."""

    @property
    def overall(self) -> Accuracy:
        """Over all questions."""
        return accuracy(self.per_question)

    @property
    def per_task(self) -> dict[str, Accuracy]:
        """Over the questions of each task."""
        shares = defaultdict(list)
        for task, share in zip(self.tasks, self.per_question, strict=True):
            shares[task].append(share)
        return {task: accuracy(values) for task, values in sorted(shares.items())}


def accuracy(shares: Sequence[float]) -> Accuracy:
    """Mean and standard error (sample deviation / sqrt n; nan below two questions)."""
    spread = statistics.stdev(shares) if len(shares) > 1 else math.nan
    return Accuracy(statistics.fmean(shares), spread / math.sqrt(len(shares)), len(shares))


def rise(before: HeldOut, after: HeldOut) -> Accuracy:
    """Mean difference per question, paired: both must be of the same questions."""
    pairs = zip(after.per_question, before.per_question, strict=True)
    return accuracy([later - earlier for later, earlier in pairs])


def evaluate(policy: Policy, exchange: Exchange, questions: Sequence[Expansion]) -> HeldOut:
    """Answers every question as in a round, and once more greedily, and verifies the answers.

    The same questions and weights give the same figures. An unscorable answer counts as wrong.
    """
    rollouts = exchange.verify(policy.roll_out(questions, EVALUATION_ROUND))
    likeliest = exchange.verify(policy.roll_out(questions, EVALUATION_ROUND, greedy=True))
    return HeldOut(
        per_question=tuple(statistics.fmean(one.rewards) for one in rollouts),
        tasks=tuple(one.rollout.question.task for one in rollouts),
        answers_per_question=len(rollouts[0].verdicts),
        greedy=accuracy([one.rewards[0] for one in likeliest]),
    )
