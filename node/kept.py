"""What a node's database has kept of rounds and rollouts, read without changing it.

The node may be running or stopped. The file of a stopped one is read as it lies there (SQLite's
"immutable"), so that nothing appears beside it and a home on a read-only disk can be read, too.

Not covered: a node that starts in the moment in which its stopped database is read; then the
command may fail with a database error. Ask again.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from node.home import HomeError
from node.status import HeldOutStatus, RoundReport
from rewards.question import Answer, Example
from swarm.database import SCHEMA_VERSION
from swarm.wire import WireError, open_rollout

DATABASE_FILE = "pool.sqlite"
KINDS = ("used", "fresh", "own")
"""By the number that swarm/pool.py gives them. Used and fresh ones are foreign."""

_decode_report = msgspec.msgpack.Decoder(RoundReport).decode
_decode_heldout = msgspec.msgpack.Decoder(HeldOutStatus).decode
_decode_prompting = msgspec.msgpack.Decoder(tuple[str, tuple[Example, ...]]).decode


class KeptRollout(msgspec.Struct, frozen=True):
    """A rollout of the pool. What its author says of itself and its answers is a claim."""

    hash: bytes
    kind: str
    """One of KINDS."""
    author: str
    sequence: int
    task: str
    index: int
    """Of the question."""
    question: str | None
    """Its text; None of own ones, which are kept as they are served."""
    truth: str | None
    system: str
    examples: tuple[Example, ...]
    answers: tuple[Answer, ...]
    correct: tuple[bool, ...]
    """What this node's verifier found, one per answer."""
    model: str
    policy_round: int
    created: float
    """Unix seconds, as its author says."""
    first_seen: float
    admitted_at: float
    used_at: float | None
    expires: float


class PoolCount(msgspec.Struct, frozen=True):
    """Rollouts of one kind, task or author."""

    name: str
    num: int
    num_bytes: int
    """Of records, and the texts kept with them."""


class PoolStats(msgspec.Struct, frozen=True):
    """What lies in the pool, what has expired and was not removed yet included."""

    num: int
    num_bytes: int
    oldest: float | None
    """Unix seconds of the first sight; None of an empty pool."""
    newest: float | None
    kinds: tuple[PoolCount, ...]
    tasks: tuple[PoolCount, ...]
    authors: tuple[PoolCount, ...]
    """The most first; at most MAX_AUTHORS."""


MAX_AUTHORS = 1000


class Kept:
    """A node's database, read only."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rounds(self, mode: str, limit: int) -> list[RoundReport]:
        """The newest `limit` rounds that the node made in this mode, oldest first."""
        table = "generated_rounds" if mode == "generate" else "rounds"
        rows = self._rows(f"SELECT report FROM {table} ORDER BY round DESC LIMIT ?", limit)
        return [_decode_report(blob) for (blob,) in rows][::-1]

    def heldout(self, mode: str) -> list[HeldOutStatus]:
        """All its evaluations, oldest first."""
        table = "generated_heldout" if mode == "generate" else "heldout"
        return [
            _decode_heldout(blob)
            for (blob,) in self._rows(f"SELECT report FROM {table} ORDER BY round")
        ]

    def stats(self) -> PoolStats:
        """What lies in the pool."""
        found = list(
            self._rows(
                "SELECT count(*), coalesce(sum(num_bytes), 0), min(first_seen), max(first_seen)"
                " FROM rollouts"
            )
        )
        num, num_bytes, oldest, newest = found[0] if found else (0, 0, None, None)
        kinds = {int(kind): (n, size) for kind, n, size in self._counts("kind")}
        return PoolStats(
            num,
            num_bytes,
            oldest,
            newest,
            tuple(PoolCount(name, *kinds.get(number, (0, 0))) for number, name in enumerate(KINDS)),
            tuple(PoolCount(*row) for row in self._counts("task")),
            tuple(PoolCount(*row) for row in self._counts("author")[:MAX_AUTHORS]),
        )

    def rollouts(self, kinds: tuple[str, ...] = KINDS) -> Iterator[KeptRollout | None]:
        """Those of these kinds, oldest first; None for one whose record is damaged."""
        numbers = [number for number, name in enumerate(KINDS) if name in kinds]
        wanted = ", ".join(map(str, numbers))
        for row in self._rows(
            "SELECT hash, kind, text, truth, prompting, correct, first_seen, admitted_at, used_at,"
            f" expires, record FROM rollouts WHERE kind IN ({wanted}) ORDER BY rowid"
        ):
            yield _kept_rollout(*row)

    def _counts(self, column: str) -> list[tuple[str, int, int]]:
        return list(
            self._rows(
                f"SELECT {column}, count(*), sum(num_bytes) FROM rollouts GROUP BY {column}"
                f" ORDER BY count(*) DESC, {column}"
            )
        )

    def _rows(self, query: str, *values: object) -> Iterator[tuple]:  # type: ignore[type-arg]
        """Rows; none where the part of the node that makes the table never ran."""
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise


@contextmanager
def open_kept(home: Path) -> Iterator[Kept]:
    """The database in `home`.

    Raises:
        HomeError: there is none, it is damaged, or a newer version wrote it.
    """
    file = home / DATABASE_FILE
    if not file.is_file():
        raise HomeError(f"{home}: holds no {DATABASE_FILE}; no node ever ran there")
    is_open = file.with_name(f"{DATABASE_FILE}-wal").exists()
    how = "mode=ro" if is_open else "immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?{how}", uri=True)
    except sqlite3.Error as error:
        raise HomeError(f"{file}: cannot be opened: {error}") from None
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise HomeError(
                f"{file}: written by a newer version (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); update this program"
            )
        yield Kept(connection)
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise HomeError(f"{file}: cannot be read: {error}") from None
    finally:
        connection.close()


def _kept_rollout(
    hash: bytes,
    kind: int,
    text: str | None,
    truth: str | None,
    prompting: bytes | None,
    correct: bytes,
    first_seen: float,
    admitted_at: float,
    used_at: float | None,
    expires: float,
    record: bytes,
) -> KeptRollout | None:
    try:
        rollout = open_rollout(record)
        system, examples = _decode_prompting(prompting) if prompting else ("", ())
    except (WireError, msgspec.MsgspecError):
        return None
    return KeptRollout(
        hash,
        KINDS[kind],
        rollout.author,
        rollout.sequence,
        rollout.question.task,
        rollout.question.index,
        text,
        truth,
        system,
        examples,
        rollout.answers,
        tuple(map(bool, correct)),
        rollout.model,
        rollout.policy_round,
        rollout.created,
        first_seen,
        admitted_at,
        used_at,
        expires,
    )
