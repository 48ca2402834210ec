"""Expands questions and judges answers in worker processes that can be killed: a verdict or
`Unscorable`, never a guess.

A request's items go to one worker, which replies to each as soon as it is known. An item that
meets a limit or ends the worker is unscorable, and only that one: a warm spare goes on with the
next item, and another spare starts meanwhile.

An answer that is a program comes back from its worker to be run elsewhere (rewards/runner.py); a
worker then decides by what it did.
"""

import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from rewards.process import WorkerLost, WorkerProcess, worker_command
from rewards.program import Program
from rewards.question import (
    MAX_INDEX,
    Answer,
    Expansion,
    Judged,
    Question,
    Reason,
    Unscorable,
    Verdict,
)
from rewards.runner import Runner
from rewards.sandbox import Isolation
from rewards.tasks import TaskFacts, TaskSpec
from rewards.worker import (
    MAX_REQUEST_BYTES,
    Compare,
    Describe,
    Expand,
    Expanded,
    Item,
    Judge,
    Refused,
    Start,
    escape,
)

logger = logging.getLogger(__name__)

MAX_START_FAILURES = 3
MAX_ITEMS_PER_REQUEST = 512
MAX_ANSWER_BYTES = MAX_REQUEST_BYTES // 2


class VerifierBroken(RuntimeError):
    """No worker can be started; the message says why. Every later call raises it again."""


class VerifierClosed(RuntimeError):
    """The verifier was closed before or while it worked on this call."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker, and one item (an answer or an expansion), may use."""

    deadline_s: float = 5.0
    """Wall-clock seconds for one item; for a program, beyond the CPU seconds that its task gives
    it."""
    cpu_s: int = 5
    """CPU seconds for one item; the kernel rounds up by at most one."""
    memory_mib: int = 2048
    """Address space of a worker."""
    max_answer_bytes: int = 16384
    """UTF-8 bytes of an answer."""
    start_deadline_s: float = 120.0
    """Wall-clock seconds for a worker to import and build the tasks, and to describe one."""
    programs_anyway: bool = False
    """Whether programs of answers are run also where the kernel cannot isolate them."""


@dataclass(frozen=True, slots=True)
class VerifierStats:
    """What a verifier did since its start."""

    judged: int
    """Answers that got a verdict."""
    unscorable: Mapping[Reason, int]
    """Answers and expansions that got none; every reason is a key."""
    programs_run: int
    """Answers that were programs."""
    workers_started: int
    workers_lost: int
    """Workers that ended before close(): killed at a limit, crashed, or failed to start."""


_Outcome = TypeVar("_Outcome")
_Result = TypeVar("_Result")
_decode_expanded = msgspec.msgpack.Decoder(Expanded | Unscorable).decode
_decode_judged = msgspec.msgpack.Decoder(Judged | Program | Unscorable).decode
_decode_compared = msgspec.msgpack.Decoder(Judged | Unscorable).decode
_decode_described = msgspec.msgpack.Decoder(TaskFacts | Refused | Unscorable).decode


