"""Which questions a node trains on in a round, and which it is examined on: drawn by hash.

Indices are SHA-256 of what they are for, never neighbours: neighbouring indices of a generated
data set may be the same question. Training never meets a held-out text (rewards/question.py).
"""

import hashlib
import logging
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from rewards.question import (
    MAX_INDEX,
    Expansion,
    Question,
    Unscorable,
    is_held_out,
    is_shown,
    normalise,
)
from rewards.verifier import Verifier

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 64
"""Indices tried for one slot: of a task with many texts, all are held out once in 16**64."""
MAX_NEW_TEXT_ATTEMPTS = 8
"""Of these, how many look for a text that is new in its round before a repeated one is taken."""
MAX_UNSCORABLE = 3
"""Expansions of a task that may fail in one call before the task is left out."""
MAX_FRUITLESS = 2048
"""Indices in a row without a new held-out text, after which a task is taken to have no more."""
COMMON_QUESTIONS = 64
"""Questions of an epoch that all nodes share: few enough that each is met by many nodes."""
FIRST_BATCH = 16
BATCH = 256
"""Indices expanded at once in search of held-out texts; the first time fewer, in case they hang."""


class DrawFailed(RuntimeError):
    """No task is left that yields questions; the log says what was wrong with each."""


def draw_training(
    verifier: Verifier,
    task_names: Sequence[str],
    seed: int,
    round_number: int,
    num_questions: int,
    *,
    first: int = 0,
    task_weights: Mapping[str, float] = {},
) -> list[Expansion]:
    """The questions of one round, none of them held out, in the order of their slots.

    They bear their canonical addresses; one that its task shows as an example is not drawn. Texts
    are distinct within one call as far as the tasks have enough of them. The same arguments
    give the same questions on every node. A task that fails, or has no text to train on, is left
    out of this round and logged.

    Args:
        first: the first slot: further questions of a round begin where earlier ones ended.
        task_weights: relative chance of each task, above 0; 1 for those that are not named. With
            none each slot's task is drawn uniformly.

    Raises:
        DrawFailed: every task was left out.
        VerifierBroken, VerifierClosed: from the verifier.
    """
    usable = sorted(set(task_names))
    drawn: dict[int, Expansion] = {}
    slots = range(first, first + num_questions)
    while missing := [slot for slot in slots if slot not in drawn]:
        if not usable:
            raise DrawFailed(f"no task yields training questions: {sorted(set(task_names))}")
        tasks = {
            slot: _pick(_hash("training task", seed, round_number, slot), usable, task_weights)
            for slot in missing
        }
        unfit = _fill_slots(verifier, tasks, seed, round_number, drawn)
        usable = [name for name in usable if name not in unfit]
    return [drawn[slot] for slot in slots]


