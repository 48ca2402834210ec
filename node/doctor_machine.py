"""The doctor on the machine itself: Python, packages, kernel, files, disk, memory, clock, secrets.

Not checked: whether the clock is right where neither earlier runs nor peers can be compared with,
and what other programs will take of memory and disk later.
"""

import ctypes
import os
import platform
import re
import resource
import shutil
import stat
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from itertools import islice
from pathlib import Path

from node.access import TOKEN_FILE
from node.config import NodeConfig
from node.finding import Finding, Level
from node.home import HomeError
from node.kept import open_kept
from node.words import size, span
from rewards.kernel import LIBSECCOMP
from swarm.identity import KEY_FILE, RESERVED_MS, SEQUENCE_FILE
from swarm.protocol import CLOCK_TOLERANCE_S

DISTRIBUTION = "sapo-swarm"
PACKAGES = ("node", "swarm", "rewards")
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
OPEN_FILES = 1024
"""A connection takes one, a worker three."""
DISK_BYTES, LITTLE_DISK_BYTES = 2**30, 10 * 2**30
"""Less is bad, and may be too little: a checkpoint of a model of 0.5 billion weights is 6 GiB."""
COMPARED_ROLLOUTS = 500
COMPARED_PEERS = 3
"""So many must agree that the clock is wrong."""


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


def check_versions(_: NodeConfig) -> Iterator[Finding]:
    """Of what this program pins exactly: another one was never tried, and may break silently."""
    wrong, num = [], 0
    for line in requires(DISTRIBUTION) or ():
        pin = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([A-Za-z0-9_.]+)", line)
        if pin is None or "extra ==" in line:
            continue
        name, wanted = pin.groups()
        num += 1
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append(name)
            yield Finding(
                "versions",
                Level.BAD,
                f"{name} is {found}, and this version needs {wanted}",
                f"pip install '{name}=={wanted}'",
            )
    if not wrong:
        said = f"{DISTRIBUTION} {version(DISTRIBUTION)}; all {num} exact pins are met"
        yield Finding("versions", Level.OK, said)


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
    """Who may read key, token and the key of the API's certificate, where there are some."""
    files = [config.home / KEY_FILE, config.home / TOKEN_FILE]
    if config.api.tls_key is not None:
        files.append(config.api.tls_key)
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


def check_clock(config: NodeConfig) -> Iterator[Finding]:
    """The clock, against what this node reserved before, and against when peers say they signed."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    remedy = "set the clock (timedatectl set-ntp true), then start the node"
    if (behind_s := _behind_itself(config.home, now)) > CLOCK_TOLERANCE_S:
        said = f"{shown}: {span(behind_s)} behind an earlier run of this node"
        yield Finding("clock", Level.BAD, said, remedy)
        return
    peers = _ahead_of_peers(config.home)
    if len(peers) < COMPARED_PEERS:
        said = f"{shown}; not compared with peers: too few of their rollouts are here"
        yield Finding("clock", Level.OK, said)
        return
    ahead_s = statistics.median(peers)
    if abs(ahead_s) > CLOCK_TOLERANCE_S:
        which = "ahead of" if ahead_s > 0 else "behind"
        said = f"{shown}: {span(abs(ahead_s))} {which} {len(peers)} peers"
        yield Finding("clock", Level.BAD, f"{said}; they refuse what it signs", remedy)
    else:
        yield Finding("clock", Level.OK, f"{shown}; agrees with {len(peers)} peers")


def _behind_itself(home: Path, now: float) -> float:
    """Seconds to the last sequence number that was reserved: these are Unix ms, a minute ahead."""
    try:
        with (home / SEQUENCE_FILE).open("rb") as opened:
            text = opened.read(32).strip()
    except OSError:
        return 0.0
    return (int(text) - RESERVED_MS) / 1000 - now if text.isdigit() else 0.0


def _ahead_of_peers(home: Path) -> list[float]:
    """Of each peer the least seconds from its signature to the first sight here. Late ones are no
    sign of a clock; that none of a peer's came sooner is one."""
    least: dict[str, float] = defaultdict(lambda: float("inf"))
    try:
        with open_kept(home) as kept:
            for rollout in islice(kept.rollouts(("fresh", "used")), COMPARED_ROLLOUTS):
                if rollout is not None:
                    took_s = rollout.first_seen - rollout.created
                    least[rollout.author] = min(least[rollout.author], took_s)
    except HomeError:
        return []
    return list(least.values())
