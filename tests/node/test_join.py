from pathlib import Path

import pytest

from node.config import find_manifest, load_config
from node.home import HomeError, open_home
from node.join import join_swarm
from swarm.manifest import ManifestError

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
