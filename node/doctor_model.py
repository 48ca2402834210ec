"""The doctor on what the model needs: the GPU, and memory by an estimate (node/memory_estimate.py).

Not checked: whether the engine works here (`--selftest`, `--gpu-selftest` try it), and whether the
model's weights are whole: they are read at the start of a node.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from node.config import ConfigError, NodeConfig
from node.escape import printable
from node.finding import Finding, Level
from node.memory_estimate import MemoryEstimate, estimate, read_shape
from node.words import size
from swarm.manifest import ManifestError, load_manifest

NVIDIA_S = 15.0
PROC_MEMORY = Path("/proc/meminfo")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
NARROW = 0.8
"""Share of the memory from which little is left for an estimate that is wrong."""


def gpu_memory() -> list[tuple[str, int]]:
    """Name and bytes of memory of each NVIDIA GPU, as nvidia-smi says; empty without one."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    words = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=NVIDIA_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.decode(errors="replace").splitlines()[:64]:
        name, _, mib = line.rpartition(",")
        if mib.strip().isdigit():
            found.append((printable(name.strip(), 80), int(mib) * 2**20))
    return found


def check_gpu(config: NodeConfig) -> Iterator[Finding]:
    """Which there is, and whether the build of torch uses it."""
    if not config.has_policy:
        yield Finding("gpu", Level.OK, f"mode {config.mode} needs none")
        return
    try:
        torch = version("torch")
    except PackageNotFoundError:
        remedy = "install again: sh deploy/install.sh"
        yield Finding("gpu", Level.BAD, "torch is not installed", remedy)
        return
    gpus = gpu_memory()
    if not gpus:
        said = f"none that nvidia-smi knows; all is computed on the CPU (torch {torch})"
        yield Finding("gpu", Level.OK, said)
        return
    named = ", ".join(f"{name} ({size(total)})" for name, total in gpus)
    if "+cpu" in torch:
        remedy = "install the CUDA build: SAPO_EXTRA=gpu sh deploy/install.sh"
        yield Finding("gpu", Level.WARN, f"{named}, and torch {torch} cannot use it", remedy)
    else:
        said = f"{named}; torch {torch}; tried by --gpu-selftest only"
        yield Finding("gpu", Level.OK, said)


def check_memory(config: NodeConfig) -> Iterator[Finding]:
    """What the model needs, against what there is."""
    if not config.has_policy:
        yield Finding("memory", Level.OK, f"mode {config.mode} loads no model")
        return
    try:
        file = find_model_config(config)
        manifest = load_manifest(config.manifest_file)
        shape = read_shape(file)
    except (ConfigError, ManifestError, ValueError) as error:
        remedy = "its memory is not known; try it with small rollout.questions first"
        yield Finding("memory", Level.WARN, printable(str(error), 500), remedy)
        return
    needed = estimate(shape, config, config.rollout.max_new_tokens or manifest.rules.max_new_tokens)
    gpus = gpu_memory()
    if gpus:
        yield _on_gpu(needed, gpus[0][1], config)
    else:
        yield _on_cpu(needed, memory_there(), config)


def find_model_config(config: NodeConfig) -> Path:
    """The model's config.json on this machine; nothing is fetched.

    Raises:
        ConfigError: it is not here.
    """
    name = config.policy.model
    if name == "tiny":
        return Path(str(files("node") / "tiny" / "config.json"))
    if Path(name).is_dir():
        return Path(name) / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=config.policy.revision)
    except HFValidationError:
        raise ConfigError(f"policy.model = '{name}': no directory, and no id of the hub") from None
    if not isinstance(found, str):
        raise ConfigError(f"policy.model = '{name}' was not fetched yet: sapo run fetches it")
    return Path(found)


def memory_there(proc: Path = PROC_MEMORY, cgroup: Path = CGROUP_MEMORY) -> int:
    """Bytes that are available now, or that the control group allows if less; 0: unknown."""
    available = 0
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", proc.read_text(), re.M)
        available = int(found[1]) * 1024 if found else 0
        allowed = cgroup.read_text().strip()
    except OSError:
        return available
    return min(available, int(allowed)) if allowed.isdigit() else available


def _on_cpu(needed: MemoryEstimate, there: int, config: NodeConfig) -> Finding:
    cache = int(config.rollout.kv_cache_gib * 2**30)
    if config.rollout.engine == "transformers":
        cache = needed.cache
    total = needed.trainer + needed.engine_weights + cache
    parts = f"training {size(needed.trainer)}, engine {size(needed.engine_weights + cache)}"
    return _judge(f"{_weights(needed)} need some {size(total)} ({parts})", total, there, "memory")


def _on_gpu(needed: MemoryEstimate, there: int, config: NodeConfig) -> Finding:
    if config.rollout.engine == "transformers":
        total = needed.trainer + needed.cache
        return _judge(f"{_weights(needed)} need some {size(total)}", total, there, "GPU memory")
    engine_there = int(config.rollout.gpu_memory * there)
    engine = needed.engine_weights + needed.least_cache
    if engine > engine_there:
        return Finding(
            "memory",
            Level.BAD,
            f"the engine needs some {size(engine)}, and rollout.gpu_memory gives it "
            f"{size(engine_there)}",
            "raise rollout.gpu_memory, or take a smaller model or policy.dtype = 'bfloat16'",
        )
    said = f"{_weights(needed)} need some {size(needed.trainer)} for training"
    return _judge(said, needed.trainer, there - engine_there, "GPU memory beside the engine")


def _weights(needed: MemoryEstimate) -> str:
    return f"{needed.num_weights / 1e6:,.1f} million weights"


def _judge(said: str, needed: int, there: int, what: str) -> Finding:
    if not there:
        return Finding("memory", Level.WARN, f"{said}; what there is is not known", "watch it")
    said = f"{said}, of {size(there)} {what}"
    if needed <= NARROW * there:
        return Finding("memory", Level.OK, f"{said} (an estimate)")
    remedy = (
        "lower learn.micro_batch_answers, set learn.gradient_checkpointing, learn.lora_rank or "
        "learn.kl_every = 0, or take a smaller model"
    )
    level = Level.WARN if needed <= there else Level.BAD
    return Finding("memory", level, f"{said} (an estimate)", remedy)
