"""Held-out accuracy: pass@1 on questions that no node trains on, with standard errors; and the
files that keep it."""

import logging
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from node.groups import VerifiedRollout
from node.exchange import Exchange
from rewards.question import Expansion
from swarm.disk import write_durably

if TYPE_CHECKING:
    from node.policy import Policy

logger = logging.getLogger(__name__)

EVALUATION_ROUND = 0
"""Training rounds count from 1, so evaluation never draws the same samples."""

PART = 64
"""Questions asked at once: how long a stop waits, and how far apart progress is logged."""


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


def evaluate(
    policy: "Policy",
    exchange: Exchange,
    questions: Sequence[Expansion],
    part: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> HeldOut:
    """Answers every question as in a round, and once more greedily, and verifies the answers.

    The same questions and weights give the same figures. An unscorable answer counts as wrong; a
    question that is too long for the policy is left out.

    Args:
        part: entered around each PART questions. What it raises ends the evaluation.

    Raises:
        ValueError: no question fits the policy.
    """
    sampled: list[VerifiedRollout] = []
    likeliest: list[VerifiedRollout] = []
    for start in range(0, len(questions), PART):
        some = questions[start : start + PART]
        with part():
            sampled += exchange.verify(policy.roll_out(some, EVALUATION_ROUND))
            likeliest += exchange.verify(policy.roll_out(some, EVALUATION_ROUND, greedy=True))
        logger.info("held-out questions: %d of %d", start + len(some), len(questions))
    if not sampled:
        raise ValueError("no held-out question fits the policy; raise rollout.max_prompt_tokens")
    return HeldOut(
        per_question=tuple(statistics.fmean(one.correct) for one in sampled),
        tasks=tuple(one.expansion.question.task for one in sampled),
        answers_per_question=len(sampled[0].verdicts),
        greedy=accuracy([float(one.correct[0]) for one in likeliest]),
    )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HeldOut as it is written: JSON has no nan."""

    per_question: tuple[float, ...]
    tasks: tuple[str, ...]
    answers_per_question: int
    greedy_mean: float
    greedy_standard_error: float | None
    greedy_questions: int


def write_heldout(directory: Path, round_number: int, heldout: HeldOut) -> Path:
    """Keeps an evaluation as `directory`/round-00000012.json: after a crash all of it or nothing.

    Raises:
        OSError: e.g. a full disk.
    """
    error = heldout.greedy.standard_error
    content = _File(
        heldout.per_question,
        heldout.tasks,
        heldout.answers_per_question,
        heldout.greedy.mean,
        error if math.isfinite(error) else None,
        heldout.greedy.num_questions,
    )
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"round-{round_number:08d}.json"
    write_durably(file, msgspec.json.encode(content).decode() + "\n")
    return file


def read_heldout(directory: Path) -> dict[int, HeldOut]:
    """The evaluations that were kept: round -> what was found, in the order of rounds.

    One that cannot be read (a disk that lies, an editor) is reported and passed over.
    """
    found: dict[int, HeldOut] = {}
    for file in sorted(directory.glob("round-*.json")):
        try:
            name = re.fullmatch(r"round-(\d{8,})\.json", file.name)
            content = msgspec.json.decode(file.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError) as error:
            logger.error("evaluation %s is unusable: %s", file, error)
            continue
        if name is None or len(content.tasks) != len(content.per_question):
            logger.error("evaluation %s is unusable: not written by this program", file)
            continue
        error_of_greedy = content.greedy_standard_error
        found[int(name[1])] = HeldOut(
            content.per_question,
            content.tasks,
            content.answers_per_question,
            Accuracy(
                content.greedy_mean,
                math.nan if error_of_greedy is None else error_of_greedy,
                content.greedy_questions,
            ),
        )
    return found
