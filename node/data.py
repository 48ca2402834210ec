"""The files of rows that a swarm's tasks are made from: found, checked against the manifest, kept.

A file lies in the home, under its hash, where `sapo join` keeps it; else beside the swarm file
under its own name; else, if the manifest says so, on the Hugging Face hub, at a pinned commit. The
manifest cannot name any other place.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from node.config import ConfigError
from rewards.tasks.table import (
    MAX_FILE_BYTES,
    TableError,
    TableFile,
    has_table,
    hash_file,
    table_file,
)
from swarm.disk import fsync_directory
from swarm.manifest import Manifest

logger = logging.getLogger(__name__)

DATA_DIR = "data"
"""In a home: a file of rows under each hash that the swarm's tasks name."""

Download = Callable[[TableFile], Path]
"""The local copy of a file of the hub, fetched where it is missing. Raises ConfigError."""


def download_from_hub(file: TableFile) -> Path:
    """The file in the cache of the hub's own library, fetched if it is not there yet.

    Raises:
        ConfigError: it cannot be fetched, or is too large.
    """
    import httpx
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def fetch(local_files_only: bool) -> Path:
        return Path(
            hf_hub_download(
                file.repo,
                file.path,
                repo_type="dataset",
                revision=file.commit,
                local_files_only=local_files_only,
            )
        )

    try:
        try:
            return fetch(local_files_only=True)
        except LocalEntryNotFoundError:
            url = hf_hub_url(file.repo, file.path, repo_type="dataset", revision=file.commit)
            size = get_hf_file_metadata(url).size
            if size is None or size > MAX_FILE_BYTES:
                raise ConfigError(
                    f"{file.name}: {size} bytes on the hub; at most {MAX_FILE_BYTES} are fetched"
                ) from None
            logger.info("fetching %s (%d bytes) of %s from the hub", file.path, size, file.repo)
            return fetch(local_files_only=False)
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{file.name}: cannot be fetched from the data set {file.repo} at {file.commit} of "
            f"the hub: {type(error).__name__} {reason}"
        ) from None


def find_data(
    manifest: Manifest, home: Path, beside: Path | None, download: Download = download_from_hub
) -> dict[str, Path]:
    """Task name -> its file, of each task that is made from one. Every hash has been checked.

    Args:
        beside: the directory of the swarm file; None: it came from a URL.

    Raises:
        ConfigError: a file is missing, is not the one that the manifest pins, or cannot be read.
    """
    found: dict[str, Path] = {}
    data: dict[str, Path] = {}
    for task in manifest.rules.tasks:
        if has_table(task):
            try:
                file = table_file(task)
            except TableError as error:
                raise ConfigError(f"task {task.name!r}: {error}") from None
            if file.sha256 not in found:
                found[file.sha256] = _find(file, home, beside, download)
            data[task.name] = found[file.sha256]
    return data


def keep_data(data: dict[str, Path], manifest: Manifest, home: Path) -> None:
    """Copies what `find_data` found into the home, which the caller holds. Of each file all or
    nothing is there after a crash.

    Raises:
        ConfigError: a file was changed meanwhile, or there is no room for it.
    """
    files = {
        table_file(task): data[task.name] for task in manifest.rules.tasks if task.name in data
    }
    for file, source in files.items():
        kept = home / DATA_DIR / file.sha256
        if source != kept:
            try:
                _keep(source, kept)
            except OSError as error:
                raise _unreadable(file, error) from None


def _find(file: TableFile, home: Path, beside: Path | None, download: Download) -> Path:
    kept = home / DATA_DIR / file.sha256
    if kept.is_file():
        try:
            hash_file(kept, file)
            return kept
        except (TableError, OSError) as error:
            logger.error("%s is damaged (%s): looking elsewhere", kept, error)
    if file.repo:
        place = download(file)
    elif beside is None:
        raise ConfigError(
            f"{file.name}: the swarm's tasks need this file, and with a URL only files of the hub "
            "are fetched; download it and the swarm file into one directory and join from there"
        )
    elif not (place := beside / file.name).is_file():
        where = "and join the swarm again" if beside == home else "and put it there"
        raise ConfigError(
            f"{file.name}: the swarm's tasks need this file, and there is none in {beside}; get it "
            f"from where you got the swarm file, {where}"
        )
    try:
        hash_file(place, file)
    except TableError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise _unreadable(file, error) from None
    return place


def _keep(source: Path, kept: Path) -> None:
    kept.parent.mkdir(exist_ok=True)
    for left in kept.parent.glob(".*"):  # of a copy that a crash interrupted
        left.unlink()
    aside = kept.with_name(f".{kept.name}")
    hashed = hashlib.sha256()
    with source.open("rb") as opened, aside.open("wb") as out:
        while chunk := opened.read(2**20):
            hashed.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if hashed.hexdigest() != kept.name:
        aside.unlink()
        raise OSError(None, "it was changed while it was copied")
    aside.replace(kept)
    fsync_directory(kept.parent)
    fsync_directory(kept.parent.parent)


def _unreadable(file: TableFile, error: OSError) -> ConfigError:
    return ConfigError(f"{file.name}: cannot be read or kept: {error.strerror}")
