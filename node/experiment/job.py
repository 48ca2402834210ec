"""What the workers of an experiment do: make policies to start from, and runs. They import torch,
and the parent does not.
"""

import hashlib
import json
import os
import platform
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from node.config import ConfigError, NodeConfig
from node.experiment.plan import RunPlan
from node.experiment.results import RunResult
from node.experiment.verdicts import Judging, open_judging
from node.experiment.worker import Tell
from swarm.manifest import load_manifest

PACKAGES = ("sapo-swarm", "torch", "transformers", "trl", "reasoning-gym")

START_SEED = 0
"""The starts of all runs are the same: seeds differ in questions and answers."""
CACHE = Path.home() / ".cache" / "sapo-swarm" / "starts"

_left_open = ExitStack()
"""Until the process ends."""


def make_start(name: str, manifest: Path, tell: Tell) -> Path:
    """The directory of a policy to start from; made where it is not there yet.

    Raises:
        ConfigError: no start has this name.
    """
    if is_directory(name):
        return Path(name).resolve()
    from node.experiment.starts import find_start

    return find_start(name, START_SEED, load_manifest(manifest), CACHE)


def recipe_of(name: str) -> str:
    """All that a start is made of, as one text. Torch is imported for those that are made.

    Raises:
        ConfigError: no start has this name.
    """
    shipped = Path(str(files("node") / "tiny"))
    if name == "tiny" or is_directory(name):
        return _hash_weights(shipped if name == "tiny" else Path(name))
    from node.experiment.starts import STARTS, VERSION

    recipe = STARTS.get(name)
    if recipe is None:
        known = ", ".join(STARTS)
        raise ConfigError(f"start = {name!r}: there are {known}, and directories (with a /)")
    return json.dumps([VERSION, START_SEED, asdict(recipe), _hash_weights(shipped)])


def is_directory(name: str) -> bool:
    """Whether a start is a policy of the user's own."""
    return "/" in name


def _hash_weights(directory: Path) -> str:
    found = hashlib.sha256()
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"start = '{directory}': there are no safetensors in this directory")
    for path in weights:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def make_run(plan: RunPlan, tell: Tell) -> RunResult:
    """One run, with what it took. What the experiment's file says of it is left empty.

    Raises:
        ValueError: this machine does not judge all tasks as the manifest says: a run with the
            others would be another one.
    """
    from node.experiment.swarm import run_swarm

    began, began_cpu, started = time.monotonic(), time.process_time(), datetime.now(UTC)
    judging = _open_judging(plan.manifest)
    if left_out := {task.name for task in judging.manifest.rules.tasks} - judging.tasks.keys():
        raise ValueError(f"not judged here as the manifest says: {', '.join(sorted(left_out))}")
    found = run_swarm(plan, tell, judging=judging)
    return RunResult(
        experiment="",
        digest="",
        key=plan.key,
        is_tuning=False,
        roles=found.roles,
        wall_s=time.monotonic() - began,
        cpu_s=time.process_time() - began_cpu,
        stage_s=found.stage_s,
        node_rounds=found.node_rounds,
        started=started.isoformat(timespec="seconds"),
        versions={name: version(name) for name in PACKAGES} | {"machine": describe_machine()},
    )


@lru_cache(maxsize=1)
def _open_judging(manifest: Path) -> Judging:
    """For all runs of the process: starting a verifier takes as long as a small run."""
    return _left_open.enter_context(open_judging(NodeConfig(manifest=str(manifest))))


def describe_machine() -> str:
    """What computes: figures are the same bit for bit only on the same."""
    import torch

    parts = [_processor(), f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
