"""The doctor on what keeps a stranger's text in: workers, and programs of answers, by trying."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from node.config import ConfigError, NodeConfig
from node.finding import Finding, Level
from node.tasks import find_isolation, find_usable_tasks, open_verifier
from node.words import closed_in
from rewards.program import Program
from rewards.question import Unscorable
from rewards.runner import Runner
from rewards.verifier import VerifierBroken
from swarm.manifest import ManifestError, load_manifest

CANARY_S = 30.0

CANARY = """
import os, socket
file, folder = input(), input()
def allocate():
    try:
        bytearray(10 * 2**30)
    except MemoryError:
        raise OSError
for name, attempt in (
    ("read a file", lambda: open(file).read()),
    ("list a directory", lambda: os.listdir(folder)),
    ("write a file", lambda: open(file, "w")),
    ("open a socket", socket.socket),
    ("start a process", os.fork),
    ("take 10 GiB of memory", allocate),
):
    try:
        attempt()
    except OSError:
        continue
    print(name)
"""
"""A program that says what it could do, of what it must not."""


def check_workers(config: NodeConfig) -> Iterator[Finding]:
    """Starts the verifier of the swarm's tasks and asks it: what isolates it, what it judges."""
    if not config.has_policy:
        yield Finding("workers", Level.OK, f"mode {config.mode} needs none: it judges nothing")
        return
    try:
        manifest = load_manifest(config.manifest_file)
        with open_verifier(config, manifest) as verifier:
            usable, left_out = find_usable_tasks(verifier, manifest)
            isolation = find_isolation(config, verifier)
    except (ConfigError, ManifestError, VerifierBroken) as error:
        yield Finding("workers", Level.BAD, str(error), "see what is said there")
        return
    level = Level.OK if not isolation.missing else Level.WARN
    yield Finding("isolation", level, closed_in(isolation), "; ".join(isolation.missing))
    num_usable, num = len(usable), len(manifest.rules.tasks)
    yield Finding("tasks", Level.OK, f"{num_usable} of {num} of {manifest.about.name} judged here")
    for name, reason in left_out.items():
        said = f"{name} is left out: {reason}"
        yield Finding("tasks", Level.WARN, said, f"sapo tasks show {name}")


def check_programs(config: NodeConfig) -> Iterator[Finding]:
    """Runs a program as programs of answers are run, which tries what none of them may do.

    It is our own, so it runs also where nothing isolates it.
    """
    if not config.has_policy:
        return
    runner = Runner(CANARY_S, programs_anyway=True)
    try:
        yield try_program(runner, may_run=config.verify.isolation == "optional")
    finally:
        runner.close()


def try_program(runner: Runner, may_run: bool) -> Finding:
    """What a program could do.

    Args:
        may_run: whether the settings have programs of answers run without isolation.
    """
    with tempfile.TemporaryDirectory(prefix="sapo-doctor-") as folder:
        file = Path(folder) / "canary"
        file.write_text("a secret\n")
        ran = runner.run(Program(CANARY, (f"{file}\n{folder}\n",)), CANARY_S)
    if isinstance(ran, Unscorable):
        said = f"none can be run: {ran.reason} {ran.detail}"
        return Finding("programs", Level.BAD, said, "the log of `sapo run` says why")
    if (output := ran.outputs[0]) is None:
        return Finding("programs", Level.BAD, "a trial program failed", "report it: a bug")
    if not output:
        said = "one could not read, list, write, connect, fork or take 10 GiB of memory"
        return Finding("programs", Level.OK, said)
    could = f"one could {', '.join(output.splitlines())}"
    if may_run:
        return Finding("programs", Level.BAD, could, "set verify.isolation = 'programs'")
    remedy = "what 'isolation' says"
    return Finding("programs", Level.WARN, f"{could}; so none of an answer is run", remedy)
