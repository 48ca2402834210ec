"""The last lines of the log, in memory, for the API.

Covered: what our packages log at INFO and above, and libraries at WARNING, in the control process
and in the learner, which tells its lines through the pipe. Text of strangers in a line is escaped,
each line is cut, and old lines go.
Not covered: what libraries print, and what the verifier's workers and vLLM's own processes log:
that goes to stderr alone.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import msgspec

from node.escape import printable

MAX_LINES = 1000
MAX_LINE_CHARS = 2000
MAX_TRACEBACK_LINES = 60


class Process(StrEnum):
    """Who logged."""

    CONTROL = "control"
    LEARNER = "learner"


class LogLine(msgspec.Struct, frozen=True):
    """One record of the log."""

    number: int
    """Counts from 1 since the start of the control process; the order in which it heard them."""
    process: Process
    at: float
    """Unix seconds."""
    level: str
    logger: str
    message: str
    """One line; what is not printable in it is escaped."""
    traceback: tuple[str, ...] = ()
    """Line by line, the innermost calls last; the oldest of many are left out."""


class LogLines(logging.Handler):
    """Keeps the newest lines; from any thread."""

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[LogLine] = deque(maxlen=max_lines)
        self._num = 0
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self.add(line_of(record, Process.CONTROL))

    def add(self, line: LogLine) -> None:
        """Keeps a line under the next number."""
        with self._guard:
            self._num += 1
            self._lines.append(msgspec.structs.replace(line, number=self._num))

    def newest(self, limit: int) -> list[LogLine]:
        """The last `limit` lines, oldest first."""
        with self._guard:
            return list(self._lines)[-limit:]


class TellLines(logging.Handler):
    """Tells the lines of a learner to its control process.

    Only in the process that made it: a child that was forked off would write into the same pipe.
    """

    def __init__(self, tell: Callable[[LogLine], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Tells of a record."""
        if os.getpid() == self._pid:
            self._tell(line_of(record, Process.LEARNER))


def line_of(record: logging.LogRecord, process: Process) -> LogLine:
    """A record as a line, without its number. One that cannot be formatted is shown as it is."""
    message, traceback = _message(record), _traceback(record)
    return LogLine(0, process, record.created, record.levelname, record.name, message, traceback)


@contextmanager
def keeping_lines(lines: LogLines) -> Iterator[None]:
    """While the block runs, `lines` hears what is logged."""
    root = logging.getLogger()
    root.addHandler(lines)
    try:
        yield
    finally:
        root.removeHandler(lines)


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - a wrong call of a logger must not end its caller
        text = f"{record.msg!r} with {record.args!r}: {error!r}"
    return printable(text, MAX_LINE_CHARS)


def _traceback(record: logging.LogRecord) -> tuple[str, ...]:
    if not record.exc_info or record.exc_info[0] is None:
        return ()
    text = logging.Formatter().formatException(record.exc_info)
    lines = text.splitlines()[-MAX_TRACEBACK_LINES:]
    return tuple(printable(line, MAX_LINE_CHARS) for line in lines)
