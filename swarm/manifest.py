"""The swarm file: which tasks a swarm works on and within which limits; its rules name the swarm.

[rules] is what every node must agree on; the hash of it is the swarm's id. [about] and [bootstrap]
stand outside of the hash and may change. Where the rules name an owner, they stand under the
owner's [signature], whose version rises.

Covered: a file of a stranger is bounded before and after it is parsed; parsing takes 3 s at most.
Not covered: who an owner is; whether a newer version of the file exists somewhere.
"""

import hashlib
import math
import re
from pathlib import Path

import msgspec
from msgspec import NODEFAULT

from rewards.tasks import TaskSpec
from rewards.tasks.table import TableError, has_table, table_file
from swarm.identity import is_node_id, is_signed_by
from swarm.protocol import MAX_ANSWERS, MAX_SHARDS, MIN_ANSWERS

MAX_MANIFEST_BYTES = 1_000_000
MAX_DOTS = 200
"""In one line. The parser's time is quadratic in those of a key: 1 MB of one takes an hour."""
MAX_TITLE_CHARS, MAX_DESCRIPTION_CHARS = 80, 1000
MAX_VERSION = 2**53
"""Of a signature: what a double can count."""
MAX_TASKS = 256
MAX_BOOTSTRAP_PEERS = 64
MAX_TABLES = 16
"""Files of rows that a node may have to fetch and keep; rewards/tasks/table.py bounds each."""
MAX_NAME_CHARS = 512
"""Of a task's kind, data set and version."""
MAX_EXAMPLES = 32
MAX_PROMPTING_BYTES = 32768
"""Of a task's system message and examples together: with the question they are sent to workers
and learner for every question."""


DEFAULT_EPOCH_S = 3600


class ManifestError(ValueError):
    """The swarm file is wrong; the message says where and what to change."""


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For people; not part of the swarm's id."""

    name: str
    description: str = ""


class Bootstrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a node that knows nobody finds its first peers; not part of the swarm's id."""

    peers: tuple[str, ...] = ()
    """Multiaddrs with peer ids, e.g. /ip4/203.0.113.7/tcp/8421/p2p/12D3KooW..."""


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The owner's, under what is not part of the swarm's id."""

    version: int
    """Rises with every change: a node takes no lower one than it has."""
    value: str
    """64 bytes of ed25519 in hex, of `Manifest.signed_bytes`."""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every node must share. Another value is another swarm.

    A rule, or a field of a task, at its default is left out of the hash, so that one that a later
    version adds does not rename the swarms that do not use it. Hence a default never changes.
    """

    tasks: tuple[TaskSpec, ...]
    max_new_tokens: int
    """Tokens that an answer may have, and the default that a node generates."""
    max_answer_bytes: int
    """UTF-8 bytes of one answer; a longer one is unscorable everywhere."""
    max_answers: int = 32
    """Answers of one rollout; one with more is refused."""
    lifetime_s: int = 3600
    """Seconds for which a rollout may be learned from, counted from the time that its author
    signed, and from first sight at each receiver."""
    epoch_s: int = DEFAULT_EPOCH_S
    """Seconds for which questions that are common to the swarm stay the same; epochs are counted
    in Unix time, so that a node with a wrong clock meets others' common questions less often, and
    loses nothing else."""
    owner: str = ""
    """Peer id of the ed25519 key that signs [about] and [bootstrap]; empty: nobody signs them."""
    shards: int = 1
    """Topics that announcements are spread over. One is right below some 200 nodes."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A swarm file as data."""

    about: About
    rules: Rules
    bootstrap: Bootstrap = Bootstrap()
    signature: Signature | None = None

    @property
    def swarm_id(self) -> str:
        """Hex SHA-256 of the rules as canonical JSON (sorted keys): the name of the swarm."""
        return hashlib.sha256(b"sapo-rules-1\n" + self.canonical_rules).hexdigest()

    @property
    def canonical_rules(self) -> bytes:
        """See `swarm_id`."""
        rules = _without_defaults(self.rules)
        rules["tasks"] = [_without_defaults(task) for task in self.rules.tasks]
        return msgspec.json.encode(rules, order="sorted")

    def signed_bytes(self, version: int) -> bytes:
        """What the owner signs: canonical JSON (sorted keys) of the swarm's id, the version,
        [about] and [bootstrap]. Fields at their defaults are left out, as in the id."""
        signed = {
            "swarm_id": self.swarm_id,
            "version": version,
            "about": _without_defaults(self.about),
            "bootstrap": _without_defaults(self.bootstrap),
        }
        return b"sapo-manifest-1\n" + msgspec.json.encode(signed, order="sorted")

    @property
    def is_signed(self) -> bool:
        """Whether the owner's signature is there and holds."""
        return self.signature is not None and is_signed_by(
            self.rules.owner,
            self.signed_bytes(self.signature.version),
            bytes.fromhex(self.signature.value),
        )


