"""Swarm files are made and signed as their owners need it: whole, commented, only by the owner."""

import stat
import tomllib
from pathlib import Path

import msgspec
import pytest

from node.config import ConfigError, find_manifest
from node.manifest_tools import RULES, files_beside, new_manifest, sign_manifest
from swarm.identity import IdentityError, load_key
from swarm.manifest import ManifestError, Rules, load_manifest

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "swarms").glob("*.toml"))


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda file: file.stem)
def test_a_new_file_is_the_same_swarm_under_another_name(shipped: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    made = new_manifest(file, "Mine", shipped.stem)
    assert load_manifest(file) == made
    assert made.rules == load_manifest(shipped).rules
    assert (made.about.name, made.bootstrap.peers, made.signature) == ("Mine", (), None)


def test_a_new_file_says_what_every_rule_is(tmp_path: Path) -> None:
    assert {field.name for field in msgspec.structs.fields(Rules)} == {"tasks", *RULES}
    new_manifest(tmp_path / "mine.toml", "Mine", "easy")
    text = (tmp_path / "mine.toml").read_text()
    for name, said in RULES.items():
        assert f"# {said}\n" in text and f"{name} = " in text
    assert "# lifetime_s = 3600\n" in text and "\nmax_new_tokens = 16\n" in text


def test_with_an_owner_it_is_another_swarm_and_the_key_is_made_once(tmp_path: Path) -> None:
    key = tmp_path / "owner.key"
    first = new_manifest(tmp_path / "1.toml", "Mine", "easy", key)
    second = new_manifest(tmp_path / "2.toml", "Other", "easy", key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert first.rules.owner == second.rules.owner == load_key(key).node_id
    assert first.swarm_id == second.swarm_id != load_manifest(find_manifest("easy")).swarm_id


def test_limits_and_comments_of_the_source_are_kept_and_its_owner_is_not(tmp_path: Path) -> None:
    source = tmp_path / "source.toml"
    made = new_manifest(source, "Source", "easy", tmp_path / "theirs.key")
    text = source.read_text().replace("# lifetime_s = 3600", "lifetime_s = 60")
    text = text.replace("[[rules.tasks]]", "# Why this task.\n[[rules.tasks]]  # first", 1)
    source.write_text(text.replace('description = ""', 'description = "of theirs"'))
    sign_manifest(source, tmp_path / "theirs.key")
    copy = new_manifest(tmp_path / "copy.toml", "Copy", str(source))
    assert copy.rules.lifetime_s == 60 and copy.rules.owner == ""
    assert copy.rules.tasks == made.rules.tasks and copy.about.description == ""
    assert "# Why this task.\n[[rules.tasks]]  # first\n" in (tmp_path / "copy.toml").read_text()


@pytest.mark.parametrize("name", ['"; [rules]\n', "\x7f\x1b\\", "日本", "'''", "\u2028", ""])
def test_any_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    assert new_manifest(tmp_path / "mine.toml", name, "easy").about.name == name


def test_what_cannot_be_made_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    key = tmp_path / "owner.key"
    with pytest.raises(ManifestError, match=r"about\.name has 81 characters"):
        new_manifest(file, "x" * 81, "easy")
    with pytest.raises(ManifestError, match="no UTF-8"):
        new_manifest(file, "\udcff", "easy")
    with pytest.raises(ConfigError, match="shipped are only: easy"):
        new_manifest(file, "Mine", "esy", key)
    inline = tmp_path / "inline.toml"
    task = '{name = "a", kind = "k", dataset = "d", version = "1"}'
    rules = f"[rules]\nmax_new_tokens = 1\nmax_answer_bytes = 1\ntasks = [{task}]\n"
    inline.write_text(f'[about]\nname = "n"\n{rules}')
    with pytest.raises(ManifestError, match=r"write its tasks as \[\[rules\.tasks\]\]"):
        new_manifest(file, "Mine", str(inline))
    assert list(tmp_path.iterdir()) == [inline]
    with pytest.raises(ManifestError, match="cannot be written: No such file"):
        new_manifest(tmp_path / "none" / "mine.toml", "Mine", "easy")
    file.write_text("precious")
    with pytest.raises(ManifestError, match="exists already"):
        new_manifest(file, "Mine", "easy", key)
    assert file.read_text() == "precious" and not key.exists()


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    new_manifest(tmp_path / "mine.toml", "Mine", "easy", tmp_path / "owner.key")
    return tmp_path / "mine.toml"


def test_signing_raises_the_version_and_changes_nothing_else(owned: Path) -> None:
    text, key = owned.read_text(), owned.with_name("owner.key")
    first = sign_manifest(owned, key)
    assert owned.read_text().startswith(text) and load_manifest(owned) == first
    changed = owned.read_text().replace('"Mine"', '"Ours"  # a better one')
    owned.write_text(changed + "# the end\n")
    with pytest.raises(ManifestError, match="sapo manifest sign FILE"):
        load_manifest(owned)
    second = sign_manifest(owned, key)
    assert first.signature is not None and second.signature is not None
    assert (first.signature.version, second.signature.version) == (1, 2)
    assert second.is_signed and second.about.name == "Ours"
    expected = changed + "# the end\n"
    expected = expected.replace(first.signature.value, second.signature.value)
    assert owned.read_text() == expected.replace("version = 1\n", "version = 2\n")


def test_only_the_owner_signs(owned: Path, tmp_path: Path) -> None:
    text = owned.read_text()
    other = load_key(tmp_path / "other.key", make=True).node_id
    with pytest.raises(ManifestError, match=f"the key of {other}; the owner is 12D3"):
        sign_manifest(owned, tmp_path / "other.key")
    with pytest.raises(IdentityError, match="cannot be opened"):
        sign_manifest(owned, tmp_path / "none.key")
    assert owned.read_text() == text and not (tmp_path / "none.key").exists()
    new_manifest(tmp_path / "nobodys.toml", "Nobody's", "easy")
    with pytest.raises(ManifestError, match=f'write owner = "{other}" into'):
        sign_manifest(tmp_path / "nobodys.toml", tmp_path / "other.key")


def test_an_unusual_layout_is_left_alone_and_told_what_to_write(owned: Path) -> None:
    value = "0" * 128
    text = f'signature = {{version = 4, value = "{value}"}}\n' + owned.read_text()
    owned.write_text(text)
    with pytest.raises(ManifestError, match=r"by hand: \[signature\], version = 5, value = "):
        sign_manifest(owned, owned.with_name("owner.key"))
    assert owned.read_text() == text


def test_a_link_is_followed_not_replaced(owned: Path) -> None:
    link = owned.with_name("link.toml")
    link.symlink_to(owned)
    sign_manifest(link, owned.with_name("owner.key"))
    assert link.is_symlink() and "signature" in tomllib.loads(owned.read_text())


def test_files_that_have_to_lie_beside_are_named() -> None:
    assert files_beside(load_manifest(find_manifest("easy"))) == []
    assert files_beside(load_manifest(find_manifest("school"))) == [
        "school-arithmetic.jsonl",
        "school-math.jsonl",
        "school-programs.jsonl",
    ]
