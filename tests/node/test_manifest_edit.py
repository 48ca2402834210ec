"""Digests are written into swarm files without touching anything else."""

import difflib
import tomllib
from pathlib import Path

import pytest

from node.manifest_edit import with_digests, with_signature, write_digests
from swarm.manifest import ManifestError, Signature, load_manifest

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "swarms").glob("*.toml"))
NEW = "ab" * 32

RULES = """# A swarm.
[rules]
max_new_tokens = 16   # few
max_answer_bytes = 1024
"""
TASK = """
[[rules.tasks]]  # the first
name = "one"
kind = "reasoning_gym"
dataset = "chain_sum"
version = "0.1.25"
"""


def changes(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.splitlines(True), after.splitlines(True))
    return [line for line in lines if line[0] in "+-"]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_of_a_shipped_file_only_the_digests_change(file: Path) -> None:
    text = file.read_text()
    digests = {task["name"]: task["digest"] for task in tomllib.loads(text)["rules"]["tasks"]}
    assert with_digests(text, digests) == text
    last = list(digests)[-1]
    edited = with_digests(text, {last: NEW})
    assert edited is not None
    assert changes(text, edited) == [
        f'- digest = "{digests[last]}"\n',
        f'+ digest = "{NEW}"\n',
    ]


def test_a_missing_digest_is_added_below_the_last_key() -> None:
    text = RULES + TASK + "# about the parameters\n[rules.tasks.params]\nmax_terms = 2\n"
    edited = with_digests(text, {"one": NEW})
    assert edited == text.replace('"0.1.25"\n', f'"0.1.25"\ndigest = "{NEW}"\n')


def test_comments_quotes_indents_and_line_ends_stay() -> None:
    line = f"\tdigest = '{'0' * 64}'  # of Monday\r\n"
    text = (RULES + TASK).replace("\n", "\r\n") + line
    edited = with_digests(text, {"one": NEW})
    assert edited == text.replace(f"'{'0' * 64}'", f'"{NEW}"')


def test_a_digest_in_a_system_message_is_none() -> None:
    text = RULES + TASK + 'digest = ""\nsystem = """\n[[rules.tasks]]\ndigest = "x"\n"""\n'
    assert with_digests(text, {"one": NEW}) is None, "no parser takes the halves: left alone"
    text = RULES + TASK + 'system = """\ndigest = "x"\nname = 1\n"""\ndigest = ""\n'
    edited = with_digests(text, {"one": NEW})
    assert edited == text.replace('digest = ""', f'digest = "{NEW}"')


def test_a_last_line_without_its_end_is_completed() -> None:
    text = (RULES + TASK).rstrip("\n")
    assert with_digests(text, {"one": NEW}) == f'{text}\ndigest = "{NEW}"\n'


def test_an_array_over_lines_is_no_place_for_a_digest() -> None:
    text = RULES + TASK + "examples = [\n  {question = 'a', answer = 'b'},\n]\n"
    edited = with_digests(text, {"one": NEW})
    assert edited is not None
    assert changes(text, edited) == [f'+ digest = "{NEW}"\n']


def test_another_layout_is_refused_and_the_file_left_alone(tmp_path: Path) -> None:
    text = RULES + 'tasks = [{name = "one", kind = "k", dataset = "", version = "1"}]\n'
    file = tmp_path / "swarm.toml"
    file.write_text(text)
    with pytest.raises(ManifestError, match=f"by hand: task 'one': digest = \"{NEW}\""):
        write_digests(file, {"one": NEW})
    assert file.read_text() == text and list(tmp_path.iterdir()) == [file]


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_text('[about]\nname = "n"\n' + RULES + TASK)
    link.symlink_to(real)
    write_digests(link, {"one": NEW})
    assert link.is_symlink() and load_manifest(real).rules.tasks[0].digest == NEW


SIGNED = Signature(3, "cd" * 64)
TABLE = f'[signature]\nversion = 3\nvalue = "{SIGNED.value}"\n'
ABOUT = '[about]\nname = "n"\n'


def test_a_signature_is_added_at_the_end() -> None:
    text = ABOUT + RULES + TASK
    assert with_signature(text, SIGNED) == f"{text}\n{TABLE}"
    assert with_signature(text.rstrip("\n"), SIGNED) == f"{text}\n{TABLE}"
    dos = text.replace("\n", "\r\n")
    assert with_signature(dos, SIGNED) == f"{dos}\r\n" + TABLE.replace("\n", "\r\n")


def test_of_a_signature_that_is_there_only_its_values_change() -> None:
    text = f"""
[ signature ]  # made by the owner
  # both are written by a command
  version = 1_0   # rises
  value = '{"0" * 128}'  # of ed25519
[about]
version = 1
value = "x"
{RULES}{TASK}"""
    edited = with_signature(text, SIGNED)
    expected = text.replace("1_0", "3").replace(f"'{'0' * 128}'", f'"{SIGNED.value}"')
    assert edited == expected


def test_a_signature_in_a_text_is_none() -> None:
    text = ABOUT + 'description = """\n[signature]\nversion = 1\nvalue = ""\n"""\n' + RULES + TASK
    assert with_signature(text, SIGNED) == f"{text}\n{TABLE}"
    both = f"{text}\n[signature]\nversion = 1\nvalue = ''\n"
    assert with_signature(both, SIGNED) == f"{text}\n{TABLE}"


@pytest.mark.parametrize(
    "odd",
    [
        "signature = {version = 1, value = ''}\n",
        "signature.version = 1\nsignature.value = ''\n",
        "[signature]\n'version' = 1\nvalue = ''\n",
    ],
)
def test_a_signature_in_another_layout_is_left_to_its_owner(odd: str) -> None:
    assert with_signature(odd + ABOUT + RULES + TASK, SIGNED) is None
