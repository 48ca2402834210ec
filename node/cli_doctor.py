"""The command `sapo doctor`."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated

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
from node.config import NodeConfig, load_node_config
from node.escape import printable
from node.exit_status import Exit
from node.finding import Finding, Level, print_finding
from node.status_json import from_json

SELFTEST_S = 900.0
MAX_FINDING_BYTES = 2**16


def doctor(
    config: ConfigFile = None,
    home: Home = None,
    manifest: ManifestName = None,
    selftest: Annotated[
        bool, typer.Option("--selftest", help="Also generate, learn, sync and probe, on the CPU.")
    ] = False,
    gpu_selftest: Annotated[
        bool, typer.Option("--gpu-selftest", help="The same on the GPU; bad where there is none.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Without what talks to other machines.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """What of this machine a node depends on, found by trying. Status 7 if something is bad."""
    from node.doctor import examine

    flags = {"home": home, "manifest": manifest}
    chosen = load_node_config(config, flags | parse_settings(settings))
    findings = []

    def take(found: Iterator[Finding]) -> None:
        for finding in found:
            findings.append(finding)
            if not as_json:
                print_finding(finding, console)

    logging.disable()  # all that matters is in the findings
    try:
        take(examine(chosen, offline))
        if selftest or gpu_selftest:
            take(run_selftest(chosen, gpu_selftest))
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        write_json(findings)
    if any(finding.level is Level.BAD for finding in findings):
        raise typer.Exit(Exit.BAD_MACHINE)


def run_selftest(
    config: NodeConfig, gpu: bool, command: tuple[str, ...] | None = None
) -> Iterator[Finding]:
    """The findings of node/selftest.py, as they come.

    Args:
        gpu: nothing is tried without one.
        command: instead of the real one, for tests.
    """
    words = command or (sys.executable, "-P", "-m", "node.selftest", *(["--gpu"] if gpu else []))
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            out, log = process.communicate(config.model_dump_json().encode(), SELFTEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, log = process.communicate()
            log += f"\nit took more than {SELFTEST_S:.0f} s".encode()
    for line in out.splitlines():
        try:
            yield from_json(line[:MAX_FINDING_BYTES], Finding)
        except ValueError:
            continue
    if process.returncode != 0:
        last = (log.decode(errors="replace").strip().splitlines() or ["nothing was said"])[-1]
        said = f"it ended with status {process.returncode}: {printable(last, 500)}"
        yield Finding("selftest", Level.BAD, said, "python -m node.selftest shows all of it")
