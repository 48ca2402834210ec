"""Files of rows: names that stay where they belong, pinned hashes, rows one at a time."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from rewards.process import ENVIRONMENT
from rewards.tasks import TaskSpec
from rewards.tasks import table as tables
from rewards.tasks.table import TableError, TableFile, has_table, open_table, table_file

HASH = "0123456789abcdef" * 4
COMMIT = "0123456789" * 4


def spec(dataset: str, version: str = f"sha256:{HASH}") -> TaskSpec:
    return TaskSpec("sums", "rows", dataset, version)


def pinned(path: Path) -> TableFile:
    return TableFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def read(path: Path, *columns: str) -> tables.Table:
    return open_table(path, pinned(path), columns)


def lines(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return path


def test_a_file_is_local_or_of_the_hub_at_a_commit() -> None:
    assert table_file(spec("sums.jsonl")) == TableFile("sums.jsonl", HASH)
    hub = table_file(spec(f"hf://datasets/open/math-2@{COMMIT}/data/main/train-0.parquet"))
    assert hub == TableFile(
        "train-0.parquet", HASH, "open/math-2", COMMIT, "data/main/train-0.parquet"
    )
    assert has_table(spec("sums.jsonl"))
    assert not has_table(spec("chain_sum", "0.1.25"))


@pytest.mark.parametrize(
    "name",
    [
        *["", ".", "..", "/etc/passwd", "identity.key", "sums.json", "sums.jsonl.gz", ".jsonl"],
        *["../sums.jsonl", "a/sums.jsonl", "..\\sums.jsonl", ".hidden.jsonl", "sums.jsonl\n"],
        *["a\x00.jsonl", "sums .jsonl", "\u017fums.jsonl", "x" * 200 + ".jsonl", "-\x1b[31m.jsonl"],
        "https://example.org/sums.jsonl",
        "hf://datasets/open/math/sums.jsonl",
        "hf://datasets/open/math@main/sums.jsonl",
        f"hf://datasets/open/math@{COMMIT[:39]}/sums.jsonl",
        f"hf://datasets/open/math@{COMMIT}/../sums.jsonl",
        f"hf://datasets/open/math@{COMMIT}/a/../sums.jsonl",
        f"hf://datasets/open/math@{COMMIT}//sums.jsonl",
        f"hf://datasets/../math@{COMMIT}/sums.jsonl",
        f"hf://datasets/open/math/more@{COMMIT}/sums.jsonl",
        f"hf://models/open/math@{COMMIT}/sums.jsonl",
        f"hf://datasets/open/math@{COMMIT}/{'a/' * 10}sums.jsonl",
    ],
)
def test_no_other_name_is_taken(name: str) -> None:
    with pytest.raises(TableError, match="write the name of a file"):
        table_file(spec(name))


@pytest.mark.parametrize("version", ["", "1", HASH, f"sha256:{HASH[1:]}", f"sha256:{HASH.upper()}"])
def test_a_file_is_pinned_by_the_hash_of_its_bytes(version: str) -> None:
    with pytest.raises(TableError, match="write 'sha256:'"):
        table_file(spec("sums.jsonl", version))


def test_lines_are_read_one_by_one_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b'{"n": 0}\n\n{"n": 1, "s": "\xc3\xa9\\n"}\r\n\r\n{"n": 2}\n{"n": 3}'
    expected: list[dict[str, Any]] = [{"n": 0}, {"n": 1, "s": "é\n"}, {"n": 2}, {"n": 3}]
    for size in (1, 2, 7, 9, 1000):  # chunks that end anywhere
        monkeypatch.setattr(tables, "_CHUNK_BYTES", size)
        table = read(lines(tmp_path, content))
        assert [table.row(number) for number in (3, 0, 2, 1)] == [expected[n] for n in (3, 0, 2, 1)]
        assert table.num_rows == 4


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"12345",
        b"{'a': 1}",
        b'{"a": 1} {}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 9999,
    ],
)
def test_a_line_that_is_no_object_is_named_when_it_is_asked_for(
    tmp_path: Path, line: bytes
) -> None:
    table = read(lines(tmp_path, b'{"a": 1}\n' + line))
    assert table.row(0) == {"a": 1}
    with pytest.raises(TableError, match="not a JSON object"):
        table.row(1)


def test_another_file_of_the_name_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = lines(tmp_path, b'{"a": 1}\n')
    here = pinned(path).sha256
    with pytest.raises(TableError) as error:
        open_table(path, TableFile("rows.jsonl", HASH), ())
    assert str(error.value) == (
        f"rows.jsonl: this file is not the swarm's: sha256 here {here}, in the swarm file {HASH}; "
        "get the one that the swarm's owner published"
    )


def test_files_beyond_a_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TableError, match="no rows"):
        read(lines(tmp_path, b"\n\n"))
    just = b'{"a": "' + b"x" * (tables.MAX_LINE_BYTES - 10) + b'"}\n'
    assert len(read(lines(tmp_path, just)).row(0)["a"]) == tables.MAX_LINE_BYTES - 10
    for long in (b"x" + just, b"xx" + just[:-1], b'{"a": 1}\n' + b"x" * 3 * 2**20):
        with pytest.raises(TableError, match=r"row \d is longer than"):
            read(lines(tmp_path, long))
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    assert read(lines(tmp_path, b'{"a": 1}\n' * 2)).num_rows == 2
    with pytest.raises(TableError, match="more than 2 rows"):
        read(lines(tmp_path, b'{"a": 1}\n' * 3))
    monkeypatch.setattr(tables, "MAX_FILE_BYTES", 20)
    with pytest.raises(TableError, match="27 bytes; at most 20"):
        read(lines(tmp_path, b'{"a": 1}\n' * 3))


def write_parquet(tmp_path: Path, columns: dict[str, Any], row_group_size: int = 3) -> Path:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table(columns), path, row_group_size=row_group_size)
    return path


def test_rows_of_parquet_are_read_from_any_group_and_only_the_columns_asked_for(
    tmp_path: Path,
) -> None:
    columns = {
        "q": [f"say {n}" for n in range(10)],
        "a": list(range(10)),
        "c": [["x", "y"]] * 10,
        "other": ["z"] * 10,
    }
    table = read(write_parquet(tmp_path, columns), "q", "a", "c")
    assert table.num_rows == 10
    for number in (9, 0, 3, 2, 8):
        assert table.row(number) == {"q": f"say {number}", "a": number, "c": ["x", "y"]}


def test_reading_parquet_starts_no_thread_in_the_environment_of_workers(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, {"q": [f"say {n}" for n in range(10)]})
    script = f"""
