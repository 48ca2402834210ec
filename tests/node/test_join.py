import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.build import open_node
from node.config import ConfigError, find_manifest, load_config
from node.data import Download, download_from_hub, find_data
from node.download import DownloadError
from node.home import HomeError, open_home
from node.join import join_swarm, read_swarm_file
from node.status import Status
from node.tasks import open_verifier
from rewards.tasks.table import TableFile
from swarm.identity import Identity
from swarm.manifest import Manifest, ManifestError, load_manifest, parse_manifest

EASY = find_manifest("easy").read_text()
PEER = "/ip4/127.0.0.1/tcp/8421/p2p/12D3KooWEfY2TmhEWp1scTkNTgGcB6sBdaeicFJXJjeBmUpFMyg8"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "given.toml"
    file.write_text(text)
    return file


def join(file: Path, home: Path, fetch_rows: Download = download_from_hub) -> Manifest:
    given = read_swarm_file(str(file))
    join_swarm(given, home, fetch_rows)
    return given.manifest


def test_a_joined_swarm_is_the_one_that_is_run(tmp_path: Path) -> None:
    file = write(tmp_path, EASY + f'\n[bootstrap]\npeers = ["{PEER}"]\n')
    manifest = join(file, tmp_path / "home")
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
    join(write(tmp_path, EASY), home)
    join(write(tmp_path, EASY.replace('name = "easy"', 'name = "renamed"', 1)), home)
    assert 'name = "renamed"' in (home / "swarm.toml").read_text()
    with pytest.raises(HomeError, match="belongs to the swarm renamed"):
        join(find_manifest("paper"), home)


