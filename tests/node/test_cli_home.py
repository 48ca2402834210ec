"""`sapo init`, `rollback` and `key`: what they make of a home, and what they leave alone."""

import json
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from node.access import open_token
from node.checkpoint import NodeState, find_newest, open_checkpoints
from node.config import NodeConfig, known_keys, load_config, load_node_config
from node.home import open_home
from node.init import OFFERED, settings_text
from swarm.identity import load_key

Sapo = Callable[..., tuple[object, str, str]]


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_init_makes_a_home_that_runs_with_the_defaults(sapo: Sapo, tmp_path: Path) -> None:
    status, out, _ = sapo("init", "--home", "mine")
    home = tmp_path / "mine"
    assert status == 0 and load_key(home / "identity.key").node_id in out
    assert out.startswith("made identity.key, api-token, node.toml in mine")
    assert "sapo run --home mine" in out
    assert [mode_of(home / name) for name in ("identity.key", "api-token")] == [0o600, 0o600]
    assert load_config(home / "node.toml", environment={}) == NodeConfig()
    assert (home / "VERSION").is_file()


def test_init_changes_nothing_that_is_there(sapo: Sapo, tmp_path: Path) -> None:
    sapo("init")
    home = tmp_path / "sapo-home"
    (home / "node.toml").write_text("rounds = 3\n")
    before = {file: file.read_bytes() for file in home.iterdir()}
    again = json.loads(sapo("init", "--json", "--model", "other")[1])
    assert (again["home"], again["made"]) == ("sapo-home", [])
    assert {file: file.read_bytes() for file in home.iterdir()} == before
    (home / "api-token").unlink()
    assert json.loads(sapo("init", "--json")[1])["made"] == ["api-token"]
    assert (home / "node.toml").read_text() == "rounds = 3\n"
    with open_home(home):
        status, _, err = sapo("init")
    assert status == 2 and "another process is using it" in err


def test_what_is_chosen_at_init_is_in_force(sapo: Sapo, tmp_path: Path) -> None:
    words = ["--model", "a/b", "--set", "swarm.announce=/dns4/x/tcp/1", "--set", "log.format=json"]
    out = sapo("init", *words, "--set", "verify.deadline_s=7")[1]
    assert "does not offer it: verify.deadline_s" in out
    chosen = load_node_config(flags={"home": tmp_path / "sapo-home"}, environment={})
    assert (chosen.policy.model, chosen.log.format) == ("a/b", "json")
    assert chosen.swarm.announce == ("/dns4/x/tcp/1",)


def test_every_offered_line_names_a_setting_and_its_default() -> None:
    assert {key for key, _ in OFFERED} <= set(known_keys())
    text = settings_text(NodeConfig())
    assert tomllib.loads(text).keys() >= {"policy", "swarm"}
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in text.splitlines()
    )
    tree = tomllib.loads(uncommented)
    assert load_config_tree(tree) == NodeConfig() and tree["learn"]["learning_rate"] == 1e-4


def load_config_tree(tree: dict[str, object]) -> NodeConfig:
    return NodeConfig.model_validate(tree)


def checkpoints(home: Path, *rounds: int) -> Path:
    directory = home / "checkpoints"
    for number in rounds:
        policy = directory / f"round-{number:08d}" / "policy"
        policy.mkdir(parents=True)
        state = NodeState(number, 1, "ab" * 32, "tiny")
        (policy.parent / "state.json").write_bytes(msgspec.json.encode(state))
    return directory


def newest(directory: Path) -> int:
    found = find_newest(directory)
    assert found is not None
    return found[0].round