def epoch_of(unix_s: float, epoch_s: int) -> int:
    """The number of the epoch in which a moment lies."""
    return int(unix_s // epoch_s)


def draw_common(
    verifier: Verifier,
    task_names: Sequence[str],
    epoch: int,
    seed: int,
    round_number: int,
    num_questions: int,
    *,
    tasks_of_swarm: Collection[str] = (),
) -> list[Expansion]:
    """Training questions out of the COMMON_QUESTIONS that all nodes share in an epoch: which of
    them, depends on the node's seed and round. Of distinct texts; fewer where there are no more.

    Args:
        task_names: those that can be asked here: common questions of others are passed over, so
            that two nodes share all that both can ask.
        tasks_of_swarm: the same on all nodes, in any order; none means `task_names`.

    Raises:
        VerifierBroken, VerifierClosed: from the verifier.
    """
    common = _hash("common seed", epoch)
    names = sorted(set(tasks_of_swarm or task_names))
    usable = set(task_names)
    drawn: dict[str, Expansion] = {}
    for slot in sorted(
        range(COMMON_QUESTIONS), key=lambda slot: _hash("common", seed, round_number, slot)
    ):
        if len(drawn) == num_questions:
            break
        task = names[_hash("training task", common, 0, slot) % len(names)]
        found: dict[int, Expansion] = {}
        if task in usable:  # a call for each: a question must not depend on those beside it
            usable -= _fill_slots(verifier, {slot: task}, common, 0, found)
        for expansion in found.values():
            drawn.setdefault(normalise(expansion.text), expansion)
    return list(drawn.values())


def draw_held_out(
    verifier: Verifier, task_names: Sequence[str], seed: int, num_questions: int
) -> list[Expansion]:
    """An exam: held-out questions of distinct texts, the same for every node with this seed.

    Tasks take turns, so their shares, also of any beginning of the list, differ by at most one.
    Where a task has too few held-out texts or fails, the others fill its share, and if all are
    exhausted the exam is shorter; both are logged as warnings.

    Raises:
        DrawFailed: no task has a held-out text.
        VerifierBroken, VerifierClosed: from the verifier.
    """
    texts: set[str] = set()
    turns = {name: _held_out(verifier, name, seed, texts) for name in sorted(set(task_names))}
    exam: list[Expansion] = []
    while turns and len(exam) < num_questions:
        for name in list(turns):
            if len(exam) == num_questions:
                break
            if (expansion := next(turns[name], None)) is None:
                given = sum(one.question.task == name for one in exam)
                logger.warning(
                    "task %s has no more held-out questions than %d: others fill its share",
                    name,
                    given,
                )
                del turns[name]
            else:
                exam.append(expansion)
    if num_questions and not exam:
        raise DrawFailed(f"no task yields held-out questions: {sorted(set(task_names))}")
    if len(exam) < num_questions:
        logger.warning("only %d held-out questions instead of %d", len(exam), num_questions)
    return exam


def _fill_slots(
    verifier: Verifier,
    tasks: dict[int, str],
    seed: int,
    round_number: int,
    drawn: dict[int, Expansion],
) -> set[str]:
    """Adds a question of its task to `drawn` for each slot; returns tasks that did not yield."""
    texts = {normalise(expansion.text) for expansion in drawn.values()}
    failures: Counter[str] = Counter()
    open_slots = sorted(tasks)
    for attempt in range(MAX_ATTEMPTS):
        questions = [
            Question(tasks[slot], _hash("training", seed, round_number, slot, attempt) % MAX_INDEX)
            for slot in open_slots
        ]
        outcomes = verifier.expand(questions)
        for slot, question, outcome in zip(open_slots, questions, outcomes, strict=True):
            if isinstance(outcome, Unscorable):
                failures[question.task] += 1
                _warn(question, outcome)
            elif not is_held_out(outcome.text) and not is_shown(outcome):
                text = normalise(outcome.text)
                if text not in texts or attempt >= MAX_NEW_TEXT_ATTEMPTS:
                    texts.add(text)
                    drawn[slot] = outcome
        open_slots = [
            slot
            for slot in open_slots
            if slot not in drawn and failures[tasks[slot]] < MAX_UNSCORABLE
        ]
        if not open_slots:
            break
    unfit = {tasks[slot] for slot in tasks if slot not in drawn}
    for name in sorted(unfit):
        logger.warning(
            "task %s yields no training questions: left out of round %d", name, round_number
        )
    return unfit


def _held_out(verifier: Verifier, task: str, seed: int, texts: set[str]) -> Iterator[Expansion]:
    """Held-out questions of a task whose text is not in `texts`, which it adds to."""
    first, fruitless, failures = 0, 0, 0
    while fruitless < MAX_FRUITLESS and failures < MAX_UNSCORABLE:
        counters = range(first, first + (BATCH if first else FIRST_BATCH))
        first = counters.stop
        questions = [
            Question(task, _hash("held out", seed, task, counter) % MAX_INDEX)
            for counter in counters
        ]
        for question, outcome in zip(questions, verifier.expand(questions), strict=True):
            fruitless += 1
            if isinstance(outcome, Unscorable):
                failures += 1
                _warn(question, outcome)
            elif (
                is_held_out(outcome.text)
                and not is_shown(outcome)
                and (text := normalise(outcome.text)) not in texts
            ):
                fruitless = 0
                texts.add(text)
                yield outcome


def _pick(number: int, names: Sequence[str], weights: Mapping[str, float]) -> str:
    """One of the names, by a number below 2**64."""
    if not weights:
        return names[number % len(names)]
    sums = list(accumulate(weights.get(name, 1.0) for name in names))
    return names[min(bisect(sums, number / 2**64 * sums[-1]), len(names) - 1)]


def _hash(*parts: str | int) -> int:
    """A number below 2**64 from a purpose and what it depends on; no part may hold a line feed."""
    text = "\n".join(map(str, ("sapo-draw-1", *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _warn(question: Question, outcome: Unscorable) -> None:
    logger.warning(
        "question %s/%d cannot be expanded: %s %s",
        question.task,
        question.index,
        outcome.reason,
        outcome.detail,
    )