def _without_defaults(struct: msgspec.Struct) -> dict[str, object]:
    """The fields that differ from their defaults. Not by msgspec's omit_defaults: it leaves out
    what *is* the default, not what equals it."""
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    defaults = {
        name: field.default if field.default_factory is NODEFAULT else field.default_factory()
        for name, field in fields.items()
    }
    return {name: value for name in fields if (value := getattr(struct, name)) != defaults[name]}


def load_manifest(path: Path, *, verify: bool = True) -> Manifest:
    """The swarm file at `path`.

    Args:
        verify: False takes a signature that does not hold as well: for the owner's tools, since a
            file that its owner just changed has such a one.

    Raises:
        ManifestError: not readable, or as `parse_manifest` says.
    """
    return parse_manifest(read_manifest(path), str(path), verify=verify)


def read_manifest(path: Path) -> bytes:
    """The bytes of a swarm file, too many of them cut off behind the first that is too many.

    Raises:
        ManifestError: not readable.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None


def parse_manifest(data: bytes, source: str, *, verify: bool = True) -> Manifest:
    """A swarm file's bytes as data.

    A file that names an owner and has no signature is accepted: it is not signed yet.

    Args:
        source: where it comes from, for messages.
        verify: as of `load_manifest`.

    Raises:
        ManifestError: too large, not TOML, a key unknown or of the wrong type, a limit out of
            range, no task, two tasks of one name, a file of rows named or pinned in another way
            than rewards/tasks/table.py says, an owner that is no peer id, a signature that is not
            the owner's. The message may hold text of the file, unescaped.

    Not checked: whether the tasks can be built and their digests hold (rewards/verifier.py).
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{source}: larger than {MAX_MANIFEST_BYTES} bytes")
    if any(line.count(b".") > MAX_DOTS for line in data.split(b"\n")):
        raise ManifestError(f"{source}: a line has more than {MAX_DOTS} dots; break it")
    try:
        manifest = msgspec.toml.decode(data, type=Manifest)
    except RecursionError:
        raise ManifestError(f"{source}: lists or tables are nested too deep") from None
    except ValueError as error:  # of msgspec, of UTF-8, of a number with thousands of digits
        raise ManifestError(f"{source}: {error}") from None
    if problem := (
        _problem(manifest.rules)
        or _about_problem(manifest.about)
        or _bootstrap_problem(manifest.bootstrap)
        or _signature_problem(manifest)
    ):
        raise ManifestError(f"{source}: {problem}")
    if verify and manifest.signature is not None and not manifest.is_signed:
        raise ManifestError(
            f"{source}: its signature is not that of the owner under this text; take the file from "
            "its owner. If it is yours: sapo manifest sign FILE --key KEYFILE"
        )
    return manifest


