"""The shape of the repository: layers, names, and documentation that is true."""

import ast
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("node", "swarm", "rewards")
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
)
BANNED = {"base", "common", "compat", "events", "helper", "helpers", "interfaces", "locking"}
BANNED |= {"manager", "misc", "serializer", "util", "utils"}


def folders() -> set[str]:
    """Directories of the first level that belong to the repository."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    return {
        f"{path.name}/"
        for path in ROOT.iterdir()
        if path.is_dir()
        and path.name not in {".git", "shared"}
        and not any(fnmatch(path.name, pattern) for pattern in ignored)
        and any(file.is_file() for file in path.rglob("*"))
    }


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def tree_of_readme() -> dict[str, str]:
    """Path -> what it is, from the block under "Where things are". A path twice is an error."""
    section = (ROOT / "README.md").read_text().split("\n## Where things are\n")[1]
    lines = [line.strip() for line in section.split("```")[1].splitlines()[1:] if line.strip()]
    entries = [re.split(r"\s{2,}", line, maxsplit=1) for line in lines]
    assert all(len(entry) == 2 for entry in entries), "two spaces between path and text"
    assert len({path for path, _ in entries}) == len(entries), "a path stands there twice"
    return dict((path, text) for path, text in entries)


def test_imports_respect_the_layers() -> None:
    # a process of its own: it silences every logger that it meets
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_tree_in_the_readme_lists_every_folder_and_source_file() -> None:
    missing = ({*SOURCES} | folders()) - tree_of_readme().keys()
    assert not missing, f"not in README.md, 'Where things are': {sorted(missing)}"


def test_the_tree_in_the_readme_lists_only_what_exists() -> None:
    wrong = [
        path
        for path in tree_of_readme()
        if not (ROOT / path).exists() or (ROOT / path).is_dir() != path.endswith("/")
    ]
    assert not wrong, f"in README.md, but not in the repository (folders end in /): {wrong}"


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_file_says_its_job(source: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / source).read_text()))
    assert docstring, f"{source} has no docstring"


def test_no_file_has_a_name_that_could_hold_anything() -> None:
    assert [source for source in SOURCES if Path(source).stem in BANNED] == []


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text())
    broken = [link for link in links if not (document.parent / link).exists()]
    assert not broken, f"{document.name}: {broken}"


def test_make_help_lists_every_job_and_documents_name_only_such() -> None:
    makefile = (ROOT / "Makefile").read_text()
    jobs = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, env=clean, capture_output=True, text=True, check=True
    )
    assert set(re.findall(r"^make ([a-z]+) +\S", done.stdout, re.MULTILINE)) == jobs
    for document in documents():
        named = set(re.findall(r"`make ([a-z]+)", document.read_text()))
        assert named <= jobs, f"{document.name} names {named - jobs}"


@pytest.mark.parametrize("name", ["demo", "test", ".ci/run"])
def test_the_commands_are_executable(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize("name", ["demo", "test", "deploy/install.sh"])
def test_the_commands_are_plain_sh(name: str) -> None:
    assert (ROOT / name).read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", ROOT / name], check=True)


@pytest.mark.parametrize(
    ("process", "foreign"),
    [
        ("node.control", ("torch", "transformers", "trl", "vllm")),
        ("node.cli", ("torch", "transformers", "trl", "vllm", "libp2p", "fastapi")),
        # Not "trio": httpcore, which huggingface_hub needs, imports it. Ours do not: import-linter.
        ("node.learner", ("libp2p", "fastapi", "hypercorn", "swarm.gossip", "swarm.database")),
    ],
)
def test_a_process_imports_nothing_of_the_other_side(
    process: str, foreign: tuple[str, ...]
) -> None:
    """The control process answers peers, the learner computes: neither drags the other's weight."""
    script = f"import sys, {process}; print([one for one in {foreign} if one in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.splitlines()[-1] == "[]"
