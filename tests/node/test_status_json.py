import json
import math
from pathlib import Path

import msgspec
import pytest

from node.status import RoundReport, Snapshot
from node.status_json import from_json, to_json

FILE = Path(__file__).with_name("snapshot.json")
SNAPSHOT = from_json(FILE.read_bytes(), Snapshot)


def test_a_snapshot_comes_back_as_it_was() -> None:
    assert from_json(to_json(SNAPSHOT), Snapshot) == SNAPSHOT
    assert json.loads(to_json(SNAPSHOT)) == json.loads(FILE.read_text())


def test_bytes_are_hexadecimal() -> None:
    assert SNAPSHOT.last_round is not None
    assert SNAPSHOT.last_round.foreign[0].hash == bytes.fromhex("00ff5ac3")
    assert b'"hash":"00ff5ac3"' in to_json(SNAPSHOT)


def test_a_snapshot_before_the_first_round_comes_back() -> None:
    fresh = msgspec.structs.replace(SNAPSHOT, last_round=None, heldout=(), peers=(), own_reward=())
    assert from_json(to_json(fresh), Snapshot) == fresh


def test_a_list_of_reports_comes_back() -> None:
    assert SNAPSHOT.last_round is not None
    reports = [SNAPSHOT.last_round, SNAPSHOT.last_round]
    assert from_json(to_json(reports), list[RoundReport]) == reports
    assert from_json(to_json([]), list[RoundReport]) == []


def test_a_loss_that_is_no_number_survives() -> None:
    assert SNAPSHOT.last_round is not None
    report = msgspec.structs.replace(SNAPSHOT.last_round, loss=math.nan, seconds={"drawing": 0})
    back = from_json(to_json([report]), list[RoundReport])[0]
    assert math.isnan(back.loss)
    assert back.seconds == {"drawing": 0.0}
    assert back.foreign[1].mean_logp is None


def test_a_lone_surrogate_does_not_keep_the_status_from_being_shown() -> None:
    odd = msgspec.structs.replace(SNAPSHOT, warnings=("an error: \udcff",))
    assert from_json(to_json(odd), Snapshot).warnings == ("an error: \\udcff",)


class Inner(msgspec.Struct):
    """Bytes in every place where a struct may have some."""

    plain: bytes
    many: tuple[bytes, ...] = ()
    maybe: bytes | None = None
    named: dict[str, bytes] = {}
    figure: float = math.inf


class Outer(msgspec.Struct):
    """The same deeper."""

    inner: tuple[Inner, ...]
    plain: str = ""


def test_bytes_are_hexadecimal_wherever_they_are() -> None:
    inner = Inner(b"\x01", (b"\x02",), b"\x03", {"a": b"\x04"})
    found = {"plain": "01", "many": ["02"], "maybe": "03", "named": {"a": "04"}, "figure": None}
    assert json.loads(to_json([Outer((inner, inner))])) == [{"inner": [found] * 2, "plain": ""}]


def test_a_lone_surrogate_in_a_struct_with_bytes_is_escaped_too() -> None:
    assert SNAPSHOT.last_round is not None
    odd = msgspec.structs.replace(SNAPSHOT.last_round, brake="\udcff")
    tree = json.loads(to_json([odd]))
    assert tree[0]["brake"] == "\\udcff"
    assert tree[0]["foreign"][0]["hash"] == "00ff5ac3"


def test_a_newer_node_may_say_more() -> None:
    tree = json.loads(to_json(SNAPSHOT)) | {"mood": "fine"}
    tree["learner"]["shoe_size"] = 42
    assert from_json(json.dumps(tree).encode(), Snapshot) == SNAPSHOT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        FILE.read_bytes().replace(b'"00ff5ac3"', b'"xy"'),
        FILE.read_bytes().replace(b'"00ff5ac3"', b"7"),
        FILE.read_bytes().replace(b'"round": 124', b'"round": "many"'),
    ],
)
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not as expected"):
        from_json(data, Snapshot)
