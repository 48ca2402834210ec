from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewards.question import Answer, Question
from swarm.identity import Identity
from swarm.protocol import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_ANSWERS,
    MAX_ENTRIES,
    MAX_ROLLOUT_BYTES,
    MAX_SEQUENCE,
)
from swarm.rollout import Announcement, Entry, Rollout
from swarm.wire import (
    ANNOUNCEMENT_MAGIC,
    ROLLOUT_MAGIC,
    SEAL_BYTES,
    WireError,
    WireProblem,
    open_announcement,
    open_rollout,
    rollout_hash,
    seal,
)

ME = Identity(bytes(31) + b"\x01")
SWARM_ID = "5" * 64
ROLLOUT = Rollout(
    SWARM_ID,
    ME.node_id,
    1_800_000_000_000,
    Question("sums", 7),
    (Answer("7", True, 2, -0.5), Answer("\x1b<|im_end|>\x00é", False)),
    "model",
    3,
    1.8e9,
)
ENTRY = Entry(bytes(32), Question("sums", 7), 500, (True, False), 3)
ANNOUNCEMENT = Announcement(SWARM_ID, ME.node_id, 5, 4, 1.8e9, (ENTRY,))
encode = msgspec.msgpack.encode


def signed(magic: bytes, payload: bytes) -> bytes:
    return magic + ME.sign(magic + payload) + payload


def tree(message: Rollout | Announcement) -> dict[str, Any]:
    return msgspec.msgpack.decode(encode(message))


def problem_of(open_record: Callable[[bytes], object], record: bytes) -> WireProblem | None:
    try:
        open_record(record)
    except WireError as error:
        assert error.detail.isascii() and len(error.detail) <= 200
        return error.problem
    return None


def test_what_is_sealed_can_be_opened() -> None:
    assert open_rollout(seal(ROLLOUT, ME)) == ROLLOUT
    assert open_announcement(seal(ANNOUNCEMENT, ME)) == ANNOUNCEMENT
    assert len(rollout_hash(seal(ROLLOUT, ME))) == 32


def test_a_record_has_the_bytes_that_are_documented() -> None:
    record = seal(ROLLOUT, ME)
    assert record[:16] == b"sapo-rollout-1\n\0" and seal(ANNOUNCEMENT, ME)[:16] == (
        b"sapo-announce-1\n"
    )
    assert record[16:80] == ME.sign(record[:16] + record[80:])
    assert tree(ROLLOUT) == msgspec.msgpack.decode(record[80:])
    assert rollout_hash(record) != rollout_hash(
        seal(msgspec.structs.replace(ROLLOUT, model=""), ME)
    )


def test_only_the_author_can_seal() -> None:
    with pytest.raises(ValueError, match="the key is of"):
        seal(ROLLOUT, Identity(bytes(32)))


