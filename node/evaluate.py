"""What a policy does on questions that no node trains on: pass@1, pass@k, diversity, with standard
errors; and the files that keep it."""

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

from node.diversity import vendi_scores
from node.exchange import Exchange
from node.groups import VerifiedRollout
from rewards.question import Expansion
from swarm.disk import write_durably

if TYPE_CHECKING:
    from node.policy import Policy

logger = logging.getLogger(__name__)

EVALUATION_ROUND = 0
"""Training rounds count from 1, so evaluation never draws the same samples."""

PART = 64
"""Questions asked at once: how long a stop waits, and how far apart progress is logged."""


class NoQuestionFits(ValueError):
    """Every question is too long for the policy; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A mean over questions and how sure it is."""

    mean: float
    standard_error: float
    """Over questions: answers to one question are not independent."""
    num_questions: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a policy did on held-out questions, sampled at its own temperature."""

    per_question: tuple[float, ...]
    """Share of correct answers per question, in the order of the questions."""
    tasks: tuple[str, ...]
    """The task of each question."""
    answers_per_question: int
    greedy: Accuracy
    """Of the most likely answer to each question. Where sampled accuracy rises and this does not,
    the policy has become surer of what it knew, not abler."""
    indices: tuple[int, ...] = ()
    """Each question's index within its task; this and the next two are empty in files of versions
    that did not keep them."""
    greedy_per_question: tuple[float, ...] = ()
    """1 where the most likely answer is correct, else 0."""
    vendi: tuple[float, ...] = ()
    """Vendi score of the answers to each question: how many different ones (node/diversity.py)."""

    @property
    def overall(self) -> Accuracy:
        """pass@1 over all questions."""
        return accuracy(self.per_question)

    @property
    def per_task(self) -> dict[str, Accuracy]:
        """pass@1 over the questions of each task."""
        return self.over_tasks(self.per_question)

    @property
    def diversity(self) -> Accuracy | None:
        """Mean Vendi score; None where it was not measured."""
        return accuracy(self.vendi) if self.vendi else None

    def pass_at(self, k: int) -> Accuracy:
        """pass@k over all questions."""
        return accuracy(self.pass_at_per_question(k))

    def pass_at_per_question(self, k: int) -> tuple[float, ...]:
        """Probability that of k answers to a question one is correct: the unbiased estimate of
        the Codex paper (arXiv 2107.03374, equation 1).

        Raises:
            ValueError: k is not within 1 and the number of answers per question.
        """
        num = self.answers_per_question
        if not 1 <= k <= num:
            raise ValueError(f"pass@{k} cannot be told from {num} answers per question")
        of = [1 - math.comb(num - correct, k) / math.comb(num, k) for correct in range(num + 1)]
        return tuple(of[round(share * num)] for share in self.per_question)

    def over_tasks(self, values: Sequence[float]) -> dict[str, Accuracy]:
        """The mean of a figure per question over the questions of each task."""
        found = defaultdict(list)
        for task, value in zip(self.tasks, values, strict=True):
            found[task].append(value)
        return {task: accuracy(values) for task, values in sorted(found.items())}

    def only(self, places: Sequence[int]) -> "HeldOut":
        """The same of some of the questions. Needs all figures per question."""
        greedy = tuple(self.greedy_per_question[place] for place in places)
        return HeldOut(
            tuple(self.per_question[place] for place in places),
            tuple(self.tasks[place] for place in places),
            self.answers_per_question,
            accuracy(greedy),
            tuple(self.indices[place] for place in places),
            greedy,
            tuple(self.vendi[place] for place in places),
        )


def accuracy(values: Sequence[float]) -> Accuracy:
    """Mean and standard error (sample deviation / sqrt n; nan below two questions)."""
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Accuracy(statistics.fmean(values), spread / math.sqrt(len(values)), len(values))


def rise(before: HeldOut, after: HeldOut) -> Accuracy:
    """Mean difference of pass@1 per question, paired: both must be of the same questions."""
    return difference(before.per_question, after.per_question)


def difference(before: Sequence[float], after: Sequence[float]) -> Accuracy:
    """Mean difference of a figure per question, paired: both must be of the same questions."""
    return accuracy([later - earlier for later, earlier in zip(after, before, strict=True)])


def in_common(one: HeldOut, other: HeldOut) -> tuple[HeldOut, HeldOut]:
    """Both, of the questions that both have: a tokenizer may make a question too long for a policy.

    Raises:
        NoQuestionFits: there is none.
    """
    place_of = {
        address: place for place, address in enumerate(zip(one.tasks, one.indices, strict=True))
    }
    pairs = [
        (place_of[address], place)
        for place, address in enumerate(zip(other.tasks, other.indices, strict=True))
        if address in place_of
    ]
    if not pairs:
        raise NoQuestionFits("no question fits both policies")
    return one.only([place for place, _ in pairs]), other.only([place for _, place in pairs])


def evaluate(
    policy: "Policy",
    exchange: Exchange,
    questions: Sequence[Expansion],
    part: Callable[[], AbstractContextManager[object]] = nullcontext,
    part_size: int = PART,
) -> HeldOut:
    """Answers every question as in a round, and once more greedily, and verifies the answers.

    The same questions and weights give the same figures. An unscorable answer counts as wrong; a
    question that is too long for the policy is left out.

    Args:
        part: entered around each `part_size` questions. What it raises ends the evaluation.

    Raises:
        NoQuestionFits: all are too long for the policy.
    """
    sampled: list[VerifiedRollout] = []
    likeliest: list[VerifiedRollout] = []
    for start in range(0, len(questions), part_size):
        some = questions[start : start + part_size]
        with part():
            sampled += exchange.verify(policy.roll_out(some, EVALUATION_ROUND))
            likeliest += exchange.verify(policy.roll_out(some, EVALUATION_ROUND, greedy=True))
        logger.info("held-out questions: %d of %d", start + len(some), len(questions))
    if not sampled:
        raise NoQuestionFits(
            "no held-out question fits the policy; raise rollout.max_prompt_tokens"
        )
    greedy = tuple(float(one.correct[0]) for one in likeliest)
    return HeldOut(
        per_question=tuple(statistics.fmean(one.correct) for one in sampled),
        tasks=tuple(one.expansion.question.task for one in sampled),
        answers_per_question=len(sampled[0].verdicts),
        greedy=accuracy(greedy),
        indices=tuple(one.expansion.question.index for one in sampled),
        greedy_per_question=greedy,
        vendi=tuple(vendi_scores([[answer.text for answer in one.answers] for one in sampled])),
    )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HeldOut as it is written: JSON has no nan."""

    per_question: tuple[float, ...]
    tasks: tuple[str, ...]
    answers_per_question: int
    greedy_mean: float
    greedy_standard_error: float | None
    greedy_questions: int
    indices: tuple[int, ...] = ()
    greedy_per_question: tuple[float, ...] = ()
    vendi: tuple[float, ...] = ()

    @property
    def is_whole(self) -> bool:
        """A value per question everywhere, or none where an earlier version kept none."""
        kept = (self.indices, self.greedy_per_question, self.vendi)
        num = len(self.per_question)
        return len(self.tasks) == num and all(len(one) in (0, num) for one in kept)


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
        heldout.indices,
        heldout.greedy_per_question,
        heldout.vendi,
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
        if name is None or not content.is_whole:
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
            content.indices,
            content.greedy_per_question,
            content.vendi,
        )
    return found
