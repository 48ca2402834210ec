"""`sapo manifest` and `sapo join` as their users type them."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from node import cli
from node.config import find_manifest, load_config
from swarm.manifest import load_manifest

Sapo = Callable[..., tuple[object, str, str]]


@pytest.fixture
def sapo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Sapo:
    """The command in an empty directory -> exit status, standard output in one line, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["sapo", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, " ".join(out.split()), err

    return run


def test_a_swarm_is_made_signed_joined_and_moved(sapo: Sapo, tmp_path: Path) -> None:
    made = sapo("manifest", "new", "s.toml", "--name", "Ours", "--owner", "o.key")
    assert made[0] == 0 and "o.key is the owner's key" in made[1]
    checked = sapo("manifest", "check", "s.toml")
    assert checked[0] == 3 and "fails: owner" in checked[1]
    refused = sapo("join", "s.toml", "--yes")
    assert refused[0] == 2 and "has not signed it" in refused[2]
    signed = sapo("manifest", "sign", "s.toml", "--key", "o.key")
    assert signed[0] == 0 and "signed version 1 of Ours" in signed[1]
    checked = sapo("manifest", "check", "s.toml")
    assert checked[0] == 0 and "sapo tasks check s.toml" in checked[1]
    joined = sapo("join", "s.toml", "--yes", "--home", "home")
    assert joined[0] == 0 and "joined; now: sapo run --home home" in joined[1]
    file = tmp_path / "s.toml"
    file.write_text(file.read_text().replace('"Ours"', '"Moved"'))
    assert sapo("join", "s.toml", "--yes", "--home", "home")[0] == 2
    assert sapo("manifest", "sign", "s.toml", "--key", "o.key")[0] == 0
    assert sapo("join", "s.toml", "--yes", "--home", "home")[0] == 0
    config = load_config(flags={"home": tmp_path / "home"}, environment={})
    assert load_manifest(config.manifest_file).about.name == "Moved"


def test_what_one_joins_and_what_becomes_public_is_shown(sapo: Sapo) -> None:
    _, shown, _ = sapo("manifest", "show", "school")
    manifest = load_manifest(find_manifest("school"))
    for fact in (
        "Word problems, mathematics and small programs",
        manifest.swarm_id,
        "owner nobody: name and bootstrap addresses are unsigned",
        "tasks school_arithmetic, school_math, school_programs",
        "files 3 of rows",
        "512 new tokens and 4096 bytes an answer",
        "bootstrap addresses: 0",
        "public for good: the questions' addresses and the answers that this node shares, its "
        "peer id, its IP address, the model's name, and when it is active",
    ):
        assert fact in shown
    sapo("manifest", "new", "s.toml", "--name", "Ours", "--owner", "o.key")
    assert "who has not signed name and bootstrap" in sapo("manifest", "show", "s.toml")[1]
    sapo("manifest", "sign", "s.toml", "--key", "o.key")
    signed = "who signed name and bootstrap addresses (version 1)"
    assert signed in sapo("manifest", "show", "s.toml")[1]


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 8), ("", 8)])
def test_joining_shows_asks_once_and_keeps_nothing_without_a_yes(
    sapo: Sapo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n" if answer else ""))
    sapo("manifest", "new", "s.toml", "--name", "Ours")
    found, out, _ = sapo("join", "s.toml", "--home", "home")
    assert found == status and "when it is active" in out and out.count("Join?") == 1
    assert (tmp_path / "home").exists() == (answer == "y")


def test_the_home_may_come_from_the_environment(
    sapo: Sapo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for `sapo run`, which would else run another swarm than the one that was joined."""
    sapo("manifest", "new", "s.toml", "--name", "Ours")
    monkeypatch.setenv("SAPO_HOME", str(tmp_path / "mine"))
    status, out, _ = sapo("join", "s.toml", "--yes")
    assert status == 0 and out.endswith("joined; now: sapo run")
    assert (tmp_path / "mine" / "swarm.toml").is_file()
    for words in (["status"], ["peers", "ls"]):
        status, _, err = sapo(*words)
        assert status == 5 and f"no node runs in {tmp_path / 'mine'}" in err
    assert not (tmp_path / "sapo-home").exists()


def test_show_as_json_is_all_of_it(sapo: Sapo) -> None:
    sapo("manifest", "new", "s.toml", "--name", "Ours", "--owner", "o.key")
    unsigned = json.loads(sapo("manifest", "show", "s.toml", "--json")[1])
    sapo("manifest", "sign", "s.toml", "--key", "o.key")
    signed = json.loads(sapo("manifest", "show", "s.toml", "--json")[1])
    manifest = load_manifest(Path("s.toml"))
    assert (unsigned["version"], signed["version"]) == (None, 1)
    assert signed["swarm_id"] == manifest.swarm_id
    assert signed["rules"]["owner"] == manifest.rules.owner
    assert [task["name"] for task in signed["rules"]["tasks"]] == [
        task.name for task in manifest.rules.tasks
    ]


def test_new_names_the_files_that_are_needed_beside_it(sapo: Sapo) -> None:
    _, out, _ = sapo("manifest", "new", "s.toml", "--name", "Ours", "--from", "school")
    assert "school-arithmetic.jsonl, school-math.jsonl, school-programs.jsonl" in out


def test_new_says_when_it_is_no_swarm_of_its_own(sapo: Sapo) -> None:
    _, same, _ = sapo("manifest", "new", "1.toml", "--name", "Ours", "--from", "paper")
    _, other, _ = sapo("manifest", "new", "2.toml", "--name", "Ours", "--owner", "o.key")
    assert "that is the swarm of paper, until" in same and "that is the swarm of" not in other


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["join", "http://swarm.example/s.toml", "--yes"], "only https:// URLs"),
        (["join", "https://127.0.0.1/s.toml", "--yes"], "not a public one"),
        (["join", "https://me:secret@swarm.example/", "--yes"], "user name or password"),
        (["manifest", "sign", "none.toml", "--key", "o.key"], "none.toml: cannot be read"),
        (["manifest", "show", "none.toml"], "there is no file 'none.toml'"),
        (["manifest", "new", "s.toml", "--name", "x" * 81], "about.name has 81"),
    ],
)
def test_mistakes_get_one_line_and_status_2(
    sapo: Sapo, tmp_path: Path, words: list[str], complaint: str
) -> None:
    status, _, err = sapo(*words)
    assert status == 2 and complaint in err and "secret" not in err
    assert err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_nothing_in_a_file_acts_on_the_terminal(sapo: Sapo, tmp_path: Path) -> None:
    text = find_manifest("easy").read_text()
    named = text.replace('name = "easy"', r'name = "\u001b[31m[bold]\u202e"', 1)
    (tmp_path / "named.toml").write_text(named)
    status, out, _ = sapo("manifest", "show", "named.toml")
    assert status == 0 and r"\x1b[31m[bold]\u202e" in out and "\x1b[31m" not in out
    (tmp_path / "wrong.toml").write_text('"\\u001b[31m\\nsapo: all is well" = 1\n' + text)
    status, _, err = sapo("join", "wrong.toml", "--yes")
    assert status == 2 and "\x1b[31m" not in err and "[31m" in err


def test_digests_written_into_a_signed_file_ask_for_a_new_signature(
    sapo: Sapo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checking tasks takes a file whose signature does not hold: its owner is at work on it."""
    sapo("manifest", "new", "s.toml", "--name", "Ours", "--owner", "o.key")
    sapo("manifest", "sign", "s.toml", "--key", "o.key")
    file = tmp_path / "s.toml"
    file.write_text(file.read_text().replace("max_new_tokens = 16", "max_new_tokens = 17"))
    spec = load_manifest(file, verify=False).rules.tasks[0]
    report = SimpleNamespace(spec=spec, digest="ab" * 32, holds=True, needs_digest=True)
    monkeypatch.setattr("node.cli_tasks.check_tasks", lambda *_: [report])
    monkeypatch.setattr("node.cli_tasks.print_report", lambda *_: None)
    status, out, _ = sapo("tasks", "check", "s.toml", "--write")
    made = load_manifest(file, verify=False)
    assert status == 0 and f"its swarm is now {made.swarm_id}; sign it again" in out
    assert made.rules.tasks[0].digest == report.digest
    assert sapo("tasks", "ls", "--manifest", "s.toml")[0] == 2
