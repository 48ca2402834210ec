import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.build import open_node
from node.config import ConfigError, find_manifest, load_config
from node.data import find_data
from node.home import HomeError, open_home
from node.join import join_swarm
from node.status import Status
from node.tasks import open_verifier
from rewards.tasks.table import TableFile
from swarm.manifest import ManifestError, load_manifest

EASY = find_manifest("easy").read_text()
PEER = "/ip4/127.0.0.1/tcp/8421/p2p/12D3KooWEfY2TmhEWp1scTkNTgGcB6sBdaeicFJXJjeBmUpFMyg8"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "given.toml"
    file.write_text(text)
    return file


def test_a_joined_swarm_is_the_one_that_is_run(tmp_path: Path) -> None:
    file = write(tmp_path, EASY + f'\n[bootstrap]\npeers = ["{PEER}"]\n')
    manifest = join_swarm(file, tmp_path / "home")
    config = load_config(flags={"home": tmp_path / "home"}, environment={})
    assert config.manifest_file == tmp_path / "home" / "swarm.toml"
    assert manifest.bootstrap.peers == (PEER,)


def test_a_home_that_joined_nothing_runs_the_easy_swarm(tmp_path: Path) -> None:
    config = load_config(flags={"home": tmp_path}, environment={})
    assert config.manifest_file == find_manifest("easy")
    named = load_config(flags={"home": tmp_path, "manifest": "paper"}, environment={})
    assert named.manifest_file == find_manifest("paper")


def test_joining_again_replaces_the_name_and_another_swarm_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    join_swarm(write(tmp_path, EASY), home)
    join_swarm(write(tmp_path, EASY.replace('name = "easy"', 'name = "renamed"', 1)), home)
    assert 'name = "renamed"' in (home / "swarm.toml").read_text()
    with pytest.raises(HomeError, match="belongs to the swarm renamed"):
        join_swarm(find_manifest("paper"), home)


def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        join_swarm(write(tmp_path, "[about]\n"), tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_home_in_use_is_left_alone(tmp_path: Path) -> None:
    with open_home(tmp_path / "home"), pytest.raises(HomeError, match="another process"):
        join_swarm(write(tmp_path, EASY), tmp_path / "home")


SCHOOL = find_manifest("school")
FILES = ["school-arithmetic.jsonl", "school-math.jsonl", "school-programs.jsonl"]


@pytest.fixture
def school(tmp_path: Path) -> Path:
    """The swarm file with its files of rows beside it, as its owner publishes them."""
    place = tmp_path / "published"
    place.mkdir()
    for name in [SCHOOL.name, *FILES]:
        shutil.copy(SCHOOL.parent / name, place)
    return place / SCHOOL.name


def test_the_files_of_the_tasks_are_kept_with_the_swarm_file(school: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    manifest = join_swarm(school, home)
    hashes = {task.version.removeprefix("sha256:") for task in manifest.rules.tasks}
    assert {path.name for path in (home / "data").iterdir()} == hashes
    shutil.rmtree(school.parent)
    config = load_config(flags={"home": home}, environment={})
    kept = load_manifest(config.manifest_file)
    assert set(find_data(kept, home, home).values()) == {home / "data" / name for name in hashes}
    join_swarm(home / "swarm.toml", home)  # again, from what was kept


def test_a_wrong_or_missing_file_changes_nothing_and_is_named(school: Path, tmp_path: Path) -> None:
    rows = school.with_name("school-math.jsonl")
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(
        ConfigError, match=r"^school-math\.jsonl: this file is not the swarm's: sha256"
    ):
        join_swarm(school, tmp_path / "home")
    rows.unlink()
    with pytest.raises(ConfigError, match=r"^school-math\.jsonl: the swarm's tasks need this file"):
        join_swarm(school, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_the_command_refuses_with_status_2_and_says_which_file(
    school: Path, tmp_path: Path
) -> None:
    rows = school.with_name("school-programs.jsonl")
    rows.write_bytes(rows.read_bytes() + b"\n")
    sapo = Path(sys.executable).with_name("sapo")
    done = subprocess.run(
        [sapo, "join", school, "--yes", "--home", tmp_path / "home"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "school-programs.jsonl: this file is not the swarm's: sha256 here" in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_node_whose_file_was_changed_does_not_start(school: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    manifest = join_swarm(school, home)
    shutil.rmtree(school.parent)
    kept = home / "data" / manifest.rules.tasks[0].version.removeprefix("sha256:")
    kept.write_bytes(kept.read_bytes()[:-1])
    config = load_config(flags={"home": home}, environment={})
    with pytest.raises(ConfigError, match=r"school-arithmetic\.jsonl: .* join the swarm again"):
        open_verifier(config, manifest)
    with pytest.raises(ConfigError, match="school-arithmetic"), open_node(config, Status()):
        pass


def test_what_the_hub_has_is_fetched_before_anything_is_changed(
    school: Path, tmp_path: Path
) -> None:
    commit = "0123456789" * 4
    text = school.read_text().replace(
        '"school-math.jsonl"', f'"hf://datasets/open/school@{commit}/data/math.jsonl"'
    )
    assert text != school.read_text()
    school.write_text(text)
    asked = []

    def fails(file: TableFile) -> Path:
        raise ConfigError(f"{file.name}: cannot be fetched")

    def fetch(file: TableFile) -> Path:
        asked.append((file.repo, file.commit, file.path))
        return school.with_name("school-math.jsonl")

    with pytest.raises(ConfigError, match=r"math\.jsonl: cannot be fetched"):
        join_swarm(school, tmp_path / "home", fails)
    assert not (tmp_path / "home").exists()
    manifest = join_swarm(school, tmp_path / "home", fetch)
    assert asked == [("open/school", commit, "data/math.jsonl")]
    pinned = manifest.rules.tasks[1].version.removeprefix("sha256:")
    assert (tmp_path / "home" / "data" / pinned).is_file()
    join_swarm(school, tmp_path / "home", fails)  # it is there


def test_another_swarm_s_files_do_not_enter_a_home(school: Path, tmp_path: Path) -> None:
    join_swarm(find_manifest("easy"), tmp_path / "home")
    with pytest.raises(HomeError, match="belongs to the swarm easy"):
        join_swarm(school, tmp_path / "home")
    assert not (tmp_path / "home" / "data").exists()
