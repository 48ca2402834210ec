"""The bytes of catalogue requests: what is read, what is refused, what does not fit."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from trio.testing import trio_test

from swarm.catalogue import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    Page,
    announcement_id,
    answer,
    decode_listing,
    decode_records,
    encode_get,
    encode_list,
)
from swarm.gossip import FetchFailed
from swarm.protocol import MAX_ANNOUNCEMENT_BYTES, MAX_LISTED, MAX_TOLD

pack = msgspec.msgpack.encode


async def inline(call: Any, /, *args: Any) -> Any:
    return call(*args)


class Kept:
    """Records in the order in which they came."""

    def __init__(self, records: Iterable[bytes]) -> None:
        self.records = {announcement_id(record): record for record in records}

    def newest(self, before: int, num: int, shards: Sequence[int] = ()) -> tuple[list[bytes], int]:
        ids = list(self.records)
        end = before or len(ids)
        start = max(0, end - num)
        return ids[start:end][::-1], start

    def find(self, ids: Iterable[bytes]) -> dict[bytes, bytes]:
        return {one: self.records[one] for one in ids if one in self.records}


def records(num: int, num_bytes: int = 600) -> list[bytes]:
    return [number.to_bytes(4) * (num_bytes // 4) for number in range(num)]


async def reply_to(request: bytes, kept: Kept) -> bytes:
    answered = await answer(request, kept, inline)
    assert answered is not None
    assert len(answered[0]) <= MAX_REPLY_BYTES
    return answered[0]


@trio_test
async def test_pages_and_records_are_read_as_they_were_written() -> None:
    made = records(MAX_LISTED + 10)
    kept, ids = Kept(made), [announcement_id(one) for one in reversed(made)]
    first = decode_listing(await reply_to(encode_list(0), kept), 0)
    assert first == Page(ids[:MAX_LISTED], 10)
    second = decode_listing(await reply_to(encode_list(first.next), kept), first.next)
    assert second == Page(ids[MAX_LISTED:], 0)
    asked = [*ids[:3], b"unknown!"]
    reply = await answer(encode_get(asked), kept, inline)
    assert reply is not None and reply[1] == 3
    assert decode_records(reply[0], asked) == dict(zip(ids[:3], made[:-4:-1], strict=True))


@trio_test
async def test_the_largest_request_and_reply_are_within_their_bounds() -> None:
    kept = Kept(records(MAX_TOLD, MAX_ANNOUNCEMENT_BYTES))
    request = encode_get(list(kept.records))
    assert len(request) <= MAX_REQUEST_BYTES
    found = decode_records(await reply_to(request, kept), list(kept.records))
    assert 60 < len(found) < MAX_TOLD, "as many as fit"
    assert list(found) == list(kept.records)[: len(found)]


@trio_test
async def test_further_elements_are_ignored() -> None:
    kept = Kept(records(2))
    (first, second), (new, newer) = kept.records, records(2)
    assert await answer(pack(["list", 0, [], "later"]), kept, inline) is not None
    assert await answer(pack(["get", first, {}]), kept, inline) == (pack([new]), 1)
    assert decode_listing(pack([0, second + first, 7]), 0) == Page([second, first], 0)
    assert newer in kept.records.values()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 4000,
        pack([]),
        pack(["list"]),
        pack(["list", -1]),
        pack(["list", 2**53]),
        pack(["list", "0"]),
        pack(["get"]),
        pack(["get", b""]),
        pack(["get", bytes(9)]),
        pack(["get", bytes(8 * MAX_TOLD + 8)]),
        pack(["get", [bytes(8)]]),
        pack(["put", bytes(8)]),
        pack([b"\xff", 0]),
        pack({"list": 0}),
        pack(["list", 0]) + b"\x00",
        pack(["list", 0, bytes(MAX_REQUEST_BYTES)]),
    ],
)
@trio_test
async def test_a_malformed_request_is_refused(request_bytes: bytes) -> None:
    assert await answer(request_bytes, Kept([]), inline) is None


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        pack([0]),
        pack([-1, b""]),
        pack([0, bytes(9)]),
        pack([0, bytes(16)]),
        pack([0, [bytes(8)]]),
        pack([0, b"".join(number.to_bytes(8) for number in range(MAX_LISTED + 1))]),
        pack([0, b"", bytes(MAX_REPLY_BYTES)]),
        pack([5, b""]),
        pack([7, bytes(8)]),
        pack([8, bytes(8)]),
    ],
)
def test_a_wrong_page_fails(reply: bytes) -> None:
    with pytest.raises(FetchFailed):
        decode_listing(reply, 7)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        pack([1]),
        pack([b"another"]),
        pack([b"record", b"another"]),
        pack([b"record", b"record"]),
        pack([bytes(MAX_ANNOUNCEMENT_BYTES + 1)]),
        pack([b"record"]) + bytes(MAX_REPLY_BYTES),
    ],
)
def test_wrong_records_fail(reply: bytes) -> None:
    asked = [announcement_id(one) for one in (b"record", bytes(MAX_ANNOUNCEMENT_BYTES + 1))]
    with pytest.raises(FetchFailed):
        decode_records(reply, asked)
    assert decode_records(pack([b"record"]), asked) == {asked[0]: b"record"}


@pytest.mark.parametrize("ids", [[], [bytes(8)] * (MAX_TOLD + 1), [bytes(7)]])
def test_a_wrong_question_is_our_own_error(ids: list[bytes]) -> None:
    with pytest.raises(ValueError, match="ids"):
        encode_get(ids)


@trio_test
async def test_only_the_shards_that_are_named_are_listed() -> None:
    class OfShards(Kept):
        asked: Sequence[int] = ()

        def newest(
            self, before: int, num: int, shards: Sequence[int] = ()
        ) -> tuple[list[bytes], int]:
            self.asked = shards
            return super().newest(before, num)

    kept = OfShards(records(3))
    for shards, asked in (((), []), ({5, 1}, [1, 5]), (range(64), list(range(64)))):
        await reply_to(encode_list(0, shards), kept)
        assert kept.asked == asked
    await reply_to(msgspec.msgpack.encode(["list", 0]), kept)
    assert kept.asked == [], "who names none is told of all"
    for wrong in ([64], [-1], [0] * 65, 3, ["a"]):
        assert await answer(msgspec.msgpack.encode(["list", 0, wrong]), kept, inline) is None
