"""`sapo config`, and the settings that lie in a home."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from node.config import MAX_CONFIG_BYTES, ConfigError, known_keys, load_config, load_node_config

Sapo = Callable[..., tuple[object, str, str]]


def test_every_value_says_where_it_comes_from(
    sapo: Sapo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sapo-home").mkdir()
    file = tmp_path / "sapo-home" / "node.toml"
    file.write_text("[learn]\nlearning_rate = 1e-5\nepsilon = 0.1\n")
    monkeypatch.setenv("SAPO_LEARN__EPSILON", "0.3")
    out = sapo("config", "show", "--origin", "--set", "rollout.answers=4")[1].splitlines()
    for line in (
        "learn.learning_rate = 1e-05  # sapo-home/node.toml",
        "learn.epsilon = 0.3  # environment variable SAPO_LEARN__EPSILON",
        "rollout.answers = 4  # --answers",
        'policy.model = "tiny"  # default',
    ):
        assert line in out
    assert len(out) == len(known_keys())
    listed = json.loads(sapo("config", "show", "--origin", "--json")[1])
    assert [one["key"] for one in listed] == known_keys()
    assert {"key": "rollout.answers", "value": 8, "origin": "default"} in listed
    tree = json.loads(sapo("config", "show", "--json")[1])
    assert tree["learn"]["learning_rate"] == 1e-5 and "# " not in sapo("config", "show")[1]


def test_a_home_is_where_its_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sapo-home").mkdir()
    (tmp_path / "sapo-home" / "node.toml").write_text('home = "elsewhere"\nrounds = 3\n')
    chosen = load_node_config(environment={})
    assert (chosen.home, chosen.rounds) == (Path("sapo-home"), 3)


def test_a_home_has_its_settings_unless_a_file_is_named(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other.toml"
    home.mkdir()
    (home / "node.toml").write_text('home = "elsewhere"\nrounds = 3\n')
    other.write_text("rounds = 4\n")
    chosen = load_node_config(None, {"home": home, "seed": None}, {})
    assert (chosen.rounds, chosen.home) == (3, home)
    assert load_node_config(None, None, {"SAPO_HOME": str(home)}).rounds == 3
    assert load_node_config(other, {"home": home}, {}).rounds == 4
    assert load_node_config(None, {"home": home, "rounds": 5}, {}).rounds == 5
    assert load_config(None, {"home": home}, {}).rounds is None
    (home / "node.toml").write_text("nonsense = 1\n")
    with pytest.raises(ConfigError, match="there is no setting 'nonsense'"):
        load_node_config(None, {"home": home}, {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rounds = 0\n", "rounds = 0"),
        ("[learn]\nrate = 1\n", "there is no setting 'learn.rate'"),
        ("rounds = \n", "not valid TOML"),
        ("rounds = " + "[" * 5000, "not valid TOML"),
        ("mode = 'relay'\n[swarm]\nrelay = 'off'\n", "contradicts mode 'relay'"),
        ("#" * (MAX_CONFIG_BYTES + 1), "is it the right file?"),
        ('"\\u001b[2J" = 1\n', "\\x1b[2J"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_one_line(
    sapo: Sapo, tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "n.toml").write_text(text)
    status, out, err = sapo("config", "validate", "n.toml")
    assert status == 2 and complaint in err and out == "" and "\x1b" not in err
    assert err.count("\n") == 1


def test_a_file_that_is_right_is_judged_without_the_environment(
    sapo: Sapo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAPO_ROUNDS", "nonsense")
    (tmp_path / "n.toml").write_text("rounds = 3\n")
    status, out, _ = sapo("config", "validate", "n.toml")
    assert status == 0 and out.startswith("n.toml is right: 1 settings")
    found = json.loads(sapo("config", "validate", "n.toml", "--json")[1])
    assert found == [{"key": "rounds", "value": 3, "origin": "n.toml"}]
    assert sapo("config", "validate", "none.toml")[0] == 2
