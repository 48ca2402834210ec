"""`sapo peers` as its users type it."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from node.cli_peers import find_peer, parse_duration
from node.config import ConfigError
from node.status import Snapshot
from node.status_json import from_json
from node.words import short_id

SNAPSHOT_FILE = Path(__file__).with_name("snapshot.json")
SNAPSHOT = from_json(SNAPSHOT_FILE.read_bytes(), Snapshot)
STRANGER = "12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p"
STATUS = {"/api/v1/status": (200, SNAPSHOT_FILE.read_bytes())}

Sapo = Callable[..., tuple[object, str, str]]
FakeNode = Callable[..., AbstractContextManager[list[tuple[str, object]]]]


def banning(node_id: str) -> dict[str, tuple[int, object]]:
    done = {"node_id": node_id, "banned_until": None, "purged": 3}
    return STATUS | {f"/api/v1/peers/{node_id}/ban": (200, done)}


def test_ls_and_show_have_the_same_figures(sapo: Sapo, fake_node: FakeNode, tmp_path: Path) -> None:
    with fake_node(tmp_path / "sapo-home", STATUS):
        listed = json.loads(sapo("peers", "ls", "--json")[1])
        first = listed[0]["node_id"]
        shown = sapo("peers", "show", first[-8:], "--json")
        plain = sapo("peers", "show", short_id(first))
    assert [one["node_id"] for one in listed] == [one.node_id for one in SNAPSHOT.peers]
    assert shown[0] == 0 and json.loads(shown[1]) == listed[0]
    assert {"node_id", "connected", "rollouts_offered", "refused", "lies"} <= listed[0].keys()
    assert plain[1].startswith(f"{first}\n") and plain[1].count(first) >= 1


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 8), ("", 8)])
def test_a_ban_is_asked_about_once(
    sapo: Sapo, fake_node: FakeNode, tmp_path: Path, answer: str, status: int
) -> None:
    with fake_node(tmp_path / "sapo-home", banning(STRANGER)) as asked:
        found, out, _ = sapo("peers", "ban", STRANGER, "--reason", "lies", answer=answer)
    assert found == status and out.count("and remove its rollouts?") == 1
    done = [(f"/api/v1/peers/{STRANGER}/ban", {"reason": "lies", "for_s": None})]
    assert asked == (done if answer == "y\n" else [])
    assert ("3 of its rollouts were removed" in out) == (answer == "y\n")


def test_a_known_peer_is_banned_by_an_end_of_its_id(
    sapo: Sapo, fake_node: FakeNode, tmp_path: Path
) -> None:
    peer = SNAPSHOT.peers[0].node_id
    with fake_node(tmp_path / "sapo-home", banning(peer)) as asked:
        status, out, _ = sapo("peers", "ban", peer[-10:], "--for", "2h", "--yes", "--json")
    assert status == 0
    assert json.loads(out) == {"node_id": peer, "banned_until": None, "purged": 3}
    assert asked[-1] == (f"/api/v1/peers/{peer}/ban", {"reason": "by hand", "for_s": 7200.0})


def test_unban_says_whether_there_was_a_ban(
    sapo: Sapo, fake_node: FakeNode, tmp_path: Path
) -> None:
    path = f"/api/v1/peers/{STRANGER}/unban"
    for was, said in ((True, "is no longer banned"), (False, "was not banned")):
        answers = {path: (200, {"node_id": STRANGER, "was_banned": was})}
        with fake_node(tmp_path / "sapo-home", answers):
            assert said in sapo("peers", "unban", STRANGER)[1]


def test_a_refusal_has_a_status_of_its_own(sapo: Sapo, fake_node: FakeNode, tmp_path: Path) -> None:
    with fake_node(tmp_path / "sapo-home", {}):
        status, _, err = sapo("peers", "unban", STRANGER)
    assert status == 9 and "no such peer" in err
    assert sapo("peers", "unban", STRANGER)[0] == 5, "no node runs any more"


@pytest.mark.parametrize("words", [["--for", "1 week"], ["--for", "0"], ["--reason", "x" * 201]])
def test_mistakes_are_told_before_anything_is_asked(
    sapo: Sapo, fake_node: FakeNode, tmp_path: Path, words: list[str]
) -> None:
    with fake_node(tmp_path / "sapo-home", banning(STRANGER)) as asked:
        status, _, err = sapo("peers", "ban", STRANGER, "--yes", *words)
    assert status == 2 and words[0] in err and asked == []


def test_a_name_that_is_nobody_or_several_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"knows no peer 'zzz\\x1b'"):
        find_peer("zzz\x1b", SNAPSHOT)
    with pytest.raises(ConfigError, match="knows no peer"):
        find_peer("", SNAPSHOT)
    with pytest.raises(ConfigError, match=r"peers .*give more of the id"):
        find_peer("12D3KooW", SNAPSHOT)


def test_durations_have_units() -> None:
    assert [parse_duration(one) for one in ("90", "30m", "2h", "7d")] == [90, 1800, 7200, 604800]
