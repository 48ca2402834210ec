"""Joining a swarm: its file and its data are checked, and kept in the node's home."""

from pathlib import Path

from node.config import SWARM_FILE
from node.data import Download, download_from_hub, find_data, keep_data
from node.home import HomeError, open_home
from swarm.disk import write_durably
from swarm.manifest import Manifest, load_manifest


def join_swarm(file: Path, home: Path, download: Download = download_from_hub) -> Manifest:
    """Keeps the swarm file and the files of its tasks in `home`; `sapo run` then needs no other.

    Joining the same swarm again replaces what stands outside of its rules (name, bootstrap peers).

    Args:
        download: fetches files of the hub; those of others lie beside the swarm file.

    Raises:
        ManifestError: the file is wrong; nothing was changed.
        ConfigError: a file of rows is missing or is not the swarm's; nothing was changed.
        HomeError: the home is in use, or belongs to another swarm.

    Not checked: whether this machine judges the tasks as the digests say (`sapo run` does that).
    """
    manifest = load_manifest(file)
    text = file.read_text()
    data = find_data(manifest, home, file.parent, download)
    with open_home(home):
        kept = home / SWARM_FILE
        if kept.exists() and (before := load_manifest(kept)).swarm_id != manifest.swarm_id:
            raise HomeError(
                f"{home} belongs to the swarm {before.about.name} ({before.swarm_id[:16]}...); "
                "choose another --home for this one"
            )
        keep_data(data, manifest, home)
        write_durably(kept, text)
    return manifest
