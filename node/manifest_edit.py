"""Digests and signatures written into a swarm file: its text is edited, comments and layout stay.

A line is taken for one of them only if the parser agrees: the file with the new line must mean what
it meant before, but for that one value.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from swarm.disk import write_durably
from swarm.manifest import ManifestError, Signature

_HEADER = re.compile(r"\s*\[\[\s*rules\s*\.\s*tasks\s*\]\]")
_KEY = re.compile(r"\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*=")
_SIGNATURE_HEADER = re.compile(r"\s*\[\s*signature\s*\]")
_VERSION = re.compile(r"^([ \t]*version[ \t]*=[ \t]*)[0-9_]+", re.MULTILINE)
_VALUE = re.compile(r"^([ \t]*value[ \t]*=[ \t]*)(?:\"[^\"\n]*\"|'[^'\n]*')", re.MULTILINE)
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


def with_signature(text: str, signature: Signature) -> str | None:
    """The text of a swarm file with this [signature] instead of the one that it has, or at its end;
    None where no line can be shown to be right."""
    wanted = tomllib.loads(text) | {"signature": msgspec.to_builtins(signature)}
    fitting = (edited for edited in _signed(text, signature) if _parsed(edited) == wanted)
    return next(fitting, None)


def _signed(text: str, signature: Signature) -> Iterator[str]:
    """The text with each table replaced that may be the signature; then with one added."""
    lines = text.splitlines(keepends=True)
    for start, line in enumerate(lines):
        if _SIGNATURE_HEADER.match(line):
            rest = "".join(lines[start + 1 :])
            rest = _VERSION.sub(rf"\g<1>{signature.version}", rest, count=1)
            rest = _VALUE.sub(rf'\g<1>"{signature.value}"', rest, count=1)
            yield "".join(lines[: start + 1]) + rest
    end = "\r\n" if "\r\n" in text else "\n"
    table = [
        "",
        "[signature]",
        f"version = {signature.version}",
        f'value = "{signature.value}"',
        "",
    ]
    yield text.rstrip("\r\n") + end + end.join(table)


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
