"""One hash that tells whether two nodes expand and judge a task alike."""

import hashlib

import msgspec

from rewards.extract import mark_answer
from rewards.program import Program
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
    judged as it is and marked, finished and not. Changes with the task's parameters, library,
    data, prompting, answer format and rules, and with its name where that chooses the questions.
    Some 10 to 200 ms, once the task is built.

    Of a task that is not deterministic only the truth is judged: the other verdicts need not be
    the same everywhere. Of one whose answers are programs, what would be run is hashed.

    Raises:
        ValueError: from `task.expand`.
    """
    hashed = hashlib.sha256(b"sapo-digest-1\n")
    expansions = [task.expand(index) for index in _indices()]
    for here, following in zip(expansions, [*expansions[1:], expansions[0]], strict=True):
        shown = [part for one in here.examples for part in (one.question, one.answer)]
        prompting = [here.system, *shown] if here.system or shown else []
        for text in (*prompting, here.text, here.truth):
            encoded = text.encode()
            hashed.update(len(encoded).to_bytes(4) + encoded)
        answers = _answers(here.truth, following.truth) if task.deterministic else (here.truth,)
        for answer in answers:
            for marked in (answer, mark_answer(answer, task.spec.answer_format)):
                for finished in (True, False):
                    hashed.update(_judge(task, here.question.index, marked, finished))
    return hashed.hexdigest()


def _judge(task: Task, index: int, text: str, finished: bool) -> bytes:
    found = task.judge(index, text, finished)
    return msgspec.json.encode(found) if isinstance(found, Program) else bytes([found])


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
