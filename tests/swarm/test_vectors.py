"""The test vectors are what this implementation makes, and it refuses what they say."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from swarm.admission import Admission, Refused
from swarm.gossip import Received
from swarm.identity import is_signed_by
from swarm.judge import ScriptedJudge
from swarm.manifest import load_manifest
from swarm.wire import WireError, open_announcement, open_rollout, rollout_hash

HERE = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((HERE / "vectors.json").read_text())
REFUSED = VECTORS["refused"]


def load_make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", HERE / "make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(cases: list[dict[str, str]]) -> list[str]:
    return [case["name"] for case in cases]


def test_the_file_is_what_this_implementation_makes() -> None:
    assert load_make().text() == (HERE / "vectors.json").read_text()


def test_identities_verify() -> None:
    for one in VECTORS["identity"]:
        message, signature = bytes.fromhex(one["message"]), bytes.fromhex(one["signature"])
        assert is_signed_by(one["node_id"], message, signature)
        assert not is_signed_by(one["node_id"], message + b"!", signature)


def test_signed_manifests_verify() -> None:
    for one in VECTORS["signed_manifests"]:
        message, signature = bytes.fromhex(one["signed_bytes"]), bytes.fromhex(one["signature"])
        assert is_signed_by(one["owner"], message, signature)
        assert one["swarm_id"] in message.decode() and one["owner"] in one["canonical_rules"]


def hear(record: bytes) -> object:
    manifest = load_manifest(HERE / VECTORS["manifest"]["file"])
    now: float = VECTORS["now"]

    async def find_known(*_: object) -> None:
        return None

    admission = Admission(
        manifest.swarm_id,
        VECTORS["identity"][1]["node_id"],
        manifest.rules,
        ScriptedJudge(),
        find_known,
        lambda entry: True,
        lambda: now,
    )
    return admission.hear(Received(record, "carrier"))


@pytest.mark.parametrize("case", REFUSED["announcements"], ids=names(REFUSED["announcements"]))
def test_what_must_be_refused_of_announcements_is(case: dict[str, str]) -> None:
    heard = hear(bytes.fromhex(case["record"]))
    assert isinstance(heard, Refused)
    assert heard.reason == case["refusal"]


@pytest.mark.parametrize("case", REFUSED["rollouts"], ids=names(REFUSED["rollouts"]))
def test_what_must_be_refused_of_rollouts_is(case: dict[str, str]) -> None:
    with pytest.raises(WireError) as raised:
        open_rollout(bytes.fromhex(case["record"]))
    assert f"rollout_{raised.value.problem}" == case["refusal"]


def test_records_are_taken_with_fields_that_nobody_knows_and_in_any_order() -> None:
    announcement, rollout = VECTORS["announcement"], VECTORS["rollout"]
    plain = open_announcement(bytes.fromhex(announcement["record"]))
    assert open_announcement(bytes.fromhex(announcement["with_unknown_field"])) == plain
    assert hear(bytes.fromhex(announcement["with_unknown_field"])) == plain
    record = bytes.fromhex(rollout["record"])
    assert rollout_hash(record).hex() == rollout["hash"] == plain.entries[0].hash.hex()
    for name in ("with_unknown_field", "reordered"):
        assert open_rollout(bytes.fromhex(rollout[name])) == open_rollout(record)
