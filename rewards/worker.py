"""What runs inside a verifier's worker process, and the messages between it and the verifier.

A message is a frame: 4 bytes length (big-endian), then msgpack. The verifier sends `Start` once
and gets `Ready` or `Refused`; after that it sends tuples of items and gets one reply per item, in
order, each written as soon as it is known, so that the item that ends the worker can be named.
"""

import faulthandler
import os
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from rewards import sandbox
from rewards.question import Expansion, Judged, Question, Reason, Unscorable
from rewards.tasks import Task, TaskRefused, TaskSpec, build_task

MAX_REQUEST_BYTES = 64 * 2**20
MAX_DETAIL_CHARS = 200


class Start(msgspec.Struct, frozen=True):
    """The first message: which tasks to build, and under which limits."""

    specs: tuple[TaskSpec, ...]
    memory_mib: int
    parent_pid: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The tasks are built."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A task cannot be built, and could not by another worker either."""

    message: str


class Expand(msgspec.Struct, frozen=True, tag="expand"):
    """Asks for Expanded."""

    cpu_s: int
    question: Question


class Judge(msgspec.Struct, frozen=True, tag="judge"):
    """Asks for Judged."""

    cpu_s: int
    question: Question
    text: str
    finished: bool


class Digest(msgspec.Struct, frozen=True, tag="digest"):
    """Asks for Digested."""

    cpu_s: int
    task: str


class Expanded(msgspec.Struct, frozen=True, tag="expanded"):
    """What a question's address expands to."""

    expansion: Expansion


class Digested(msgspec.Struct, frozen=True, tag="digested"):
    """Fingerprint of a task's texts and verdicts (rewards/digest.py)."""

    digest: str


Item = Expand | Judge | Digest
Reply = Expanded | Judged | Digested | Unscorable


def frame(payload: bytes) -> bytes:
    """`payload` with its length in front."""
    return struct.pack(">I", len(payload)) + payload


def escape(text: str) -> str:
    """Text of a stranger as at most 200 printable ASCII characters."""
    return ascii(text[:MAX_DETAIL_CHARS])[1:-1][:MAX_DETAIL_CHARS]


def main() -> None:
    """Serves the tasks of this package until the verifier closes the pipe."""
    serve(build_task)


def serve(build: Callable[[TaskSpec], Task]) -> None:
    """Builds the tasks and answers items until the verifier closes the pipe.

    Args:
        build: called within the limits of rewards/sandbox.py. What it imports should be imported
            inside of it. Where it raises TaskRefused, the verifier gives up; anything else ends
            this worker, and the verifier tries another.
    """
    requests, replies = _take_pipes()
    faulthandler.enable()  # names the line of a crash in C on stderr, which the verifier logs
    first = _read_frame(requests)
    if first is None:
        return
    start = msgspec.msgpack.decode(first, type=Start)
    sandbox.confine(start.memory_mib, start.parent_pid)
    tasks: dict[str, Task] = {}
    for spec in start.specs:
        try:
            tasks[spec.name] = build(spec)
        except TaskRefused as refusal:
            _write(replies, msgspec.msgpack.encode(Refused(str(refusal))))
            return
    _write(replies, msgspec.msgpack.encode(Ready()))
    _answer_items(tasks, requests, replies)


def _answer_items(tasks: dict[str, Task], requests: BinaryIO, replies: int) -> None:
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(tuple[Item, ...]).decode
    out_of_memory = encode(Unscorable(Reason.MEMORY))  # made now: later there may be no room
    while (request := _read_frame(requests)) is not None:
        for item in decode(request):
            sandbox.renew_cpu_budget(item.cpu_s)
            try:
                payload = encode(_answer(tasks, item))
            except MemoryError:
                payload = out_of_memory
            except Exception as error:  # noqa: BLE001  (the edge of the process; reported)
                payload = encode(Unscorable(Reason.CHECKER_ERROR, _describe(error)))
            _write(replies, payload)


def _answer(tasks: dict[str, Task], item: Item) -> Reply:
    match item:
        case Expand(question=question):
            return Expanded(tasks[question.task].expand(question.index))
        case Judge(question=question, text=text, finished=finished):
            correct = tasks[question.task].judge(question.index, text, finished)
            if type(correct) is not bool:
                raise TypeError(f"the checker returned {type(correct).__name__}, not bool")
            return Judged(correct)
        case Digest(task=task):
            from rewards.digest import digest

            return Digested(digest(tasks[task]))


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


def _read_frame(pipe: BinaryIO) -> bytes | None:
    """The next frame's payload; None where the verifier has closed the pipe."""
    header = pipe.read(4)
    if len(header) < 4:
        return None
    size = struct.unpack(">I", header)[0]
    if size > MAX_REQUEST_BYTES:
        raise ValueError(f"a request of {size} bytes")
    payload = pipe.read(size)
    return payload if len(payload) == size else None


def _write(pipe: int, payload: bytes) -> None:
    rest = memoryview(frame(payload))
    try:
        while rest:
            rest = rest[os.write(pipe, rest) :]
    except BrokenPipeError:
        sys.exit(0)
