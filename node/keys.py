"""A node's key as a file that its owner carries elsewhere: shown, exported, imported.

Whoever has the key is the node: peers take two machines with one key for one liar, and both stop
(swarm/twin.py). So an export is a backup or a move, never a copy that runs. Files are 0600 and
never overwritten. Not covered: encryption of the exported file; keep it where you keep passwords.
"""

import os
from pathlib import Path

from node.home import HomeError, open_home
from swarm.disk import fsync_directory
from swarm.identity import KEY_FILE, load_key

TWO_MACHINES = (
    "never let two machines run with one key: peers take them for one liar, and both stop. "
    "Stop this node for good before another one starts with it"
)


def node_id_of(home: Path) -> str:
    """The id of the node in `home`, which may be running.

    Raises:
        IdentityError: there is no key, or others may read it.
    """
    return load_key(home / KEY_FILE).node_id


def export_key(home: Path, file: Path) -> str:
    """Writes the key to a new file of mode 0600. Returns the node's id.

    Raises:
        IdentityError: there is no key.
        HomeError: the file exists, or cannot be written.
    """
    identity = load_key(home / KEY_FILE)
    _write_new(file, identity.seed)
    return identity.node_id


def import_key(home: Path, file: Path) -> str:
    """Makes the key in `file` that of a home that has none. Returns the node's id.

    Raises:
        IdentityError: the file is no key, or others may read it.
        HomeError: the home has a key already, or is in use.
    """
    identity = load_key(file)
    with open_home(home):
        _write_new(home / KEY_FILE, identity.seed)
    return identity.node_id


def _write_new(file: Path, seed: bytes) -> None:
    """Whole or not at all: a crash leaves no half of a key under the name."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, seed.hex().encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        os.link(aside, file)
        fsync_directory(file.absolute().parent)
    except FileExistsError:
        raise HomeError(f"{file} exists; a key is never overwritten: move it away first") from None
    except OSError as error:
        raise HomeError(f"{file}: cannot be written: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
