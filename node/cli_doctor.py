"""The command `sapo doctor`."""

import logging

import typer

from node.cli_options import (
    AsJson,
    ConfigFile,
    Home,
    ManifestName,
    Settings,
    console,
    parse_settings,
    write_json,
)
from node.config import load_node_config
from node.exit_status import Exit


def doctor(
    config: ConfigFile = None,
    home: Home = None,
    manifest: ManifestName = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """What of this machine a node depends on, found by trying. Status 7 if something is bad."""
    from node.doctor import Level, examine, print_finding

    flags = {"home": home, "manifest": manifest}
    chosen = load_node_config(config, flags | parse_settings(settings))
    findings = []
    logging.disable()  # all that matters is in the findings
    try:
        for finding in examine(chosen):
            findings.append(finding)
            if not as_json:
                print_finding(finding, console)
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        write_json(findings)
    if any(finding.level is Level.BAD for finding in findings):
        raise typer.Exit(Exit.BAD_MACHINE)
