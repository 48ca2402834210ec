"""Announcements kept on disk until they expire: what a peer that was away is told, and this node
itself after a restart. Bounded, and written in batches.

A cache, but for own ones: losing it costs what peers will tell again. `keep` is for any thread; all
else touches the disk and belongs off the trio thread (swarm/database.py).

Not kept: what admission refused. Not checked here: anything; the caller has verified the records.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from swarm.catalogue import announcement_id
from swarm.database import Database
from swarm.protocol import CLOCK_TOLERANCE_S
from swarm.seldom import Seldom

logger = logging.getLogger(__name__)

MAX_ROWS = 20_480
MAX_BYTES = 16 * 2**20
"""Of the records; the file is somewhat larger."""
MAX_PER_AUTHOR = 256
MAX_AUTHOR_BYTES = 256 * 2**10
_EVICTED = "%d announcements gave way to newer ones before they expired (swarm.announcements_mib)"
BATCH = 128
"""So many that wait are worth a write."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS announcements (position INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id BLOB NOT NULL UNIQUE, author TEXT NOT NULL, sequence INTEGER NOT NULL,"
    " first_seen REAL NOT NULL, expires REAL NOT NULL, num_bytes INTEGER NOT NULL,"
    " record BLOB NOT NULL, shard INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS announcements_author"
    " ON announcements (author, position, num_bytes)",
    "CREATE INDEX IF NOT EXISTS announcements_expires ON announcements (expires)",
)


@dataclass(frozen=True, slots=True)
class KeptAnnouncement:
    """A verified announcement."""

    record: bytes
    """As received."""
    author: str
    sequence: int
    first_seen: float
    """Unix seconds."""
    expires: float
    """Unix seconds: not worth telling anybody from then on."""
    shard: int = 0
    """Its author's when it was signed (swarm/shards.py)."""


@dataclass(frozen=True, slots=True)
class KeptCounts:
    """What is kept now."""

    num: int = 0
    num_bytes: int = 0


