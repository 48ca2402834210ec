"""A worker whose tasks do what an answer tells them: every hazard that real tasks might hold.

    python hostile_worker.py ROOT [FIFO]

ROOT is what holds the package `rewards`; FIFO what "tell and sleep" writes to.
"""

import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from rewards.question import Expansion, Question
from rewards.tasks import TaskRefused, TaskSpec
from rewards.worker import serve

PROTOCOL_FDS = range(3, 10)
FIFO = os.open(sys.argv[2], os.O_RDWR) if len(sys.argv) > 2 else -1


class Honest:
    """Correct is the index in digits. Parameters: `num_texts`, `fails`, the index that `hangs`."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.deterministic = True
        self.num_questions = None

    def expand(self, index: int) -> Expansion:
        num_texts = self.spec.params.get("num_texts")
        shown = index % num_texts if isinstance(num_texts, int) else index
        if self.spec.params.get("fails"):
            raise RuntimeError("no such question")
        if self.spec.params.get("hangs") == index:
            while True:
                pass
        return Expansion(
            Question(self.spec.name, index),
            f"{self.spec.name}: say {shown}",
            str(index),
            self.spec.system,
            self.spec.examples,
        )

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return finished and answer_text == str(index)


class Obedient(Honest):
    """Does what the answer says, where that is an action; else as Honest. "am I first" is
    correct if this worker judged nothing before."""

    num_judged = 0

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        self.num_judged += 1
        if answer_text == "am I first":
            return self.num_judged == 1
        action = ACTIONS.get(answer_text)
        if action is not None:
            return action()  # type: ignore[return-value]
        return super().judge(index, answer_text, finished)


def _loop() -> None:
    while True:
        pass


def _busy() -> bool:
    end = time.process_time() + 0.6
    while time.process_time() < end:
        pass
    return True


def _tell_and_sleep() -> None:
    os.write(FIFO, b"x")
    time.sleep(3600)


def _recurse() -> None:
    _recurse()


def _bomb() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(2**24))


def _raise_unprintable() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Unprintable


def _raise_text_of_a_stranger() -> None:
    raise ValueError("\x1b[31mred\nline\ud800" + "x" * 10**6)


def _fork() -> bool:
    return os.fork() > 0


def _fork_in_c() -> None:
    """The child has the pipes of its parent and comes back from the call."""
    libc = ctypes.CDLL(None)
    if libc.fork() == 0:
        time.sleep(3600)
    else:
        time.sleep(3600)


def _start_process() -> None:
    subprocess.Popen(["sleep", "3600"])


def _start_thread() -> bool:
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return True


def _write_to_stdout() -> bool:
    print("x" * 10**6, flush=True)  # noqa: T201
    os.write(1, b"\x00\x00\x00\x05garbage" * 10**4)
    sys.__stdout__.write("\x00")  # type: ignore[union-attr]
    return sys.stdin.read() == ""


def _write_to_stderr() -> bool:
    for _ in range(100):
        sys.stderr.write("y" * 10**5)
    sys.stderr.flush()
    return True


def _write_to_every_fd(garbage: bytes) -> None:
    for fd in PROTOCOL_FDS:
        try:
            os.set_blocking(fd, False)
            os.write(fd, garbage)
        except OSError:
            continue
    time.sleep(3600)


def _write_file() -> None:
    os.write(os.memfd_create("file"), b"x")


def _write_here() -> None:
    with open("file", "w"):
        pass


ACTIONS = {
    "loop": _loop,
    "busy": _busy,
    "tell and sleep": _tell_and_sleep,
    "sleep": lambda: time.sleep(3600),
    "regex": lambda: bool(re.match(r"(a+)+$", "a" * 60 + "b")),
    "pow": lambda: 7 ** (10**9) == 0,
    "exit": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "bomb": _bomb,
    "big": lambda: bytearray(2**40),
    "recurse": _recurse,
    "raise": _raise_text_of_a_stranger,
    "raise unprintable": _raise_unprintable,
    "not a bool": lambda: 1.0,
    "fork": _fork,
    "fork in c": _fork_in_c,
    "start process": _start_process,
    "start thread": _start_thread,
    "stdout": _write_to_stdout,
    "stderr": _write_to_stderr,
    "garbage": lambda: _write_to_every_fd(b"\x00\x00\x00\x05garbage"),
    "huge frame": lambda: _write_to_every_fd(b"\xff\xff\xff\xffgarbage"),
    "half a frame": lambda: _write_to_every_fd(b"\x00\x00\x01\x00garbage"),
    "close": lambda: os.closerange(0, 64) or time.sleep(3600),
    "write file": _write_file,
    "write here": _write_here,
    "is torch imported": lambda: "torch" in sys.modules,
    "is hashing fixed": lambda: sys.flags.hash_randomization == 0,
    "is secret visible": lambda: "SAPO_SECRET" in os.environ,
    "is my group my own": lambda: os.getpgrp() == os.getpid(),
}


def build(spec: TaskSpec, data: Path | None) -> Honest:
    match spec.kind:
        case "honest":
            return Honest(spec)
        case "obedient":
            return Obedient(spec)
        case "crashes":
            os._exit(7)
        case "hangs":
            _loop()
        case "shouts":
            sys.stderr.write("\x1b[31mthe library is broken\n")
            raise RuntimeError("cannot import name 'chain_sum'")
    raise TaskRefused(f"unknown kind {spec.kind!r}")


if __name__ == "__main__":
    serve(build, load=lambda spec: None)
