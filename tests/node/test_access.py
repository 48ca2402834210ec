import socket
from pathlib import Path

import pytest

from node.access import (
    ADDRESS_FILE,
    TOKEN_FILE,
    LiveToken,
    address_of,
    open_listener,
    open_token,
    page_address,
    read_address,
    read_token,
    rotate_token,
    write_address,
)
from node.config import ConfigError
from node.home import HomeError


def test_the_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    token = open_token(tmp_path)
    assert len(token) >= 43
    assert (tmp_path / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert open_token(tmp_path) == read_token(tmp_path) == token


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    open_token(tmp_path)
    for mode in (0o640, 0o604, 0o622):
        (tmp_path / TOKEN_FILE).chmod(mode)
        for read in (open_token, read_token):
            with pytest.raises(HomeError, match="chmod 600"):
                read(tmp_path)


@pytest.mark.parametrize("text", ["short", "x" * 40 + "\r\nSet-Cookie: a", "ü" * 40, "x" * 199])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / TOKEN_FILE).touch(0o600)
    (tmp_path / TOKEN_FILE).write_text(text)
    with pytest.raises(HomeError, match="no token"):
        open_token(tmp_path)


def test_a_token_is_not_read_through_a_link(tmp_path: Path) -> None:
    open_token(tmp_path)
    (tmp_path / TOKEN_FILE).rename(tmp_path / "elsewhere")
    (tmp_path / TOKEN_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HomeError, match="cannot be opened"):
        open_token(tmp_path)


def test_reading_makes_no_token(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="cannot be opened"):
        read_token(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with open_listener("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"api\.port = {port}.*in use.*0 for a free one"):
            open_listener("127.0.0.1", port)
    with open_listener("localhost", port) as again:
        assert address_of(again) == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "127.0.0.2", "example.org", ""])
def test_no_other_host_than_this_machine_is_served(host: str) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        open_listener(host, 0)


def test_early_connections_wait() -> None:
    with open_listener("127.0.0.1", 0) as listener:
        socket.create_connection(listener.getsockname(), timeout=10).close()


def test_the_address_is_there_while_the_api_is(tmp_path: Path) -> None:
    assert read_address(tmp_path) is page_address(tmp_path) is None
    assert read_address(tmp_path / "nowhere") is None
    token = open_token(tmp_path)
    with open_listener("127.0.0.1", 0) as listener:
        with write_address(tmp_path, listener) as url:
            assert read_address(tmp_path) == url == address_of(listener)
            assert page_address(tmp_path) == f"{url}/?token={token}"
        assert not (tmp_path / ADDRESS_FILE).exists()


@pytest.mark.parametrize(
    "text",
    ["http://192.0.2.1:80", "http://127.0.0.1:80@example.org:80", "http://127.0.0.1.example:8", ""],
)
def test_the_token_is_sent_to_no_other_machine(tmp_path: Path, text: str) -> None:
    (tmp_path / ADDRESS_FILE).write_text(text)
    with pytest.raises(HomeError, match="no address of this machine"):
        read_address(tmp_path)


def test_a_new_token_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old = open_token(tmp_path)
    new = rotate_token(tmp_path)
    assert new != old and read_token(tmp_path) == open_token(tmp_path) == new
    assert (tmp_path / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [TOKEN_FILE]


def test_a_new_token_goes_through_no_link_and_needs_an_old_one(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="there is no token"):
        rotate_token(tmp_path)
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / TOKEN_FILE).symlink_to(tmp_path / "elsewhere")
    rotate_token(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert not (tmp_path / TOKEN_FILE).is_symlink() and read_token(tmp_path)


def test_a_running_node_takes_a_new_token_and_keeps_the_old_one_while_there_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    live = LiveToken(tmp_path, lambda: heard.append("new"))
    old = live()
    new = rotate_token(tmp_path)
    assert live() == live() == new != old and heard == ["new"]
    for spoil in (
        lambda: (tmp_path / TOKEN_FILE).chmod(0o644),
        lambda: (tmp_path / TOKEN_FILE).unlink(),
        lambda: (tmp_path / TOKEN_FILE).mkdir(),
    ):
        caplog.clear()
        spoil()
        assert live() == live() == new
        assert len(caplog.records) == 1, "said once"
    (tmp_path / TOKEN_FILE).rmdir()
    (tmp_path / TOKEN_FILE).touch(0o600)
    (tmp_path / TOKEN_FILE).write_text("short")
    assert live() == new
    newest = rotate_token(tmp_path)
    assert live() == newest and heard == ["new", "new"]