def test_what_would_be_refused_as_too_large_cannot_be_sealed() -> None:
    answers = (Answer("x" * (MAX_ROLLOUT_BYTES // 2), True),) * 2
    with pytest.raises(ValueError, match="a record of"):
        seal(msgspec.structs.replace(ROLLOUT, answers=answers), ME)


def test_the_largest_announcement_has_room() -> None:
    question = Question("q" * 64, 2**53 - 1)
    entry = Entry(b"\xff" * 32, question, MAX_ROLLOUT_BYTES, (True,) * MAX_ANSWERS, 2**40 - 1)
    full = Announcement(
        SWARM_ID, ME.node_id, MAX_SEQUENCE - 1, MAX_SEQUENCE - 1, 2e9, (entry,) * MAX_ENTRIES
    )
    record = seal(full, ME)
    assert len(record) <= MAX_ANNOUNCEMENT_BYTES
    assert open_announcement(record) == full


@pytest.mark.parametrize("at", [0, 15, 16, 79, 80, 120, -1])
def test_no_byte_can_be_changed(at: int) -> None:
    for message, open_record in ((ROLLOUT, open_rollout), (ANNOUNCEMENT, open_announcement)):
        record = bytearray(seal(message, ME))
        record[at] ^= 1
        assert problem_of(open_record, bytes(record)) in {
            WireProblem.MALFORMED,
            WireProblem.BAD_SIGNATURE,
        }


def test_one_kind_is_not_taken_for_the_other() -> None:
    assert problem_of(open_rollout, seal(ANNOUNCEMENT, ME)) is WireProblem.MALFORMED
    assert problem_of(open_announcement, seal(ROLLOUT, ME)) is WireProblem.MALFORMED
    payload = seal(ROLLOUT, ME)[SEAL_BYTES:]
    moved = ROLLOUT_MAGIC + ME.sign(ANNOUNCEMENT_MAGIC + payload) + payload
    assert problem_of(open_rollout, moved) is WireProblem.BAD_SIGNATURE


def test_size_is_checked_first() -> None:
    assert problem_of(open_rollout, bytes(MAX_ROLLOUT_BYTES + 1)) is WireProblem.TOO_LARGE
    assert problem_of(open_announcement, bytes(MAX_ANNOUNCEMENT_BYTES + 1)) is WireProblem.TOO_LARGE
    assert problem_of(open_rollout, bytes(MAX_ROLLOUT_BYTES)) is WireProblem.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"swarm_id": "5" * 63},
        {"swarm_id": "G" * 64},
        {"author": "x"},
        {"author": 5},
        {"sequence": 0},
        {"sequence": MAX_SEQUENCE},
        {"sequence": 1.5},
        {"sequence": "5"},
        {"question": {"task": "", "index": 1}},
        {"question": {"task": "t" * 65, "index": 1}},
        {"question": {"task": "t", "index": -1}},
        {"question": {"task": "t", "index": 2**53}},
        {"question": None},
        {"created": float("nan")},
        {"created": float("inf")},
        {"created": -1.0},
    ],
    ids=str,
)
def test_a_field_out_of_range_is_malformed(change: dict[str, Any]) -> None:
    changed = {**tree(ROLLOUT), **change}
    record = signed(ROLLOUT_MAGIC, encode(changed))
    assert problem_of(open_rollout, record) is WireProblem.MALFORMED
    changed = {**tree(ANNOUNCEMENT), **change}
    if "question" in change:
        entry = {**tree(ANNOUNCEMENT)["entries"][0], **change}
        changed = {**tree(ANNOUNCEMENT), "entries": [entry]}
    record = signed(ANNOUNCEMENT_MAGIC, encode(changed))
    assert problem_of(open_announcement, record) is WireProblem.MALFORMED


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [{"text": "a", "finished": True}],
        [{"text": "a", "finished": True}] * (MAX_ANSWERS + 1),
        [{"text": "a", "finished": 1}] * 2,
        [{"text": b"a", "finished": True}] * 2,
        [{"text": "a", "finished": True, "num_tokens": -1}] * 2,
        [{"text": "a", "finished": True, "num_tokens": 2**31}] * 2,
        [{"text": "a", "finished": True, "mean_logp": 0.5}] * 2,
        [{"text": "a", "finished": True, "mean_logp": float("nan")}] * 2,
        [{"text": "a", "finished": True, "mean_logp": float("-inf")}] * 2,
    ],
)
def test_answers_out_of_range_are_malformed(answers: list[Any]) -> None:
    record = signed(ROLLOUT_MAGIC, encode({**tree(ROLLOUT), "answers": answers}))
    assert problem_of(open_rollout, record) is WireProblem.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"hash": bytes(31)},
        {"hash": bytes(33)},
        {"num_bytes": 0},
        {"num_bytes": MAX_ROLLOUT_BYTES + 1},
        {"correct": [True]},
        {"correct": [True] * (MAX_ANSWERS + 1)},
        {"correct": [1, 0]},
        {"policy_round": -1},
    ],
    ids=str,
)
def test_entries_out_of_range_are_malformed(change: dict[str, Any]) -> None:
    entry = {**tree(ANNOUNCEMENT)["entries"][0], **change}
    for entries in ([entry], [], [tree(ANNOUNCEMENT)["entries"][0]] * (MAX_ENTRIES + 1)):
        record = signed(ANNOUNCEMENT_MAGIC, encode({**tree(ANNOUNCEMENT), "entries": entries}))
        assert problem_of(open_announcement, record) is WireProblem.MALFORMED


