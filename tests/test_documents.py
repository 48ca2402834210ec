"""Documents that promise completeness are complete, and name no setting that does not exist."""

import json
import re
from pathlib import Path

import msgspec
import pytest
import typer

from node.cli import app
from node.config import INSTALLERS, known_keys
from node.status import ForeignFate
from swarm.manifest import Rules
from swarm.refusal import Charge, Refusal
from tests.documented_commands import DOCUMENTS, NOT_RUN, commands_of, inline_commands

ROOT = Path(__file__).parents[1]


def rows() -> dict[str, str]:
    """Reason -> who pays, from the table of docs/swarm.md."""
    section = (ROOT / "docs/swarm.md").read_text().split("## Every reason for a refusal")[1]
    cells = [
        line.split("|")[1:4]
        for line in section.splitlines()
        if line.startswith("| ") and not line.startswith("| reason")
    ]
    return {
        reason.strip(): payer.strip()
        for reasons, _, payer in cells
        for reason in reasons.split(",")
    }


def test_every_refusal_is_explained() -> None:
    fates = [fate.value for fate in ForeignFate if fate is not ForeignFate.USED]
    assert set(rows()) == {refusal.value for refusal in Refusal} | set(fates)


def test_the_table_says_who_pays() -> None:
    words = {Charge.AUTHOR: r"the (author|announcer)", Charge.CARRIER: "the carrier.*"}
    for refusal in Refusal:
        expected = words.get(refusal.charge, "nobody")
        assert re.fullmatch(expected, rows()[refusal.value]), refusal


def test_the_protocol_names_every_rule_that_has_a_default() -> None:
    """Another client that misses one computes other ids."""
    (row,) = re.findall(r"^\| rules \| (.*) \|$", (ROOT / "docs/PROTOCOL.md").read_text(), re.M)
    written = {name: json.loads(value) for name, value in re.findall(r"`(\w+)`: (\S+)", row)}
    fields = msgspec.structs.fields(Rules)
    assert written == {field.name: field.default for field in fields if not field.required}


FILE_NAMES = ("md", "py", "toml", "example")
"""What follows `swarm.` and is no setting."""


def test_every_setting_that_a_document_names_exists() -> None:
    settings = set(known_keys())
    sections = "|".join({key.partition(".")[0] for key in settings if "." in key})
    documents = {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")} - {ROOT / "CHANGELOG.md"}
    for file in sorted(documents):
        text = file.read_text()
        named = set(re.findall(rf"(?<![\w./-])(?:{sections})\.[a-z]\w*", text))
        named -= {name for name in named if name.endswith(FILE_NAMES)}
        variables = set(re.findall(r"\bSAPO_[A-Z]\w*", text)) - INSTALLERS
        named |= {name.removeprefix("SAPO_").lower().replace("__", ".") for name in variables}
        assert named <= settings, file.name


def of_sapo() -> list[tuple[str, list[str]]]:
    """(document, words behind `sapo`) of every command in a document."""
    shown = [(name, command) for name in DOCUMENTS for command in commands_of(name)]
    found = []
    for name, command in (*shown, *inline_commands()):
        if match := re.search(r"(?:^|\$\()(?:\S*/)?sapo (?=[-a-z])(.*)", command):
            found.append((name, re.split(r"[|)]", match[1])[0].split()))
    return found


@pytest.mark.parametrize(("document", "words"), of_sapo(), ids=str)
def test_a_command_that_a_document_names_exists_with_its_options(
    document: str, words: list[str]
) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("sapo", [], resilient_parsing=True)
    while words and hasattr(command, "get_command") and not words[0].startswith("-"):
        command = command.get_command(context, words.pop(0))
        assert command is not None, document
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= options | {"--help"}, document


def test_what_no_test_runs_still_stands_in_a_document() -> None:
    shown = {command for name in DOCUMENTS for command in commands_of(name)}
    assert set(NOT_RUN) <= shown, set(NOT_RUN) - shown


def test_the_reason_why_a_command_is_not_run_names_tests_that_exist() -> None:
    for command, reason in NOT_RUN.items():
        named = re.findall(r"tests/[\w/]+\.py", reason)
        assert reason and all((ROOT / one).exists() for one in named), command
