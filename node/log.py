"""Where the log goes, and how a line of it looks: for people, or as JSON.

Covered: whatever a stranger wrote that gets into a message is escaped (node/escape.py), and cannot
begin a line of its own: lines of a traceback are indented, JSON has one object per line.
Not covered: what libraries print without logging, and what the kernel says of a process it killed.
"""

import json
import logging
import time
from pathlib import Path

from node.config import LogFormat
from node.escape import printable

MAX_MESSAGE_CHARS = 4000
MAX_TRACEBACK_LINES = 200


class HumanLines(logging.Formatter):
    """`2026-01-31 12:00:00,123 INFO node.loop: round 7: ...`, and tracebacks below, indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As of logging."""
        record.message = printable(record.message, MAX_MESSAGE_CHARS)
        return super().formatMessage(record)

    def formatException(self, ei) -> str:  # type: ignore[no-untyped-def]
        """As of logging."""
        return "\n".join(f"    {line}" for line in traceback_lines(super().formatException(ei)))


class JsonLines(logging.Formatter):
    """One object per line: time (RFC 3339, UTC), level, logger, message, traceback where there is
    one (a list of lines)."""

    def format(self, record: logging.LogRecord) -> str:
        """As of logging."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage(), MAX_MESSAGE_CHARS),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = traceback_lines(self.formatException(record.exc_info))
        return json.dumps(line)


def traceback_lines(text: str) -> list[str]:
    """The last lines of a traceback, in which nothing acts on a terminal."""
    lines = text.splitlines()[-MAX_TRACEBACK_LINES:]
    return [printable(line, MAX_MESSAGE_CHARS) for line in lines]


def log_to(file: Path | None, also_stderr: bool = True, format: LogFormat = "human") -> None:
    """Sends the log of our packages to stderr and, where given, to a file."""
    handlers: list[logging.Handler] = [logging.StreamHandler()] if also_stderr else []
    if file is not None:
        handlers.append(logging.FileHandler(file))
    for handler in handlers:
        handler.setFormatter(JsonLines() if format == "json" else HumanLines())
    logging.basicConfig(handlers=handlers, force=True)
    logging.captureWarnings(True)  # those of libraries would tear the live view
    for package in ("node", "swarm", "rewards"):
        logging.getLogger(package).setLevel(logging.INFO)
