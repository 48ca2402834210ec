"""What a database has kept, read while its node runs and when it has stopped, changing nothing."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from node.config import ConfigError
from node.history import History
from node.home import HomeError
from node.kept import KINDS, open_kept
from node.pool_export import export
from node.status import HeldOutStatus, RoundReport
from rewards.question import Answer, Example, Expansion, Question
from swarm.database import Database, open_database
from swarm.identity import Identity
from swarm.pool import Pool, _Kind
from swarm.rollout import Rollout
from swarm.wire import rollout_hash, seal

Sapo = Callable[..., tuple[object, str, str]]

HOSTILE = "=cmd|'/c calc'!A1\x1b[2J\u202e\n</script>{{7*7}}"
SWARM = "ab" * 32


def report(number: int, **changes: object) -> RoundReport:
    made = {"round": number, "own_reward": number / 10, "seconds": {"generating": 2.0}}
    rest = dict.fromkeys(
        (
            *("batch_reward", "zero_advantage_share", "finished_share", "entropy", "loss"),
            *("gradient_norm", "learning_rate", "clip_share"),
        ),
        0.0,
    )
    counts = dict.fromkeys(("num_questions", "num_answers", "num_unscorable", "own_tokens"), 8)
    return RoundReport(**{**rest, **counts, "update_skipped": None, **made, **changes})


def sealed(author: Identity, sequence: int, text: str) -> tuple[bytes, Rollout]:
    answers = (Answer(text, True, 3, -0.5), Answer("no", False, 2))
    question = Question("sums", sequence)
    rollout = Rollout(SWARM, author.node_id, sequence, question, answers, "m\x07", 4, 1000.0)
    return seal(rollout, author), rollout


def fill(database: Database) -> list[bytes]:
    """Two foreign rollouts, one of them used, and an own one; their hashes in this order."""
    pool = Pool(database, 3600.0, 2**20, clock=lambda: 1000.0)
    records = [
        sealed(Identity(bytes([1] * 32)), 1, HOSTILE),
        sealed(Identity(bytes([2] * 32)), 2, "yes"),
    ]
    for record, rollout in records:
        expansion = Expansion(rollout.question, "2 + 2?", "4", "Be brief.", (Example("1?", "1"),))
        pool.add_foreign(record, rollout, expansion, (True, False), 999.0)
    used = rollout_hash(records[0][0])
    with database.transaction():
        database.execute("UPDATE rollouts SET kind = ? WHERE hash = ?", (_Kind.USED, used))
    own, rollout = sealed(Identity(bytes([3] * 32)), 3, "mine")
    pool.add_own(own, rollout, (False, True))
    history = History(database)
    for number in range(1, 31):
        history.put_round(report(number))
    history.put_heldout(HeldOutStatus(0, 0.25, 0.01, 64))
    History(database, "generated_").put_round(report(7))
    return [*(rollout_hash(record) for record, _ in records), rollout_hash(own)]


@pytest.fixture(params=["running", "stopped"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A home whose database is in use, or was closed."""
    home = tmp_path / "sapo-home"
    home.mkdir()
    database = open_database(home / "pool.sqlite")
    fill(database)
    if request.param == "stopped":
        database.close()
    before = {file: file.read_bytes() for file in home.iterdir()}
    yield home
    assert {file: file.read_bytes() for file in home.iterdir()} == before or (
        request.param == "running"  # the index of its log notes readers
    )
    database.close()


def test_rounds_and_evaluations_are_read_by_mode(home: Path) -> None:
    with open_kept(home) as kept:
        assert [one.round for one in kept.rounds("train", 3)] == [28, 29, 30]
        assert [one.round for one in kept.rounds("generate", 3)] == [7]
        assert [one.mean for one in kept.heldout("train")] == [0.25]
        assert kept.heldout("generate") == []


def test_rollouts_are_read_whole_with_their_kinds(home: Path) -> None:
    with open_kept(home) as kept:
        used, fresh, own = (one for one in kept.rollouts() if one is not None)
        stats = kept.stats()
    assert (used.kind, fresh.kind, own.kind) == KINDS
    assert [kind.name.lower() for kind in _Kind] == list(KINDS)
    assert used.answers[0] == Answer(HOSTILE, True, 3, -0.5) and used.correct == (True, False)
    assert (used.question, used.truth, used.system) == ("2 + 2?", "4", "Be brief.")
    assert (own.question, own.correct) == (None, (False, True))
    assert (stats.num, stats.oldest, stats.newest) == (3, 999.0, 1000.0)
    assert [(one.name, one.num) for one in stats.kinds] == [(name, 1) for name in KINDS]
    assert [(one.name, one.num) for one in stats.tasks] == [("sums", 3)] and len(stats.authors) == 3
    assert sum(one.num_bytes for one in stats.authors) == stats.num_bytes > 0


