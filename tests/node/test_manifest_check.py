"""Every mistake in a swarm file that can be told without its tasks is told, with what to change."""

import shutil
from pathlib import Path

import pytest

from node.config import find_manifest
from node.manifest_check import check_manifest
from node.manifest_tools import new_manifest, sign_manifest
from node.task_check import Outcome
from swarm.identity import Identity

ONE, TWO = (Identity(bytes([number] * 32)).node_id for number in (1, 2))
PUBLIC = f"/ip4/8.8.8.8/tcp/8421/p2p/{ONE}"
SECOND = f"/dns4/swarm.example/tcp/8421/p2p/{TWO}"


def findings(file: Path) -> dict[str, list[tuple[str, str]]]:
    """Check -> its outcomes and texts."""
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in check_manifest(file):
        found.setdefault(finding.check, []).append((finding.outcome.value, finding.text))
    return found


def outcomes(file: Path, check: str) -> list[str]:
    return [outcome for outcome, _ in findings(file).get(check, [])]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def address(file: Path, *addresses: str) -> None:
    listed = ", ".join(f'"{one}"' for one in addresses)
    change(
        file, file.read_text().partition("peers = ")[2].partition("\n]\n")[0] + "\n]", f"[{listed}]"
    )


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A file in which nothing is to be changed."""
    file = tmp_path / "mine.toml"
    new_manifest(file, "Mine", "easy", tmp_path / "owner.key")
    change(file, 'description = ""', 'description = "To try it out"')
    address(file, PUBLIC, SECOND)
    sign_manifest(file, tmp_path / "owner.key")
    return file


def test_in_a_sound_file_everything_holds(sound: Path) -> None:
    found = findings(sound)
    assert {outcome for each in found.values() for outcome, _ in each} == {"holds"}
    assert list(found) == ["form", "about", "digests", "bootstrap", "owner"]
    assert found["bootstrap"] == [("holds", "2 of 2 addresses are public")]
    assert "signed version 1" in found["owner"][0][1]


def test_what_does_not_load_is_one_finding(sound: Path, tmp_path: Path) -> None:
    change(sound, "max_new_tokens = 16", "max_new_token = 16")
    ((outcome, text),) = findings(sound)["form"]
    assert outcome == "fails" and "max_new_token" in text
    (finding,) = check_manifest(tmp_path / "none.toml")
    assert finding.outcome is Outcome.FAILS and "cannot be read" in finding.text


@pytest.mark.parametrize(
    ("old", "new", "outcome", "said"),
    [
        ('"Mine"', '" "', "fails", "no name"),
        ('"Mine"', r'"M\u001b[31m"', "fails", "cannot be shown"),
        ('"To try it out"', r'"\u202e"', "fails", "cannot be shown"),
        ('"To try it out"', '""', "note", "no description"),
        ('"To try it out"', r'"two\nlines"', "holds", "Mine"),
    ],
)
def test_texts_for_people(sound: Path, old: str, new: str, outcome: str, said: str) -> None:
    change(sound, old, new)
    ((found, text),) = findings(sound)["about"]
    assert found == outcome and said in text


def test_missing_and_malformed_digests_are_named(sound: Path) -> None:
    lines = sound.read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("digest"))
    sound.write_text("".join([*lines[:first], 'digest = "0"\n', *lines[first + 1 :]]))
    ((outcome, text),) = findings(sound)["digests"]
    assert outcome == "fails" and "basic_arithmetic" in text and "--write" in text
    sound.write_text("".join([*lines[:first], *lines[first + 1 :]]))
    assert outcomes(sound, "digests") == ["fails"]


@pytest.mark.parametrize(
    ("host", "outcome", "said"),
    [
        ("/ip4/0.0.0.0/tcp/8421", "fails", "nobody can dial that"),
        ("/ip6/::/tcp/8421", "fails", "nobody can dial that"),
        ("/ip4/8.8.8.8/tcp/0", "fails", "nobody can dial that"),
        ("/ip4/8.8.8.8/udp/1", "fails", "no TCP address"),
        ("/ip4/8.8.8/tcp/1", "fails", "no TCP address"),
        ("/ip4/10.0.0.1/tcp/8421", "note", "only nodes of the same network"),
        ("/ip4/127.0.0.1/tcp/8421", "note", "only nodes of the same network"),
        ("/ip6/fe80::1/tcp/8421", "note", "only nodes of the same network"),
    ],
)
def test_addresses_that_strangers_cannot_dial(
    sound: Path, host: str, outcome: str, said: str
) -> None:
    address_of_none = f"{host}/p2p/{ONE}"
    change(sound, PUBLIC, address_of_none)
    (found, text), rest = findings(sound)["bootstrap"]
    assert found == outcome and said in text and address_of_none in text
    assert rest == ("holds", "1 of 2 addresses are public")


def test_no_address_one_node_and_doubles_are_noted(sound: Path) -> None:
    change(sound, SECOND, PUBLIC)
    (first, twice), (second, one), _ = findings(sound)["bootstrap"]
    assert (first, second) == ("note", "note")
    assert "stands there twice" in twice and "one node only" in one
    change(sound, f'"{PUBLIC}"', "")
    change(sound, "[, ]", "[]")
    ((outcome, text),) = findings(sound)["bootstrap"]
    assert outcome == "note" and "no address" in text


def test_the_state_of_the_signature_is_told(sound: Path, tmp_path: Path) -> None:
    change(sound, '"Mine"', '"Ours"')
    ((outcome, text),) = findings(sound)["owner"]
    assert outcome == "fails" and "changed after it was signed" in text
    sound.write_text(sound.read_text().partition("[signature]")[0])
    ((outcome, text),) = findings(sound)["owner"]
    assert outcome == "fails" and "has not signed it" in text
    new_manifest(tmp_path / "nobodys.toml", "Nobody's", "easy")
    ((outcome, text),) = findings(tmp_path / "nobodys.toml")["owner"]
    assert outcome == "note" and "whoever passes the file on" in text


def test_files_of_rows_are_looked_for_and_hashed(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    new_manifest(file, "Mine", "school")
    names = ["school-arithmetic.jsonl", "school-math.jsonl", "school-programs.jsonl"]
    assert outcomes(file, "files") == ["fails", "fails", "fails", "note"]
    for name in names:
        shutil.copy(find_manifest("school").with_name(name), tmp_path)
    assert outcomes(file, "files") == ["holds", "holds", "holds", "note"]
    with (tmp_path / names[1]).open("ab") as rows:
        rows.write(b"\n")
    (_, (outcome, text), _, _) = findings(file)["files"]
    assert outcome == "fails" and "school-math.jsonl: this file is not the swarm's" in text
