"""A file of rows that a manifest names: its name, its pinned hash, and one row at a time.

Rows lie in the file in one of two forms: JSON Lines, an object to a line, or Parquet. Nothing here
holds the file in memory, and nothing starts a thread: a worker of the verifier may not.
"""

import hashlib
import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from rewards.tasks import TaskSpec

if TYPE_CHECKING:
    import pyarrow

MAX_FILE_BYTES = 4 * 2**30
MAX_ROWS = 10_000_000
MAX_LINE_BYTES = 2**20
MAX_GROUP_BYTES = 256 * 2**20
"""Of the columns that are read in one row group of a Parquet file, uncompressed."""
MAX_GROUPS = 100_000

_SHA256 = re.compile("sha256:([0-9a-f]{64})")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_LOCAL = re.compile(rf"{_NAME}\.(?:jsonl|parquet)")
_HUB = re.compile(
    rf"hf://datasets/({_NAME}/{_NAME})@([0-9a-f]{{40}})/((?:{_NAME}/){{0,8}}{_NAME}\.(?:jsonl|parquet))"
)
_CHUNK_BYTES = 2**20


class TableError(ValueError):
    """A file, or one of its rows, cannot be used; the message says why."""


class TableFile(msgspec.Struct, frozen=True):
    """How a manifest names a file of rows."""

    name: str
    """Its last part, e.g. "train.jsonl": never a path."""
    sha256: str
    """Of its bytes, in hex."""
    repo: str = ""
    """Of a data set on the hub: "owner/name"; empty for a file that lies beside the manifest."""
    commit: str = ""
    path: str = ""
    """Within the hub's repository."""


def has_table(spec: TaskSpec) -> bool:
    """Whether the task is made from a file: those are pinned by a hash, others by a version."""
    return spec.version.startswith("sha256:")


def table_file(spec: TaskSpec) -> TableFile:
    """The file that a manifest's entry names.

    Raises:
        TableError: its `dataset` or `version` is not of the form that a file has.
    """
    pinned = _SHA256.fullmatch(spec.version)
    if pinned is None:
        raise TableError(
            f"version {spec.version[:80]!r}: write 'sha256:' and the hash of the file's bytes "
            "in 64 lower-case hex digits"
        )
    if _LOCAL.fullmatch(spec.dataset):
        return TableFile(spec.dataset, pinned[1])
    if (hub := _HUB.fullmatch(spec.dataset)) is not None:
        return TableFile(hub[3].rpartition("/")[2], pinned[1], *hub.groups())
    raise TableError(
        f"dataset {spec.dataset[:200]!r}: write the name of a file, NAME.jsonl or NAME.parquet, or "
        "hf://datasets/OWNER/NAME@COMMIT/PATH.jsonl with all 40 digits of the commit"
    )


class Table(Protocol):
    """Rows by number. Used by one thread."""

    num_rows: int

    def row(self, number: int) -> dict[str, Any]:
        """The row's columns, those that it has. 0 <= number < num_rows.

        Raises:
            TableError: the row cannot be read, e.g. it is not a JSON object.
        """
        ...


def open_table(path: Path, file: TableFile, columns: Sequence[str]) -> Table:
    """The rows of the file, once its hash has proved to be the pinned one.

    Reads all of it once: 0.9 GB a second of Parquet, 0.25 GB of JSON Lines, of which it keeps 12
    bytes a line. A row then takes 0.05 ms; in Parquet 7 ms if its row group (of 10,000 rows) is
    not among the last two read.

    Args:
        columns: those that are read; others are left alone.

    Raises:
        TableError: not the pinned file; larger than a limit; no rows; not Parquet; a column that
            its Parquet file does not have.
        OSError: it cannot be read.

    Not noticed: that the file is changed later on, while it is open.
    """
    if file.name.endswith(".parquet"):
        hash_file(path, file)
        return _Parquet(path, columns)
    return _JsonLines(path, file)


def hash_file(path: Path, file: TableFile, lines: "_Lines | None" = None) -> None:
    """Reads the file from end to end.

    Raises:
        TableError: it is not the pinned one, or too large.
        OSError: it cannot be read.
    """
    hashed = hashlib.sha256()
    with path.open("rb", buffering=0) as opened:
        if (size := os.fstat(opened.fileno()).st_size) > MAX_FILE_BYTES:
            raise TableError(f"{file.name}: {size} bytes; at most {MAX_FILE_BYTES} are read")
        while chunk := opened.read(_CHUNK_BYTES):
            hashed.update(chunk)
            if lines is not None:
                lines.scan(chunk)
    if (found := hashed.hexdigest()) != file.sha256:
        raise TableError(
            f"{file.name}: this file is not the swarm's: sha256 here {found}, in the swarm file "
            f"{file.sha256}; get the one that the swarm's owner published"
        )


