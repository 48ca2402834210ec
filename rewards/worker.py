"""What runs inside a verifier's worker process, and the messages between it and the verifier.

A message is a frame (rewards/frames.py) of msgpack. The verifier sends `Start` once and gets
`Ready`; after that it sends tuples of items and gets one reply per item, in order, each written as
soon as it is known, so that the item that ends the worker can be named.

Limits are taken on first; then the installed code of the tasks' kinds is imported; then files and
network are closed; only then is the manifest looked at, and what strangers wrote.
"""

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from rewards import sandbox
from rewards.frames import read_frame, write_frame
from rewards.program import Program, Ran
from rewards.question import Expansion, Judged, Question, Reason, Unscorable
from rewards.tasks import (
    ProgramTask,
    Task,
    TaskFacts,
    TaskRefused,
    TaskSpec,
    build_task,
    find_kind,
)

MAX_REQUEST_BYTES = 64 * 2**20
MAX_DETAIL_CHARS = 200


class Start(msgspec.Struct, frozen=True):
    """The first message: which tasks to build, and under which limits."""

    specs: tuple[TaskSpec, ...]
    memory_mib: int
    parent_pid: int
    data: dict[str, str] = {}
    """Task name -> the file of its data set."""
    programs_anyway: bool = False
    """Tasks whose answers are programs are built also where isolation is not complete."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The tasks are built, but for those that are refused."""

    isolation: sandbox.Isolation


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A task that cannot be built, and could not by another worker either."""

    message: str


class Expand(msgspec.Struct, frozen=True, tag="expand"):
    """Asks for Expanded."""

    cpu_s: int
    question: Question


class Judge(msgspec.Struct, frozen=True, tag="judge"):
    """Asks for Judged, or for a Program to be run first."""

    cpu_s: int
    question: Question
    text: str
    finished: bool


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """Asks for Judged: what the program of an answer did."""

    cpu_s: int
    question: Question
    ran: Ran


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """Asks for TaskFacts, or Refused."""

    cpu_s: int
    task: str


class Expanded(msgspec.Struct, frozen=True, tag="expanded"):
    """What a question's address expands to."""

    expansion: Expansion


Item = Expand | Judge | Compare | Describe
Reply = Expanded | Judged | Program | TaskFacts | Refused | Unscorable


def escape(text: str) -> str:
    """Text of a stranger as at most 200 printable ASCII characters."""
    return ascii(text[:MAX_DETAIL_CHARS])[1:-1][:MAX_DETAIL_CHARS]


def main() -> None:
    """Serves the tasks of this package until the verifier closes the pipe."""
    serve(build_task, find_kind)


def serve(
    build: Callable[[TaskSpec, Path | None], Task], load: Callable[[TaskSpec], object]
) -> None:
    """Builds the tasks and answers items until the verifier closes the pipe.

    Args:
        build: called within the limits of rewards/sandbox.py. A task for which it raises
            TaskRefused is left out; anything else ends this worker, and the verifier tries another.
        load: imports what `build` needs; called before files are closed. Raises as `build`.
    """
    requests, replies = _take_pipes()
    faulthandler.enable()  # names the line of a crash in C on stderr, which the verifier logs
    first = read_frame(requests, MAX_REQUEST_BYTES)
    if first is None:
        return
    start = msgspec.msgpack.decode(first, type=Start)
    sandbox.confine(start.memory_mib, start.parent_pid)
    refused: dict[str, Refused] = {}
    for spec in start.specs:
        try:
            load(spec)
        except TaskRefused as refusal:
            refused[spec.name] = Refused(str(refusal))
    readable = [*sandbox.readable_now(), *map(Path, start.data.values())]
    isolation = sandbox.isolate(readable, runs_programs=False)
    may_run = isolation.is_complete or start.programs_anyway
    tasks: dict[str, Task | Refused] = {**refused}
    for spec in start.specs:
        if spec.name not in refused:
            data = start.data.get(spec.name)
            tasks[spec.name] = _build(build, spec, Path(data) if data else None, may_run)
    _write(replies, msgspec.msgpack.encode(Ready(isolation)))
    _answer_items(tasks, requests, replies)


def _build(
    build: Callable[[TaskSpec, Path | None], Task], spec: TaskSpec, data: Path | None, may_run: bool
) -> Task | Refused:
    try:
        task = build(spec, data)
    except TaskRefused as refusal:
        return Refused(str(refusal))
    if hasattr(task, "compare") and not may_run:
        return Refused(
            f"task {spec.name!r}: its answers are programs, and this machine cannot isolate them "
            "(`sapo doctor` says why); verify.isolation = 'optional' runs them anyway"
        )
    return task


def _answer_items(tasks: dict[str, Task | Refused], requests: BinaryIO, replies: int) -> None:
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(tuple[Item, ...]).decode
    out_of_memory = encode(Unscorable(Reason.MEMORY))  # made now: later there may be no room
    while (request := read_frame(requests, MAX_REQUEST_BYTES)) is not None:
        for item in decode(request):
            sandbox.renew_cpu_budget(item.cpu_s)
            try:
                payload = encode(_answer(tasks, item))
            except MemoryError:
                payload = out_of_memory
            except Exception as error:  # noqa: BLE001  (the edge of the process; reported)
                payload = encode(Unscorable(Reason.CHECKER_ERROR, _describe(error)))
            _write(replies, payload)


def _answer(tasks: dict[str, Task | Refused], item: Item) -> Reply:
    name = item.task if isinstance(item, Describe) else item.question.task
    task = tasks[name]
    if isinstance(task, Refused):
        if isinstance(item, Describe):
            return task
        return Unscorable(Reason.UNKNOWN_TASK, task.message[:MAX_DETAIL_CHARS])
    match item:
        case Expand(question=question):
            return Expanded(task.expand(question.index))
        case Judge(question=question, text=text, finished=finished):
            return _judged(task.judge(question.index, text, finished))
        case Compare(question=question, ran=ran):
            return _judged(cast(ProgramTask, task).compare(question.index, ran))
        case Describe():
            from rewards.digest import digest

            rule = str(getattr(task, "rule", ""))
            return TaskFacts(digest(task), task.deterministic, task.num_questions, rule)


def _judged(found: bool | Program) -> Judged | Program:
    if isinstance(found, Program):
        return found
    if type(found) is not bool:
        raise TypeError(f"the checker returned {type(found).__name__}, not bool")
    return Judged(found)


def _describe(error: Exception) -> str:
    try:
        return escape(f"{type(error).__name__}: {error}")
    except Exception:  # noqa: BLE001  (an exception whose text cannot be made is still one)
        return type(error).__name__


def _take_pipes() -> tuple[BinaryIO, int]:
    """Moves the pipes away from fd 0 and 1, so that a task that prints cannot break a frame."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return requests, replies


def _write(pipe: int, payload: bytes) -> None:
    try:
        write_frame(pipe, payload)
    except BrokenPipeError:
        sys.exit(0)
