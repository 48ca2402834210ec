"""A swarm file in a terminal and as JSON: what one joins. Its texts may be anybody's."""

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.escape import printable
from rewards.tasks.table import has_table, table_file
from swarm.manifest import (
    MAX_DESCRIPTION_CHARS,
    MAX_TITLE_CHARS,
    About,
    Bootstrap,
    Manifest,
    Rules,
)


class ManifestFacts(msgspec.Struct, frozen=True):
    """What `sapo manifest show --json` says."""

    swarm_id: str
    version: int | None
    """Of the owner's signature, which holds; None: not signed."""
    about: About
    bootstrap: Bootstrap
    rules: Rules


def manifest_facts(manifest: Manifest) -> ManifestFacts:
    """The file as data, with the swarm's id."""
    signed = manifest.signature
    version = signed.version if signed is not None and manifest.is_signed else None
    return ManifestFacts(
        manifest.swarm_id, version, manifest.about, manifest.bootstrap, manifest.rules
    )


def print_manifest(manifest: Manifest, to: Console) -> None:
    """What one joins, and what of oneself becomes public for good."""
    rules, about = manifest.rules, manifest.about
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, text in (
        ("swarm", printable(about.name, 2 * MAX_TITLE_CHARS)),
        ("", printable(about.description, 2 * MAX_DESCRIPTION_CHARS)),
        ("id", manifest.swarm_id),
        ("owner", _owner(manifest)),
        ("tasks", ", ".join(task.name for task in rules.tasks)),
        ("files", _files(manifest)),
        (
            "limits",
            f"{rules.max_new_tokens} new tokens and {rules.max_answer_bytes} bytes an answer, "
            f"{rules.max_answers} answers a rollout, kept for {rules.lifetime_s} s",
        ),
        ("bootstrap", f"addresses: {len(manifest.bootstrap.peers)}"),
        (
            "public",
            "for good: the questions' addresses and the answers that this node shares, its peer "
            "id, its IP address, the model's name, and when it is active",
        ),
    ):
        if text:
            facts.add_row(Text(name, style="dim"), Text(text))
    to.print(facts)


def _owner(manifest: Manifest) -> str:
    if not manifest.rules.owner:
        return "nobody: name and bootstrap addresses are unsigned, from whoever gave you this file"
    if manifest.signature is None or not manifest.is_signed:
        return f"{manifest.rules.owner}, who has not signed name and bootstrap addresses yet"
    version = manifest.signature.version
    return f"{manifest.rules.owner}, who signed name and bootstrap addresses (version {version})"


def _files(manifest: Manifest) -> str:
    files = {table_file(task) for task in manifest.rules.tasks if has_table(task)}
    repos = sorted({file.repo for file in files if file.repo})
    if not files:
        return ""
    hub = f", from the hub's {', '.join(repos)}" if repos else ""
    return f"{len(files)} of rows, which are kept in the home{hub}"
