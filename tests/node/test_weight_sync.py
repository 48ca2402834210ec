"""The trainer's weights in vLLM: right after a sync, and shown to need each of its steps."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import node.weight_sync
from node.generate import GenerationFailed, ProbeMismatch, Sampling, check_probe, token_logps
from node.generate_vllm import VllmGenerator
from node.weight_sync import merged_weights, weights_file

EOS = 1
PROBE = [(7 * i) % 290 + 2 for i in range(40)]


def load(model_dir: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
    return model


def change(model: torch.nn.Module, seed: int = 1) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


def with_lora(model: torch.nn.Module) -> torch.nn.Module:
    """Adapters that do something: LoRA starts with one factor at zero."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "o_proj", "down_proj"])
    adapted = get_peft_model(model, config)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return adapted


@pytest.fixture
def tied_engine(vllm_engine: Callable[..., VllmGenerator], tied_model_dir: Path) -> VllmGenerator:
    return vllm_engine(tied_model_dir)


# -- what is sent


def test_tied_weights_are_sent_once_and_untied_ones_all(
    tied_model_dir: Path, untied_model_dir: Path
) -> None:
    tied, untied = merged_weights(load(tied_model_dir)), merged_weights(load(untied_model_dir))
    assert set(untied) - set(tied) == {"lm_head.weight"}
    assert set(tied) == set(load_file(tied_model_dir / "model.safetensors"))


def test_adapters_are_merged_without_touching_the_trained_model(tied_model_dir: Path) -> None:
    adapted = with_lora(load(tied_model_dir))
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    expected = token_logps(adapted, PROBE)
    merged = merged_weights(adapted)

    plain = load(tied_model_dir)
    assert token_logps(plain, PROBE) != pytest.approx(expected, abs=0.01)
    plain.load_state_dict(merged, strict=False)
    assert token_logps(plain, PROBE) == pytest.approx(expected, abs=1e-4)
    assert set(merged) == set(load_file(tied_model_dir / "model.safetensors"))
    assert all(torch.equal(before[name], tensor) for name, tensor in adapted.state_dict().items())


def test_modules_that_are_trained_beside_an_adapter_are_sent(untied_model_dir: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    adapted = get_peft_model(load(untied_model_dir), config)
    change(adapted)
    expected = token_logps(adapted, PROBE)
    plain = load(untied_model_dir)
    plain.load_state_dict(merged_weights(adapted))
    assert token_logps(plain, PROBE) == pytest.approx(expected, abs=1e-4)


def test_an_adapter_that_is_not_plain_lora_is_refused(tied_model_dir: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    with pytest.raises(ValueError, match="not plain LoRA"):
        merged_weights(get_peft_model(load(tied_model_dir), config))


def test_the_weights_file_is_gone_afterwards_even_after_an_error(tied_model_dir: Path) -> None:
    weights = merged_weights(load(tied_model_dir))
    with pytest.raises(RuntimeError), weights_file(weights) as path:
        assert set(load_file(path)) == set(weights)
        raise RuntimeError
    assert not path.exists()


def test_a_file_that_a_killed_process_left_is_removed(
    tied_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.weight_sync, "SHARED_MEMORY", tmp_path)
    old, fresh = (tmp_path / f"sapo-weights-{name}.safetensors" for name in ("1-old", "2-fresh"))
    for path in (old, fresh):
        path.touch()
    os.utime(old, (0, 0))
    with weights_file(merged_weights(load(tied_model_dir))) as path:
        assert path.parent == tmp_path
    assert list(tmp_path.iterdir()) == [fresh]


def test_without_shared_memory_the_weights_go_to_the_temporary_directory(
    tied_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.weight_sync, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr(node.weight_sync.tempfile, "tempdir", str(tmp_path))
    with weights_file(merged_weights(load(tied_model_dir))) as path:
        assert path.parent == tmp_path


# -- what ends with the trainer


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")
def test_engine_and_worker_end_when_the_trainer_is_killed() -> None:
    trainer = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = "import sys; from node.weight_sync import end_with; end_with(int(sys.argv[1]))"
    engine = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}, {str(trainer.pid)!r}])\n"
            "print(worker.pid, flush=True)\n"
            "time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert engine.stdout is not None
    watching = psutil.Process(int(engine.stdout.readline()))
    assert engine.poll() is None and watching.is_running()
    trainer.kill()
    assert engine.wait(timeout=60) == -signal.SIGKILL
    assert psutil.wait_procs([watching], timeout=60)[1] == []


# -- what vLLM computes with them


@pytest.mark.vllm
def test_changed_weights_of_a_tied_model_arrive(
    tied_engine: VllmGenerator, tied_model_dir: Path
) -> None:
    model = load(tied_model_dir)
    tied_engine.sync(model)
    for seed in (1, 2):
        change(model, seed)
        with pytest.raises(ProbeMismatch):
            check_probe(tied_engine, model, PROBE)
        tied_engine.sync(model)
        assert check_probe(tied_engine, model, PROBE) < 1e-4


