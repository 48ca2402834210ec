"""Makes vectors.json, the bytes by which another implementation checks itself (docs/PROTOCOL.md).

    python tests/vectors/make.py        writes the file again

tests/swarm/test_vectors.py fails when what this makes is not what is in the file: a change of the
file is a change of the protocol. All bytes are hexadecimal, all times Unix seconds.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio
from nacl.signing import SigningKey

from rewards.question import Answer, Question, is_held_out, normalise
from swarm.catalogue import announcement_id, answer, encode_get, encode_list
from swarm.fetch import encode_reply, encode_request
from swarm.identity import Identity
from swarm.manifest import About, Bootstrap, Manifest, load_manifest
from swarm.refusal import Refusal
from swarm.rollout import Announcement, Entry, Rollout
from swarm.shards import shard_of
from swarm.wire import ANNOUNCEMENT_MAGIC, ROLLOUT_MAGIC, rollout_hash, seal

HERE = Path(__file__).parent
FILE = HERE / "vectors.json"
MANIFEST = HERE / "swarm.toml"

NOW = 1_800_000_000.0
"""When the records are received."""
AUTHOR, SOMEBODY = (Identity(hashlib.sha256(name).digest()) for name in (b"author", b"somebody"))
FLOATS = (0.5, 1.0, -0.0, 0.1, 1e-5, 1e-7, 123456.789, 1e15, 1e16, 1.5e300)
TEXTS = ("  What is\t3 + 4?\n", "WHAT IS 3 + 4?", "Straße", "Who is 21?", "Who is 22?")
SHARDS = ((NOW, 4), (NOW + 86_400, 4), (NOW, 64), (NOW, 1))
GENERATED = (f"Say {number}." for number in range(40))

SIGNED = (
    (About("test"), Bootstrap(), 1),
    (About('é"\\', "two\nlines\x7f"), Bootstrap(("/ip4/203.0.113.7/tcp/1/p2p/12D3",) * 2), 2**53),
)
"""[about], [bootstrap], version."""

_encode = msgspec.msgpack.Encoder().encode
Tree = dict[str, Any]


def make() -> Tree:
    """All vectors, as they are written."""
    manifest = load_manifest(MANIFEST)
    return {
        "now": NOW,
        "identity": [_identity(one) for one in (AUTHOR, SOMEBODY)],
        "canonical_json": {
            "floats": [[repr(one), msgspec.json.encode(one).decode()] for one in FLOATS],
            "text": msgspec.json.encode(
                {"b": 'é"\\\n\0/', "a": [True, 1]}, order="sorted"
            ).decode(),
        },
        "manifest": {
            "file": MANIFEST.name,
            "canonical_rules": manifest.canonical_rules.decode(),
            "swarm_id": manifest.swarm_id,
        },
        "signed_manifests": [_signed_manifest(*one) for one in SIGNED],
        "held_out": [_held_out(text) for text in (*TEXTS, *GENERATED)],
        "shards": [_shard(*one) for one in SHARDS],
        "rollout": _rollout(),
        "announcement": _announcement(),
        "fetch": _fetch(),
        "catalogue": trio.run(_catalogue),
        "refused": {
            "announcements": [_case(*one) for one in _refused_announcements()],
            "rollouts": [_case(*one) for one in _refused_rollouts()],
        },
    }


def text() -> str:
    """What stands in the file."""
    return json.dumps(make(), indent=1, ensure_ascii=False) + "\n"


def swarm_id() -> str:
    """Of the swarm that all records are of."""
    return load_manifest(MANIFEST).swarm_id


ANSWERS = (
    Answer("3 + 4 is 7\n7", True, 9, -0.25),
    Answer("8", False, 1, None),
    Answer("é\x1b[31m<|im_end|>\0", True, 0, 0.0),
)


def rollout() -> Rollout:
    """Three answers, one of them made of characters that want care."""
    return Rollout(
        swarm_id(),
        AUTHOR.node_id,
        1_799_999_990_000,
        Question("chain_sum", 2**53 - 1),
        ANSWERS,
        "model",
        12,
        NOW - 10,
    )


def announcement() -> Announcement:
    """Of that rollout, and of one more that nobody has."""
    record = seal(rollout(), AUTHOR)
    return Announcement(
        swarm_id(),
        AUTHOR.node_id,
        1_799_999_990_000,
        1_799_999_000_000,
        NOW - 10,
        (
            Entry(rollout_hash(record), rollout().question, len(record), (True, False, False), 12),
            Entry(bytes(range(32)), Question("fraction", 5), 400, (True, True), 12),
        ),
    )


def _identity(identity: Identity) -> Tree:
    message = b"message"
    return {
        "seed": identity.seed.hex(),
        "public_key": bytes(SigningKey(identity.seed).verify_key).hex(),
        "node_id": identity.node_id,
        "message": message.hex(),
        "signature": identity.sign(message).hex(),
    }


def _signed_manifest(about: About, bootstrap: Bootstrap, version: int) -> Tree:
    """By the author, of a swarm that has it for its owner, and more shards than one."""
    rules = msgspec.structs.replace(load_manifest(MANIFEST).rules, owner=AUTHOR.node_id, shards=4)
    manifest = Manifest(about, rules, bootstrap)
    signed = manifest.signed_bytes(version)
    return {
        "canonical_rules": manifest.canonical_rules.decode(),
        "swarm_id": manifest.swarm_id,
        "owner": AUTHOR.node_id,
        "about": msgspec.to_builtins(about),
        "bootstrap": msgspec.to_builtins(bootstrap),
        "version": version,
        "signed_bytes": signed.hex(),
        "signature": AUTHOR.sign(signed).hex(),
    }


def _held_out(text: str) -> Tree:
    return {"text": text, "normalised": normalise(text), "held_out": is_held_out(text)}


def _shard(created: float, num_shards: int) -> Tree:
    shard = shard_of(swarm_id(), AUTHOR.node_id, created, num_shards)
    return {"created": created, "num_shards": num_shards, "shard": shard}


def _rollout() -> Tree:
    record = seal(rollout(), AUTHOR)
    return {
        "fields": msgspec.to_builtins(rollout()),
        "record": record.hex(),
        "hash": rollout_hash(record).hex(),
        "with_unknown_field": _record(ROLLOUT_MAGIC, {**_tree(rollout()), "later": [1]}).hex(),
        "reordered": _record(ROLLOUT_MAGIC, dict(reversed(_tree(rollout()).items()))).hex(),
    }


def _announcement() -> Tree:
    fields = msgspec.to_builtins(announcement(), builtin_types=(bytes,))
    for entry in fields["entries"]:
        entry["hash"] = entry["hash"].hex()
    tree = _tree(announcement())
    return {
        "fields": fields,
        "record": seal(announcement(), AUTHOR).hex(),
        "with_unknown_field": _record(ANNOUNCEMENT_MAGIC, {**tree, "later": {"a": None}}).hex(),
    }


def _fetch() -> Tree:
    record = seal(rollout(), AUTHOR)
    here, missing = rollout_hash(record), bytes(range(32))
    reply, _ = encode_reply([missing, here], {here: record})
    return {"request": encode_request([missing, here]).hex(), "reply": reply.hex()}


async def _catalogue() -> Tree:
    record = seal(announcement(), AUTHOR)
    one, missing = announcement_id(record), bytes(range(8))

    class Kept:
        def newest(
            self, before: int, num: int, shards: Sequence[int] = ()
        ) -> tuple[list[bytes], int]:
            return [missing, one], 300

        def find(self, ids: Iterable[bytes]) -> dict[bytes, bytes]:
            return {one: record}

    async def inline(call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return call(*args, **kwargs)

    requests = (encode_list(0), encode_list(1000, {7, 2}), encode_get([missing, one]))
    replies = [await answer(request, Kept(), inline) for request in requests]
    return {
        "id": one.hex(),
        "exchanges": [
            {"request": request.hex(), "reply": reply[0].hex()}
            for request, reply in zip(requests, replies, strict=True)
            if reply
        ],
    }


def _tree(message: Rollout | Announcement) -> Tree:
    tree = msgspec.msgpack.decode(_encode(message))
    assert isinstance(tree, dict)
    return tree


def _record(magic: bytes, payload: object, key: Identity = AUTHOR) -> bytes:
    encoded = payload if isinstance(payload, bytes) else _encode(payload)
    return magic + key.sign(magic + encoded) + encoded


def _case(name: str, record: bytes, refusal: Refusal) -> Tree:
    return {"name": name, "record": record.hex(), "refusal": refusal.value}


def _changed(record: bytes, place: int) -> bytes:
    return record[:place] + bytes([record[place] ^ 1]) + record[place + 1 :]


def _refused_announcements() -> Iterator[tuple[str, bytes, Refusal]]:
    tree, record = _tree(announcement()), seal(announcement(), AUTHOR)
    entry = tree["entries"][0]

    def one(name: str, refusal: Refusal = Refusal.MALFORMED, **fields: Any) -> Any:
        return name, _record(ANNOUNCEMENT_MAGIC, {**tree, **fields}), refusal

    def one_entry(name: str, **fields: Any) -> Any:
        return one(name, entries=[{**entry, **fields}])

    yield "nothing", b"", Refusal.MALFORMED
    yield "only a seal", record[:80], Refusal.MALFORMED
    yield "a rollout", seal(rollout(), AUTHOR), Refusal.MALFORMED
    yield "another version", _changed(record, 14), Refusal.MALFORMED
    yield "cut short", record[:-1], Refusal.MALFORMED
    yield "a byte more", _record(ANNOUNCEMENT_MAGIC, _encode(tree) + b"\0"), Refusal.MALFORMED
    yield "a list", _record(ANNOUNCEMENT_MAGIC, list(tree.values())), Refusal.MALFORMED
    missing = {name: value for name, value in tree.items() if name != "incarnation"}
    yield "without incarnation", _record(ANNOUNCEMENT_MAGIC, missing), Refusal.MALFORMED
    yield one("no entries", entries=[])
    yield one("25 entries", entries=[entry] * 25)
    yield one("sequence 0", sequence=0)
    yield one("sequence 2^53", sequence=2**53)
    yield one("a sequence with a fraction", sequence=1.5)
    yield one("a time that is no number", created=math.nan)
    yield one("a negative time", created=-1.0)
    yield one("a short swarm id", swarm_id=swarm_id()[:-1])
    yield one_entry("a hash of 31 bytes", hash=bytes(31))
    yield one_entry("one answer", correct=[True])
    yield one_entry("65 answers", correct=[True] * 65)
    yield one_entry("a verdict that is no boolean", correct=[1, 0])
    yield one_entry("an empty rollout", num_bytes=0)
    yield one_entry("a rollout above 1 MiB", num_bytes=2**20 + 1)
    yield one_entry("a negative round", policy_round=-1)
    yield one_entry("an index of 2^53", question={"task": "chain_sum", "index": 2**53})
    yield one_entry("a task without a name", question={"task": "", "index": 1})
    yield one_entry("a task name of 65 characters", question={"task": "x" * 65, "index": 1})
    yield (
        "above 8192 bytes",
        _record(ANNOUNCEMENT_MAGIC, {**tree, "later": bytes(8192)}),
        Refusal.TOO_LARGE,
    )
    yield "a changed signature", _changed(record, 20), Refusal.BAD_SIGNATURE
    yield "a changed payload", _changed(record, record.index(b"chain")), Refusal.BAD_SIGNATURE
    forged = _record(ANNOUNCEMENT_MAGIC, tree, SOMEBODY)
    yield "signed by somebody else", forged, Refusal.BAD_SIGNATURE
    yield one("an author that is no key", Refusal.BAD_SIGNATURE, author="1" * 52)
    yield one("of another swarm", Refusal.WRONG_SWARM, swarm_id="5" * 64)
    yield one("an hour and eleven minutes old", Refusal.EXPIRED, created=NOW - 4260)
    yield one("eleven minutes ahead", Refusal.FROM_THE_FUTURE, created=NOW + 660)


def _refused_rollouts() -> Iterator[tuple[str, bytes, Refusal]]:
    tree, record = _tree(rollout()), seal(rollout(), AUTHOR)
    answer = tree["answers"][0]
    malformed = Refusal.ROLLOUT_MALFORMED

    def one(name: str, refusal: Refusal = malformed, **fields: Any) -> Any:
        return name, _record(ROLLOUT_MAGIC, {**tree, **fields}), refusal

    def one_answer(name: str, **fields: Any) -> Any:
        return one(name, answers=[{**answer, **fields}, answer])

    yield "an announcement", seal(announcement(), AUTHOR), malformed
    yield "cut short", record[:-1], malformed
    yield one("one answer", answers=[answer])
    yield one("65 answers", answers=[answer] * 65)
    yield one("a model name of 201 characters", model="x" * 201)
    yield one("a time without end", created=math.inf)
    yield one_answer("a text of bytes", text=b"7")
    yield one_answer("finished is no boolean", finished=1)
    yield one_answer("a negative number of tokens", num_tokens=-1)
    yield one_answer("a log-probability above 0", mean_logp=0.5)
    yield one_answer("a log-probability that is no number", mean_logp=math.nan)
    text_at = record.index(b"3 + 4")
    no_utf8 = record[80:text_at] + b"\xff" + record[text_at + 1 :]
    yield "a text that is not UTF-8", _record(ROLLOUT_MAGIC, no_utf8), malformed
    yield "a changed answer", _changed(record, text_at), Refusal.ROLLOUT_BAD_SIGNATURE
    yield (
        "signed by somebody else",
        _record(ROLLOUT_MAGIC, tree, SOMEBODY),
        Refusal.ROLLOUT_BAD_SIGNATURE,
    )


if __name__ == "__main__":
    FILE.write_text(text())
