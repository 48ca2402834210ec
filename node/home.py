"""The node's directory: its layout version, its exclusive lock, its seed."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.disk import write_durably

LAYOUT_VERSION = 1
"""Raised when files in the directory change their meaning; an older one is then migrated."""


DEMO_MARK = "made-by-sapo-demo"
"""A file that says: what lies here may be removed by the next demo."""


class HomeError(RuntimeError):
    """The directory cannot be used; the message says why and what to do."""


@contextmanager
def open_home(home: Path) -> Iterator[Path]:
    """Creates the directory if needed and holds it until the block ends.

    Raises:
        HomeError: another process holds it, or a newer version of this program wrote it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"{home}: cannot be used as a home: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HomeError(
                f"{home}: another process is using it; stop that one or choose another --home"
            ) from None
        _check_version(home)
        yield home
    finally:
        os.close(lock)


def _check_version(home: Path) -> None:
    file = home / "VERSION"
    if not file.exists():
        write_durably(file, f"{LAYOUT_VERSION}\n")
    text = file.read_text(errors="replace").strip()
    if not text.isascii() or not text.isdigit():
        raise HomeError(f"{file}: not a version number; is {home} really a home of sapo?")
    if int(text) > LAYOUT_VERSION:
        raise HomeError(
            f"{home}: written by a newer version (layout {text}, this one knows "
            f"{LAYOUT_VERSION}); upgrade sapo-swarm or choose another --home"
        )


def clear_home(home: Path) -> None:
    """An empty directory for the demo; only what an earlier demo made is removed.

    Raises:
        HomeError: the directory holds something else.
    """
    if home.exists() and any(home.iterdir()):
        if not (home / DEMO_MARK).exists():
            raise HomeError(
                f"{home} holds files that no demo made; name another directory with --home"
            )
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / DEMO_MARK).touch()


def keep_seed(home: Path, wanted: int | None) -> int:
    """The node's seed: the one it started with, else `wanted`, else a fresh random one.

    Raises:
        HomeError: `wanted` differs from the seed that the home started with.
    """
    file = home / "seed"
    if file.exists():
        kept = int(file.read_text())
        if wanted not in (None, kept):
            raise HomeError(
                f"{home}: started with seed {kept}, not {wanted}; "
                "leave --seed out or choose another --home"
            )
        return kept
    seed = secrets.randbits(62) if wanted is None else wanted
    write_durably(file, f"{seed}\n")
    return seed
