"""Signed bytes and back: size and shape are checked before anything is believed.

A record is `magic (16 bytes) + signature (64) + payload (msgpack)`. The magic names kind and
version; magic and payload are what is signed. A record is checked exactly as it was received and
never encoded again: what it hashes to today, it hashes to everywhere. Unknown fields are ignored
when it is read and kept when it is passed on.
"""

import hashlib
import math
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import msgspec

from rewards.question import Answer
from rewards.worker import escape
from swarm.identity import Identity, is_signed_by
from swarm.protocol import MAX_ANNOUNCEMENT_BYTES, MAX_ROLLOUT_BYTES
from swarm.rollout import Announcement, Rollout, is_address

_MAGIC_BYTES, _SIGNATURE_BYTES = 16, 64
SEAL_BYTES = _MAGIC_BYTES + _SIGNATURE_BYTES
ROLLOUT_MAGIC = b"sapo-rollout-1\n\0"
ANNOUNCEMENT_MAGIC = b"sapo-announce-1\n"

_Record = TypeVar("_Record", Rollout, Announcement)

_encode = msgspec.msgpack.Encoder().encode
_decode_rollout = msgspec.msgpack.Decoder(Rollout).decode
_decode_announcement = msgspec.msgpack.Decoder(Announcement).decode


class WireProblem(StrEnum):
    """Why bytes are no record, in the order of the checks."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"


class WireError(ValueError):
    """The bytes are no record of the kind that was asked for."""

    def __init__(self, problem: WireProblem, detail: str = "") -> None:
        super().__init__(problem, detail)
        self.problem = problem
        self.detail = detail


def rollout_hash(record: bytes) -> bytes:
    """What a signed rollout is fetched by: the 32 bytes of its SHA-256."""
    return hashlib.sha256(record).digest()


def seal(message: Rollout | Announcement, identity: Identity) -> bytes:
    """The signed bytes of an own message.

    Raises:
        ValueError: the author is somebody else, or the record would be refused as too large.
    """
    if message.author != identity.node_id:
        raise ValueError(f"the author is {message.author}, the key is of {identity.node_id}")
    is_rollout = isinstance(message, Rollout)
    magic = ROLLOUT_MAGIC if is_rollout else ANNOUNCEMENT_MAGIC
    payload = _encode(message)
    record = magic + identity.sign(magic + payload) + payload
    if len(record) > (MAX_ROLLOUT_BYTES if is_rollout else MAX_ANNOUNCEMENT_BYTES):
        raise ValueError(f"a record of {len(record)} bytes")
    return record


def open_rollout(record: bytes) -> Rollout:
    """The rollout in signed bytes, its author's signature verified.

    Not checked: swarm, task, age, and every claim in it (swarm/admission.py).

    Raises:
        WireError: with the first problem found.
    """
    payload = _payload(record, ROLLOUT_MAGIC, MAX_ROLLOUT_BYTES)
    rollout = _decode(payload, _decode_rollout)
    if not (is_address(rollout.question) and math.isfinite(rollout.created)):
        raise WireError(WireProblem.MALFORMED, "question or time out of range")
    if not all(_is_in_range(answer) for answer in rollout.answers):
        raise WireError(WireProblem.MALFORMED, "a number of an answer is out of range")
    return _verified(rollout, record, payload)


def open_announcement(record: bytes) -> Announcement:
    """The announcement in signed bytes, its author's signature verified.

    Not checked: swarm, sequence, age, and whether the rollouts are the author's.

    Raises:
        WireError: with the first problem found.
    """
    payload = _payload(record, ANNOUNCEMENT_MAGIC, MAX_ANNOUNCEMENT_BYTES)
    announcement = _decode(payload, _decode_announcement)
    questions = [entry.question for entry in announcement.entries]
    if not (all(map(is_address, questions)) and math.isfinite(announcement.created)):
        raise WireError(WireProblem.MALFORMED, "a question or the time is out of range")
    return _verified(announcement, record, payload)


class _Signed(msgspec.Struct):
    author: str


_decode_author = msgspec.msgpack.Decoder(_Signed).decode


def claimed_author(record: bytes) -> str:
    """Whom an announcement names as its author, unverified; empty where it names nobody."""
    try:
        return _decode_author(_payload(record, ANNOUNCEMENT_MAGIC, MAX_ANNOUNCEMENT_BYTES)).author
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, WireError):
        return ""


def _payload(record: bytes, magic: bytes, max_bytes: int) -> bytes:
    if len(record) > max_bytes:
        raise WireError(WireProblem.TOO_LARGE, f"{len(record)} bytes, at most {max_bytes}")
    if len(record) <= SEAL_BYTES or record[:_MAGIC_BYTES] != magic:
        raise WireError(WireProblem.MALFORMED, "another kind or version")
    return record[SEAL_BYTES:]


def _decode(payload: bytes, decode: Callable[[bytes], _Record]) -> _Record:
    try:
        return decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(WireProblem.MALFORMED, escape(str(error))) from None


def _is_in_range(answer: Answer) -> bool:
    """The claims of an answer as numbers that can be reckoned with; not whether they are true."""
    logp = answer.mean_logp
    return 0 <= answer.num_tokens < 2**31 and (logp is None or -1e6 < logp <= 0)


def _verified(message: _Record, record: bytes, payload: bytes) -> _Record:
    signature = record[_MAGIC_BYTES:SEAL_BYTES]
    if not is_signed_by(message.author, record[:_MAGIC_BYTES] + payload, signature):
        raise WireError(WireProblem.BAD_SIGNATURE)
    return message
