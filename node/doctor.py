"""`sapo doctor`: what of this machine a node depends on, found by trying, and what to do about it.

One check per subject in CHECKS, one line per finding. A check says what it found and never raises
for what is wrong with the machine. Changes nothing outside of a temporary directory.

Not checked: GPU and engine, whether peers can reach this node, the model's files.
"""

import ctypes
import os
import platform
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from importlib.metadata import distributions
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from node.access import TOKEN_FILE
from node.config import ConfigError, NodeConfig
from node.escape import printable
from node.tasks import find_isolation, find_usable_tasks, open_verifier
from node.words import closed_in, size
from rewards.kernel import LIBSECCOMP
from rewards.program import Program
from rewards.question import Unscorable
from rewards.runner import Runner
from rewards.verifier import VerifierBroken
from swarm.identity import KEY_FILE
from swarm.manifest import ManifestError, load_manifest

DISTRIBUTION = "sapo-swarm"
PACKAGES = ("node", "swarm", "rewards")
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
OPEN_FILES = 1024
"""A connection takes one, a worker three."""
DISK_BYTES, LITTLE_DISK_BYTES = 2**30, 10 * 2**30
"""Less is bad, and may be too little: a checkpoint of a model of 0.5 billion weights is 6 GiB."""
CANARY_S = 30.0

CANARY = """
import os, socket
file, folder = input(), input()
def allocate():
    try:
        bytearray(10 * 2**30)
    except MemoryError:
        raise OSError
for name, attempt in (
    ("read a file", lambda: open(file).read()),
    ("list a directory", lambda: os.listdir(folder)),
    ("write a file", lambda: open(file, "w")),
    ("open a socket", socket.socket),
    ("start a process", os.fork),
    ("take 10 GiB of memory", allocate),
):
    try:
        attempt()
    except OSError:
        continue
    print(name)
"""
"""A program that says what it could do, of what it must not."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """The node runs, but less well or less safely."""
    BAD = "bad"
    """The node does not run as the settings want it, or not safely."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    level: Level
    found: str
    remedy: str = ""
    """What to do; empty where all is well."""


def check_python(_: NodeConfig) -> Iterator[Finding]:
    """Its version."""
    found = f"{platform.python_version()} at {sys.executable}"
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        yield Finding("python", Level.OK, found)
    else:
        oldest, newest = (".".join(map(str, one)) for one in (OLDEST_PYTHON, NEWEST_PYTHON))
        remedy = f"install with Python {oldest} to {newest} (SAPO_PYTHON, see README.md)"
        yield Finding("python", Level.BAD, found, remedy)


def check_packages(_: NodeConfig) -> Iterator[Finding]:
    """Whether another distribution has files in our packages: pip overwrites silently."""
    clashes = [(name, file) for name, record in _records() for file in _ours(record)]
    for name in dict.fromkeys(name for name, _ in clashes):
        files = [file for one, file in clashes if one == name]
        yield Finding(
            "packages",
            Level.BAD,
            f"{name} owns {files[0]} and {len(files) - 1} more files in a package of ours",
            f"pip uninstall {name}, then install {DISTRIBUTION} again",
        )
    if not clashes:
        yield Finding("packages", Level.OK, f"nobody else owns {', '.join(PACKAGES)}")


def _records() -> Iterator[tuple[str, str]]:
    for one in distributions():
        if one.metadata["Name"] != DISTRIBUTION:
            yield one.metadata["Name"], one.read_text("RECORD") or ""


def _ours(record: str) -> Iterator[str]:
    paths = (line.split(",")[0] for line in record.splitlines())
    return (path for path in paths if path.split("/")[0] in PACKAGES)


def check_kernel(_: NodeConfig) -> Iterator[Finding]:
    """The kernel and libseccomp, by their versions."""
    yield Finding("kernel", Level.OK, f"{platform.system()} {platform.release()}")
    try:
        version = ctypes.CDLL(LIBSECCOMP).seccomp_version
    except OSError as error:
        remedy = "install libseccomp2 (apt-get install libseccomp2)"
        yield Finding("libseccomp", Level.WARN, str(error), remedy)
        return
    version.restype = ctypes.POINTER(ctypes.c_uint * 3)
    yield Finding("libseccomp", Level.OK, ".".join(map(str, version().contents)))


def check_workers(config: NodeConfig) -> Iterator[Finding]:
    """Starts the verifier of the swarm's tasks and asks it: what isolates it, what it judges."""
    if not config.has_policy:
        yield Finding("workers", Level.OK, f"mode {config.mode} needs none: it judges nothing")
        return
    try:
        manifest = load_manifest(config.manifest_file)
        with open_verifier(config, manifest) as verifier:
            usable, left_out = find_usable_tasks(verifier, manifest)
            isolation = find_isolation(config, verifier)
    except (ConfigError, ManifestError, VerifierBroken) as error:
        yield Finding("workers", Level.BAD, str(error), "see what is said there")
        return
    level = Level.OK if not isolation.missing else Level.WARN
    yield Finding("isolation", level, closed_in(isolation), "; ".join(isolation.missing))
    num_usable, num = len(usable), len(manifest.rules.tasks)
    yield Finding("tasks", Level.OK, f"{num_usable} of {num} of {manifest.about.name} judged here")
    for name, reason in left_out.items():
        said = f"{name} is left out: {reason}"
        yield Finding("tasks", Level.WARN, said, f"sapo tasks show {name}")