def _problem(rules: Rules) -> str | None:
    names = [task.name for task in rules.tasks]
    if not 1 <= len(names) <= MAX_TASKS:
        return f"rules.tasks has {len(names)} entries; 1 to {MAX_TASKS} are allowed"
    if wrong := [name for name in names if not re.fullmatch("[a-z0-9_]{1,64}", name)]:
        return f"task name {wrong[0]!r}: use 1 to 64 of a-z, 0-9 and _"
    if twice := {name for name in names if names.count(name) > 1}:
        return f"two tasks are named {min(twice)!r}; names must differ"
    if problem := next(filter(None, map(_task_problem, rules.tasks)), None):
        return problem
    tables = {task.version for task in rules.tasks if has_table(task)}
    if len(tables) > MAX_TABLES:
        return f"rules.tasks name {len(tables)} files of rows, at most {MAX_TABLES} are allowed"
    if not 1 <= rules.max_new_tokens <= 32768:
        return f"rules.max_new_tokens = {rules.max_new_tokens}; 1 to 32768 are allowed"
    if not 1 <= rules.max_answer_bytes <= 1_000_000:
        return f"rules.max_answer_bytes = {rules.max_answer_bytes}; 1 to 1000000 are allowed"
    if not MIN_ANSWERS <= rules.max_answers <= MAX_ANSWERS:
        allowed = f"{MIN_ANSWERS} to {MAX_ANSWERS} are allowed"
        return f"rules.max_answers = {rules.max_answers}; {allowed}"
    if not 10 <= rules.lifetime_s <= 30 * 86400:
        return f"rules.lifetime_s = {rules.lifetime_s}; 10 to {30 * 86400} are allowed"
    if not 10 <= rules.epoch_s <= 30 * 86400:
        return f"rules.epoch_s = {rules.epoch_s}; 10 to {30 * 86400} are allowed"
    if not 1 <= rules.shards <= MAX_SHARDS:
        return f"rules.shards = {rules.shards}; 1 to {MAX_SHARDS} are allowed"
    if rules.owner and not is_node_id(rules.owner):
        return (
            f"rules.owner = {rules.owner[:80]!r}; write the peer id of an ed25519 key, 12D3KooW..."
        )
    return None


def _about_problem(about: About) -> str | None:
    for name, limit in (("name", MAX_TITLE_CHARS), ("description", MAX_DESCRIPTION_CHARS)):
        if (length := len(getattr(about, name))) > limit:
            return f"about.{name} has {length} characters, at most {limit} are allowed"
    return None


def _signature_problem(manifest: Manifest) -> str | None:
    signature = manifest.signature
    if signature is None:
        return None
    if not manifest.rules.owner:
        return "it has a [signature], but rules.owner names nobody; remove the [signature]"
    if not 1 <= signature.version <= MAX_VERSION:
        return f"signature.version = {signature.version}; 1 to 2^53 are allowed"
    if not re.fullmatch("[0-9a-f]{128}", signature.value):
        return "signature.value is not 64 bytes in hex; it is written by sapo manifest sign"
    return None


def _task_problem(task: TaskSpec) -> str | None:
    for name in ("kind", "dataset", "version"):
        if len(getattr(task, name)) > MAX_NAME_CHARS:
            return f"task {task.name!r}: its {name} is longer than {MAX_NAME_CHARS} characters"
    for name, value in task.params.items():
        if not all(math.isfinite(x) for x in _flat(value) if isinstance(x, float)):  # JSON has none
            return f"task {task.name!r}: params.{name[:80]} is not finite; write a number"
    if len(task.examples) > MAX_EXAMPLES:
        return f"task {task.name!r}: {len(task.examples)} examples, at most {MAX_EXAMPLES}"
    texts = [task.system, *(text for one in task.examples for text in (one.question, one.answer))]
    if (num_bytes := sum(len(text.encode()) for text in texts)) > MAX_PROMPTING_BYTES:
        return (
            f"task {task.name!r}: its system message and examples have {num_bytes} bytes together, "
            f"at most {MAX_PROMPTING_BYTES} are allowed"
        )
    if any(not one.question.strip() or not one.answer.strip() for one in task.examples):
        return f"task {task.name!r}: an example needs a question and an answer"
    if task.kind in ("rows", "code") or has_table(task):
        try:
            table_file(task)
        except TableError as error:
            return f"task {task.name!r}: {error}"
    return None


def _flat(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _bootstrap_problem(bootstrap: Bootstrap) -> str | None:
    if len(bootstrap.peers) > MAX_BOOTSTRAP_PEERS:
        return f"bootstrap.peers has {len(bootstrap.peers)} entries, at most {MAX_BOOTSTRAP_PEERS}"
    for address in bootstrap.peers:
        if not re.fullmatch(r"/[ -~]{1,300}/p2p/[1-9A-HJ-NP-Za-km-z]{40,64}", address):
            return (
                f"bootstrap.peers: {address[:320]!r} is no address of a peer; "
                "write /ip4/ADDRESS/tcp/PORT/p2p/PEER_ID"
            )
    return None
