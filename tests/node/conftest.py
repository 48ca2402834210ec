"""Tiny random models, written once per test run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from node.generate_vllm import VllmGenerator

EOS = 1
PAD = 0
VOCABULARY = 304


def write_random_model(directory: Path, *, tied: bool, head_size: int = 32) -> Path:
    """A random Qwen2 model in fp32 whose answers often end within some 16 tokens."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=2 * head_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        max_position_embeddings=160,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
        initializer_range=0.15,
    )
    Qwen2ForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """`write_random_model`: files of tests cannot import each other."""
    return write_random_model


@pytest.fixture(scope="session")
def tied_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="session")
def untied_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("untied"), tied=False)


class VllmEngine:
    """The one vLLM engine that runs in this process; another is started where it must differ."""

    def __init__(self) -> None:
        self.generator: VllmGenerator | None = None
        self.wanted: tuple[Path, str] | None = None

    def __call__(self, model_dir: Path, dtype: str = "float32") -> VllmGenerator:
        if self.generator is None or self.wanted != (model_dir, dtype):
            self.close()
            self.generator = VllmGenerator(
                model_dir, eos_token_ids=[EOS], dtype=dtype, max_len=128, kv_cache_gib=0.05
            )
            self.wanted = model_dir, dtype
        return self.generator

    def close(self) -> None:
        if self.generator is not None:
            self.generator.close()
        self.generator = None


@pytest.fixture(scope="module")
def vllm_engine() -> Iterator[VllmEngine]:
    engine = VllmEngine()
    yield engine
    engine.close()
