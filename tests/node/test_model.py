import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from node.config import ConfigError, PolicyConfig
from node.model import eos_token_ids, find_model, load_model, load_tokenizer

TINY = Path(str(files("node") / "tiny"))


def test_the_embedded_policy_is_found_and_is_float32_once_loaded() -> None:
    config = PolicyConfig()
    model = load_model(find_model(config), config)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    tokenizer = load_tokenizer(TINY, config)
    assert eos_token_ids(model, tokenizer) == [tokenizer.eos_token_id]


def test_a_missing_directory_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no directory /no/such/model"):
        find_model(PolicyConfig(model="/no/such/model"))


def test_a_hub_model_that_cannot_be_fetched_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="could it be fetched"):
        find_model(PolicyConfig(model="nobody/no-such-model"))


def test_weights_in_pickles_are_refused(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"holds no .*safetensors"):
        find_model(PolicyConfig(model=str(tmp_path / "model")))


def test_code_of_a_model_is_not_run(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(TINY, directory)
    canary = tmp_path / "ran"
    (directory / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: ...\n")
    text = (directory / "config.json").read_text()
    assert '"model_type": "qwen2"' in text
    text = text.replace('"model_type": "qwen2"', '"model_type": "evil"')
    text = text.replace("{", '{"auto_map": {"AutoConfig": "evil.Evil"},', 1)
    (directory / "config.json").write_text(text)
    config = PolicyConfig(model=str(directory))
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_model(find_model(config), config)
    assert not canary.exists()


def test_a_tokenizer_without_padding_pads_with_the_end(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    tokenizer = load_tokenizer(TINY, PolicyConfig())
    tokenizer.pad_token = None
    tokenizer.save_pretrained(directory)
    found = load_tokenizer(directory, PolicyConfig())
    assert found.pad_token_id == found.eos_token_id


def test_all_ends_of_the_generation_config_count(
    tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    config = PolicyConfig(model=str(write_model(tmp_path / "m", tied=True)))
    model = load_model(find_model(config), config)
    tokenizer = load_tokenizer(TINY, PolicyConfig())
    model.generation_config.eos_token_id = [5, 9]
    assert eos_token_ids(model, tokenizer) == sorted({5, 9, tokenizer.eos_token_id})
