"""The node's SQLite file: pool, ledger and history share it, off the trio thread, one at a time."""

import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import trio

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 2
"""Of all tables together. Each part makes its own tables where they are missing."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Offload(Protocol):
    """Runs a blocking call off the trio thread; calls through one Offload never overlap."""

    def __call__(
        self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Awaitable[_T]:
        """The call's result; what it raises is raised here."""
        ...


class DatabaseTooNew(RuntimeError):
    """A newer version of this program wrote the file; the message says what to do."""


class Database(sqlite3.Connection):
    """A connection that refuses to be used where it would block the trio loop, or by two threads
    at once. Either is a bug of ours: RuntimeError."""

    blocks = True
    """Whether a call may take long enough to be kept out of the trio thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_use = threading.Lock()

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """As of sqlite3."""
        if self.blocks:
            _refuse_trio()
        return super().execute(*args)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that happens inside, or nothing. Not to be nested."""
        if self.blocks:
            _refuse_trio()
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("the database is used by two threads at once, or nested")
        try:
            with self:
                self.execute("BEGIN IMMEDIATE")
                yield
        finally:
            self._in_use.release()


class MemoryDatabase(Database):
    """Without a file, and gone when it is closed: it may be used in the trio thread, too."""

    blocks = False

    def __init__(self) -> None:
        super().__init__(":memory:", check_same_thread=False)


def open_database(file: Path, timeout_s: float = 5.0) -> Database:
    """The database at `file`, made where it is missing.

    A damaged or unreadable file is moved aside to `FILE.broken` (replacing an older one) with a
    loud log, and a new one is begun: what is in it can be had again, or be done without.

    Args:
        timeout_s: how long to wait for another process that holds the file.

    Raises:
        DatabaseTooNew: the file was written by a newer version.
        sqlite3.OperationalError: another process holds the file, or the disk is full.
        OSError: it can neither be read nor be moved aside.
    """
    try:
        return _open(file, timeout_s)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        aside = file.with_name(f"{file.name}.broken")
        logger.error("%s cannot be used (%s): moved to %s, a new one begins", file, error, aside)
        file.replace(aside)
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        return _open(file, timeout_s)


def _open(file: Path, timeout_s: float) -> Database:
    connection = sqlite3.connect(file, timeout_s, factory=Database, check_same_thread=False)
    try:
        _prepare(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: Database, file: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise DatabaseTooNew(
            f"{file}: written by a newer version (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); update this program, or move the file away to begin anew"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last seconds
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        damage = sqlite3.DatabaseError(found)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }


def _refuse_trio() -> None:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return  # no trio runs in this thread
    raise RuntimeError("the database would block the trio loop: use an Offload")
