"""Small files that a crash or a power cut leaves whole: the old one or the new one."""

import os
from pathlib import Path


def write_durably(file: Path, text: str) -> None:
    """Replaces a small file so that a crash leaves the old or the new one, never a part."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    aside.replace(file)
    fsync_directory(file.parent)


def fsync_directory(directory: Path) -> None:
    """Makes renames and new names in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
