"""The pool's rollouts as a file for other programs: JSON lines or Parquet.

What strangers wrote stands there as data, exactly as they signed it, control characters included:
read it with a program, do not print it. JSON escapes lone surrogates; Parquet, which has none,
gets them written as in a Python literal.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from node.config import ConfigError
from node.kept import KeptRollout
from node.status_json import to_json
from swarm.disk import fsync_directory

SUFFIXES = (".jsonl", ".parquet")
ROWS_AT_ONCE = 1000
"""Of a group of a Parquet file, and in memory."""


@dataclass
class Exported:
    """What was written."""

    num: int = 0
    num_damaged: int = 0
    """Left out: their records cannot be read."""
    file: str = field(default="")


def export(rollouts: Iterable[KeptRollout | None], file: Path) -> Exported:
    """Writes them to a file that does not exist yet: whole, or not at all.

    Args:
        file: its suffix says the format.

    Raises:
        ConfigError: the file exists, its suffix is unknown, or it cannot be written.
    """
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file}: name it {' or '.join('*' + one for one in SUFFIXES)}")
    done = Exported(file=str(file))
    try:
        with _new_file(file) as aside:
            if file.suffix == ".jsonl":
                _write_lines(_whole(rollouts, done), aside)
            else:
                _write_parquet(_whole(rollouts, done), aside)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror or error}") from None
    return done


def _whole(rollouts: Iterable[KeptRollout | None], done: Exported) -> Iterator[KeptRollout]:
    for rollout in rollouts:
        if rollout is None:
            done.num_damaged += 1
        else:
            done.num += 1
            yield rollout


@contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """A path to be written, which becomes `file` at the end, unless that exists by then."""
    if file.exists():
        raise ConfigError(f"{file} exists; name another file, or move it away")
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield aside
        handle = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(aside, file)
        except FileExistsError:
            raise ConfigError(f"{file} exists by now; nothing was written") from None
        fsync_directory(file.absolute().parent)
    finally:
        aside.unlink(missing_ok=True)


def _write_lines(rollouts: Iterable[KeptRollout], file: Path) -> None:
    with file.open("xb") as out:
        for rollout in rollouts:
            out.write(to_json(rollout) + b"\n")


def _write_parquet(rollouts: Iterable[KeptRollout], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    answer = pa.struct(
        [
            ("text", text),
            ("finished", pa.bool_()),
            ("num_tokens", pa.int64()),
            ("mean_logp", number),
        ]
    )
    example = pa.struct([("question", text), ("answer", text)])
    schema = pa.schema(
        [
            *(("hash", text), ("kind", text), ("author", text), ("sequence", pa.int64())),
            *(("task", text), ("index", pa.int64()), ("question", text), ("truth", text)),
            *(("system", text), ("examples", pa.list_(example)), ("answers", pa.list_(answer))),
            *(("correct", pa.list_(pa.bool_())), ("model", text), ("policy_round", pa.int64())),
            *(("created", number), ("first_seen", number), ("admitted_at", number)),
            *(("used_at", number), ("expires", number)),
        ]
    )
    with pq.ParquetWriter(file, schema) as writer:
        rows: list[object] = []
        for rollout in rollouts:
            rows.append(msgspec.json.decode(to_json(rollout)))
            if len(rows) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))
