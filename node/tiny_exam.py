"""What a policy can do on a task's questions, asked directly: for making the embedded policy.

A node's own evaluation is node/evaluate.py, through its verifier. Here the answers are those of a
model that this process trains itself, so they are judged in this process.
"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import Qwen2ForCausalLM

from node.evaluate import accuracy
from node.generate import MIN_TEMPERATURE, Sampling
from node.generate_transformers import TransformersGenerator
from node.policy import question_ids
from rewards.question import MAX_INDEX, Expansion, is_held_out, normalise
from rewards.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What the policy does on held-out questions of one task."""

    task: str
    num_questions: int
    sampled: float
    """Share of correct answers at temperature 1, 8 to each question."""
    sampled_error: float
    """Standard error of `sampled`, over questions."""
    greedy: float
    """Share of questions whose answer of the most likely tokens is correct."""
    finished: float
    """Share of the sampled answers that end by themselves."""
    mixed: float
    """Share of questions with correct and wrong answers among the 8: those GRPO learns from."""


def draw_to_train(task: Task, num_questions: int, rng: random.Random) -> list[Expansion]:
    """Questions of a task that are not held out; texts may repeat."""
    drawn: list[Expansion] = []
    while len(drawn) < num_questions:
        question = task.expand(rng.randrange(MAX_INDEX))
        if not is_held_out(question.text):
            drawn.append(question)
    return drawn


def draw_held_out(task: Task, num_questions: int, rng: random.Random) -> list[Expansion]:
    """Held-out questions of a task with distinct texts. Does not end if it has fewer."""
    drawn: dict[str, Expansion] = {}
    while len(drawn) < num_questions:
        question = task.expand(rng.randrange(MAX_INDEX))
        if is_held_out(question.text):
            drawn.setdefault(normalise(question.text), question)
    return list(drawn.values())


class Student:
    """A model with its tokenizer, answering questions one batch after the other."""

    def __init__(
        self,
        model: Qwen2ForCausalLM,
        tokenizer: "PreTrainedTokenizerBase",
        max_new_tokens: int,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        eos = int(tokenizer.eos_token_id)
        self.generator = TransformersGenerator(model, [eos], max_rows=256)

    def answer(
        self, task: Task, questions: Sequence[Expansion], sampling: Sampling, seed: int
    ) -> list[list[tuple[bool, bool]]]:
        """For each question, for each answer to it: whether it is correct, and finished."""
        prompts = [question_ids(self.tokenizer, question) for question in questions]
        seeds = [(seed * 1_000_003 + place) % 2**31 for place in range(len(questions))]
        groups = self.generator.generate(prompts, seeds, sampling)
        return [
            [
                (
                    task.judge(question.question.index, self._text(one.token_ids), one.finished)
                    is True,
                    one.finished,
                )
                for one in group
            ]
            for question, group in zip(questions, groups, strict=True)
        ]

    def _text(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def share_correct(self, task: Task, questions: Sequence[Expansion], seed: int) -> float:
        """Of one answer to each question at temperature 1."""
        groups = self.answer(task, questions, Sampling(1, self.max_new_tokens), seed)
        return statistics.fmean(correct for group in groups for correct, _ in group)


def examine(student: Student, task: Task, questions: Sequence[Expansion], seed: int) -> TaskFigures:
    """What the policy does on these questions, 8 answers to each."""
    groups = student.answer(task, questions, Sampling(8, student.max_new_tokens), seed)
    shares = [statistics.fmean(correct for correct, _ in group) for group in groups]
    sampled = accuracy(shares)
    # cold enough that only the most likely token has a chance
    greedy = student.answer(
        task, questions, Sampling(1, student.max_new_tokens, MIN_TEMPERATURE), seed
    )
    return TaskFigures(
        task=task.spec.name,
        num_questions=len(questions),
        sampled=sampled.mean,
        sampled_error=sampled.standard_error,
        greedy=statistics.fmean(group[0][0] for group in greedy),
        finished=statistics.fmean(finished for group in groups for _, finished in group),
        mixed=statistics.fmean(0 < share < 1 for share in shares),
    )
