"""What the doctor found, and how it is shown."""

from enum import StrEnum

import msgspec
from rich.console import Console
from rich.text import Text

from node.escape import printable


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """The node runs, but less well or less safely."""
    BAD = "bad"
    """The node does not run as the settings want it, or not safely."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    level: Level
    found: str
    remedy: str = ""
    """What to do; empty where all is well."""


_STYLES = {Level.OK: "green", Level.WARN: "bold yellow", Level.BAD: "bold red"}


def print_finding(finding: Finding, console: Console) -> None:
    """One line, and another one for what to do."""
    line = Text(f"{finding.level:<4} ", style=_STYLES[finding.level])
    line.append(f"{finding.name}: ", style="bold")
    line.append(printable(finding.found, 1000), style="default")
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"     -> {printable(finding.remedy, 1000)}"), soft_wrap=True)