def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        join(write(tmp_path, "[about]\n"), tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_home_in_use_is_left_alone(tmp_path: Path) -> None:
    with open_home(tmp_path / "home"), pytest.raises(HomeError, match="another process"):
        join(write(tmp_path, EASY), tmp_path / "home")


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
    manifest = join(school, home)
    hashes = {task.version.removeprefix("sha256:") for task in manifest.rules.tasks}
    assert {path.name for path in (home / "data").iterdir()} == hashes
    shutil.rmtree(school.parent)
    config = load_config(flags={"home": home}, environment={})
    kept = load_manifest(config.manifest_file)
    assert set(find_data(kept, home, home).values()) == {home / "data" / name for name in hashes}
    join(home / "swarm.toml", home)  # again, from what was kept


def test_a_wrong_or_missing_file_changes_nothing_and_is_named(school: Path, tmp_path: Path) -> None:
    rows = school.with_name("school-math.jsonl")
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(
        ConfigError, match=r"^school-math\.jsonl: this file is not the swarm's: sha256"
    ):
        join(school, tmp_path / "home")
    rows.unlink()
    with pytest.raises(ConfigError, match=r"^school-math\.jsonl: the swarm's tasks need this file"):
        join(school, tmp_path / "home")
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
    manifest = join(school, home)
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
        join(school, tmp_path / "home", fails)
    assert not (tmp_path / "home").exists()
    manifest = join(school, tmp_path / "home", fetch)
    assert asked == [("open/school", commit, "data/math.jsonl")]
    pinned = manifest.rules.tasks[1].version.removeprefix("sha256:")
    assert (tmp_path / "home" / "data" / pinned).is_file()
    join(school, tmp_path / "home", fails)  # it is there


def test_another_swarm_s_files_do_not_enter_a_home(school: Path, tmp_path: Path) -> None:
    join(find_manifest("easy"), tmp_path / "home")
    with pytest.raises(HomeError, match="belongs to the swarm easy"):
        join(school, tmp_path / "home")
    assert not (tmp_path / "home" / "data").exists()


OWNER, OTHER = Identity(bytes(range(32))), Identity(bytes(32))
OWNED = EASY.replace("[rules]", f'[rules]\nowner = "{OWNER.node_id}"')


def signed(text: str, version: int, by: Identity = OWNER) -> str:
    value = by.sign(parse_manifest(text.encode(), "test").signed_bytes(version)).hex()
    return f'{text}\n[signature]\nversion = {version}\nvalue = "{value}"\n'


def renamed(text: str, name: str) -> str:
    return text.replace('name = "easy"', f'name = "{name}"', 1)


def test_an_owner_s_file_is_joined_only_when_it_is_signed(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="names an owner, who has not signed it"):
        join(write(tmp_path, OWNED), tmp_path / "home")
    with pytest.raises(ManifestError, match="its signature is not that of the owner"):
        join(write(tmp_path, renamed(signed(OWNED, 1), "mine")), tmp_path / "home")
    with pytest.raises(ManifestError, match="its signature is not that of the owner"):
        join(write(tmp_path, signed(OWNED, 1, OTHER)), tmp_path / "home")
    assert not (tmp_path / "home").exists()
    join(write(tmp_path, signed(OWNED, 1)), tmp_path / "home")
    assert load_manifest(tmp_path / "home" / "swarm.toml").is_signed


def test_what_the_owner_signed_later_replaces_what_was_kept(tmp_path: Path) -> None:
    home, kept = tmp_path / "home", tmp_path / "home" / "swarm.toml"
    join(write(tmp_path, signed(OWNED, 5)), home)
    join(write(tmp_path, "# another comment\n" + signed(OWNED, 5)), home)  # says the same
    newer = signed(renamed(OWNED, "renamed") + f'\n[bootstrap]\npeers = ["{PEER}"]\n', 7)
    join(write(tmp_path, newer), home)
    assert kept.read_text() == newer
    for older in (5, 6):
        with pytest.raises(ManifestError, match=f"version {older}, and .*home has version 7"):
            join(write(tmp_path, signed(OWNED, older)), home)
    with pytest.raises(ManifestError, match="another version 7 than"):
        join(write(tmp_path, signed(OWNED, 7)), home)
    with pytest.raises(ManifestError, match="has not signed it"):
        join(write(tmp_path, OWNED), home)
    assert kept.read_text() == newer


def test_a_swarm_with_an_owner_is_another_one_than_without(tmp_path: Path) -> None:
    join(write(tmp_path, EASY), tmp_path / "home")
    with pytest.raises(HomeError, match="belongs to the swarm easy"):
        join(write(tmp_path, signed(OWNED, 1)), tmp_path / "home")


URL = "https://swarm.example/swarm.toml"


def test_a_file_of_a_url_is_kept_as_it_was_shown(tmp_path: Path) -> None:
    answers = [signed(OWNED, 1).encode(), b"something else"]
    asked: list[tuple[str, int]] = []

    def fetch(url: str, max_bytes: int) -> bytes:
        asked.append((url, max_bytes))
        return answers.pop(0)

    given = read_swarm_file(URL, fetch)
    assert given.manifest.is_signed
    join_swarm(given, tmp_path / "home")
    assert (tmp_path / "home" / "swarm.toml").read_text() == signed(OWNED, 1)
    assert asked == [(URL, 1_000_000)]


def test_a_file_of_a_url_is_named_by_it_where_it_is_wrong() -> None:
    with pytest.raises(ManifestError, match=r"^https://swarm\.example/swarm\.toml: .*line 1"):
        read_swarm_file(URL, lambda url, max_bytes: b"<html>")


def test_of_a_url_only_files_of_the_hub_are_fetched(school: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    given = read_swarm_file(URL, lambda url, max_bytes: school.read_bytes())
    with pytest.raises(ConfigError, match=r"school-arithmetic\.jsonl: .* only files of the hub"):
        join_swarm(given, home)
    assert not home.exists()
    join(school, home)
    join_swarm(given, home)  # they are there
    hub = "hf://datasets/open/school@" + "0123456789" * 4 + "/"
    text = school.read_text().replace('dataset = "', f'dataset = "{hub}')
    given = read_swarm_file(URL, lambda url, max_bytes: text.encode())
    join_swarm(given, tmp_path / "other", lambda file: school.with_name(file.name))
    assert len(list((tmp_path / "other" / "data").iterdir())) == 3


@pytest.mark.parametrize("url", ["http://swarm.example/swarm.toml", "https://127.0.0.1/swarm.toml"])
def test_a_url_that_is_not_fetched_is_no_path(url: str) -> None:
    with pytest.raises(DownloadError, match="joined by its path"):
        read_swarm_file(url)
