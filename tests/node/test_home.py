from pathlib import Path

import pytest

from node.home import LAYOUT_VERSION, HomeError, keep_seed, open_home


def test_a_home_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with (
        open_home(tmp_path / "home") as home,
        pytest.raises(HomeError, match="another process"),
        open_home(home),
    ):
        pass
    with open_home(tmp_path / "home"):
        pass


def test_a_home_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text(f"{LAYOUT_VERSION + 1}\n")
    with pytest.raises(HomeError, match="newer version"), open_home(tmp_path):
        pass
    assert (tmp_path / "VERSION").read_text() == f"{LAYOUT_VERSION + 1}\n"


def test_a_directory_with_a_strange_version_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("v²\n")
    with pytest.raises(HomeError, match="not a version number"), open_home(tmp_path):
        pass


def test_a_path_that_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="file/home"), open_home(tmp_path / "file" / "home"):
        pass


def test_the_seed_of_the_first_start_is_kept(tmp_path: Path) -> None:
    assert keep_seed(tmp_path, 7) == 7
    assert keep_seed(tmp_path, None) == 7
    with pytest.raises(HomeError, match="seed 7, not 8"):
        keep_seed(tmp_path, 8)


def test_homes_without_a_seed_get_different_ones(tmp_path: Path) -> None:
    seeds = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        seeds.add(keep_seed(tmp_path / name, None))
    assert len(seeds) == 2
