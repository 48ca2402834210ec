"""Files of rows come from the home, from beside the swarm file, or from the hub: nowhere else."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from node.config import ConfigError
from node.data import find_data, keep_data
from node.home import open_home
from rewards.tasks import TaskSpec
from rewards.tasks.table import TableFile
from swarm.manifest import About, Manifest, Rules

CONTENT = b'{"question": "1 + 1 =", "answer": "2"}\n'
HASH = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789" * 4
HUB = f"hf://datasets/open/sums@{COMMIT}/data/train.jsonl"
CHAIN_SUM = TaskSpec("chain", "reasoning_gym", "chain_sum", "0.1.25")


class FakeHub:
    """A hub with one file of the given bytes; remembers what it was asked for."""

    def __init__(self, cache: Path, content: bytes = CONTENT) -> None:
        self.asked: list[TableFile] = []
        self._place = cache / "blob"
        self._content = content

    def __call__(self, file: TableFile) -> Path:
        self.asked.append(file)
        self._place.write_bytes(self._content)
        return self._place


def no_hub(file: TableFile) -> Path:
    raise AssertionError(f"asked for {file}")


def swarm(*datasets: str) -> Manifest:
    tasks = [
        TaskSpec(f"rows{number}", "rows", dataset, f"sha256:{HASH}")
        for number, dataset in enumerate(datasets)
    ]
    return Manifest(About("test"), Rules((CHAIN_SUM, *tasks), 16, 1000))


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    (tmp_path / "beside").mkdir()
    return tmp_path / "beside"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def keep(manifest: Manifest, home: Path, found: dict[str, Path]) -> None:
    with open_home(home):
        keep_data(found, manifest, home)


def test_a_file_beside_the_swarm_file_is_found_and_kept_under_its_hash(
    home: Path, beside: Path
) -> None:
    manifest = swarm("sums.jsonl", "sums.jsonl")
    (beside / "sums.jsonl").write_bytes(CONTENT)
    found = find_data(manifest, home, beside, no_hub)
    assert found == dict.fromkeys(("rows0", "rows1"), beside / "sums.jsonl")
    assert not home.exists(), "looking changes nothing"
    keep(manifest, home, found)
    assert [path.name for path in (home / "data").iterdir()] == [HASH]
    (beside / "sums.jsonl").unlink()
    kept = find_data(manifest, home, beside, no_hub)
    assert kept == dict.fromkeys(("rows0", "rows1"), home / "data" / HASH)
    keep(manifest, home, kept)
    assert (home / "data" / HASH).read_bytes() == CONTENT


def test_without_tasks_of_rows_nothing_is_looked_for(home: Path, beside: Path) -> None:
    assert find_data(swarm(), home, beside, no_hub) == {}
    keep(swarm(), home, {})
    assert not (home / "data").exists()


def test_a_missing_file_is_named(home: Path, beside: Path) -> None:
    with pytest.raises(ConfigError, match=r"sums\.jsonl: the swarm's tasks need this file.*beside"):
        find_data(swarm("sums.jsonl"), home, beside, no_hub)


def test_another_file_of_the_name_is_refused_with_both_hashes(home: Path, beside: Path) -> None:
    (beside / "sums.jsonl").write_bytes(b'{"question": "1 + 1 =", "answer": "3"}\n')
    here = hashlib.sha256((beside / "sums.jsonl").read_bytes()).hexdigest()
    with pytest.raises(ConfigError) as error:
        find_data(swarm("sums.jsonl"), home, beside, no_hub)
    assert str(error.value) == (
        f"sums.jsonl: this file is not the swarm's: sha256 here {here}, in the swarm file {HASH}; "
        "get the one that the swarm's owner published"
    )


def test_a_file_that_cannot_be_read_is_a_clear_error(home: Path, beside: Path) -> None:
    (beside / "sums.jsonl").mkdir()
    with pytest.raises(ConfigError, match="there is none in"):
        find_data(swarm("sums.jsonl"), home, beside, no_hub)


@pytest.mark.parametrize("name", ["../sums.jsonl", "/etc/passwd", "identity.key"])
def test_no_name_leaves_the_directory(home: Path, beside: Path, name: str) -> None:
    (beside.parent / "sums.jsonl").write_bytes(CONTENT)
    with pytest.raises(ConfigError, match="write the name of a file"):
        find_data(swarm(name), home, beside, no_hub)


def test_a_file_of_the_hub_is_fetched_once_and_kept(
    tmp_path: Path, home: Path, beside: Path
) -> None:
    manifest, hub = swarm(HUB, HUB), FakeHub(tmp_path)
    (beside / "train.jsonl").write_bytes(b"of something else")
    keep(manifest, home, find_data(manifest, home, beside, hub))
    assert hub.asked == [TableFile("train.jsonl", HASH, "open/sums", COMMIT, "data/train.jsonl")]
    assert set(find_data(manifest, home, beside, no_hub).values()) == {home / "data" / HASH}


def test_a_file_of_the_hub_with_another_hash_is_refused(
    tmp_path: Path, home: Path, beside: Path
) -> None:
    with pytest.raises(ConfigError, match=r"train\.jsonl: this file is not the swarm's"):
        find_data(swarm(HUB), home, beside, FakeHub(tmp_path, b"other"))


def test_a_damaged_file_in_the_home_is_reported_and_replaced(
    home: Path, beside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = swarm("sums.jsonl")
    (beside / "sums.jsonl").write_bytes(CONTENT)
    keep(manifest, home, find_data(manifest, home, beside, no_hub))
    (home / "data" / HASH).write_bytes(CONTENT[:-5])
    found = find_data(manifest, home, beside, no_hub)
    assert "is damaged" in caplog.text
    keep(manifest, home, found)
    assert (home / "data" / HASH).read_bytes() == CONTENT


def test_a_file_that_changes_while_it_is_copied_is_not_kept(home: Path, beside: Path) -> None:
    manifest = swarm("sums.jsonl")
    (beside / "sums.jsonl").write_bytes(CONTENT)
    found = find_data(manifest, home, beside, no_hub)
    (beside / "sums.jsonl").write_bytes(CONTENT * 2)
    with pytest.raises(ConfigError, match="changed while it was copied"):
        keep(manifest, home, found)
    assert list((home / "data").iterdir()) == []


def test_what_a_crash_left_of_a_copy_is_removed(home: Path, beside: Path) -> None:
    manifest = swarm("sums.jsonl")
    (beside / "sums.jsonl").write_bytes(CONTENT)
    (home / "data").mkdir(parents=True)
    (home / "data" / f".{'0' * 64}").write_bytes(CONTENT[:3])
    keep(manifest, home, find_data(manifest, home, beside, no_hub))
    assert [path.name for path in (home / "data").iterdir()] == [HASH]


def test_files_too_large_are_refused(
    home: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewards.tasks.table.MAX_FILE_BYTES", len(CONTENT) - 1)
    (beside / "sums.jsonl").write_bytes(CONTENT)
    with pytest.raises(ConfigError, match=f"{len(CONTENT)} bytes; at most {len(CONTENT) - 1}"):
        find_data(swarm("sums.jsonl"), home, beside, no_hub)


def test_a_manifest_made_in_code_is_checked_as_well(home: Path, beside: Path) -> None:
    rules = swarm("sums.jsonl").rules
    wrong = msgspec.structs.replace(rules.tasks[1], version="sha256:1")
    manifest = Manifest(About("test"), msgspec.structs.replace(rules, tasks=(wrong,)))
    with pytest.raises(ConfigError, match="task 'rows0': version 'sha256:1'"):
        find_data(manifest, home, beside, no_hub)
