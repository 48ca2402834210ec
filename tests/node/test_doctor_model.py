"""What a model needs, by its config.json, and what of it there is."""

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest
from safetensors import safe_open

import node.doctor_model
from node.config import NodeConfig, load_config
from node.doctor_model import check_gpu, check_memory, find_model_config, gpu_memory, memory_there
from node.finding import Level
from node.memory_estimate import MAX_CONFIG_BYTES, estimate, read_shape

TINY = Path(str(files("node") / "tiny"))
QWEN = {  # Qwen2.5-0.5B: 494 million weights
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}
GIB = 2**30


def settings(**flags: object) -> NodeConfig:
    return load_config(
        flags={key.replace("__", "."): value for key, value in flags.items()}, environment={}
    )


def write(directory: Path, shape: dict[str, object]) -> Path:
    file = directory / "config.json"
    file.write_text(json.dumps(shape))
    return file


def test_weights_are_counted_within_two_percent(tmp_path: Path) -> None:
    with safe_open(TINY / "model.safetensors", framework="numpy") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    num = sum(map(math.prod, shapes))
    assert num == 340_896
    assert read_shape(TINY / "config.json").num_weights == pytest.approx(num, rel=0.02)
    assert read_shape(write(tmp_path, QWEN)).num_weights == pytest.approx(494e6, rel=0.02)
    untied = read_shape(write(tmp_path, QWEN | {"tie_word_embeddings": False}))
    assert untied.num_weights == pytest.approx(494e6 + 151936 * 896, rel=0.02)
    experts = QWEN | {"num_experts": 4, "moe_intermediate_size": 100}
    dense = read_shape(write(tmp_path, QWEN | {"intermediate_size": 400}))
    assert read_shape(write(tmp_path, experts)).num_weights == dense.num_weights


def test_each_term_is_as_the_formula_says(tmp_path: Path) -> None:
    shape = read_shape(write(tmp_path, QWEN))
    weights = shape.num_weights
    quiet = {"learn__kl_every": 0, "learn__micro_batch_answers": 1, "rollout__max_prompt_tokens": 8}
    base = estimate(shape, settings(**quiet), 8)
    per_token = 8 * 151936 + 68 * 896 * 24
    assert base.trainer == 16 * weights + 16 * per_token
    assert base.engine_weights == 4 * weights
    assert base.least_cache == 2 * 24 * 128 * 4 * 16 and base.cache == 64 * base.least_cache
    narrow = estimate(shape, settings(policy__dtype="bfloat16", **quiet), 8)
    assert narrow.engine_weights == 2 * weights and narrow.trainer < base.trainer
    start = estimate(shape, settings(**quiet | {"learn__kl_every": 10}), 8)
    assert start.trainer == base.trainer + 4 * weights
    lora = estimate(shape, settings(learn__lora_rank=8, **quiet), 8)
    assert lora.trainer < 5 * weights + 16 * per_token
    saving = estimate(shape, settings(learn__gradient_checkpointing=True, **quiet), 8)
    assert base.trainer - saving.trainer == 16 * 64 * 896 * 24
    alone = estimate(shape, settings(rollout__engine="transformers", **quiet), 8)
    assert alone.engine_weights == 0
    assert estimate(shape, settings(mode="generate", **quiet), 8).trainer == 4 * weights


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps(QWEN | {"hidden_size": -1}),
        json.dumps(QWEN | {"vocab_size": 2**40}),
        " " * (MAX_CONFIG_BYTES + 1),
        "[" * 100_000,
    ],
)
def test_what_is_no_config_is_a_warning(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    (found,) = check_memory(settings(policy__model=str(tmp_path)))
    assert found.level is Level.WARN and "config.json" in found.found


def test_too_little_memory_is_bad_and_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, QWEN)
    config = settings(policy__model=str(tmp_path), learn__micro_batch_answers=1)
    levels = {}
    for there in (4 * GIB, 15 * GIB, 64 * GIB, 0):
        monkeypatch.setattr(node.doctor_model, "gpu_memory", list)
        monkeypatch.setattr(node.doctor_model, "memory_there", lambda size=there: size)
        (found,) = check_memory(config)
        levels[there] = found.level
        assert "494" in found.found
    assert list(levels.values()) == [Level.BAD, Level.WARN, Level.OK, Level.WARN]


def test_a_gpu_is_shared_between_engine_and_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, QWEN)
    config = settings(policy__model=str(tmp_path), learn__micro_batch_answers=1)
    for there, level, said in (
        (3 * GIB, Level.BAD, "rollout.gpu_memory gives it"),
        (12 * GIB, Level.BAD, "GPU memory beside the engine"),
        (80 * GIB, Level.OK, "for training"),
    ):
        monkeypatch.setattr(node.doctor_model, "gpu_memory", lambda size=there: [("x", size)])
        (found,) = check_memory(config)
        assert (found.level, said in found.found) == (level, True), found


def test_a_gpu_that_torch_cannot_use_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 \033[2J, 81559'\necho nonsense\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    ((name, total),) = gpu_memory()
    assert total == 81559 * 2**20 and name.isprintable()
    monkeypatch.setattr(node.doctor_model, "version", lambda _: "2.13.0+cpu")
    (found,) = check_gpu(settings())
    assert found.level is Level.WARN and "SAPO_EXTRA=gpu" in found.remedy
    monkeypatch.setattr(node.doctor_model, "version", lambda _: "2.13.0+cu128")
    (found,) = check_gpu(settings())
    assert found.level is Level.OK
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_memory() == []
    assert "CPU" in next(iter(check_gpu(settings()))).found


def test_a_control_group_may_allow_less(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "meminfo", tmp_path / "memory.max"
    proc.write_text("MemTotal:  9 kB\nMemAvailable:   2048 kB\n")
    assert memory_there(proc, cgroup) == 2048 * 1024
    for text, expected in (("max\n", 2048 * 1024), ("1000\n", 1000), ("99999999\n", 2048 * 1024)):
        cgroup.write_text(text)
        assert memory_there(proc, cgroup) == expected
    assert memory_there(tmp_path / "none", cgroup) == 0


def test_a_model_that_is_not_here_is_named_and_not_fetched() -> None:
    assert find_model_config(settings()) == TINY / "config.json"
    (found,) = check_memory(settings(policy__model="nobody/no-such-model"))
    assert found.level is Level.WARN and "was not fetched yet" in found.found
    (found,) = check_memory(settings(policy__model="../a b"))
    assert found.level is Level.WARN and "no id of the hub" in found.found
    for mode in ("observe", "relay"):
        assert "no model" in next(iter(check_memory(settings(mode=mode)))).found
