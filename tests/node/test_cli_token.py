"""`sapo token` as its users type it; with a running node: tests/integration/test_actions.py."""

from collections.abc import Callable
from pathlib import Path

from node.access import open_token, read_token

Sapo = Callable[..., tuple[object, str, str]]


def test_a_token_is_replaced_after_one_question(sapo: Sapo, tmp_path: Path) -> None:
    home = tmp_path / "sapo-home"
    home.mkdir()
    old = open_token(home)
    assert sapo("token", "rotate", answer="n\n")[0] == 8 and read_token(home) == old
    status, out, _ = sapo("token", "rotate", "--yes")
    new = read_token(home)
    assert status == 0 and new != old
    assert "no running node has taken it" in out and new not in out and old not in out


def test_a_home_without_a_token_is_told_so(sapo: Sapo, tmp_path: Path) -> None:
    status, _, err = sapo("token", "rotate", "--yes")
    assert status == 2 and "there is no token" in err