import os
from pathlib import Path
from rewards.tasks.table import TableFile, open_table
table = open_table(Path({str(path)!r}), {pinned(path)!r}, ["q"])
print(table.row(9)["q"], len(os.listdir("/proc/self/task")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "say 9 1\n"


def test_parquet_without_a_column_names_those_that_there_are(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, {"q": ["a"], "solution": ["b"]})
    with pytest.raises(
        TableError, match=r"0 columns named 'answer'; its columns are 'q', 'solution'"
    ):
        read(path, "q", "answer")


def test_what_is_not_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for content in (b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(TableError, match="not a Parquet file"):
            read(path, "q")
    assert write_parquet(tmp_path, {"q": pyarrow.array([], pyarrow.string())}) == path
    with pytest.raises(TableError, match="0 rows"):
        read(path, "q")


def test_damaged_pages_of_parquet_are_an_error_of_the_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, {"q": [f"say {n}" for n in range(10)]})
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xa5" * 56
    path.write_bytes(content)
    with pytest.raises(TableError, match="cannot be decoded"):
        read(path, "q").row(0)


def test_a_row_group_too_large_to_be_decoded_at_once_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path, {"q": ["x" * 1000], "big": ["y" * 100_000]})
    monkeypatch.setattr(tables, "MAX_GROUP_BYTES", 10_000)
    assert read(path, "q").row(0) == {"q": "x" * 1000}
    with pytest.raises(TableError, match=r"row group 0 has .* smaller row groups"):
        read(path, "q", "big")
