"""One hash that tells whether two nodes expand and judge a task alike."""

import hashlib

from rewards.extract import mark_answer
from rewards.question import MAX_INDEX
from rewards.tasks import Task

NUM_EXPANSIONS = 64

_HOSTILE = (
    "",
    " ",
    "\n",
    "0",
    "1",
    "-1",
    "nan",
    "inf",
    "1e999999",
    "1_000",
    "٣",  # an Arabic-Indic digit: int() takes it, we do not
    "9" * 500,
    "9**9**9",
    "(" * 100 + "P" + ")" * 100,
    "P ∨ ¬P",  # noqa: RUF001
    "[]",
    "True",
    "yes",
    "<answer>",
    "</answer>",
    "<answer></answer>",
    "__import__('os').getcwd()",
    "\x00",
    "\ufeff0",
)
"""Answers on which careless implementations differ; harmless where they are only read."""


def digest(task: Task) -> str:
    """Hex SHA-256 over 64 expansions, and over the verdicts on a fixed table of answers to each.

    Indices are spread by hash. The answers are the truth (plain, in another case, with something
    before and after it, twice), the next question's truth, and the hostile ones above; each is
    judged as it is and marked, finished and not. Changes with the task's name, parameters,
    library, answer format and rules. Some 10 to 200 ms, once the task is built.

    Raises:
        ValueError: from `task.expand`.
    """
    hashed = hashlib.sha256(b"sapo-digest-1\n")
    expansions = [task.expand(index) for index in _indices()]
    for here, following in zip(expansions, [*expansions[1:], expansions[0]], strict=True):
        for text in (here.text, here.truth):
            encoded = text.encode()
            hashed.update(len(encoded).to_bytes(4) + encoded)
        for answer in _answers(here.truth, following.truth):
            for marked in (answer, mark_answer(answer, task.spec.answer_format)):
                for finished in (True, False):
                    hashed.update(bytes([task.judge(here.question.index, marked, finished)]))
    return hashed.hexdigest()


def _indices() -> list[int]:
    hashes = (hashlib.sha256(f"sapo-digest-1\n{i}".encode()) for i in range(NUM_EXPANSIONS))
    return [int.from_bytes(hashed.digest()[:8]) % MAX_INDEX for hashed in hashes]


def _answers(truth: str, other: str) -> tuple[str, ...]:
    return (
        truth,
        f" \t{truth}\n",
        truth.upper(),
        truth.lower(),
        f"+{truth}",
        f"0{truth}",
        f"{truth}.0",
        f"${truth}$",
        f"{truth}.",
        f"The answer is {truth}",
        f"{truth} or not",
        f"{truth} {truth}",
        f"{truth}\nanything",
        f"<answer>{truth}</answer> <answer>{other}",
        f"<answer>{other}</answer>{truth}",
        f"\u00a0{truth}",
        other,
        *_HOSTILE,
    )
