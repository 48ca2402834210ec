"""Searches for texts that break what must hold of any text, guided by the branches that they take.

    python tests/fuzz TARGET [options of libFuzzer] CORPUS...

TARGET is a name in targets.py. New texts that reach new branches are written to the first CORPUS;
one that breaks something is printed, and written to the working directory. Needs atheris, which
there is for Linux on x86-64: `make fuzz` installs it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["rewards"]):
    from targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]

    def take(data: bytes) -> None:
        target(data.decode(errors="ignore"))

    atheris.Setup(sys.argv, take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
