"""A process that makes one run after another, and the parent's end of it.

It keeps what it has imported (seconds of torch), uses one core, and writes what libraries print to
a log instead of into the parent's terminal. It ends when its parent does.
"""

import faulthandler
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

Tell: TypeAlias = Callable[[int], None]
"""Called with the number of rounds made so far, and so shows that the work goes on."""
Work: TypeAlias = Callable[[Tell], Any]
"""Must be picklable: a function of a module, or a partial of one."""

LAST_WORDS_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Progress:
    """The work goes on."""

    round: int


@dataclass(frozen=True, slots=True)
class Done:
    """The work's result."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The work raised, or the process died."""

    reason: str
    """A traceback, or how the process ended and what it last printed."""


Report: TypeAlias = Progress | Done | Failed


class Worker:
    """One process, started at once."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        spawn = get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, log), name="experiment-worker")
        self._process.start()
        theirs.close()

    def give(self, work: Work) -> None:
        """Starts a piece of work; only after the last one has ended."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with suppress(BrokenPipeError):  # it died: the next `hear` says so
            self.connection.send(work)

    def hear(self) -> Report:
        """The next report; blocks until there is one."""
        try:
            report: Report = self.connection.recv()
        except (EOFError, OSError):  # nothing, or half a message
            self._process.join()
            return Failed(f"the process ended {self._how()}{self._last_words()}")
        return report

    @property
    def is_alive(self) -> bool:
        """Whether it can be given more work."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Ends it at once, with whatever it does."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _how(self) -> str:
        code = self._process.exitcode or 0
        if code < 0:
            return f"by signal {signal.Signals(-code).name}"
        return f"with exit status {code}"

    def _last_words(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - LAST_WORDS_BYTES))
            text = file.read().decode(errors="replace").strip()
        return f"; {self._log} ends:\n{text}" if text else ""


def _serve(connection: Connection, log: Path) -> None:
    """Before anything else is imported: one thread for arithmetic, signals, where prints go."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    faulthandler.enable()
    while True:
        try:
            work: Work = connection.recv()
        except EOFError:
            return
        connection.send(_carry_out(work, lambda done: connection.send(Progress(done))))


def _carry_out(work: Work, tell: Tell) -> Done | Failed:
    try:
        return Done(work(tell))
    except BrokenPipeError:
        raise  # the parent is gone
    except Exception:  # noqa: BLE001 - the edge of the process: the parent reports it
        return Failed(traceback.format_exc())
