"""A catalogue request as bytes: what a peer has kept, and the announcements that are missing here.

Two kinds of request, both msgpack lists; further elements of a list are ignored.

    ["list", cursor, shards] -> [next, ids]     8 bytes each, one after another, as one byte string
    ["get", ids]             -> [record, ...]   signed announcements as their authors made them

The id of an announcement is the first 8 bytes of the SHA-256 of its signed bytes. `cursor` is 0
for the newest that the peer heard, else the `next` of the reply before, a number that means
something to that peer alone; `next` is smaller than any before, and 0 where there are no more.
`shards` may be left out: at most 64 numbers, of which alone announcements are listed
(swarm/shards.py); of all where there are none. A server lists at most MAX_LISTED ids, newest first,
and leaves out of a reply what would make it longer than MAX_REPLY_BYTES: who misses records of a
"get" asks again for the rest. What it does not have (any more) it leaves out, too.

Both implementations of Gossip use these functions, so that they refuse the same things.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from swarm.database import Offload
from swarm.gossip import FetchFailed
from swarm.protocol import (
    ANNOUNCEMENT_ID_BYTES,
    MAX_ANNOUNCEMENT_BYTES,
    MAX_LISTED,
    MAX_SHARDS,
    MAX_TOLD,
)

MAX_REQUEST_BYTES = 32 + ANNOUNCEMENT_ID_BYTES * MAX_TOLD
MAX_REPLY_BYTES = 512 * 2**10
"""More than MAX_LISTED ids, and of announcements all that were asked for unless they are long."""

_HEAD_BYTES = 5
"""At most so many does msgpack put before a list or before bytes."""

_Shards = Annotated[list[Annotated[int, Meta(ge=0, lt=MAX_SHARDS)]], Meta(max_length=MAX_SHARDS)]
_Cursor = Annotated[int, Meta(ge=0, lt=2**53)]
_Ids = Annotated[
    bytes, Meta(min_length=ANNOUNCEMENT_ID_BYTES, max_length=ANNOUNCEMENT_ID_BYTES * MAX_TOLD)
]
_Listed = Annotated[bytes, Meta(max_length=ANNOUNCEMENT_ID_BYTES * MAX_LISTED)]
_Record = Annotated[bytes, Meta(max_length=MAX_ANNOUNCEMENT_BYTES)]
_Records = Annotated[list[_Record], Meta(max_length=MAX_TOLD)]


class _List(msgspec.Struct, frozen=True, array_like=True, tag="list"):
    cursor: _Cursor
    shards: _Shards = []


class _Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    ids: _Ids


class _Listing(msgspec.Struct, frozen=True, array_like=True):
    next: _Cursor
    ids: _Listed


_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(_List | _Get).decode
_decode_listing = msgspec.msgpack.Decoder(_Listing).decode
_decode_records = msgspec.msgpack.Decoder(_Records).decode


class KeepsAnnouncements(Protocol):
    """What is told from: swarm/announcements.py."""

    def newest(self, before: int, num: int, shards: Sequence[int] = ()) -> tuple[list[bytes], int]:
        """Ids, and where to go on."""
        ...

    def find(self, ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Id -> record of those that are there."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """Ids that a peer says that it has."""

    ids: list[bytes]
    next: int
    """Where to go on; 0 where there are no more."""


def announcement_id(record: bytes) -> bytes:
    """By what a signed announcement is asked for."""
    return hashlib.sha256(record).digest()[:ANNOUNCEMENT_ID_BYTES]


def encode_list(cursor: int, shards: Iterable[int] = ()) -> bytes:
    """The bytes that ask for a page of ids, of these shards where some are named."""
    return _encode(_List(cursor, sorted(shards)))


def encode_get(ids: Sequence[bytes]) -> bytes:
    """The bytes that ask for announcements.

    Raises:
        ValueError: not 1 to MAX_TOLD ids of 8 bytes.
    """
    if not 1 <= len(ids) <= MAX_TOLD or any(len(one) != ANNOUNCEMENT_ID_BYTES for one in ids):
        raise ValueError(f"{len(ids)} ids; 1 to {MAX_TOLD} of 8 bytes are allowed")
    return _encode(_Get(b"".join(ids)))


async def answer(
    request: bytes, kept: KeepsAnnouncements, offload: Offload
) -> tuple[bytes, int] | None:
    """The reply to a request, and how many announcements are in it; None if it is malformed."""
    if len(request) > MAX_REQUEST_BYTES:
        return None
    try:
        asked = _decode_request(request)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if isinstance(asked, _List):
        listed, position = await offload(kept.newest, asked.cursor, MAX_LISTED, asked.shards)
        return _encode(_Listing(position, b"".join(listed))), 0
    if len(asked.ids) % ANNOUNCEMENT_ID_BYTES:
        return None
    ids = list(dict.fromkeys(_split(asked.ids)))
    found = await offload(kept.find, ids)
    records: list[bytes] = []
    left = MAX_REPLY_BYTES - _HEAD_BYTES
    for record in (found[one] for one in ids if one in found):
        left -= len(record) + _HEAD_BYTES
        if left < 0:
            break
        records.append(record)
    return _encode(records), len(records)


def decode_listing(reply: bytes, cursor: int) -> Page:
    """The page of a reply to a list with this cursor.

    Not checked: whether the peer has what it lists.

    Raises:
        FetchFailed: too large, malformed, or pages that would never end.
    """
    _check_size(reply)
    try:
        listing = _decode_listing(reply)
    except msgspec.MsgspecError:
        raise FetchFailed("a malformed catalogue") from None
    ids = _split(listing.ids)
    if len(listing.ids) % ANNOUNCEMENT_ID_BYTES or len(set(ids)) < len(ids):
        raise FetchFailed("a malformed catalogue")
    if listing.next and (not ids or (cursor and listing.next >= cursor)):
        raise FetchFailed("a catalogue without end")
    return Page(ids, listing.next)


def decode_records(reply: bytes, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """The announcements of a reply to a get by id, in the order in which they were asked for.

    Not checked: what the records say (swarm/wire.py).

    Raises:
        FetchFailed: too large, malformed, or something that was not asked for.
    """
    _check_size(reply)
    try:
        records = _decode_records(reply)
    except msgspec.MsgspecError:
        raise FetchFailed("a malformed reply") from None
    by_id = {announcement_id(record): record for record in records}
    if not by_id.keys() <= set(ids) or len(by_id) < len(records):
        raise FetchFailed("announcements that were not asked for")
    return {one: by_id[one] for one in ids if one in by_id}


def _check_size(reply: bytes) -> None:
    if len(reply) > MAX_REPLY_BYTES:
        raise FetchFailed(f"a reply of {len(reply)} bytes, at most {MAX_REPLY_BYTES} wanted")


def _split(ids: bytes) -> list[bytes]:
    step = ANNOUNCEMENT_ID_BYTES
    return [ids[start : start + step] for start in range(0, len(ids), step)]
