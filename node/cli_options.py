"""Options that several commands of `sapo` have, and how all of them write."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, cast

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from node.config import ConfigError
from node.exit_status import Exit
from node.status_json import to_json

console = Console()
errors = Console(stderr=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of differences.")]
Home = Annotated[Path | None, typer.Option(help="The node's directory.")]
Model = Annotated[str | None, typer.Option(help="'tiny', a directory, or a hub id.")]
Engine = Annotated[str | None, typer.Option(help="auto, vllm, vllm-process or transformers.")]
Rounds = Annotated[int | None, typer.Option(help="Stop after this many rounds.")]
Seed = Annotated[int | None, typer.Option(help="Of questions and sampling.")]
ManifestName = Annotated[str | None, typer.Option("--manifest", help="A swarm file or its name.")]
AsJson = Annotated[bool, typer.Option("--json", help="The same as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting, e.g. --set learn.learning_rate=1e-5"),
]


def write_json(value: object) -> None:
    """One JSON document and a line's end on stdout (node/status_json.py).

    Args:
        value: a msgspec struct or a dataclass, or a list of such.
    """
    sys.stdout.write(to_json(cast(msgspec.Struct, value)).decode() + "\n")


def say(text: str, style: str = "") -> None:
    """A sentence on stdout, which no terminal's width breaks, and in which nothing is markup."""
    console.print(Text(text, style=style), soft_wrap=True)


def ask(question: str, yes: bool = False) -> None:
    """Goes on after a yes, and else ends the command (status 8); the end of the input is a no.

    Args:
        yes: it was given already.
    """
    try:
        if yes or typer.confirm(question):
            return
    except typer.Abort:
        errors.print()
    raise typer.Exit(Exit.DECLINED)


def parse_settings(settings: list[str] | None) -> dict[str, object]:
    """What `--set KEY=VALUE` said.

    Raises:
        ConfigError: one is not of this form.
    """
    pairs: dict[str, object] = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write it as KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def stop_on_signal(stop_asked: threading.Event) -> None:
    """The first SIGTERM or SIGINT asks for a stop, a second one ends the process at once."""

    def ask(number: int, _: FrameType | None) -> None:
        if stop_asked.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop_asked.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
