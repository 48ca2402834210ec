"""The command line as a whole: its commands, what they print as JSON, completion, statuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import click
import msgspec
import pytest
import typer

from node import cli, cli_config
from node.cli_experiment import ListedRun
from node.cli_home import NewHome, Rollback
from node.cli_key import KeyFile
from node.exam import Report
from node.finding import Finding
from node.kept import PoolStats
from node.manifest_view import ManifestFacts
from node.settings_list import Setting
from node.status import PeerStatus, RoundReport, Snapshot
from node.support_bundle import Bundle
from node.task_check import Finding as CheckFinding
from node.task_tools import Sample, TaskEntry, TaskList

Sapo = Callable[..., tuple[object, str, str]]
SAPO = str(Path(sys.executable).with_name("sapo"))
SHAPES = Path(__file__).with_name("cli_shapes.json")

READING: dict[str, type] = {
    "status": Snapshot,
    "rounds": RoundReport,
    "peers ls": PeerStatus,
    "peers show": PeerStatus,
    "pool stats": PoolStats,
    "doctor": Finding,
    "config show": Setting,
    "config validate": Setting,
    "key show": KeyFile,
    "tasks ls": TaskList,
    "tasks show": TaskEntry,
    "tasks sample": Sample,
    "manifest show": ManifestFacts,
    "manifest check": CheckFinding,
    "eval": Report,
    "experiment": ListedRun,
    "support-bundle": Bundle,
    "init": NewHome,
    "rollback": Rollback,
}
"""Commands that say something, and what stands in their JSON: one of it, or a list."""

ACTING = {
    *("run", "join", "demo", "pool export", "peers ban", "peers unban", "key export", "key import"),
    *("tasks check", "manifest new", "manifest sign", "policy make-tiny", "token rotate"),
}


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))  # type: ignore[arg-type]


def shape(kind: type) -> dict[str, str]:
    """Field -> type, as the source writes it."""
    if issubclass(kind, msgspec.Struct):
        return {one.encode_name: str(one.type) for one in msgspec.structs.fields(kind)}
    hints = get_type_hints(kind)
    return {one.name: str(hints[one.name]) for one in fields(kind)}


def test_every_command_is_a_reading_or_an_acting_one() -> None:
    assert COMMANDS.keys() - {"token rotate"} == READING.keys() | (ACTING - {"token rotate"})


@pytest.mark.parametrize("name", READING)
def test_every_reading_command_has_json(name: str) -> None:
    options = {option for one in COMMANDS[name].params for option in one.opts}
    assert "--json" in options


@pytest.mark.parametrize("name", [*READING, *sorted(ACTING)])
def test_every_command_and_option_says_what_it_is(name: str) -> None:
    if name not in COMMANDS:
        pytest.skip("not there yet")
    assert COMMANDS[name].help
    for one in COMMANDS[name].params:
        assert getattr(one, "help", None), f"{name}: {one.name}"


def test_the_shapes_of_json_only_grow() -> None:
    """Scripts read them: a field that is there stays, and stays what it is. A new one is added to
    cli_shapes.json by: python tests/node/test_cli.py"""
    recorded = json.loads(SHAPES.read_text())
    assert recorded.keys() == READING.keys()
    for name, kind in READING.items():
        now = shape(kind)
        for field, written in recorded[name].items():
            assert now.get(field) == written, f"sapo {name}: {field}"


def test_completion_names_commands_and_options(tmp_path: Path) -> None:
    for words, wanted in (
        ("sapo ", {"status", "rounds", "support-bundle", "peers"}),
        ("sapo peers ", {"ls", "show", "ban", "unban"}),
        ("sapo rounds --", {"--json", "--home"}),
    ):
        environment = os.environ | {
            "_SAPO_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
        }
        done = subprocess.run([SAPO], env=environment, capture_output=True, text=True, timeout=60)
        assert wanted <= set(done.stdout.split()), (words, done.stdout, done.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_for_each_shell(shell: str) -> None:
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [SAPO, "--show-completion", shell], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "_SAPO_COMPLETE" in done.stdout, done.stderr


def test_ctrl_c_in_a_short_command_is_no_bug(sapo: Sapo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_config, "load_node_config", interrupted)
    assert sapo("config", "show")[0] == 130, "as shells have it"


@pytest.mark.parametrize("words", [["nonsense"], ["status", "--nonsense"], ["rounds", "-n", "0"]])
def test_wrong_words_end_with_2(sapo: Sapo, words: list[str]) -> None:
    assert sapo(*words)[0] == 2


def test_a_bug_ends_with_its_traceback(sapo: Sapo, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli_config, "load_node_config", broken)
    with pytest.raises(ZeroDivisionError):
        sapo("config", "show")


def test_an_experiments_runs_are_listed_as_json(sapo: Sapo) -> None:
    status, out, _ = sapo("experiment", "smoke", "--list", "--json")
    found = json.loads(out)
    assert status == 0 and found and not any(one["is_done"] for one in found)
    assert found[0].keys() == shape(ListedRun).keys()


def test_a_task_and_a_swarm_file_are_judged_as_json(sapo: Sapo, tmp_path: Path) -> None:
    sapo("manifest", "new", "s.toml", "--name", "Ours", "--owner", "o.key")
    status, out, _ = sapo("manifest", "check", "s.toml", "--json")
    found = json.loads(out)
    assert status == 3 and {"check": "owner", "outcome": "fails"}.items() <= found[-1].items()
    sapo("manifest", "sign", "s.toml", "--key", "o.key")
    assert sapo("manifest", "check", "s.toml", "--json")[0] == 0


if __name__ == "__main__":
    made = {name: shape(kind) for name, kind in READING.items()}
    SHAPES.write_text(json.dumps(made, indent=1) + "\n")
