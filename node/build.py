"""The only place that chooses parts: a node from its settings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node.batch import Own, make_strategy
from node.checkpoint import NodeState, find_start, open_checkpoints, read_experience
from node.config import ConfigError, NodeConfig
from node.exam import ADAPTER_FILE, find_target
from node.exchange import Exchange, LocalExchange
from node.fixed_policy import FixedPolicy
from node.generate import PROBE_TOLERANCE, GenerationFailed, Generator, Sampling, check_probe
from node.generate_transformers import TransformersGenerator
from node.generate_vllm import VllmGenerator, prepare_environment, vllm_problem
from node.home import keep_seed, open_home
from node.loop import Node
from node.model import eos_token_ids, find_model, load_model, load_tokenizer
from node.policy import LanguagePolicy, prompt_ids
from node.reward import make_terms
from node.status import Status
from node.tasks import find_isolation, find_usable_tasks, open_verifier
from swarm.manifest import Manifest, load_manifest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PROBE = "A node compares its engine with its trainer on this text: 0123456789."


@contextmanager
def open_node(config: NodeConfig, status: Status) -> Iterator[Node]:
    """A node alone in this process, without peers: for benchmarks, experiments and tests.

    `sapo run` puts the same learner into a process of its own (node/control.py).

    Raises:
        ConfigError, ManifestError, HomeError: what the user has to change.
        GenerationFailed: the engine that was asked for by name does not work here.
        VerifierBroken: the tasks cannot be expanded and judged on this machine.
    """
    manifest = load_manifest(config.manifest_file)
    with open_home(config.home) as home, open_verifier(config, manifest) as verifier:
        seed = keep_seed(home, config.seed)
        usable, _ = find_usable_tasks(verifier, manifest)
        find_isolation(config, verifier)
        exchange = LocalExchange(verifier, list(usable), seed, manifest.rules.epoch_s)
        with open_learner(config, manifest, exchange, status) as node:
            yield node


@contextmanager
def open_learner(
    config: NodeConfig, manifest: Manifest, exchange: Exchange, status: Status
) -> Iterator[Node]:
    """The learning part of a node, resumed from its last checkpoint where there is one; in mode
    "generate" a model that stays as it is, and goes on with the next round's questions.

    The home must exist and be held by the caller (node/home.py).

    Raises:
        ConfigError, HomeError: what the user has to change.
        GenerationFailed: the engine that was asked for by name does not work here.
    """
    is_fixed = config.mode == "generate"
    checkpoints = open_checkpoints(config)
    state, resume_from = find_start(config, manifest.swarm_id, checkpoints)
    if resume_from is not None:
        logger.info("resuming after round %d from %s", state.round, resume_from.parent)
    reward = make_terms(config.reward, manifest.rules)
    strategy = make_strategy(config)
    policy: LanguagePolicy
    if is_fixed:
        of_base, adapter = _find_adapter(config)
        policy = build_fixed_policy(of_base, manifest, adapter, state.seed, status)
    else:
        policy = build_policy(config, manifest, strategy, state, resume_from, config.home, status)
    try:
        yield Node(
            state,
            policy,
            exchange,
            checkpoints,
            strategy,
            experience=read_experience(resume_from),
            num_heldout=config.evaluate.questions,
            evaluate_every=config.evaluate.every,
            checkpoint_every=1 if is_fixed else config.checkpoint.every,
            status=status,
            reward=reward,
        )
    finally:
        policy.close()


def build_policy(
    config: NodeConfig,
    manifest: Manifest,
    strategy: Own,
    state: NodeState,
    resume_from: Path | None,
    home: Path,
    status: Status,
) -> LanguagePolicy:
    """The policy that the settings name, learning and answering; `home` gets a directory for TRL.

    Raises:
        ConfigError: what the user has to change.
        GenerationFailed: the engine that was asked for by name does not work here.
    """
    prepare_environment(own_process=config.rollout.engine == "vllm-process")
    model_dir = find_model(config.policy)  # a wrong name is told before the seconds of the import
    # Imports TRL, which imports vLLM, which reads its environment.
    from node.learn import Learner

    tokenizer = load_tokenizer(model_dir, config.policy)
    model = load_model(model_dir, config.policy)
    max_new_tokens, max_prompt_tokens = _find_lengths(config, manifest, model)
    learner = Learner(
        model,
        tokenizer,
        config.learn,
        max_answers=strategy.max_answers(config.rollout.answers, manifest.rules.max_answers),
        max_answer_tokens=max_new_tokens,
        temperature=config.rollout.temperature,
        seed=state.seed,
        work_dir=home / "learner",
        bf16=config.policy.dtype == "bfloat16",
        resume_from=resume_from,
    )
    if config.learn.report_to:
        status.on_report = learner.report
    engine = _Engine(
        config,
        model_dir,
        learner.model,
        eos_token_ids(model, tokenizer),
        max_prompt_tokens + max_new_tokens,
        is_as_read=not learner.step,
    )
    try:
        generator = _start_engine(engine, tokenizer, status)
    except BaseException:
        learner.close()
        raise
    status.engine = generator.name
    return LanguagePolicy(
        tokenizer,
        generator,
        learner,
        Sampling(config.rollout.answers, max_new_tokens, config.rollout.temperature),
        max_prompt_tokens=max_prompt_tokens,
        seed=state.seed,
        likelihood_weight=config.batch.likelihood_weight,
        importance_ratio=config.batch.importance_ratio,
        kl_every=config.learn.kl_every,
    )


@contextmanager
def open_examinee(
    config: NodeConfig, manifest: Manifest, adapter: Path | None, status: Status
) -> Iterator[FixedPolicy]:
    """A policy that is only asked: without optimizer and trainer, it cannot learn or be saved.

    With the engine "transformers" it computes in float32, whatever `policy.dtype` is.

    Args:
        adapter: directory of a LoRA adapter of the model that the settings name.

    Raises:
        ConfigError: what the user has to change, an engine that does not work here included.
    """
    try:
        policy = build_fixed_policy(config, manifest, adapter, config.seed or 0, status)
    except GenerationFailed as error:
        raise ConfigError(f"rollout.engine = '{config.rollout.engine}': {error}") from error
    try:
        yield policy
    finally:
        policy.close()


def build_fixed_policy(
    config: NodeConfig, manifest: Manifest, adapter: Path | None, seed: int, status: Status
) -> FixedPolicy:
    """See `open_examinee`.

    Raises:
        ConfigError: what the user has to change.
        GenerationFailed: the engine that was asked for by name does not work here.
    """
    prepare_environment(own_process=config.rollout.engine == "vllm-process")
    model_dir = find_model(config.policy)
    tokenizer, model = _load(config, model_dir, adapter)
    max_new_tokens, max_prompt_tokens = _find_lengths(config, manifest, model)
    engine = _Engine(
        config,
        model_dir,
        model,
        eos_token_ids(model, tokenizer),
        max_prompt_tokens + max_new_tokens,
        is_as_read=adapter is None,
    )
    generator = _start_engine(engine, tokenizer, status)
    status.engine = generator.name
    # An engine of its own memory has compared its weights with the model, which may go now.
    return FixedPolicy(
        tokenizer,
        generator,
        Sampling(config.rollout.answers, max_new_tokens, config.rollout.temperature),
        lambda: _load(config, model_dir, adapter)[1],
        max_prompt_tokens=max_prompt_tokens,
        seed=seed,
    )


def _find_adapter(config: NodeConfig) -> tuple[NodeConfig, Path | None]:
    """Where `policy.model` is a LoRA adapter (of a checkpoint, for instance): the settings with the
    model that it was made for, and the adapter.

    Raises:
        ConfigError: it does not name that model.
    """
    name = config.policy.model
    if not (Path(name) / ADAPTER_FILE).is_file():
        return config, None
    target = find_target(name, config.home)
    policy = config.policy.model_copy(update={"model": target.model})
    return config.model_copy(update={"policy": policy}), target.adapter


def _load(
    config: NodeConfig, model_dir: Path, adapter: Path | None
) -> "tuple[PreTrainedTokenizerBase, PreTrainedModel]":
    """Tokenizer and model, with its adapter where there is one.

    Raises:
        ConfigError: a directory holds none, or something else.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (model_dir / "config.json").is_file():
        raise ConfigError(f"policy.model: {model_dir} holds no model: it has no config.json")
    try:
        tokenizer = load_tokenizer(model_dir, config.policy)
        model = load_model(model_dir, config.policy)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or repr(error)).partition("\n")[0]
        raise ConfigError(
            f"{adapter or model_dir}: the model cannot be loaded: {reason}"
        ) from error
    return tokenizer, model


