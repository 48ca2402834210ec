"""The way of the trainer's weights into vLLM: what is sent, and the worker extension that takes it.

vLLM imports this file in its worker process; so it imports neither vLLM nor the trainer at its top.
"""

import contextlib
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SHARED_MEMORY = Path("/dev/shm")
FILE_PREFIX = "sapo-weights-"
LEFTOVER_AGE_S = 600
"""A file this old was left by a process that was killed: no sync takes as long."""


class WeightSyncExtension:
    """Methods that vLLM adds to its worker (`worker_extension_cls`), called by collective_rpc."""

    model_runner: Any
    """vLLM's own, of the worker that this class is added to."""

    def sync_tensors(self, weights: dict[str, torch.Tensor]) -> None:
        """Takes weights of the own process; they are copied."""
        self.reload_weights(weights_iterator=iter(weights.items()))  # type: ignore[attr-defined]
        _repack_embeddings(self.model_runner.get_model())

    def sync_file(self, path: str) -> None:
        """Takes weights from a safetensors file that another process wrote."""
        self.sync_tensors(load_file(path))

    def end_with_trainer(self, trainer_pid: int) -> None:
        """Ends this process and vLLM's engine when the trainer is gone, even if by kill -9.

        vLLM's own would live on for ever. Linux only; a trainer that is killed while its engine
        starts (15 s) still leaves it behind.
        """
        watch = threading.Thread(target=end_with, args=(trainer_pid,), daemon=True)
        watch.start()


def end_with(trainer_pid: int) -> None:
    """Waits for the end of the trainer, then kills this process, and its parent if that is not
    the trainer itself but vLLM's engine between the two."""
    if not hasattr(os, "pidfd_open"):
        return
    engine_pid = os.getppid()
    with contextlib.suppress(ProcessLookupError):  # gone already
        select.select([os.pidfd_open(trainer_pid)], [], [])
    if os.getppid() == engine_pid != trainer_pid:  # else it has ended, and its number is free
        os.kill(engine_pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _repack_embeddings(model: torch.nn.Module) -> None:
    """Packs embeddings and head anew, where vLLM computes with a packed copy (on a CPU).

    vLLM's reload copies the new weight into place, but a tied head is packed from it before that
    and shares no layer of its own with the checkpoint: it would go on with the old weights.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def merged_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's weights under the names of its checkpoint, LoRA adapters added in.

    Tied weights come once. The model is not changed; only layers with an adapter are copied, the
    others are the trainer's own tensors. Right for models whose parameters are named as in their
    checkpoint (Qwen2, Llama, Mistral, Gemma, Phi and the like).

    Raises:
        ValueError: an adapter that is not plain LoRA.
    """
    weights: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    with torch.no_grad():
        deltas = dict(_adapter_deltas(model))
        for name, tensor in model.state_dict(keep_vars=True).items():
            base = _checkpoint_name(name)
            if base is None or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            delta = deltas.pop(name, None)
            # In fp32, as PEFT's own merge of narrower weights on a CPU.
            weights[base] = (
                tensor.detach()
                if delta is None
                else (tensor.float() + delta.float()).to(tensor.dtype)
            )
    if deltas:
        raise ValueError(f"adapters on weights that are not there: {', '.join(deltas)}")
    return weights


def _adapter_deltas(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name of each adapted weight in the model's state, and what its active adapters add to it."""
    for name, module in model.named_modules():
        if not hasattr(module, "base_layer") or module.merged or module.disable_adapters:
            continue
        if not hasattr(module, "get_delta_weight") or getattr(module, "lora_variant", None):
            raise ValueError(f"{name} has an adapter that is not plain LoRA, which has no sync")
        if module.base_layer.weight.ndim != 2:
            raise ValueError(f"{name} is no linear layer: its adapter has no sync")
        adapters = [one for one in module.active_adapters if one in module.lora_A]
        if adapters:
            delta = sum(module.get_delta_weight(one).float() for one in adapters)
            yield f"{name}.base_layer.weight", delta


def _checkpoint_name(name: str) -> str | None:
    """The name without PEFT's additions; None for an adapter's own weights."""
    if ".lora_" in name or ".original_module." in name:
        return None
    if ".modules_to_save." in name:  # model.embed.modules_to_save.<adapter>.weight
        before, after = name.split(".modules_to_save.")
        name = f"{before}.{after.split('.', 1)[1]}"
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


@contextlib.contextmanager
def weights_file(weights: dict[str, torch.Tensor]) -> Iterator[Path]:
    """The weights as a safetensors file, in memory where the system has such a place; then gone.

    Needs as much of it as the weights have bytes: containers often have 64 MiB at /dev/shm, so
    where the free space is short, the file goes to the directory for temporary files.
    """
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    place = SHARED_MEMORY if _free_bytes(SHARED_MEMORY) > num_bytes + (1 << 20) else None
    prefix = f"{FILE_PREFIX}{os.getpid()}-"
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".safetensors", dir=place)
    os.close(descriptor)
    path = Path(name)
    _remove_leftovers(path.parent)
    try:
        save_file({key: tensor.contiguous().cpu() for key, tensor in weights.items()}, path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _remove_leftovers(directory: Path) -> None:
    for path in directory.glob(f"{FILE_PREFIX}*.safetensors"):
        with contextlib.suppress(OSError):  # another node was quicker, or it is another user's
            if time.time() - path.stat().st_mtime > LEFTOVER_AGE_S:
                path.unlink()


def _free_bytes(directory: Path) -> int:
    if not os.access(directory, os.W_OK):
        return 0
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
