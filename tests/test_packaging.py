"""The wheel: what is in it, and that it runs outside of the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

import node

ROOT = Path(__file__).parents[1]
PACKAGES = ("node", "swarm", "rewards")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path) -> str:
    """All output of a command that has to succeed, in a clean environment."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout, and without network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "configs"):
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=without)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-w", str(out)]
    run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds the dependencies in the one of these tests."""
    place = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(place, symlinks=True)
    python = place / "bin/python"
    site = Path(
        run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=place).strip()
    )
    # A .pth file inside a directory that is named in one is not read: an editable install of this
    # checkout stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, cwd=place)
    return place


def test_the_wheel_holds_every_source_file_and_nothing_else_on_top(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"sapo_swarm-{PROJECT['project']['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {*PACKAGES, info}
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == sources
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert f"{info}/licenses/LICENSE" in names


def test_the_wheel_holds_the_shipped_configurations(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "configs").rglob("*")
        if path.is_file()
    }
    assert "configs/swarms/easy.toml" in shipped
    assert {name for name in names if "configs/" in name} == {f"node/{path}" for path in shipped}


def test_the_wheel_holds_the_embedded_policy(wheel: Path) -> None:
    sizes = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert f"node/tiny/{name}" in sizes
    assert sizes["node/tiny/model.safetensors"] <= 4_000_000 + 100_000  # and its header


def test_the_installed_command_answers_from_another_directory(
    installed: Path, tmp_path: Path
) -> None:
    version = PROJECT["project"]["version"]
    assert run(installed / "bin/sapo", "--version", cwd=tmp_path) == f"sapo-swarm {version}\n"


def test_the_installed_program_is_the_wheel_and_finds_its_manifests(
    installed: Path, tmp_path: Path
) -> None:
    script = """
from importlib.resources import files
from pathlib import Path
import node, rewards, swarm
from swarm.manifest import load_manifest
for package in (node, rewards, swarm):
    print(package.__file__)
for path in sorted(Path(str(files("node"))).glob("configs/swarms/*.toml")):
    print(path.name, load_manifest(path).swarm_id)
"""
    lines = run(installed / "bin/python", "-c", script, cwd=tmp_path).splitlines()
    assert all(line.startswith(str(installed)) for line in lines[:3])
    manifests = sorted(path.name for path in (ROOT / "configs/swarms").glob("*.toml"))
    assert [line.split()[0] for line in lines[3:]] == manifests


def test_the_installed_program_trains_a_round_outside_of_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    options = ["--rounds", "1", "--engine", "transformers", "--seed", "1", "--home", "home"]
    output = run(installed / "bin/sapo", "run", *options, cwd=tmp_path)
    assert "round" in output
    assert list((tmp_path / "home/checkpoints").iterdir())


def test_these_tests_run_against_this_checkout() -> None:
    assert node.__file__ is not None
    assert Path(node.__file__).parent == ROOT / "node"


def test_no_other_distribution_owns_one_of_our_packages() -> None:
    """PyPI's `node`, for one, would silently overwrite files of ours."""
    theirs = tuple(f"{package}{end}" for package in PACKAGES for end in ("/", ".py,"))
    for distribution in distributions():
        if distribution.metadata["Name"] == "sapo-swarm":
            continue
        records = (distribution.read_text("RECORD") or "").splitlines()
        owned = [line for line in records if line.startswith(theirs)]
        assert not owned, f"{distribution.metadata['Name']} owns {owned[:3]}: uninstall it"


def test_the_declared_packages_are_those_that_exist() -> None:
    exist = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == exist