def _find_lengths(
    config: NodeConfig, manifest: Manifest, model: "PreTrainedModel"
) -> tuple[int, int]:
    """Tokens of an answer and of a question at most."""
    max_new_tokens = config.rollout.max_new_tokens or manifest.rules.max_new_tokens
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    max_prompt_tokens = min(config.rollout.max_prompt_tokens, context - max_new_tokens)
    if max_prompt_tokens < 8:
        raise ConfigError(
            f"rollout.max_new_tokens = {max_new_tokens} leaves no room for a question in the "
            f"model's context of {context} tokens; set it lower"
        )
    return max_new_tokens, max_prompt_tokens


@dataclass(frozen=True, slots=True)
class _Engine:
    """What every engine is made from."""

    config: NodeConfig
    model_dir: Path
    model: "torch.nn.Module"
    eos_token_ids: list[int]
    max_len: int
    """Tokens of prompt and answer together."""
    is_as_read: bool
    """Whether the model's weights are still those in its directory."""


def _start_engine(
    engine: _Engine, tokenizer: "PreTrainedTokenizerBase", status: Status
) -> Generator:
    """The engine that the settings name, synchronised and probed.

    `auto` falls back to transformers where vLLM does not work, and says so in log and status; an
    engine asked for by name is an error instead.
    """
    wanted = engine.config.rollout.engine
    if wanted != "transformers":
        try:
            return _start_vllm(engine, prompt_ids(tokenizer, PROBE))
        except GenerationFailed as error:
            if wanted != "auto":
                raise
            status.engine_warning = f"vLLM is not in use: {error}"
            logger.warning("%s; generating with transformers", status.engine_warning)
    return TransformersGenerator(
        engine.model,
        engine.eos_token_ids,
        int(tokenizer.pad_token_id),
        max_len=engine.max_len,
    )


def _start_vllm(engine: _Engine, probe: tuple[int, ...]) -> Generator:
    """A vLLM engine whose log-probabilities equal the trainer's, before and after a sync."""
    if problem := vllm_problem(engine.model_dir):
        raise GenerationFailed(problem)
    generator = VllmGenerator(
        engine.model_dir,
        dtype=engine.config.policy.dtype,
        eos_token_ids=engine.eos_token_ids,
        max_len=engine.max_len,
        own_process=engine.config.rollout.engine == "vllm-process",
        gpu_memory=engine.config.rollout.gpu_memory,
        kv_cache_gib=engine.config.rollout.kv_cache_gib,
        trust_remote_code=engine.config.policy.trust_remote_code,
    )
    probe, tolerance = probe[: engine.max_len - 1], PROBE_TOLERANCE[engine.config.policy.dtype]
    try:
        if engine.is_as_read:
            check_probe(generator, engine.model, probe, tolerance)
        generator.sync(engine.model)
        check_probe(generator, engine.model, probe, tolerance)
    except BaseException:
        generator.close()
        raise
    return generator