@pytest.mark.vllm
@pytest.mark.skipif(torch.cuda.is_available(), reason="only a CPU computes with a packed head")
def test_a_tied_head_would_stay_old_if_it_were_not_packed_anew(
    tied_engine: VllmGenerator, tied_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tied_model_dir)
    change(model)
    with monkeypatch.context() as patch:
        patch.setattr(node.weight_sync, "_repack_embeddings", lambda model: None)
        tied_engine.sync(model)
    with pytest.raises(ProbeMismatch):
        check_probe(tied_engine, model, PROBE)
    tied_engine.sync(model)
    assert check_probe(tied_engine, model, PROBE) < 1e-4


def _first_logp(generator: VllmGenerator, model: torch.nn.Module) -> float:
    """How far the first sampled token's log-probability is from the model's, after PROBE."""
    [[completion]] = generator.generate([PROBE], [3], Sampling(1, 1))
    [*_, expected] = token_logps(model, [*PROBE, *completion.token_ids])
    return abs(completion.logps[0] - expected)


@pytest.mark.vllm
def test_a_prompt_seen_before_the_sync_is_read_with_the_new_weights(
    tied_engine: VllmGenerator, tied_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tied_model_dir)
    tied_engine.sync(model)
    assert _first_logp(tied_engine, model) < 1e-4  # and leaves PROBE in the prefix cache
    change(model)
    with monkeypatch.context() as patch:
        patch.setattr(tied_engine._llm, "reset_prefix_cache", lambda: True)
        tied_engine.sync(model)
    assert _first_logp(tied_engine, model) > 0.01
    tied_engine.sync(model)
    assert _first_logp(tied_engine, model) < 1e-4


@pytest.mark.vllm
def test_a_lora_model_arrives_merged(tied_engine: VllmGenerator, tied_model_dir: Path) -> None:
    adapted = with_lora(load(tied_model_dir))
    tied_engine.sync(adapted)
    assert check_probe(tied_engine, adapted, PROBE) < 1e-4


@pytest.mark.vllm
def test_an_engine_does_not_follow_the_trainer_between_syncs(
    tied_engine: VllmGenerator, tied_model_dir: Path
) -> None:
    model = load(tied_model_dir)
    tied_engine.sync(model)
    before = tied_engine.score(PROBE)
    change(model)
    assert tied_engine.score(PROBE) == before


@pytest.mark.vllm
def test_a_failed_reload_is_mended_by_a_new_engine(
    tied_engine: VllmGenerator, tied_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tied_model_dir)
    change(model)
    good, engine = merged_weights(model), tied_engine._llm
    broken = {name: tensor[:-1] for name, tensor in good.items()}
    reload, given = VllmGenerator._reload, [broken, good]
    with monkeypatch.context() as patch:
        patch.setattr(VllmGenerator, "_reload", lambda self, _: reload(self, given.pop(0)))
        tied_engine.sync(model)
    assert not given
    assert tied_engine._llm is not engine
    assert check_probe(tied_engine, model, PROBE) < 1e-4


@pytest.mark.vllm
def test_weights_that_no_engine_takes_are_an_error_and_good_ones_end_it(
    tied_engine: VllmGenerator, tied_model_dir: Path
) -> None:
    with pytest.raises(GenerationFailed, match="not even when new"):
        tied_engine.sync(torch.nn.ModuleDict({"unheard_of": torch.nn.Linear(3, 3)}))
    with pytest.raises(GenerationFailed, match="closed"):
        tied_engine.generate([PROBE], [1], Sampling(1, 1))
    model = load(tied_model_dir)
    tied_engine.sync(model)
    assert check_probe(tied_engine, model, PROBE) < 1e-4


@pytest.mark.vllm
def test_changed_weights_of_an_untied_model_arrive(
    vllm_engine: Callable[..., VllmGenerator], untied_model_dir: Path
) -> None:
    generator, model = vllm_engine(untied_model_dir), load(untied_model_dir)
    assert check_probe(generator, model, PROBE) < 1e-4
    change(model)
    with pytest.raises(ProbeMismatch):
        check_probe(generator, model, PROBE)
    generator.sync(model)
    assert check_probe(generator, model, PROBE) < 1e-4


@pytest.mark.vllm
def test_bfloat16_weights_arrive(
    vllm_engine: Callable[..., VllmGenerator], tied_model_dir: Path
) -> None:
    generator = vllm_engine(tied_model_dir, "bfloat16")
    model = load(tied_model_dir, torch.bfloat16)
    assert check_probe(generator, model, PROBE) < 0.15
    change(model)
    with pytest.raises(ProbeMismatch):
        check_probe(generator, model, PROBE)
    generator.sync(model)
    assert check_probe(generator, model, PROBE) < 0.15
