"""A node's ed25519 key, its id, and the sequence numbers that it never uses twice."""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import base58
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from swarm.disk import fsync_directory, write_durably

KEY_FILE, SEQUENCE_FILE = "identity.key", "sequence"

RESERVED_MS = 60_000
"""So many sequence numbers are reserved on disk at once: one write a minute at most rates."""

MAX_NODE_ID_CHARS = 64
"""Of a node id in base58; one of ed25519 has 52."""

_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash (00) of 36 bytes (24): protobuf of a public key, type ed25519 (0801), 32
bytes (1220). What libp2p puts in front of the key to make a peer id."""


class IdentityError(RuntimeError):
    """The key cannot be used; the message says why and what to do."""


class TwinFound(RuntimeError):
    """Another machine uses this node's key (swarm/twin.py); the message says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is: whoever holds the key is this node."""

    seed: bytes
    """32 secret bytes."""

    @property
    def node_id(self) -> str:
        """The libp2p peer id in base58, e.g. 12D3KooW..."""
        return base58.b58encode(_PREFIX + bytes(SigningKey(self.seed).verify_key)).decode()

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the ed25519 signature."""
        return SigningKey(self.seed).sign(message).signature

    def __repr__(self) -> str:
        return f"Identity({self.node_id})"


def is_signed_by(node_id: str, message: bytes, signature: bytes) -> bool:
    """Whether the signature is that of `node_id`; False for anything malformed."""
    key = _public_key(node_id)
    if key is None or len(signature) != 64:
        return False
    try:
        VerifyKey(key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def is_node_id(text: str) -> bool:
    """Whether it is the peer id of some ed25519 key, in base58."""
    key = _public_key(text) if len(text) <= MAX_NODE_ID_CHARS else None
    return key is not None and base58.b58encode(_PREFIX + key).decode() == text


def _public_key(node_id: str) -> bytes | None:
    try:
        raw = base58.b58decode(node_id)
    except ValueError:
        return None
    is_one = len(raw) == len(_PREFIX) + 32 and raw.startswith(_PREFIX)
    return raw[len(_PREFIX) :] if is_one else None


@contextmanager
def open_identity(home: Path) -> Iterator[Identity]:
    """The key in `home`, made at the first start (mode 0600), held exclusively until the end.

    Raises:
        IdentityError: another process holds the key, others may read it, or it is no key.
    """
    file = home / KEY_FILE
    with _opened(file, os.O_RDWR | os.O_CREAT) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise IdentityError(f"{file}: another process is this node; stop that one") from None
        yield Identity(_read_key(handle, file, make=True))


def load_key(file: Path, *, make: bool = False) -> Identity:
    """A key in a file that its user names, such as that of a swarm's owner; not held.

    Args:
        make: a new key (mode 0600) where the file is missing or empty.

    Raises:
        IdentityError: it cannot be opened, others may read it, or it is no key.
    """
    with _opened(file, os.O_RDWR | os.O_CREAT if make else os.O_RDONLY) as handle:
        return Identity(_read_key(handle, file, make=make))


@contextmanager
def _opened(file: Path, flags: int) -> Iterator[int]:
    try:
        handle = os.open(file, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise IdentityError(f"{file}: cannot be opened: {error.strerror}") from None
    try:
        if os.fstat(handle).st_mode & 0o077:
            raise IdentityError(f"{file}: others may read the key; run: chmod 600 {file}")
        yield handle
    finally:
        os.close(handle)


def _read_key(handle: int, file: Path, *, make: bool) -> bytes:
    text = os.read(handle, 200)
    if make and not text:  # new, or a crash before the key was written: nobody has seen it yet
        seed = secrets.token_bytes(32)
        os.write(handle, seed.hex().encode() + b"\n")
        os.fsync(handle)
        fsync_directory(file.parent)
        return seed
    try:
        seed = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise IdentityError(
            f"{file}: no key (64 hexadecimal digits); restore it from a backup, "
            "or remove it to get a new one"
        )
    return seed


class Sequences:
    """Numbers that rise over restarts: max(last + 1, Unix ms), reserved on disk before use.

    Nothing rolls them back but the loss of the file together with a clock that goes backwards.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            clock: Unix seconds.

        Raises:
            IdentityError: the file holds no number.
        """
        self._file = file
        self._clock = clock
        self._reserved = self._read()
        self._last = self._reserved

    def take(self) -> int:
        """The next number. Writes to disk (fsync) once a minute at most."""
        number = max(self._last + 1, int(self._clock() * 1000))
        if number > self._reserved:
            self._reserve(number + RESERVED_MS)
        self._last = number
        return number

    def _read(self) -> int:
        try:
            text = self._file.read_text().strip()
        except FileNotFoundError:
            return 0
        if not text.isascii() or not text.isdigit() or len(text) > 16:
            raise IdentityError(f"{self._file}: no number; remove it if the clock is right")
        return int(text)

    def _reserve(self, upto: int) -> None:
        write_durably(self._file, f"{upto}\n")
        self._reserved = upto
