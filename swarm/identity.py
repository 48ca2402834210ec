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

_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash (00) of 36 bytes (24): protobuf of a public key, type ed25519 (0801), 32
bytes (1220). What libp2p puts in front of the key to make a peer id."""


class IdentityError(RuntimeError):
    """The key cannot be used; the message says why and what to do."""


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
    try:
        raw = base58.b58decode(node_id)
    except ValueError:
        return False
    if len(raw) != len(_PREFIX) + 32 or not raw.startswith(_PREFIX) or len(signature) != 64:
        return False
    try:
        VerifyKey(raw[len(_PREFIX) :]).verify(message, signature)
    except BadSignatureError:
        return False
    return True


@contextmanager
def open_identity(home: Path) -> Iterator[Identity]:
    """The key in `home`, made at the first start (mode 0600), held exclusively until the end.

    Raises:
        IdentityError: another process holds the key, others may read it, or it is no key.
    """
    file = home / KEY_FILE
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise IdentityError(f"{file}: cannot be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise IdentityError(f"{file}: another process is this node; stop that one") from None
        if os.fstat(handle).st_mode & 0o077:
            raise IdentityError(f"{file}: others may read the key; run: chmod 600 {file}")
        yield Identity(_read_or_make(handle, file))
    finally:
        os.close(handle)


def _read_or_make(handle: int, file: Path) -> bytes:
    text = os.read(handle, 200)
    if not text:  # new, or a crash before the key was written: nobody has seen it yet
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
            "or remove it to become a new node"
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
