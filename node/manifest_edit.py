"""Digests written into a swarm file: its text is edited, so comments and layout stay.

A line is taken for a digest only if the parser agrees: the file with the new line must mean what it
meant before, but for that one value.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from swarm.disk import write_durably
from swarm.manifest import ManifestError

_HEADER = re.compile(r"\s*\[\[\s*rules\s*\.\s*tasks\s*\]\]")
_KEY = re.compile(r"\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*=")
_DIGEST = re.compile(r"(\s*digest\s*=\s*)(?:\"[^\"\n]*\"|'[^'\n]*')")


def write_digests(file: Path, digests: Mapping[str, str]) -> None:
    """Puts digests into the swarm file, by the names of its tasks: all of them, or none.

    Raises:
        ManifestError: the tasks are not written as [[rules.tasks]], or in a way that this does not
            understand; the message says what to write by hand. The file is untouched.
        OSError: it cannot be read or replaced.
    """
    place = file.resolve()  # not to replace a link by what it leads to
    text = place.read_bytes().decode()
    edited = with_digests(text, digests)
    if edited is None:
        lines = "; ".join(f'task {name!r}: digest = "{value}"' for name, value in digests.items())
        raise ManifestError(f"{file}: its layout is unusual, so write it by hand: {lines}")
    if edited != text:
        write_durably(place, edited)


def with_digests(text: str, digests: Mapping[str, str]) -> str | None:
    """The text of a swarm file with these digests; None where no line can be shown to be right."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    starts = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    sections = ["".join(lines[start:end]) for start, end in pairwise([0, *starts, len(lines)])]
    edited = "".join(_section_with_digest(section, digests) for section in sections)
    wanted = tomllib.loads(text)
    for task in wanted["rules"]["tasks"]:
        if task["name"] in digests:
            task["digest"] = digests[task["name"]]
    return edited if _parsed(edited) == wanted else None


def _section_with_digest(section: str, digests: Mapping[str, str]) -> str:
    """One [[rules.tasks]] and what follows it; unchanged where nothing fits."""
    parsed = _parsed(section)
    if parsed is None or not _HEADER.match(section):
        return section
    task = parsed["rules"]["tasks"][0]
    if task.get("name") not in digests:
        return section
    task["digest"] = digests[task["name"]]
    fitting = (edited for edited in _edits(section, task["digest"]) if _parsed(edited) == parsed)
    return next(fitting, section)


def _edits(section: str, digest: str) -> Iterator[str]:
    """The section with each line that may be the digest replaced; then with a line added, below the
    last key if that is possible."""
    lines = section.splitlines(keepends=True)
    for number, line in enumerate(lines):
        replaced, count = _DIGEST.subn(rf'\g<1>"{digest}"', line, count=1)
        if count:
            yield "".join([*lines[:number], replaced, *lines[number + 1 :]])
    for number, line in reversed(list(enumerate(lines))):
        if _KEY.match(line) or _HEADER.match(line):
            indent = line[: len(line) - len(line.lstrip())]
            end = "\r\n" if line.endswith("\r\n") else "\n"
            added = f'{indent}digest = "{digest}"{end}'
            yield "".join([*lines[: number + 1], added, *lines[number + 1 :]])


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