class _Lines:
    """Where the lines of a file begin and how long they are; empty ones are no rows."""

    def __init__(self, name: str) -> None:
        self.starts, self.sizes = array("Q"), array("I")
        self._name = name
        self._start = 0
        self._scanned = 0

    def scan(self, chunk: bytes) -> None:
        """Takes the next bytes of the file."""
        at = 0
        while (at := chunk.find(b"\n", at) + 1) > 0:
            self._end_line(self._scanned + at)
        self._scanned += len(chunk)
        if self._scanned - self._start > MAX_LINE_BYTES:
            self._refuse_line()

    def end(self) -> None:
        """The file has ended."""
        self._end_line(self._scanned)

    def _end_line(self, end: int) -> None:
        size = end - self._start
        if size > 2:  # else nothing but line ends: the shortest object takes two bytes
            if size > MAX_LINE_BYTES:
                self._refuse_line()
            if len(self.starts) == MAX_ROWS:
                raise TableError(f"{self._name}: more than {MAX_ROWS} rows")
            self.starts.append(self._start)
            self.sizes.append(size)
        self._start = end

    def _refuse_line(self) -> None:
        raise TableError(
            f"{self._name}: row {len(self.starts)} is longer than {MAX_LINE_BYTES} bytes"
        )


class _JsonLines:
    """An object to a line. Lines are read when they are asked for: a mapping of the whole file
    would count against the worker's memory."""

    def __init__(self, path: Path, file: TableFile) -> None:
        lines = _Lines(file.name)
        hash_file(path, file, lines)
        lines.end()
        if not lines.starts:
            raise TableError(f"{file.name}: it has no rows")
        self.num_rows = len(lines.starts)
        self._lines = lines
        self._opened = path.open("rb", buffering=0)

    def row(self, number: int) -> dict[str, Any]:
        """See `Table`."""
        size = self._lines.sizes[number]
        line = os.pread(self._opened.fileno(), size, self._lines.starts[number])
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TableError(f"not a JSON object on one line: {error}") from None


class _Parquet:
    """Row groups are decoded when a row of them is asked for; the last two stay in memory."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow  # 0.4 s, which those who read JSON Lines need not pay
        from pyarrow import parquet

        try:
            self._file = parquet.ParquetFile(path, memory_map=False, pre_buffer=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise TableError(f"not a Parquet file: {str(error)[:200]!r}") from None
        names = self._file.schema_arrow.names
        for column in columns:
            if names.count(column) != 1:
                raise TableError(
                    f"it has {names.count(column)} columns named {column!r}; its columns are "
                    f"{listed(names)}"
                )
        self._columns = list(columns)
        self._check_groups()
        sizes = [
            self._file.metadata.row_group(group).num_rows
            for group in range(self._file.num_row_groups)
        ]
        self._ends = list(accumulate(sizes))
        self.num_rows = self._ends[-1] if self._ends else 0
        if not 0 < self.num_rows <= MAX_ROWS:
            raise TableError(f"{self.num_rows} rows; 1 to {MAX_ROWS} are read")
        self._group = lru_cache(maxsize=2)(self._read_group)

    def row(self, number: int) -> dict[str, Any]:
        """See `Table`."""
        import pyarrow

        place = bisect_right(self._ends, number)
        start = self._ends[place - 1] if place else 0
        try:
            [row] = self._group(place).slice(number - start, 1).to_pylist()
        except (pyarrow.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise TableError(f"cannot be decoded: {str(error)[:200]!r}") from None
        return dict(row)

    def _read_group(self, place: int) -> "pyarrow.Table":
        return self._file.read_row_group(place, columns=self._columns, use_threads=False)

    def _check_groups(self) -> None:
        metadata = self._file.metadata
        if metadata.num_row_groups > MAX_GROUPS:
            raise TableError(f"{metadata.num_row_groups} row groups; at most {MAX_GROUPS} are read")
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            chunks = [group.column(place) for place in range(group.num_columns)]
            num_bytes = sum(
                chunk.total_uncompressed_size
                for chunk in chunks
                if any(f"{chunk.path_in_schema}.".startswith(f"{one}.") for one in self._columns)
            )
            if num_bytes > MAX_GROUP_BYTES:
                raise TableError(
                    f"row group {number} has {num_bytes} bytes, at most {MAX_GROUP_BYTES} are "
                    "decoded at once: write the file with smaller row groups"
                )


def listed(names: Iterable[str]) -> str:
    """Names of columns for an error, cut where they are many."""
    return ", ".join(map(repr, islice(names, 20)))[:300]
