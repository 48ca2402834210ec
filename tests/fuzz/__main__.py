"""Searches for texts that break what must hold of any text, guided by the branches that they take.

    python tests/fuzz PART [options of libFuzzer]

PART is a name in targets.py. The search starts from the texts in corpus/PART. One that takes a new
branch is kept in .fuzz/PART, one that breaks something is printed and kept in .fuzz. With
-merge=1 nothing is searched for: texts of .fuzz/PART are added to the corpus, as few as take all
branches. Needs atheris, which there is for Linux on x86-64 only: `make fuzz` installs it.
"""

import sys
from pathlib import Path

import atheris
from words import WORDS

HERE = Path(__file__).resolve().parent
FOUND = HERE.parents[1] / ".fuzz"

part, options = sys.argv[1], sys.argv[2:]
with atheris.instrument_imports(include=["rewards", "oracles", "targets"]):
    from targets import TARGETS

    TARGETS[part]("")  # imports the rest


def take(data: bytes) -> None:
    TARGETS[part](data.decode(errors="ignore"))


kept = [FOUND / part, HERE / "corpus" / part]
for place in kept:
    place.mkdir(parents=True, exist_ok=True)
if "-merge=1" in options:
    kept.reverse()  # the first is written to
words = FOUND / f"{part}.dict"
escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in WORDS[part])
words.write_text("".join(f'"{word}"\n' for word in escaped))
own = [f"-dict={words}", f"-artifact_prefix={FOUND}/{part}-", "-max_len=600", "-timeout=30"]
if not any(option.startswith("-merge_control_file") for option in options):
    options = [*own, *options, *map(str, kept)]  # else a merge has called itself with all of them
atheris.Setup([f"{sys.executable} {HERE} {part}", *options], take)
atheris.Fuzz()
