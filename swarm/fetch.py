"""A fetch as bytes: asked for by hash, bounded at both ends before anything is parsed.

A request is a msgpack list of 32-byte hashes, a reply a msgpack list of records in any order. Both
implementations of Gossip use these functions, so that they refuse the same things.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from swarm.gossip import FetchFailed
from swarm.protocol import MAX_FETCH_HASHES, MAX_ROLLOUT_BYTES
from swarm.wire import rollout_hash

MAX_REQUEST_BYTES = 64 + 34 * MAX_FETCH_HASHES
MAX_REPLY_BYTES = 4 * MAX_ROLLOUT_BYTES
"""A server leaves out what would make its reply longer; the asker may ask again for the rest."""

_Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Hashes = Annotated[list[_Hash], Meta(min_length=1, max_length=MAX_FETCH_HASHES)]
_Records = Annotated[list[bytes], Meta(max_length=MAX_FETCH_HASHES)]

_HEAD_BYTES = 5
"""At most so many does msgpack put before a list or before bytes."""

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(_Hashes).decode
_decode_reply = msgspec.msgpack.Decoder(_Records).decode


def encode_request(hashes: Sequence[bytes]) -> bytes:
    """The bytes that ask for rollouts.

    Raises:
        ValueError: not 1 to MAX_FETCH_HASHES hashes of 32 bytes.
    """
    if not 1 <= len(hashes) <= MAX_FETCH_HASHES or any(len(one) != 32 for one in hashes):
        raise ValueError(f"{len(hashes)} hashes; 1 to {MAX_FETCH_HASHES} of 32 bytes are allowed")
    return _encode(list(hashes))


def decode_request(request: bytes) -> list[bytes] | None:
    """The hashes that a peer asks for, each once; None for anything else."""
    if len(request) > MAX_REQUEST_BYTES:
        return None
    try:
        return list(dict.fromkeys(_decode_request(request)))
    except msgspec.MsgspecError:
        return None


def encode_reply(
    hashes: Sequence[bytes], found: dict[bytes, bytes], max_bytes: int = MAX_REPLY_BYTES
) -> tuple[bytes, int]:
    """The reply to a request, and how many records are in it.

    Records are taken in the order asked for; one that does not fit is left out.
    """
    records: list[bytes] = []
    left = max_bytes - _HEAD_BYTES
    for record in (found[one] for one in hashes if one in found):
        if len(record) + _HEAD_BYTES <= left:
            records.append(record)
            left -= len(record) + _HEAD_BYTES
    return _encode(records), len(records)


def decode_reply(reply: bytes, hashes: Sequence[bytes], max_bytes: int) -> dict[bytes, bytes]:
    """The records of a reply by hash: only such that were asked for.

    Not checked: what the records say (swarm/wire.py).

    Raises:
        FetchFailed: too large, malformed, or bytes of another hash.
    """
    if len(reply) > max_bytes:
        raise FetchFailed(f"a reply of {len(reply)} bytes, at most {max_bytes} wanted")
    try:
        records = _decode_reply(reply)
    except msgspec.MsgspecError:
        raise FetchFailed("a malformed reply") from None
    by_hash = {rollout_hash(record): record for record in records}
    if not by_hash.keys() <= set(hashes):
        raise FetchFailed("bytes of another hash than was asked for")
    return by_hash