def test_an_export_holds_strangers_texts_as_data(home: Path, sapo: Sapo, tmp_path: Path) -> None:
    for name in ("all.jsonl", "all.parquet"):
        status, out, _ = sapo("pool", "export", name)
        assert (status, out) == (0, f"wrote 3 rollouts to {name}\n")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and lines[0]["answers"][0]["text"] == HOSTILE
    assert "\x1b" not in (tmp_path / "all.jsonl").read_text()
    rows = pyarrow.parquet.read_table(tmp_path / "all.parquet").to_pylist()
    assert rows == lines
    assert sapo("pool", "export", "own.jsonl", "--whose", "own")[0] == 0
    (own,) = (tmp_path / "own.jsonl").read_text().splitlines()
    assert json.loads(own)["kind"] == "own"


def test_an_export_overwrites_nothing_and_leaves_nothing_half_written(
    home: Path, sapo: Sapo, tmp_path: Path
) -> None:
    (tmp_path / "there.jsonl").write_text("mine")
    for name, complaint in (
        ("there.jsonl", "exists"),
        ("pool.csv", "*.jsonl or *.parquet"),
        ("no/such/place.jsonl", "cannot be written"),
    ):
        status, _, err = sapo("pool", "export", name)
        assert status == 2 and complaint in err
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["sapo-home", "there.jsonl"]


def test_a_damaged_record_is_counted_and_left_out(tmp_path: Path, sapo: Sapo) -> None:
    home = tmp_path / "sapo-home"
    home.mkdir()
    database = open_database(home / "pool.sqlite")
    first, *_ = fill(database)
    with database.transaction():
        database.execute("UPDATE rollouts SET record = x'00' WHERE hash = ?", (first,))
    database.close()
    out = sapo("pool", "export", "some.jsonl")[1]
    assert out == "wrote 2 rollouts to some.jsonl; 1 damaged ones left out\n"


def test_a_home_on_a_read_only_disk_can_be_read(tmp_path: Path) -> None:
    database = open_database(tmp_path / "pool.sqlite")
    fill(database)
    database.close()
    tmp_path.chmod(0o500)
    try:
        with open_kept(tmp_path) as kept:
            assert kept.stats().num == 3
    finally:
        tmp_path.chmod(0o700)
    assert [one.name for one in tmp_path.iterdir()] == ["pool.sqlite"]


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="no node ever ran there"), open_kept(tmp_path):
        pass
    (tmp_path / "pool.sqlite").write_text("something else entirely" * 100)
    with (
        pytest.raises(HomeError, match="cannot be read: file is not a database"),
        open_kept(tmp_path),
    ):
        pass
    (tmp_path / "pool.sqlite").unlink()
    newer = sqlite3.connect(tmp_path / "pool.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(HomeError, match="newer version"), open_kept(tmp_path):
        pass


def test_an_empty_database_has_nothing_to_show(tmp_path: Path, sapo: Sapo) -> None:
    (tmp_path / "sapo-home").mkdir()
    open_database(tmp_path / "sapo-home" / "pool.sqlite").close()
    assert sapo("rounds") == (0, "No round was made yet.\n", "")
    assert json.loads(sapo("rounds", "--json")[1]) == []
    status, out, _ = sapo("pool", "stats")
    assert status == 0 and out.startswith("0 rollouts, 0 B")
    assert json.loads(sapo("pool", "stats", "--json")[1])["kinds"][2] == {
        "name": "own",
        "num": 0,
        "num_bytes": 0,
    }


def test_rounds_have_curves_and_a_table(home: Path, sapo: Sapo) -> None:
    status, out, _ = sapo("rounds", "-n", "2")
    assert status == 0 and "1 to 30" in out and "▁" in out and "█" in out
    assert "held out" in out and "0.250 to 0.250" in out
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["29"], ["30"])]
    assert [row[0] for row in rows] == ["29", "30"] and "28" not in {
        line.split()[0] for line in out.splitlines() if line.split()
    }
    found = json.loads(sapo("rounds", "-n", "2", "--json")[1])
    assert [one["round"] for one in found] == [29, 30] and "own_reward" in found[0]
    assert sapo("rounds", "--mode", "observe")[0] == 2


def test_a_strangers_words_in_a_note_are_escaped(tmp_path: Path, sapo: Sapo) -> None:
    (tmp_path / "sapo-home").mkdir()
    database = open_database(tmp_path / "sapo-home" / "pool.sqlite")
    History(database).put_round(report(1, brake="[red]\x1b[2J"))
    database.close()
    out = sapo("rounds")[1]
    assert "[red]\\x1b[2J" in out and "\x1b" not in out


def test_an_export_of_nothing_is_a_file_without_rows(tmp_path: Path) -> None:
    for name in ("none.jsonl", "none.parquet"):
        assert export((), tmp_path / name).num == 0
    assert (tmp_path / "none.jsonl").read_bytes() == b""
    assert pyarrow.parquet.read_table(tmp_path / "none.parquet").num_rows == 0
    with pytest.raises(ConfigError, match="exists"):
        export((), tmp_path / "none.jsonl")
