"""The command `sapo support-bundle`."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from node.cli_options import (
    AsJson,
    ConfigFile,
    Home,
    Settings,
    parse_settings,
    say,
    write_json,
)
from node.config import load_node_config


def support_bundle(
    config: ConfigFile = None,
    home: Home = None,
    out: Annotated[Path | None, typer.Option(help="A new file, *.tar.gz.")] = None,
    with_texts: Annotated[
        bool, typer.Option("--with-texts", help="Questions and answers, strangers' included.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="The doctor talks to no other machine.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Collect what others need to help you: settings, logs, status, doctor, rounds. No secrets."""
    from node.doctor import examine
    from node.support_bundle import write_bundle

    chosen = load_node_config(config, {"home": home} | parse_settings(settings))
    file = out or Path(time.strftime("sapo-support-%Y%m%d-%H%M%S.tar.gz"))
    logging.disable()
    try:
        done = write_bundle(chosen, file, partial(examine, offline=offline), with_texts=with_texts)
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        write_json(done)
        return
    for member in done.members:
        say(f"{member.num_bytes:>12,}  {member.name}")
    say(f"wrote {done.file}; look into it before you publish it: it holds ids and addresses")