class Verifier:
    """Expands and judges within limits. Thread-safe; every call blocks until it is done.

    Returns from the constructor while the workers still start: the first call waits for one.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        limits: Limits = Limits(),
        num_workers: int = 1,
        command: Sequence[str] | None = None,
        data: Mapping[str, Path] | None = None,
    ) -> None:
        """Starts `num_workers` workers and a spare, each with all tasks of `specs`.

        Args:
            data: task name -> the file of its data set, for tasks that have one.
            command: starts a worker that calls rewards.worker.serve(); for tests with own tasks.

        Raises:
            ValueError: two tasks of one name, num_workers < 1, or max_answer_bytes too large.
        """
        self._task_names = {spec.name for spec in specs}
        if len(self._task_names) != len(specs):
            raise ValueError("two tasks have the same name")
        if num_workers < 1:
            raise ValueError("num_workers must be at least 1")
        if not 0 < limits.max_answer_bytes <= MAX_ANSWER_BYTES:
            raise ValueError(f"max_answer_bytes must be between 1 and {MAX_ANSWER_BYTES}")
        self._limits = limits
        self._num_workers = num_workers
        self._command = worker_command() if command is None else tuple(command)
        self._start = Start(
            tuple(specs),
            limits.memory_mib,
            os.getpid(),
            {name: str(path.resolve()) for name, path in (data or {}).items()},
            limits.programs_anyway,
        )
        self._lock = threading.Lock()  # guards all below
        self._alive: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._unused: set[WorkerProcess] = set()
        self._start_failures = 0
        self._broken: str | None = None
        self._closed = False
        self._isolation: Isolation | None = None
        self._judged = 0
        self._unscorable: Counter[Reason] = Counter()
        self._programs_run = 0
        self._workers_started = 0
        self._workers_lost = 0
        # Workers are started in these threads only: a worker dies with the thread that started
        # it (PR_SET_PDEATHSIG), and these live until close().
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="verifier")
        self._threads.submit(self._warm_up)
        self._runner = Runner(limits.start_deadline_s, limits.programs_anyway)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def expand(self, questions: Sequence[Question]) -> list[Expansion | Unscorable]:
        """The text and truth of each question, in order.

        Raises:
            VerifierBroken: no worker can be started.
            VerifierClosed: close() was called.
        """
        return self._expand(questions)[0]

    def expand_one(self, question: Question) -> tuple[Expansion | Unscorable, float]:
        """The text and truth of a question, and how many seconds it held a worker. Raises as
        `expand`."""
        (expanded,), held_s = self._expand([question])
        return expanded, held_s

    def judge(
        self, requests: Sequence[tuple[Question, Sequence[Answer]]], afresh: bool = False
    ) -> list[list[Verdict]]:
        """A verdict for each answer of each question, in order.

        Args:
            afresh: by a worker that has done nothing before, and is then ended: for a second
                opinion before somebody is called a liar. Whatever state the first worker had, this
                one does not share it. Takes the warm spare, and starts the next.

        An answer whose text has no UTF-8 form (lone surrogates: never from a tokenizer, never
        from the wire) is unscorable as CHECKER_ERROR.

        Raises:
            VerifierBroken: no worker can be started.
            VerifierClosed: close() was called.
        """
        pairs = [(question, answer) for question, answers in requests for answer in answers]
        verdicts = iter(self._judge(pairs, afresh)[0])
        return [[next(verdicts) for _ in answers] for _, answers in requests]

    def judge_one(
        self, question: Question, answer: Answer, afresh: bool = False
    ) -> tuple[Verdict, float]:
        """The verdict on an answer, and how many seconds it held a worker, or a process that ran
        it. Waiting for a free one does not count.

        Args:
            afresh: as `judge` takes it.

        Raises:
            VerifierBroken: no worker can be started.
            VerifierClosed: close() was called.
        """
        (verdict,), held_s = self._judge([(question, answer)], afresh)
        return verdict, held_s

    def describe(self) -> dict[str, TaskFacts | Refused]:
        """What a worker finds out about each task, or why it cannot be built, by name.

        Raises:
            VerifierBroken: no worker can be started, or a task cannot be described.
            VerifierClosed: close() was called.
        """
        names = sorted(self._task_names)
        limit_s = self._limits.start_deadline_s
        items = [Describe(math.ceil(limit_s), name) for name in names]
        described: dict[str, TaskFacts | Refused] = {}
        outcomes, _ = self._answer(items, _decode_described, limit_s)
        self._count(outcomes)
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, Unscorable):
                raise VerifierBroken(
                    f"task {name} cannot be described: {outcome.reason} {outcome.detail}"
                )
            described[name] = outcome
        return described

    @property
    def isolation(self) -> Isolation | None:
        """What keeps the workers from files and network; None before one was ready."""
        return self._isolation

    @property
    def stats(self) -> VerifierStats:
        """A snapshot of the counters."""
        with self._lock:
            return VerifierStats(
                self._judged,
                {reason: self._unscorable[reason] for reason in Reason},
                self._programs_run,
                self._workers_started,
                self._workers_lost,
            )

    def close(self) -> None:
        """Kills all workers; calls that are under way raise VerifierClosed. Idempotent."""
        with self._lock:
            self._closed = True
            alive = list(self._alive)
        for worker in alive:
            worker.kill()
        self._runner.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in alive:
            worker.close_pipes()

    def _refusal(self, question: Question, text: str = "") -> Unscorable | None:
        """Why an item is unscorable before any worker sees it."""
        if question.task not in self._task_names:
            return Unscorable(Reason.UNKNOWN_TASK, escape(question.task))
        if not 0 <= question.index < MAX_INDEX:
            return Unscorable(Reason.BAD_INDEX)
        if len(text) > self._limits.max_answer_bytes:  # a character has at least one byte
            return Unscorable(Reason.TOO_LONG)
        try:
            num_bytes = len(text.encode())
        except UnicodeEncodeError:
            return Unscorable(Reason.CHECKER_ERROR, "the answer's text has no UTF-8 form")
        return Unscorable(Reason.TOO_LONG) if num_bytes > self._limits.max_answer_bytes else None

    def _expand(self, questions: Sequence[Question]) -> tuple[list[Expansion | Unscorable], float]:
        items = [
            self._refusal(question) or Expand(self._limits.cpu_s, question)
            for question in questions
        ]
        outcomes, held_s = self._answer(items, _decode_expanded, self._limits.deadline_s)
        self._count(outcomes)
        return [
            outcome.expansion if isinstance(outcome, Expanded) else outcome for outcome in outcomes
        ], held_s

    def _judge(
        self, pairs: Sequence[tuple[Question, Answer]], afresh: bool = False
    ) -> tuple[list[Verdict], float]:
        """The verdicts, and how many seconds they held workers and programs' processes."""
        items = [
            self._refusal(question, answer.text)
            or Judge(self._limits.cpu_s, question, answer.text, answer.finished)
            for question, answer in pairs
        ]
        found, held_s = self._answer(items, _decode_judged, self._limits.deadline_s, afresh)
        programs = [
            partial(self._run_program, question, outcome, afresh)
            for (question, _), outcome in zip(pairs, found, strict=True)
            if isinstance(outcome, Program)
        ]
        ran = self._gather(programs)
        held_s += sum(seconds for _, seconds in ran)
        decided = iter([verdict for verdict, _ in ran])
        verdicts = [next(decided) if isinstance(outcome, Program) else outcome for outcome in found]
        self._count(verdicts, len(programs))
        return verdicts, held_s

    def _count(self, outcomes: Sequence[object], num_programs: int = 0) -> None:
        with self._lock:
            self._judged += sum(isinstance(outcome, Judged) for outcome in outcomes)
            self._unscorable.update(
                outcome.reason for outcome in outcomes if isinstance(outcome, Unscorable)
            )
            self._programs_run += num_programs

    def _answer(
        self,
        items: Sequence[Item | Unscorable],
        decode: Callable[[bytes], _Outcome | Unscorable],
        deadline_s: float,
        afresh: bool = False,
    ) -> tuple[list[_Outcome | Unscorable], float]:
        """The outcome of each item, in order; those that are unscorable already stay so. And how
        many seconds they held workers."""
        open_items = [item for item in items if not isinstance(item, Unscorable)]
        chunks = self._chunks(open_items, 1 if afresh else self._num_workers)
        parts = self._gather(
            partial(self._run, chunk, decode, deadline_s, afresh) for chunk in chunks
        )
        answered = iter([outcome for answered, _ in parts for outcome in answered])
        outcomes = [item if isinstance(item, Unscorable) else next(answered) for item in items]
        return outcomes, sum((held_s for _, held_s in parts), 0.0)

    def _gather(self, work: Iterable[Callable[[], _Result]]) -> list[_Result]:
        """The results of what is done in our threads.

        Raises:
            VerifierClosed: close() was called.
        """
        try:
            futures = [self._threads.submit(part) for part in work]
            return [future.result() for future in futures]
        except (CancelledError, RuntimeError) as error:
            if self._closed:
                raise VerifierClosed("the verifier was closed") from error
            raise

    def _chunks(self, items: Sequence[Item], num_workers: int) -> Iterator[list[Item]]:
        """Parts for the workers to share, each bounded in items and in bytes."""
        most = min(
            max(1, math.ceil(len(items) / num_workers)),
            MAX_ITEMS_PER_REQUEST,
            MAX_ANSWER_BYTES // self._limits.max_answer_bytes,
        )
        for first in range(0, len(items), most):
            yield list(items[first : first + most])

    def _run(
        self,
        items: Sequence[Item],
        decode: Callable[[bytes], _Outcome | Unscorable],
        deadline_s: float,
        afresh: bool,
    ) -> tuple[list[_Outcome | Unscorable], float]:
        """Has the items answered by as many workers as it takes, and says for how many seconds it
        held them. Runs in one of our threads."""
        outcomes: list[_Outcome | Unscorable] = []
        held_s = 0.0
        while len(outcomes) < len(items):
            worker = self._take(afresh)
            taken = time.monotonic()
            lost: WorkerLost | None = None
            try:
                worker.ask(items[len(outcomes) :], deadline_s)
                while len(outcomes) < len(items):
                    outcomes.append(outcome := worker.receive(decode, deadline_s))
                    if isinstance(outcome, Unscorable) and outcome.reason is Reason.MEMORY:
                        lost = WorkerLost(Reason.MEMORY, "what it still holds is unknown")
                        break
            except WorkerLost as error:
                lost = error
                outcomes.append(Unscorable(error.reason, error.detail))
            held_s += time.monotonic() - taken
            if lost is None and afresh:
                self._end(worker)
            elif lost is None:
                self._give_back(worker)
            else:
                self._discard(worker, lost, f"while it worked on {_name(items[len(outcomes) - 1])}")
        return outcomes, held_s

    def _run_program(
        self, question: Question, program: Program, afresh: bool
    ) -> tuple[Verdict, float]:
        """The verdict on a program by what it does, and for how many seconds it held its process
        and a worker. Runs in one of our threads."""
        started = time.monotonic()
        ran = self._runner.run(program, self._limits.deadline_s + program.cpu_s)
        held_s = time.monotonic() - started
        if self._closed:
            raise VerifierClosed("the verifier was closed")
        if isinstance(ran, Unscorable):
            return ran, held_s
        item = Compare(self._limits.cpu_s, question, ran)
        limit_s = self._limits.deadline_s
        (verdict,), compared_s = self._run([item], _decode_compared, limit_s, afresh)
        return verdict, held_s + compared_s

    def _warm_up(self) -> None:
        with self._lock:
            self._start_missing()

    def _start_missing(self) -> None:
        """Starts workers up to the number wanted, without waiting for them. Needs the lock."""
        while not self._closed and len(self._alive) <= self._num_workers:
            try:
                worker = WorkerProcess(self._command, self._start, self._limits.start_deadline_s)
            except OSError as error:
                logger.error("a verifier worker cannot be started: %s", error)
                return
            self._workers_started += 1
            self._alive.add(worker)
            self._unused.add(worker)
            self._idle.append(worker)

    def _take(self, afresh: bool = False) -> WorkerProcess:
        """A worker that is ready, the last used first; waits for one that still starts.

        Args:
            afresh: only an unused one; where there is none, a used one is ended for it.

        Raises:
            VerifierBroken: several in a row could not start, or a task was refused.
            VerifierClosed: close() was called.
        """
        while True:
            with self._lock:
                if self._closed:
                    raise VerifierClosed("the verifier was closed")
                if self._broken is not None:
                    raise VerifierBroken(self._broken)
                self._start_missing()
                if not self._idle:
                    raise VerifierBroken("a verifier worker cannot be started: see the log")
                fit = [idle for idle in self._idle if not afresh or idle in self._unused]
                worker = min(fit or self._idle, key=lambda idle: idle.reluctance)
                self._idle.remove(worker)
                self._unused.discard(worker)
            if not fit:
                self._end(worker)
                continue
            try:
                worker.wait_ready()
            except WorkerLost as lost:
                self._discard(worker, lost, "while idle" if worker.is_ready else "while it started")
                if not worker.is_ready:
                    self._note_start_failure(worker, lost)
            else:
                with self._lock:
                    self._start_failures = 0
                    self._isolation = worker.isolation
                return worker

    def _give_back(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._idle.insert(0, worker)  # the next request finds its caches warm

    def _end(self, worker: WorkerProcess) -> None:
        """Ends a worker that nobody uses and starts the next spare."""
        worker.kill()
        with self._lock:
            self._alive.discard(worker)
            self._start_missing()
        worker.close_pipes()

    def _discard(self, worker: WorkerProcess, lost: WorkerLost, when: str) -> None:
        """Kills a worker and starts the next spare.

        Raises:
            VerifierClosed: close() was called, so it is probably that which ended the worker.
        """
        worker.kill()
        with self._lock:
            self._alive.discard(worker)
            if not self._closed:
                self._workers_lost += 1
            self._start_missing()
            is_closed = self._closed
        worker.close_pipes()
        if is_closed:
            raise VerifierClosed("the verifier was closed")
        said = f"; it wrote:\n{worker.tail}" if worker.tail else ""
        logger.warning("lost a verifier worker %s: %s, %s%s", when, lost.reason, lost.detail, said)

    def _note_start_failure(self, worker: WorkerProcess, lost: WorkerLost) -> None:
        with self._lock:
            self._start_failures += 1
            if self._start_failures >= MAX_START_FAILURES:
                self._broken = (
                    f"{self._start_failures} workers in a row did not start: {lost.reason} "
                    f"{lost.detail}\n{worker.tail}"
                )


def _name(item: Item) -> str:
    """An item for the log, without text of strangers."""
    match item:
        case Describe(task=task):
            return f"the description of {task}"
        case Expand(question=question):
            return f"question {question.task}/{question.index}"
        case Judge(question=question) | Compare(question=question):
            return f"an answer to {question.task}/{question.index}"