def check_programs(config: NodeConfig) -> Iterator[Finding]:
    """Runs a program as programs of answers are run, which tries what none of them may do.

    It is our own, so it runs also where nothing isolates it.
    """
    if not config.has_policy:
        return
    runner = Runner(CANARY_S, programs_anyway=True)
    try:
        yield try_program(runner, may_run=config.verify.isolation == "optional")
    finally:
        runner.close()


def try_program(runner: Runner, may_run: bool) -> Finding:
    """What a program could do.

    Args:
        may_run: whether the settings have programs of answers run without isolation.
    """
    with tempfile.TemporaryDirectory(prefix="sapo-doctor-") as folder:
        file = Path(folder) / "canary"
        file.write_text("a secret\n")
        ran = runner.run(Program(CANARY, (f"{file}\n{folder}\n",)), CANARY_S)
    if isinstance(ran, Unscorable):
        said = f"none can be run: {ran.reason} {ran.detail}"
        return Finding("programs", Level.BAD, said, "the log of `sapo run` says why")
    if (output := ran.outputs[0]) is None:
        return Finding("programs", Level.BAD, "a trial program failed", "report it: a bug")
    if not output:
        said = "one could not read, list, write, connect, fork or take 10 GiB of memory"
        return Finding("programs", Level.OK, said)
    could = f"one could {', '.join(output.splitlines())}"
    if may_run:
        return Finding("programs", Level.BAD, could, "set verify.isolation = 'programs'")
    remedy = "what 'isolation' says"
    return Finding("programs", Level.WARN, f"{could}; so none of an answer is run", remedy)


def check_open_files(_: NodeConfig) -> Iterator[Finding]:
    """How many the node may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        yield Finding("open files", Level.OK, f"up to {soft}")
        return
    remedy = f"ulimit -n {OPEN_FILES} before the start (at most {hard} without an administrator)"
    yield Finding("open files", Level.WARN, f"up to {soft}: few for many peers", remedy)


def check_disk(config: NodeConfig) -> Iterator[Finding]:
    """Room for checkpoints, pool and logs."""
    home = config.home.absolute()
    place = next(path for path in (home, *home.parents) if path.exists())
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield Finding("disk", Level.BAD, f"{place}: {error.strerror}", "choose another --home")
        return
    level = Level.OK if free >= LITTLE_DISK_BYTES else Level.WARN
    if free < DISK_BYTES or not os.access(place, os.W_OK):
        level = Level.BAD
    found = f"{size(free)} free at {place}"
    if not os.access(place, os.W_OK):
        found += ", which this user may not write to"
    remedy = "" if level is Level.OK else "make room, or choose another --home"
    yield Finding("disk", level, found, remedy)


def check_home(config: NodeConfig) -> Iterator[Finding]:
    """Who may read the key and the token, where there are some."""
    files = [config.home / KEY_FILE, config.home / TOKEN_FILE]
    secrets = [file for file in files if file.exists()]
    if not secrets:
        yield Finding("home", Level.OK, f"{config.home} holds no key yet")
    for file in secrets:
        found = file.stat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.geteuid():
            remedy = f"run as its owner, or: chown {os.geteuid()} {file}"
            yield Finding("home", Level.BAD, f"{file} belongs to user {found.st_uid}", remedy)
        elif mode & 0o077:
            remedy = f"chmod 600 {file}"
            yield Finding("home", Level.BAD, f"{file}: others may use it ({mode:04o})", remedy)
        else:
            yield Finding("home", Level.OK, f"{file}: only its owner may use it")


CHECKS: tuple[Callable[[NodeConfig], Iterable[Finding]], ...] = (
    check_python,
    check_packages,
    check_kernel,
    check_workers,
    check_programs,
    check_open_files,
    check_disk,
    check_home,
)


def examine(config: NodeConfig) -> Iterator[Finding]:
    """Every finding, as soon as it is known; a few seconds in all."""
    for check in CHECKS:
        yield from check(config)


_STYLES = {Level.OK: "green", Level.WARN: "bold yellow", Level.BAD: "bold red"}


def print_finding(finding: Finding, console: Console) -> None:
    """One line, and another one for what to do."""
    line = Text(f"{finding.level:<4} ", style=_STYLES[finding.level])
    line.append(f"{finding.name}: ", style="bold")
    line.append(printable(finding.found, 1000), style="default")
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"     -> {printable(finding.remedy, 1000)}"), soft_wrap=True)
