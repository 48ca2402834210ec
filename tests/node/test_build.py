"""A node put together from settings: engines, fallbacks, models of other kinds, wrong digests."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from node.build import open_examinee, open_node
from node.config import ConfigError, NodeConfig, find_manifest, load_config
from node.exam import find_target
from node.generate import GenerationFailed
from node.policy import LanguagePolicy
from node.status import Status
from swarm.manifest import load_manifest

TINY = Path(str(files("node") / "tiny"))
SIZES = {
    "vocab_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


def settings(home: Path, **flags: object) -> NodeConfig:
    quick = {"rollout.engine": "transformers", "rollout.questions": 2, "rollout.answers": 4}
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return load_config(flags={"home": home, "seed": 1} | quick | dotted, environment={})


def write_random_policy(directory: Path, config: PretrainedConfig) -> Path:
    """A random model with the embedded policy's tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, directory)
    return directory


def test_a_model_of_another_architecture_learns(tmp_path: Path) -> None:
    model = write_random_policy(tmp_path / "llama", LlamaConfig(hidden_size=64, **SIZES))
    config = settings(tmp_path / "home", policy__model=str(model))
    with open_node(config, Status()) as node:
        assert node.run_round().num_answers == 8


def test_an_adapter_learns_and_resumes(tmp_path: Path) -> None:
    config = settings(tmp_path, learn__lora_rank=4, learn__learning_rate=1e-3, rollout__questions=8)
    with open_node(config, Status()) as node:
        node.run(2)
        before = node.exchange.draw_questions(3, 8)
        expected = node.policy.roll_out(before, 3)
        greedy = node.policy.roll_out(before, 3, greedy=True)
        manifest = load_manifest(config.manifest_file)
        target = find_target(str(tmp_path), Path("elsewhere"))
        assert (target.model, target.home) == ("tiny", tmp_path)
        with open_examinee(config, manifest, target.adapter, status := Status()) as examinee:
            assert status.engine == "transformers"
            assert examinee.roll_out(before, 3) == expected
            assert examinee.roll_out(before, 3, greedy=True) == greedy
        with open_examinee(config, manifest, None, Status()) as start:
            assert start.roll_out(before, 3) != expected
    with open_node(config, Status()) as node:
        assert node.state.round == 2
        assert node.policy.roll_out(before, 3) == expected


def test_bfloat16_is_the_arithmetic_while_weights_stay_float32(tmp_path: Path) -> None:
    config = settings(
        tmp_path, policy__dtype="bfloat16", learn__learning_rate=1e-6, rollout__questions=8
    )
    with open_node(config, Status()) as node:
        assert isinstance(node.policy, LanguagePolicy)
        weight = node.policy.learner.model.model.norm.weight
        before = weight.detach().clone()
        report = node.run_round()
        assert report.update_skipped is None
        assert weight.dtype == torch.float32
        assert 0 < (weight - before).abs().max() < 1e-5, "bfloat16 would round such a step away"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes such heads")
@pytest.mark.vllm
def test_a_fallback_from_vllm_is_loud_and_an_engine_by_name_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_random_policy(tmp_path / "model", Qwen2Config(hidden_size=32, **SIZES))
    status = Status()
    config = settings(tmp_path / "home", policy__model=str(model), rollout__engine="auto")
    with open_node(config, status) as node:
        node.run_round()
    assert status.engine == "transformers"
    assert "vLLM is not in use" in status.engine_warning
    assert "not 16" in status.engine_warning
    assert status.engine_warning in caplog.text
    by_name = settings(tmp_path / "home", policy__model=str(model), rollout__engine="vllm")
    with pytest.raises(GenerationFailed, match="not 16"), open_node(by_name, Status()):
        pass


def test_a_task_with_another_digest_is_left_out_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = find_manifest("easy").read_text()
    first, *others = [line for line in text.splitlines() if line.startswith("digest")]
    manifest = tmp_path / "changed.toml"
    manifest.write_text(text.replace(first, f'digest = "{"0" * 64}"'))
    with open_node(settings(tmp_path / "home", manifest=str(manifest)), Status()) as node:
        assert len(node.exchange.task_names) == len(others)
    assert "is left out: its digest here is" in caplog.text


def test_a_manifest_of_wrong_digests_only_is_refused(tmp_path: Path) -> None:
    text = find_manifest("easy").read_text()
    for line in [line for line in text.splitlines() if line.startswith("digest")]:
        text = text.replace(line, f'digest = "{"0" * 64}"')
    manifest = tmp_path / "changed.toml"
    manifest.write_text(text)
    config = settings(tmp_path / "home", manifest=str(manifest))
    with pytest.raises(ConfigError, match="no task can be used here"), open_node(config, Status()):
        pass


def test_answers_that_leave_no_room_for_a_question_are_refused(tmp_path: Path) -> None:
    config = settings(tmp_path, rollout__max_new_tokens=32768)
    with pytest.raises(ConfigError, match="leaves no room"), open_node(config, Status()):
        pass