def test_text_without_utf8_is_malformed() -> None:
    payload = seal(ROLLOUT, ME)[SEAL_BYTES:].replace(
        b"\xa5model\xa5model", b"\xa5model\xa5mod\xff\xff"
    )
    assert problem_of(open_rollout, signed(ROLLOUT_MAGIC, payload)) is WireProblem.MALFORMED


def test_unknown_fields_are_ignored_and_kept() -> None:
    record = signed(ROLLOUT_MAGIC, encode({**tree(ROLLOUT), "later": [1, {"a": None}]}))
    assert open_rollout(record) == ROLLOUT
    assert rollout_hash(record) != rollout_hash(seal(ROLLOUT, ME))


def nested(depth: int, opening: bytes, end: bytes = b"\xc0") -> bytes:
    """A msgpack value inside of `depth` others."""
    return opening * depth + end


BOMBS = [
    nested(5000, b"\x91"),
    nested(5000, b"\x81\xa1a"),
    nested(1_000_000, b"\x91"),
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
]


@pytest.mark.parametrize("number", range(len(BOMBS)))
@pytest.mark.parametrize("place", ["alone", "unknown", "model"])
def test_bombs_are_malformed(number: int, place: str) -> None:
    """Deep nesting and lengths that are not there; also in a field that nobody knows."""
    bomb = BOMBS[number]
    fields = encode(tree(ROLLOUT))
    payload = {
        "alone": bomb,
        "unknown": bytes([fields[0] + 1]) + fields[1:] + b"\xa5later" + bomb,
        "model": fields.replace(b"\xa5model\xa5model", b"\xa5model" + bomb),
    }[place]
    record = signed(ROLLOUT_MAGIC, payload)
    assert problem_of(open_rollout, record) in {WireProblem.MALFORMED, WireProblem.TOO_LARGE}
    record = signed(ANNOUNCEMENT_MAGIC, payload)
    assert problem_of(open_announcement, record) is not None


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=15,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        name: plain for name in (*Rollout.__struct_fields__, *Announcement.__struct_fields__)
    },
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.sampled_from([b"", ROLLOUT_MAGIC, ANNOUNCEMENT_MAGIC]))
@example(b"", b"")
def test_any_bytes_are_a_record_or_a_wire_error(content: bytes, magic: bytes) -> None:
    for open_record in (open_rollout, open_announcement):
        assert problem_of(open_record, magic + content) is not None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(fields, st.binary(max_size=5))
def test_any_signed_tree_is_a_record_or_a_wire_error(changes: dict[str, Any], rest: bytes) -> None:
    for message, magic, open_record in (
        (ROLLOUT, ROLLOUT_MAGIC, open_rollout),
        (ANNOUNCEMENT, ANNOUNCEMENT_MAGIC, open_announcement),
    ):
        record = signed(magic, encode({**tree(message), **changes}) + rest)
        problem = problem_of(open_record, record)
        assert problem is None or problem in WireProblem


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_record_is_a_wire_error(data: st.DataObject) -> None:
    for message, open_record in ((ROLLOUT, open_rollout), (ANNOUNCEMENT, open_announcement)):
        record = bytearray(seal(message, ME))
        start = data.draw(st.integers(0, len(record) - 1))
        damage = data.draw(st.binary(min_size=1, max_size=8))
        damaged = bytes(record[:start]) + damage + bytes(record[start + len(damage) :])
        if damaged != bytes(record):
            assert problem_of(open_record, damaged) is not None
        assert problem_of(open_record, bytes(record[:start])) is not None


answers = st.builds(
    Answer,
    st.text(max_size=40),
    st.booleans(),
    st.integers(0, 2**31 - 1),
    st.none() | st.floats(-1000, 0),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(answers, min_size=2, max_size=8),
    st.text(max_size=200),
    st.integers(1, MAX_SEQUENCE - 1),
    st.integers(0, 2**53 - 1),
)
def test_any_honest_rollout_comes_back_as_it_was(
    answers: list[Answer], model: str, sequence: int, index: int
) -> None:
    rollout = msgspec.structs.replace(
        ROLLOUT,
        answers=tuple(answers),
        model=model,
        sequence=sequence,
        question=Question("sums", index),
    )
    assert open_rollout(seal(rollout, ME)) == rollout
