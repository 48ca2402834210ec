"""Joining a swarm: its file and its data are checked, and kept in the node's home."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.config import SWARM_FILE
from node.data import Download, download_from_hub, find_data, keep_data
from node.download import download
from node.home import HomeError, open_home
from swarm.disk import write_durably
from swarm.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ManifestError,
    load_manifest,
    parse_manifest,
    read_manifest,
)

Fetch = Callable[[str, int], bytes]
"""The file at a URL, of at most so many bytes. Raises DownloadError."""


@dataclass(frozen=True, slots=True)
class SwarmFile:
    """A swarm file as it was given: what is shown, then asked about, then kept is one and the
    same."""

    source: str
    """Path or URL, for messages."""
    text: str
    manifest: Manifest
    beside: Path | None
    """Where files of rows lie; None: it came from a URL."""


def read_swarm_file(source: str, fetch: Fetch = download) -> SwarmFile:
    """The swarm file at a path or an https URL.

    Raises:
        ManifestError: it cannot be read, is wrong, or is not signed though it names an owner.
        DownloadError: the URL gives no file.
    """
    if "://" in source:
        beside, data = None, fetch(source, MAX_MANIFEST_BYTES)
    else:
        beside, data = Path(source).parent, read_manifest(Path(source))
    manifest = parse_manifest(data, source)
    if manifest.rules.owner and not manifest.is_signed:
        raise ManifestError(
            f"{source}: it names an owner, who has not signed it; take the signed file from its "
            "owner. If it is yours: sapo manifest sign FILE --key KEYFILE"
        )
    return SwarmFile(source, data.decode(), manifest, beside)


def join_swarm(given: SwarmFile, home: Path, download: Download = download_from_hub) -> None:
    """Keeps the swarm file and the files of its tasks in `home`; `sapo run` then needs no other.

    Joining the same swarm again replaces what stands outside of its rules (name, bootstrap peers):
    where the swarm has an owner, by what the owner signed later, else by whatever is given.

    Args:
        download: fetches files of the hub; those of others lie beside the swarm file.

    Raises:
        ManifestError: older than what the home has; nothing was changed.
        ConfigError: a file of rows is missing or is not the swarm's; nothing was changed.
        HomeError: the home is in use, or belongs to another swarm.

    Not checked: whether this machine judges the tasks as the digests say (`sapo run` does that).
    """
    data = find_data(given.manifest, home, given.beside, download)
    with open_home(home):
        kept = home / SWARM_FILE
        if kept.exists():
            _check_succession(load_manifest(kept), given, home)
        keep_data(data, given.manifest, home)
        write_durably(kept, given.text)


def _check_succession(before: Manifest, given: SwarmFile, home: Path) -> None:
    after = given.manifest
    if before.swarm_id != after.swarm_id:
        raise HomeError(
            f"{home} belongs to the swarm {before.about.name} ({before.swarm_id[:16]}...); "
            "choose another --home for this one"
        )
    if before.signature is None or after.signature is None:
        return  # without an owner, whoever gives the file decides
    had, has = before.signature.version, after.signature.version
    if has < had:
        raise ManifestError(
            f"{given.source}: version {has}, and {home} has version {had} already; "
            "get the newest file from the swarm's owner"
        )
    if has == had and (before.about, before.bootstrap) != (after.about, after.bootstrap):
        raise ManifestError(
            f"{given.source}: another version {has} than the one that {home} has: the owner signed "
            "two; ask the owner for a higher version"
        )
