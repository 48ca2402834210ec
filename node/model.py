"""The policy's model and tokenizer, from the package, a directory or a hub: safetensors only."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from node.config import ConfigError, PolicyConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WANTED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
"""Of a hub repository; weights in pickles are never fetched, code only where the user says so."""


def find_model(config: PolicyConfig) -> Path:
    """The directory of the model that the user named, fetched from the hub if need be.

    Raises:
        ConfigError: no such directory or hub model, or it holds no safetensors.
    """
    if config.model == "tiny":
        directory = Path(str(files("node") / "tiny"))
    elif Path(config.model).is_dir():
        directory = Path(config.model)
    elif config.model.startswith((".", "/", "~")):
        raise ConfigError(f"policy.model: there is no directory {config.model}")
    else:
        directory = _fetch(config)
    if not any(directory.glob("*.safetensors")):
        raise ConfigError(
            f"policy.model: {directory} holds no *.safetensors; other weight files can run code "
            "when they are loaded and are not read. Convert it with "
            "model.save_pretrained(..., safe_serialization=True)"
        )
    return directory


def _fetch(config: PolicyConfig) -> Path:
    wanted = WANTED_FILES + (["*.py"] if config.trust_remote_code else [])
    try:
        return Path(
            snapshot_download(config.model, revision=config.revision, allow_patterns=wanted)
        )
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"policy.model: '{config.model}' is neither 'tiny', nor a directory, nor could it be "
            f"fetched from the hub: {error}"
        ) from error


def load_model(directory: Path, config: PolicyConfig) -> "PreTrainedModel":
    """The causal language model in `directory` as float32, on the GPU where there is one."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=config.trust_remote_code,
        local_files_only=True,
    )
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    return model


def load_tokenizer(directory: Path, config: PolicyConfig) -> "PreTrainedTokenizerBase":
    """Its tokenizer, with a padding token (the end of sequence where it has none of its own)."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        directory, trust_remote_code=config.trust_remote_code, local_files_only=True
    )
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"policy.model: the tokenizer in {directory} names no eos_token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def eos_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Every token that ends an answer: the tokenizer's and those of the generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    ids = {int(one) for one in listed if one is not None}
    return sorted(ids | {int(tokenizer.eos_token_id)})
