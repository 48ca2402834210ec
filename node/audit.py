"""What was changed in a running node, by whom and when: a line each in the home's `audit.log`.

Lines are only ever appended; beyond MAX_BYTES the file becomes `audit.log.1`, in place of an older
one, so that the two hold twice as much at most. Not covered: whoever may write in the home may
rewrite them; the log has the same lines, where it goes elsewhere.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from node.access import TOKEN_FILE
from node.escape import printable

logger = logging.getLogger(__name__)

AUDIT_FILE = "audit.log"
MAX_BYTES = 2**20
MAX_FIELD_CHARS = 500


class Audit:
    """Blocks: belongs off the trio thread; from any other."""

    def __init__(
        self, home: Path, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        """
        Args:
            clock: Unix seconds.
        """
        self._file = home / AUDIT_FILE
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()

    def note(self, who: str, what: str, result: str) -> None:
        """Writes one line, on disk on return, and says the same in the log. A disk that does not
        take it is an error in the log, and stops nobody from e.g. shutting the node down.

        Args:
            who: address of whoever asked.
            what: was asked for, its words as they were given.
            result: what came of it.
        """
        fields = {
            "time": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            "who": who,
            "what": what,
            "result": result,
        }
        shown = {name: printable(text, MAX_FIELD_CHARS) for name, text in fields.items()}
        logger.info("%s: %s: %s", shown["who"], shown["what"], shown["result"])
        try:
            with self._lock:
                self._append(json.dumps(shown).encode() + b"\n")
        except OSError as error:
            logger.error("%s cannot be written: %s", self._file, error.strerror)

    def note_token(self) -> None:
        """The API's token was replaced in the home, by whoever may write there."""
        self.note(f"the file {TOKEN_FILE}", "new token", "done: taken")

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self._file, flags, 0o600)
        try:
            if os.fstat(handle).st_size + len(line) > self._max_bytes:
                os.close(handle)
                handle = -1
                self._file.replace(self._file.with_name(f"{AUDIT_FILE}.1"))
                handle = os.open(self._file, flags, 0o600)
            os.write(handle, line)
            os.fsync(handle)
        finally:
            if handle >= 0:
                os.close(handle)
