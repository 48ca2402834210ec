"""Generation with vLLM, in the trainer's process or in processes of its own, on a CPU or a GPU."""

import contextlib
import gc
import json
import logging
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from node.generate import Completion, GenerationFailed, Sampling, check_request, stream_seed
from node.weight_sync import WeightSyncExtension, merged_weights, weights_file

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CPU_BLOCK_SIZE = 32
"""Tokens per block of the cache: the least that vLLM's CPU attention takes. Its default of 128 took
0.5 s where 32 took 0.35, and prompts below 128 tokens would share nothing."""

CPU_STEP_TOKENS = 4096
"""Prompt tokens that a CPU engine takes in one step; vLLM's own default."""

SHUTDOWN_TIMEOUT_S = 10.0
"""For the engine's own processes to end before they are killed."""


def prepare_environment(own_process: bool) -> None:
    """All of vLLM's environment; called before its first import, a user's own values stay.

    OMP_NUM_THREADS reaches an own process; threads of this one were settled when torch came in.
    """
    import torch

    defaults = {
        # Several nodes share a machine; with all cores each, a generation took ten times as long.
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # It warns some 30 times at a start, of options that we chose and parts that no text needs.
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        # Threads and CUDA do not survive a fork.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if not torch.cuda.is_available():
        # Else vLLM compiles a small function at the first log-probability: 4 s, and needs g++.
        defaults["TORCHDYNAMO_DISABLE"] = "1"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if own_process else "0"


def vllm_problem(model_dir: Path | None = None) -> str | None:
    """Why vLLM cannot be used here, for this model if one is given; None if nothing is known.

    Imports vLLM, which takes some seconds. Not checked: memory, and whether vLLM knows the model's
    architecture; both show when the engine starts.
    """
    prepare_environment(own_process=False)
    try:
        from vllm.platforms import current_platform

        if current_platform.is_unspecified():
            return "vLLM finds neither a GPU nor a CPU build of itself on this machine"
        current_platform.import_kernels()
        import vllm.entrypoints.llm  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            return "vLLM is not installed; the extras cpu and gpu bring it"
        return f"vLLM cannot be imported: {error}"
    except Exception as error:  # noqa: BLE001 - any state of someone else's package ends here
        return f"vLLM cannot be imported: {type(error).__name__}: {error}"
    if model_dir is None or not current_platform.is_cpu():
        return None
    return _head_size_problem(model_dir)


def _head_size_problem(model_dir: Path) -> str | None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    config = json.loads((model_dir / "config.json").read_text())
    config = config.get("text_config", config)
    if not config.get("num_attention_heads") or not config.get("hidden_size"):
        return None  # unusual names; the engine's start will tell
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    supported = CPUAttentionBackend.get_supported_head_sizes()
    if size in supported:
        return None
    return f"vLLM on a CPU takes attention heads of {', '.join(map(str, supported))}, not {size}"


class VllmGenerator:
    """A vLLM engine that starts with a model directory and then takes the trainer's weights.

    In this process torch.set_num_threads has no effect once a CPU engine has started (vLLM
    replaces it), and torch.distributed is initialised with one rank.
    One engine at a time in this process: vLLM's groups of ranks are the process's, and closing one
    engine would break another.
    Not covered: tensor parallelism, and several ranks of one trainer with an engine each.
    """

    _in_this_process: ClassVar["VllmGenerator | None"] = None
    """The generator whose engine runs in this process."""

    def __init__(
        self,
        model_dir: Path,
        *,
        eos_token_ids: Sequence[int],
        dtype: str,
        max_len: int,
        own_process: bool = False,
        gpu_memory: float = 0.45,
        kv_cache_gib: float = 1.0,
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        """
        Args:
            model_dir: configuration and first weights; they are read again if the engine dies.
            dtype: "float32" or "bfloat16".
            max_len: tokens of prompt and answer together.
            gpu_memory: share of the GPU's memory; without meaning on a CPU.
            kv_cache_gib: the cache on a CPU (VLLM_CPU_KVCACHE_SPACE overrides); not for a GPU.

        Raises:
            GenerationFailed: the engine does not start; the message is vLLM's.
        """
        self.name = "vllm-process" if own_process else "vllm"
        self.max_len = max_len
        self.eos_token_ids = frozenset(eos_token_ids)
        self._own_process = own_process
        prepare_environment(own_process)
        self._options: dict[str, Any] = {
            "model": str(model_dir),
            "skip_tokenizer_init": True,
            "trust_remote_code": trust_remote_code,
            "dtype": dtype,
            "max_model_len": max_len,
            "seed": seed,
            # A model's own top_k, top_p and penalties would make the answers off-policy.
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": True,
            "worker_extension_cls": (
                f"{WeightSyncExtension.__module__}.{WeightSyncExtension.__qualname__}"
            ),
            "use_tqdm_on_load": False,
        }
        self._device_options = (
            _cpu_options(kv_cache_gib, max_len),
            {"gpu_memory_utilization": gpu_memory},
        )
        self._llm: Any = None
        try:
            self._start()
        except Exception as error:
            self.close()
            raise GenerationFailed(f"vLLM does not start: {error}") from error

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Completion]]:
        """See `Generator.generate`. Equal calls after equal calls and syncs give equal answers."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        check_request(prompts, seeds, sampling, self.max_len)
        params = [
            SamplingParams(
                n=sampling.num_answers,
                temperature=sampling.temperature,
                max_tokens=sampling.max_new_tokens,
                seed=stream_seed(seed),
                stop_token_ids=sorted(self.eos_token_ids),
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for seed in seeds
        ]
        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        outputs = self._run(requests, params)
        return [[self._completion(one) for one in output.outputs] for output in outputs]

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `Generator.score`; at most `max_len` - 1 tokens."""
        from vllm import SamplingParams, TokensPrompt

        if not 2 <= len(token_ids) < self.max_len:
            raise ValueError(f"{len(token_ids)} tokens to score: 2 to {self.max_len - 1} fit")
        params = SamplingParams(
            max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )
        request = TokensPrompt(prompt_token_ids=list(token_ids))
        [output] = self._run([request], [params])
        return [float(logp) for logp in output.prompt_logprobs.logprobs]

    def sync(self, model: "torch.nn.Module") -> None:
        """See `Generator.sync`. A failed reload ends the engine; a new one is tried once."""
        weights = merged_weights(model)
        if self._llm is not None:
            try:
                self._reload(weights)
                return
            except Exception:
                logger.exception("vLLM did not take the new weights; starting a new engine")
        try:
            self._stop()
            self._start()
            self._reload(weights)
        except Exception as error:
            self.close()
            raise GenerationFailed(
                f"vLLM does not take the trainer's weights, not even when new: {error}. "
                "Use --engine transformers"
            ) from error

    def close(self) -> None:
        """See `Generator.close`."""
        self._stop()

    def _start(self) -> None:
        from vllm import LLM
        from vllm.platforms import current_platform

        if not self._own_process:
            if VllmGenerator._in_this_process is not None:
                raise RuntimeError("this process runs another vLLM engine; close that one first")
            VllmGenerator._in_this_process = self
        # Read by vLLM at every start, and another generator may have set it since.
        prepare_environment(self._own_process)
        on_cpu, on_gpu = self._device_options
        device_options = on_cpu if current_platform.is_cpu() else on_gpu
        with _kept_random_state():
            self._llm = LLM(**self._options, **device_options)
        if self._own_process:
            self._llm.collective_rpc("end_with_trainer", args=(os.getpid(),))

    def _stop(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            try:
                llm.llm_engine.engine_core.shutdown(timeout=SHUTDOWN_TIMEOUT_S)
            except Exception:  # a dead engine may not even end well, and we only want it gone
                logger.exception("vLLM's engine did not shut down cleanly")
            del llm
        gc.collect()
        if VllmGenerator._in_this_process is self:
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()
            VllmGenerator._in_this_process = None

    def _run(self, requests: list[Any], params: list[Any]) -> list[Any]:
        """vLLM's outputs, in the order of the requests."""
        if self._llm is None:
            raise GenerationFailed("the engine is closed; sync starts a new one")
        try:
            return list(self._llm.generate(requests, params, use_tqdm=False))
        except Exception as error:
            self.close()
            raise GenerationFailed(
                f"vLLM died while generating: {type(error).__name__}: {error}"
            ) from error

    def _reload(self, weights: "dict[str, torch.Tensor]") -> None:
        if self._own_process:
            with weights_file(weights) as path:
                self._llm.collective_rpc("sync_file", args=(str(path),))
        else:
            self._llm.collective_rpc("sync_tensors", args=(weights,))
        # Keys and values of the old weights would be read for every prompt that occurs again.
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM's prefix cache is in use by unfinished requests")

    def _completion(self, output: Any) -> Completion:
        token_ids = tuple(output.token_ids)
        logps = tuple(float(logp) for logp in output.logprobs.logprobs)
        if not token_ids or len(logps) != len(token_ids):
            raise GenerationFailed(
                f"vLLM returned {len(token_ids)} tokens with {len(logps)} log-probabilities"
            )
        return Completion(token_ids, logps, token_ids[-1] in self.eos_token_ids)


@contextlib.contextmanager
def _kept_random_state() -> Iterator[None]:
    """Undoes that an engine in this process seeds the random numbers that the trainer draws."""
    import numpy as np
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)


def _cpu_options(kv_cache_gib: float, max_len: int) -> dict[str, Any]:
    return {
        "enforce_eager": True,  # compiling costs 45 s at a first start
        # A prompt computed in two parts would rewind its random stream, which a CPU one cannot.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(CPU_STEP_TOKENS, max_len),
        "block_size": CPU_BLOCK_SIZE,
        "kv_cache_memory_bytes": int(kv_cache_gib * 2**30),
    }