class Announcements:
    """The newest announcements of everybody, in the order in which they came.

    At the bounds the oldest give way: of their author, then of all others than this node, whose
    own ones are bounded by what any author may have.
    """

    def __init__(
        self,
        database: Database,
        own_id: str,
        max_bytes: int = MAX_BYTES,
        max_rows: int = MAX_ROWS,
        max_per_author: int = MAX_PER_AUTHOR,
        max_author_bytes: int = MAX_AUTHOR_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Makes its table where it is missing.

        Args:
            own_id: node id of this node.
            max_bytes: of records.
            clock: Unix seconds.
        """
        self._database = database
        self._own_id = own_id
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._max_per_author = max_per_author
        self._max_author_bytes = max_author_bytes
        self._clock = clock
        self.num_kept = 0
        """Taken since the start."""
        self.num_evicted = 0
        """Since the start: of others, that gave way before they expired, but for those beyond the
        bounds of one author."""
        self._evicted = Seldom(logger, _EVICTED)
        self._lock = threading.Lock()  # guards what waits
        self._waiting: list[KeptAnnouncement] = []
        with database.transaction():
            for statement in _TABLES:
                database.execute(statement)

    def keep(self, announcement: KeptAnnouncement) -> int:
        """Takes one, to be written with the next batch; returns how many wait. A crash before costs
        them. Whoever adds many writes when BATCH wait."""
        with self._lock:
            self.num_kept += 1
            self._waiting.append(announcement)
            return len(self._waiting)

    def write(self) -> None:
        """Puts what waits on disk, and lets go what is over the bounds or expired long ago."""
        with self._database.transaction():
            self._write()

    def unknown(self, ids: Sequence[bytes]) -> list[bytes]:
        """Those of the ids under which nothing is kept, each once. What has expired lately is
        known: a peer that heard it later tells it a while longer."""
        query = "SELECT 1 FROM announcements WHERE id = ?"
        with self._database.transaction():
            self._write()
            return [
                one
                for one in dict.fromkeys(ids)
                if self._database.execute(query, (one,)).fetchone() is None
            ]

    def newest(self, before: int, num: int, shards: Sequence[int] = ()) -> tuple[list[bytes], int]:
        """Up to `num` ids, those kept last first, and where to go on; 0 where there are no more.

        Args:
            before: what the last call said; 0 begins with the newest.
            shards: of these only; of all where none is named.
        """
        where, args = ("AND position < ?", (before,)) if before else ("", ())
        if shards:
            where += f" AND shard IN ({','.join('?' * len(shards))})"
            args = (*args, *shards)
        with self._database.transaction():
            self._write()
            rows = self._database.execute(
                f"SELECT position, id FROM announcements WHERE expires > ? {where}"
                " ORDER BY position DESC LIMIT ?",
                (self._clock(), *args, num + 1),
            ).fetchall()
        position = rows[num - 1][0] if len(rows) > num else 0
        return [one for _, one in rows[:num]], position

    def find(self, ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """The records of those that are kept and have not expired."""
        with self._database.transaction():
            self._write()
            found = {one: self._find(one) for one in ids}
        return {one: record for one, record in found.items() if record is not None}

    def recall(self, num: int) -> list[KeptAnnouncement]:
        """The newest `num` of others, the oldest of them first."""
        with self._database.transaction():
            self._write()
            rows = self._database.execute(
                "SELECT record, author, sequence, first_seen, expires, shard FROM announcements"
                " WHERE author <> ? AND expires > ? ORDER BY position DESC LIMIT ?",
                (self._own_id, self._clock(), num),
            ).fetchall()
        return [KeptAnnouncement(*row) for row in reversed(rows)]

    def purge(self, author: str) -> int:
        """Deletes what is kept of an author; returns how many that were."""
        with self._database.transaction():
            self._write()
            return self._database.execute(
                "DELETE FROM announcements WHERE author = ?", (author,)
            ).rowcount

    def counts(self) -> KeptCounts:
        """What is on disk."""
        with self._database.transaction():
            return KeptCounts(*self._count("", ()))

    def _find(self, one: bytes) -> bytes | None:
        row = self._database.execute(
            "SELECT record FROM announcements WHERE id = ? AND expires > ?", (one, self._clock())
        ).fetchone()
        return None if row is None else row[0]

    def _write(self) -> None:
        """Within a transaction."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        ended = self._clock() - CLOCK_TOLERANCE_S
        self._database.execute("DELETE FROM announcements WHERE expires <= ?", (ended,))
        for one in waiting:
            self._database.execute(
                "INSERT OR IGNORE INTO announcements"
                " (id, author, sequence, first_seen, expires, num_bytes, record, shard)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(announcement_id(one.record), one.author, one.sequence, one.first_seen),
                    *(one.expires, len(one.record), one.record, one.shard),
                ),
            )
        for author in {one.author for one in waiting}:
            self._bound("author = ?", author, self._max_per_author, self._max_author_bytes)
        num = self._bound("author <> ?", self._own_id, self._max_rows, self._max_bytes)
        self.num_evicted += num
        self._evicted.note(num)

    def _bound(self, where: str, author: str, max_rows: int, max_bytes: int) -> int:
        """Deletes the oldest until the rest is within both; returns how many."""
        num_rows, num_bytes = self._count(f"WHERE {where}", (author,))
        if num_rows <= max_rows and num_bytes <= max_bytes:
            return 0
        rows = self._database.execute(
            f"SELECT position, num_bytes FROM announcements WHERE {where} ORDER BY position",
            (author,),
        )
        leaving = []
        while num_rows > max_rows or num_bytes > max_bytes:
            position, size = rows.fetchone()
            leaving.append((position,))
            num_rows, num_bytes = num_rows - 1, num_bytes - size
        rows.close()
        for one in leaving:
            self._database.execute("DELETE FROM announcements WHERE position = ?", one)
        return len(leaving)

    def _count(self, where: str, args: tuple[str, ...]) -> tuple[int, int]:
        num, num_bytes = self._database.execute(
            f"SELECT count(*), coalesce(sum(num_bytes), 0) FROM announcements {where}", args
        ).fetchone()
        return num, num_bytes
