"""Swarm files as their owners make them: a new one from another's tasks, and the owner's signature.

Not covered: tasks of one's own (docs/tasks.md) and their digests (`sapo tasks check --write`).
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from node.config import find_manifest
from node.manifest_edit import with_signature
from rewards.tasks.table import has_table, table_file
from swarm.disk import write_durably
from swarm.identity import load_key
from swarm.manifest import (
    MAX_VERSION,
    Manifest,
    ManifestError,
    Rules,
    Signature,
    load_manifest,
    parse_manifest,
    read_manifest,
)

_HEADER = re.compile(r"\s*\[\[?\s*([A-Za-z]+)\s*(?:\.\s*([A-Za-z]+)[^]]*)?\]")

RULES = {
    "max_new_tokens": "tokens of one answer",
    "max_answer_bytes": "bytes of one answer",
    "max_answers": "answers of one rollout, 2 to 64",
    "lifetime_s": "seconds for which a rollout may be learned from",
    "epoch_s": "seconds for which the questions common to all stay the same",
    "shards": "topics of announcements: one is right below some 200 nodes",
    "owner": "peer id of the key that signs [about] and [bootstrap]; empty: nobody does",
}
"""What a new file says of each rule but the tasks."""


def new_manifest(file: Path, name: str, source: str, owner: Path | None = None) -> Manifest:
    """Writes a swarm file with the tasks and limits of another, and comments on what to fill in.

    Args:
        source: a swarm file, or the name of a shipped one.
        owner: the file of the owner's key, made where it is missing.

    Raises:
        ManifestError: `file` exists or cannot be written, the name is too long, the source is
            wrong or its tasks are not written as [[rules.tasks]].
        ConfigError: there is no such source.
        IdentityError: the key cannot be used.
    """
    if file.exists():
        raise ManifestError(f"{file}: exists already; choose another name")
    place = find_manifest(source)
    given = load_manifest(place, verify=False)
    node_id = load_key(owner, make=True).node_id if owner else ""
    rules = msgspec.structs.replace(given.rules, owner=node_id)
    tasks = _tasks(place)
    text = _text(name, rules, source, tasks)
    try:
        made = parse_manifest(text.encode(), str(file))
    except UnicodeEncodeError:
        raise ManifestError("the name is no UTF-8; write it in UTF-8") from None
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise ManifestError(f"{file}: cannot be written: {error.strerror}") from None
    return made


def _text(name: str, rules: Rules, source: str, tasks: str) -> str:
    return f"""\
# A swarm for sapo-swarm, with the tasks of {_toml(source)}.
# docs/joining.md says how to publish it. Check it: sapo manifest check, sapo tasks check.

# For people. May be changed later on.
[about]
name = {_toml(name)}
description = ""

# Where a node that knows nobody finds its first peers: nodes that are always on, at public
# addresses; `sapo status` shows those of a node that runs. May be changed later on.
[bootstrap]
peers = [
    # "/ip4/203.0.113.7/tcp/8421/p2p/12D3KooW...",
]

# From here on everything names the swarm: a node with another value is in another swarm.
[rules]
{"".join(_rules(rules))}
{tasks.strip()}
"""


def _rules(rules: Rules) -> Iterator[str]:
    for field in msgspec.structs.fields(rules):
        if field.name in RULES:
            value = getattr(rules, field.name)
            off = "# " if value == field.default else ""
            yield f"# {RULES[field.name]}\n{off}{field.name} = {_toml(value)}\n"


def _tasks(file: Path) -> str:
    """The tasks of a swarm file as they are written there, with their comments."""
    text = file.read_text("utf-8")
    found = "".join(_lines_of_tasks(text))
    wanted = tomllib.loads(text)["rules"]["tasks"]
    try:
        if tomllib.loads(found)["rules"]["tasks"] == wanted:
            return found
    except (tomllib.TOMLDecodeError, KeyError):
        pass
    raise ManifestError(f"{file}: its layout is unusual; write its tasks as [[rules.tasks]]")


def _lines_of_tasks(text: str) -> Iterator[str]:
    is_task = False
    waiting: list[str] = []  # comments belong to the header that follows
    for line in text.splitlines(keepends=True):
        if header := _HEADER.match(line):
            is_task = header.groups() == ("rules", "tasks")
        elif not line.strip() or line.lstrip().startswith("#"):
            waiting.append(line)
            continue
        if is_task:
            yield from waiting
            yield line
        waiting.clear()


def _toml(value: object) -> str:
    """JSON's notation is TOML's for texts and numbers, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def sign_manifest(file: Path, key: Path) -> Manifest:
    """Signs [about] and [bootstrap] with the owner's key, one version higher, and writes it into
    the file, whose other text stays as it is.

    Raises:
        ManifestError: the file is wrong, names no owner or another one, or has a layout in which
            the signature has to be written by hand; it is untouched.
        IdentityError: the key cannot be used.
        OSError: the file cannot be replaced.
    """
    place = file.resolve()  # not to replace a link by what it leads to
    data = read_manifest(place)
    manifest = parse_manifest(data, str(file), verify=False)
    identity, owner = load_key(key), manifest.rules.owner
    if not owner:
        raise ManifestError(
            f'{file}: names no owner; write owner = "{identity.node_id}" into [rules] (which makes '
            "it another swarm), then sign it"
        )
    if identity.node_id != owner:
        raise ManifestError(f"{key}: the key of {identity.node_id}; the owner is {owner}")
    version = manifest.signature.version + 1 if manifest.signature else 1
    if version > MAX_VERSION:
        raise ManifestError(
            f"{file}: its version cannot be raised; lower signature.version by hand"
        )
    signature = Signature(version, identity.sign(manifest.signed_bytes(version)).hex())
    edited = with_signature(data.decode(), signature)
    if edited is None:
        raise ManifestError(
            f"{file}: its layout is unusual, so write it by hand: [signature], version = "
            f'{version}, value = "{signature.value}"'
        )
    signed = parse_manifest(edited.encode(), str(file))
    write_durably(place, edited)
    return signed


def files_beside(manifest: Manifest) -> list[str]:
    """Names of the files of rows that have to lie beside the swarm file, sorted."""
    files = [table_file(task) for task in manifest.rules.tasks if has_table(task)]
    return sorted({file.name for file in files if not file.repo})
