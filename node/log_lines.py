"""The last lines of the log, in memory, for the API.

Covered: what this package and its libraries log at INFO and above in this process. Text of
strangers in a line is escaped, each line is cut, and old lines go.
Not covered: what the learner process logs; it goes to stderr, and its errors, rounds and
evaluations are in the snapshot.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from node.escape import printable

MAX_LINES = 1000
MAX_LINE_CHARS = 2000
MAX_TRACEBACK_LINES = 60


class LogLine(msgspec.Struct, frozen=True):
    """One record of the log."""

    number: int
    """Counts from 1 since the start of the process."""
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
        """Keeps a record. One that cannot be formatted is kept as it is: see `_message`."""
        message, traceback = _message(record), _traceback(record)
        with self._guard:
            self._num += 1
            self._lines.append(
                LogLine(
                    self._num, record.created, record.levelname, record.name, message, traceback
                )
            )

    def newest(self, limit: int) -> list[LogLine]:
        """The last `limit` lines, oldest first."""
        with self._guard:
            return list(self._lines)[-limit:]


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