def test_a_rollback_moves_newer_checkpoints_aside_and_deletes_nothing(
    sapo: Sapo, tmp_path: Path
) -> None:
    home = tmp_path / "sapo-home"
    directory = checkpoints(home, 10, 20, 30)
    num_files = len([file for file in home.rglob("*") if file.is_file()])
    status, out, _ = sapo("rollback", "10", answer="y\n")
    assert status == 0 and "will go on after round 10" in out and out.count("moved aside: ") == 2
    assert newest(directory) == 10
    checkpoints(home, 20)  # made again
    done = json.loads(sapo("rollback", "10", "--yes", "--json")[1])
    assert (done["round"], len(done["aside"])) == (10, 1)
    found = sorted(path.name for path in (directory / "aside").iterdir())
    assert found == ["round-00000020", "round-00000020.1", "round-00000030"]
    assert len([one for one in home.rglob("state.json")]) == num_files + 1
    open_checkpoints(load_config(flags={"home": home}, environment={}))  # clears what is half done
    assert len(list((directory / "aside").iterdir())) == 3


def test_a_rollback_that_cannot_be_changes_nothing(sapo: Sapo, tmp_path: Path) -> None:
    home = tmp_path / "sapo-home"
    directory = checkpoints(home, 10, 20)
    (directory / "round-00000010" / "state.json").write_text("{")
    before = sorted(home.rglob("round*"))
    for words, complaint in (
        (["15", "--yes"], "no checkpoint of round 15; kept are: 10, 20"),
        (["10", "--yes"], "is unusable"),
    ):
        status, _, err = sapo("rollback", *words)
        assert status == 2 and complaint in " ".join(err.split())
    assert sapo("rollback", "20", answer="n\n")[0] == 8
    with open_home(home):
        status, _, err = sapo("rollback", "20", "--yes")
    assert status == 2 and "another process is using it" in err
    assert sorted(home.rglob("round*")) == before


def test_a_key_is_carried_to_another_home(sapo: Sapo, tmp_path: Path) -> None:
    sapo("init", "--home", "one")
    status, out, err = sapo("key", "export", "node.key", "--home", "one")
    assert status == 0 and "never let two machines run with one key" in err
    file = tmp_path / "node.key"
    seed = file.read_text().strip()
    assert mode_of(file) == 0o600 and seed not in out + err
    status, _, err = sapo("key", "import", "node.key", "--home", "two")
    assert status == 0 and "two machines" in err
    shown = [
        json.loads(sapo("key", "show", "--home", name, "--json")[1]) for name in ("one", "two")
    ]
    assert shown[0]["node_id"] == shown[1]["node_id"] == load_key(file).node_id
    assert shown[1]["file"] == "two/identity.key"
    assert mode_of(tmp_path / "two" / "identity.key") == 0o600
    assert seed not in sapo("key", "show", "--home", "two")[1]


def test_a_key_is_never_overwritten_nor_taken_from_what_others_may_read(
    sapo: Sapo, tmp_path: Path
) -> None:
    sapo("init", "--home", "one")
    sapo("init", "--home", "two")
    sapo("key", "export", "node.key", "--home", "one")
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*.key")}
    for words in (
        ["key", "export", "node.key", "--home", "one"],
        ["key", "export", "two/identity.key", "--home", "one"],
        ["key", "import", "node.key", "--home", "two"],
    ):
        status, _, err = sapo(*words)
        assert status == 2 and "a key is never overwritten" in err
    (tmp_path / "node.key").chmod(0o644)
    status, _, err = sapo("key", "import", "node.key", "--home", "three")
    assert status == 2 and "chmod 600" in err
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.key")} == kept
    assert sapo("key", "show", "--home", "nowhere")[0] == 2


@pytest.mark.parametrize("command", ["status", "peers", "key", "rollback", "init"])
def test_the_tokens_file_is_never_shown(sapo: Sapo, tmp_path: Path, command: str) -> None:
    token = open_token(tmp_path)
    words = {"peers": ["peers", "ls"], "key": ["key", "show"], "rollback": ["rollback", "1"]}
    _, out, err = sapo(*words.get(command, [command]), "--home", str(tmp_path))
    assert token not in out + err
