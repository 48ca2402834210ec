"""Whether a swarm file can be given to strangers: all that can be told without running its tasks.

Not covered: whether strangers can rely on the tasks (`sapo tasks check`), and whether somebody
answers at the bootstrap addresses.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from multiaddr import Multiaddr  # type: ignore[import-untyped]

from node.download import is_public
from node.escape import printable
from node.task_check import Finding, Outcome
from node.words import size
from rewards.tasks.table import TableError, has_table, hash_file, table_file
from swarm.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ManifestError,
    parse_manifest,
    read_manifest,
)
from swarm.peer_book import WrongAddress, split_address

_HOLDS, _NOTE, _FAILS = Outcome.HOLDS, Outcome.NOTE, Outcome.FAILS


def check_manifest(file: Path) -> list[Finding]:
    """What is right and wrong with a swarm file. Each text that is not "holds" says what to change.

    Reads files of rows that lie beside it from end to end.
    """
    try:
        data = read_manifest(file)
        manifest = parse_manifest(data, str(file), verify=False)
    except ManifestError as error:
        return [Finding("form", _FAILS, printable(str(error), 2000))]
    used = f"{size(len(data))} of {size(MAX_MANIFEST_BYTES)}"
    return [
        Finding("form", _HOLDS, f"{len(manifest.rules.tasks)} tasks, {used}"),
        *_about(manifest),
        *_digests(manifest),
        *_files(manifest, file.parent),
        *_bootstrap(manifest),
        _owner(manifest),
    ]


def _about(manifest: Manifest) -> Iterator[Finding]:
    about = manifest.about
    if not about.name.strip():
        yield Finding("about", _FAILS, "no name; write one into [about]")
    elif not (about.name + about.description.replace("\n", " ")).isprintable():
        yield Finding("about", _FAILS, "characters that cannot be shown; remove them from [about]")
    elif not about.description.strip():
        yield Finding("about", _NOTE, "no description; say in [about] what the swarm is for")
    else:
        yield Finding("about", _HOLDS, printable(about.name))


def _digests(manifest: Manifest) -> Iterator[Finding]:
    wrong = [
        task.name for task in manifest.rules.tasks if not re.fullmatch("[0-9a-f]{64}", task.digest)
    ]
    if wrong:
        names = printable(", ".join(wrong))
        said = f"{len(wrong)} tasks have none ({names}): run sapo tasks check FILE --write"
        yield Finding("digests", _FAILS, said)
    else:
        said = "one per task; whether they are right: sapo tasks check FILE"
        yield Finding("digests", _HOLDS, said)


def _files(manifest: Manifest, beside: Path) -> Iterator[Finding]:
    files = {table_file(task) for task in manifest.rules.tasks if has_table(task)}
    local = sorted((file for file in files if not file.repo), key=lambda file: file.name)
    for file in local:
        try:
            hash_file(beside / file.name, file)
            yield Finding("files", _HOLDS, f"{file.name} is the one that is pinned")
        except TableError as error:
            yield Finding("files", _FAILS, printable(str(error), 400))
        except OSError as error:
            said = f"{file.name}: {error.strerror}; put it beside the swarm file"
            yield Finding("files", _FAILS, said)
    if local:
        said = (
            "they are not fetched by who joins by URL: publish them with the swarm file for "
            "download, or name them on the hub (hf://)"
        )
        yield Finding("files", _NOTE, said)


def _bootstrap(manifest: Manifest) -> Iterator[Finding]:
    peers = manifest.bootstrap.peers
    if not peers:
        said = (
            "no address: a stranger finds nobody; write those of nodes that are always on "
            "into [bootstrap]"
        )
        yield Finding("bootstrap", _NOTE, said)
        return
    sound = 0
    for address in peers:
        shown = printable(address, 120)
        if (problem := address_problem(address)) is None:
            sound += 1
        else:
            outcome, said = problem
            yield Finding("bootstrap", outcome, f"{shown}: {said}")
    if twice := [address for address, count in Counter(peers).items() if count > 1]:
        said = f"{printable(twice[0], 120)}: stands there twice; remove one"
        yield Finding("bootstrap", _NOTE, said)
    if len({address.rpartition("/")[2] for address in peers}) == 1:
        said = "one node only: while it is down, nobody new gets in; add another"
        yield Finding("bootstrap", _NOTE, said)
    yield Finding("bootstrap", _HOLDS, f"{sound} of {len(peers)} addresses are public")


def address_problem(address: str) -> tuple[Outcome, str] | None:
    """Why an address is not one for [bootstrap], and how bad that is; None where it is one. Not
    checked: whether somebody answers."""
    try:
        transport = Multiaddr(split_address(address)[0])
    except WrongAddress:
        return _FAILS, "no TCP address of a peer; write /ip4/ADDRESS/tcp/PORT/p2p/PEER_ID"
    kind = next(iter(transport.protocols())).name
    host, port = (str(transport.value_for_protocol(name)) for name in (kind, "tcp"))
    if port == "0" or host in ("0.0.0.0", "::"):
        return _FAILS, "nobody can dial that; write the address that `sapo status` shows"
    if kind.startswith("ip") and not is_public(host):
        return _NOTE, "only nodes of the same network can dial that; strangers need a public one"
    return None


def _owner(manifest: Manifest) -> Finding:
    if not manifest.rules.owner:
        said = (
            "none: whoever passes the file on can change name and addresses. An owner's key makes "
            "another swarm: sapo manifest new --owner KEYFILE"
        )
        return Finding("owner", _NOTE, said)
    sign = "sapo manifest sign FILE --key KEYFILE"
    if manifest.signature is None:
        return Finding("owner", _FAILS, f"has not signed it, so nobody can join: {sign}")
    if not manifest.is_signed:
        said = f"it was changed after it was signed, so nobody can join: {sign}"
        return Finding("owner", _FAILS, said)
    said = f"{manifest.rules.owner} signed version {manifest.signature.version}"
    return Finding("owner", _HOLDS, said)
