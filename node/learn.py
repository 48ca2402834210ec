"""One policy-gradient step (GRPO) per batch, made by TRL's GRPOTrainer; the only file with TRL.

`GRPOTrainer.train()` runs in its own thread and is parked between batches, so that a round can
call `learn(batch)` like a function while optimizer, scheduler, clipping and resume stay TRL's.
Several learners may live in one process: none changes what another one computes. But `bf16` must be
the same for all of them, since accelerate keeps the kind of arithmetic once per process.

What is TRL's: the clipped loss (`loss_type="dapo"`: the mean over all answer tokens of the
batch), the fused log-probabilities, AdamW (TRL's default betas 0.9 and 0.999, epsilon 1e-8),
clipping of the gradient norm, the schedule, LoRA, checkpoint files.
What is ours: the rewards (verified before), the advantages, and micro-batches, as many as a batch
needs. TRL normalises advantages over groups of one fixed size; rollouts of peers have other sizes,
so node/batch.py does it, by TRL's formula.
Advantages are multiplied by their answer's weight. Answers whose advantage is 0, or became so by a
weight of 0, have no gradient: they are counted in the mean over tokens, but not sent through the
model. (With a KL weight they have one, and are sent.)

TRL has a loss called "sapo". It is an unrelated method and is never used here.

Not covered: more than one GPU. That would be a `torchrun` group in which every rank runs this
file's thread and `_Trainer.wait_for_batch` broadcasts rank 0's rows before it returns.
Weights are trained in their own dtype: give float32 ones, since small steps on bfloat16 ones are
rounded away. `bf16` sets the arithmetic of forward and backward alone.
"""

import copy
import importlib.util
import math
import statistics
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import utils as trl_utils

from node.config import ConfigError, LearnConfig
from node.groups import BatchLimits, Group
from node.status import HeldOutStatus, RoundReport
from node.update import Update

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# TRL sends every position through the head where there is no Triton, lest compilers for fixed
# shapes (Neuron) start again. Scoring only the answers' tokens gives the same on a CPU, sooner.
trl_utils._use_triton = lambda device: device.type in ("cpu", "cuda", "xpu")


MEASURED = ("clip_ratio/", "entropy", "kl")
"""What is reported of what TRL measures in a step."""


class LearnerFailed(RuntimeError):
    """The trainer's thread has died, its error is the cause; only close() is possible now."""


class NonFiniteGradient(ArithmeticError):
    """The gradient is infinite or not a number; the weights are as they were before the step."""


@dataclass(frozen=True, slots=True)
class _Row:
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    advantage: float


@dataclass(frozen=True, slots=True)
class _Batch:
    rows: list[_Row]
    num_tokens: int
    """Answer tokens of the whole batch, also those without a row: the loss is divided by it."""
    rate_factor: float
    """Multiplies the learning rate in the steps on this batch."""


@dataclass(frozen=True, slots=True)
class _Request:
    work: _Batch | Path | None
    """A batch to learn, a directory to save to, or None: stop."""
    reply: "Future[list[_Step]]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Step:
    """What TRL logged for one optimizer step."""

    loss: float
    gradient_norm: float
    learning_rate: float
    clip_share: float


class _Stopped(Exception):
    """Unwinds train() when the learner is closed."""


class Learner:
    """A model that learns from batches of groups. Blocking; called from one thread."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        config: LearnConfig,
        *,
        max_answers: int,
        max_answer_tokens: int,
        temperature: float,
        seed: int,
        work_dir: Path,
        bf16: bool = False,
        resume_from: Path | None = None,
    ) -> None:
        """Takes the model over and returns when the trainer waits for its first batch.

        Args:
            model: the start; changed in place, or wrapped by an adapter with `lora_rank`. When
                resuming, its weights are replaced; with LoRA, a KL weight or `kl_every` they must
                still be the start's, which is the base or what is compared with.
            max_answers: the most answers that a batch may have, over all its groups, own and
                foreign.
            max_answer_tokens: the longest answer allowed, own or foreign.
            temperature: of the sampling; log-probabilities are taken at the same one.
            seed: of the adapter's start. Seeds the process's global random generators (python,
                numpy, torch), and resuming restores them; no step draws from them.
            work_dir: TRL's output directory; created, and left empty, but for TensorBoard's files
                with `report_to`.
            bf16: forward and backward in bfloat16 (autocast); weights stay as they are.
            resume_from: a directory that `save` filled. Settings of `config` win over those that
                were in force when it was saved. Weights are read as safetensors; the state of
                optimizer, scheduler and random generators by torch.load with weights_only=True,
                which builds tensors and numbers and runs no code.

        Raises:
            ConfigError: what `report_to` names is not installed.
            LearnerFailed: the trainer could not start or resume.
        """
        self._limits = _limits(model, max_answers, max_answer_tokens)
        self._uses_kl = config.kl_weight > 0
        self._ess_guard = config.ess_guard
        _check_reporters(config)
        settings = _trl_config(
            config,
            temperature=temperature,
            seed=seed % 2**32,
            output_dir=str(work_dir),
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
        )
        self._trainer = _build_trainer(model, tokenizer, config, settings)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._train, args=(resume_from,), name="trl-trainer", daemon=True
        )
        self._thread.start()
        self._wait(self._trainer.ready)

    @property
    def model(self) -> torch.nn.Module:
        """The trained model as it is now: what is synchronised to the engine. A PeftModel with
        `lora_rank`."""
        model: torch.nn.Module = self._trainer.model
        return model

    @property
    def step(self) -> int:
        """Optimizer steps made so far, over all restarts."""
        return int(self._trainer.state.global_step)

    def learn(self, batch: Sequence[Group]) -> Update:
        """One step on the batch (`num_iterations` of them); returns when the model has changed.

        A batch in which no group is informative and has a weight has no gradient. It is skipped
        with a reason: an optimizer step would still move the weights along the momentum of
        earlier batches.

        Raises:
            ValueError: a group is malformed (names it); nothing was learned.
            LearnerFailed: the step failed, e.g. out of memory or a gradient that is not finite.
        """
        self._limits.check(batch)
        num_answers = sum(len(group.answer_ids) for group in batch)
        num_tokens = sum(len(ids) for group in batch for ids in group.answer_ids)
        if not num_answers:
            return Update(step=self.step, skipped="the batch is empty")
        rows = _rows(batch, keep_zero=self._uses_kl)
        if not rows:
            return Update(
                step=self.step,
                skipped="no informative group",
                num_answers=num_answers,
                num_tokens=num_tokens,
            )
        sample_size = effective_sample_size(batch)
        steps = self._ask(_Batch(rows, num_tokens, self._rate_factor(sample_size)))
        return Update(
            step=self.step,
            loss=statistics.fmean(step.loss for step in steps),
            gradient_norm=statistics.fmean(step.gradient_norm for step in steps),
            learning_rate=steps[-1].learning_rate,
            clip_share=statistics.fmean(step.clip_share for step in steps),
            num_answers=num_answers,
            num_tokens=num_tokens,
            effective_sample_size=sample_size,
        )

    def _rate_factor(self, sample_size: float) -> float:
        # Without any weighted answer there is only the KL term, which no weight touches.
        return math.sqrt(sample_size) if self._ess_guard and sample_size else 1.0

    def answer_logps(
        self, groups: Sequence[Group], *, of_start: bool = False
    ) -> list[tuple[float, ...]]:
        """Mean log-probability per token in nats of each answer of each group, under the model as
        it is now, at the sampling temperature.

        The log-probabilities are those of the loss, computed without gradient,
        `micro_batch_answers` at a time, so there may be any number of answers. Called between two
        `learn`s: the trainer's thread waits.

        Args:
            of_start: under the start instead; needs `kl_every`, a KL weight or LoRA.

        Raises:
            ValueError: a group is malformed (names it).
        """
        self._limits.check_groups(groups)
        rows = [(group.prompt_ids, ids) for group in groups for ids in group.answer_ids]
        sums = iter(self._trainer.sum_logps(rows, of_start=of_start))
        return [tuple(next(sums) / len(ids) for ids in group.answer_ids) for group in groups]

    def report(self, found: RoundReport | HeldOutStatus) -> None:
        """Sends a round's or an evaluation's figures to `report_to`, as of the last step. Called
        between two `learn`s, like `save`: the trainer's thread waits."""
        part = "round" if isinstance(found, RoundReport) else "heldout"
        self._trainer.send({f"{part}/{name}": value for name, value in figures(found).items()})

    def save(self, directory: Path) -> None:
        """Writes all that `resume_from` needs into an existing, empty directory.

        Model (or adapter) as safetensors, tokenizer, optimizer, scheduler, random state, trainer
        state. Not done here: fsync and rename (node/checkpoint.py).

        Raises:
            OSError: e.g. a full disk; the learner goes on.
            LearnerFailed: the trainer had died before.
        """
        self._ask(directory)

    def close(self) -> None:
        """Ends train() and its thread. Idempotent; possible after a failure."""
        if self._thread.is_alive():
            self._trainer.requests.put(_Request(None))
            self._thread.join()

    def _ask(self, work: _Batch | Path) -> "list[_Step]":
        if self._failure is not None or not self._thread.is_alive():
            raise LearnerFailed("the trainer's thread has ended") from self._failure
        request = _Request(work)
        self._trainer.requests.put(request)
        return self._wait(request.reply)

    def _wait(self, reply: "Future[list[_Step]]") -> "list[_Step]":
        try:
            return reply.result()
        except BaseException as error:
            if error is self._failure:
                raise LearnerFailed(f"the trainer failed: {error!r}") from error
            raise

    def _train(self, resume_from: Path | None) -> None:
        """The trainer's thread: whatever ends it reaches whoever waits for it."""
        try:
            self._trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
            raise RuntimeError("train() returned by itself")
        except _Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - the thread's edge; raised by _wait
            self._failure = error
            self._trainer.current.set_exception(error)


def figures(found: RoundReport | HeldOutStatus) -> dict[str, float]:
    """The plain finite numbers of it, by their names."""
    values = msgspec.structs.asdict(found)
    if isinstance(found, RoundReport):
        values |= {
            "foreign_groups_used": found.foreign_groups_used,
            "round_s": found.round_s,
            "tokens_per_s": found.tokens_per_s,
        }
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _check_reporters(config: LearnConfig) -> None:
    for name in config.report_to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"learn.report_to = {name}: it is not installed here; run: pip install {name}"
            )


def _limits(model: "PreTrainedModel", max_answers: int, max_answer_tokens: int) -> BatchLimits:
    config = model.config.get_text_config()
    return BatchLimits(
        max_answers,
        max_answer_tokens,
        max_positions=getattr(config, "max_position_embeddings", None) or sys.maxsize,
        vocab_size=int(model.get_input_embeddings().num_embeddings),  # type: ignore[arg-type]
    )


def _rows(batch: Sequence[Group], keep_zero: bool) -> list[_Row]:
    return [
        _Row(group.prompt_ids, ids, weight * advantage)
        for group in batch
        for ids, advantage, weight in zip(
            group.answer_ids, group.advantages, group.answer_weights, strict=True
        )
        if keep_zero or weight * advantage != 0
    ]


def effective_sample_size(batch: Sequence[Group]) -> float:
    """(sum w)^2 / sum w^2 over the weights of the answers whose advantage is not 0, as a share of
    their number; 0 where all weights are 0, or no answer has an advantage."""
    weights = [
        weight
        for group in batch
        for advantage, weight in zip(group.advantages, group.answer_weights, strict=True)
        if advantage
    ]
    squares = sum(weight**2 for weight in weights)
    return sum(weights) ** 2 / squares / len(weights) if squares else 0.0


def _build_trainer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    config: LearnConfig,
    settings: GRPOConfig,
) -> "_Trainer":
    # The start as it was given, not what TRL would load again by the model's name: the reference of
    # the KL term, or only measured with. With LoRA it is the model with its adapter switched off.
    needs_start = config.kl_weight > 0 or config.kl_every > 0
    start = copy.deepcopy(model) if needs_start and not config.lora_rank else None
    if start is not None and settings.bf16 and not config.kl_weight:
        torch.nn.Module.to(start, torch.bfloat16)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using 'rollout_func'")  # hence the exact pin
        trainer = _Trainer(
            model=model,
            processing_class=tokenizer,
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": [""]}),  # TRL wants one; never read
            reward_funcs=[_no_reward],
            rollout_func=_rollout,
            peft_config=_lora(config.lora_rank),
        )
    trainer.beta = config.kl_weight
    trainer.micro_batch_answers = config.micro_batch_answers
    if start is not None:
        trl_utils.add_fused_lm_head(start, temperature=settings.temperature)
        start.train(False)
        trainer.ref_model = trainer.accelerator.prepare_model(start, evaluation_mode=True)
    return trainer


def _trl_config(config: LearnConfig, **run: Any) -> GRPOConfig:
    rows_at_once = max(2, config.micro_batch_answers)  # TRL wants two answers per prompt
    return GRPOConfig(
        **run,
        loss_type="dapo",
        beta=0.0,  # set in _build_trainer: here it would make TRL load a reference model
        use_bias_correction_kl=False,  # the KL estimate of the GRPO paper
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        num_iterations=config.num_iterations,
        per_device_train_batch_size=rows_at_once,
        num_generations=rows_at_once,
        gradient_accumulation_steps=1,  # `_Trainer.training_step` accumulates
        disable_dropout=True,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        max_steps=10**12,
        gradient_checkpointing=config.gradient_checkpointing,
        ignore_data_skip=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        save_strategy="no",
    )


def _lora(rank: int) -> Any:
    if not rank:
        return None
    # "all-linear": every projection of attention and MLP, the head excepted.
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _no_reward(completions: Sequence[str], **_: object) -> list[float]:
    """Advantages replace what TRL would make of rewards (`_Trainer._score`)."""
    return [0.0] * len(completions)


def _rollout(prompts: Sequence[str], trainer: "_Trainer") -> dict[str, Any]:
    """TRL's seam of generation, answered with rows whose answers exist already."""
    return {
        "prompt_ids": [list(row.prompt_ids) for row in trainer.rows],
        "completion_ids": [list(row.answer_ids) for row in trainer.rows],
        "logprobs": None,
    }


class _Trainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer that takes batches from a queue and reports to whoever sent them."""

    def __init__(self, **kwargs: Any) -> None:
        self.requests: SimpleQueue[_Request] = SimpleQueue()
        self.ready: Future[list[_Step]] = Future()
        self.current: Future[list[_Step]] = self.ready
        """Who is told when the work under way is finished."""
        self.micro_batch_answers = 1
        self.rows: Sequence[_Row] = ()
        self.rate_factor = 1.0
        self.steps: list[_Step] = []
        super().__init__(**kwargs)

    def wait_for_batch(self) -> _Batch:
        """Reports the step before as finished and serves saves until there is a batch.

        TRL asks for a batch only when everything of the last step is done, so that what is saved
        from here is consistent.
        """
        steps, self.steps = self.steps, []
        self.current.set_result(steps)
        while True:
            request = self.requests.get()
            if request.work is None:
                raise _Stopped
            if isinstance(request.work, _Batch):
                self.current = request.reply
                return request.work
            try:
                self.write(request.work)
            except Exception as error:  # noqa: BLE001 - handed to the caller of save()
                request.reply.set_exception(error)
            else:
                request.reply.set_result([])

    def get_train_dataloader(self) -> Iterator[list[dict[str, Any]]]:
        """The micro-batches of each optimizer step, the same ones `num_iterations` times. Rows keep
        their order: the same batches give the same bits after a restart."""
        while True:
            batch = self.wait_for_batch()
            self.rate_factor = batch.rate_factor
            if not self.model.training:  # as it was loaded; TRL would score for an evaluation
                self.model.train()
            num_parts = math.ceil(len(batch.rows) / self.micro_batch_answers)
            size = math.ceil(len(batch.rows) / num_parts)
            parts = [
                self._score(batch.rows[start : start + size], batch.num_tokens)
                for start in range(0, len(batch.rows), size)
            ]
            for _ in range(self.num_iterations):
                yield parts

    def _score(self, rows: Sequence[_Row], num_tokens: int) -> dict[str, Any]:
        """Rows as padded tensors, [rows, longest prompt or answer], with our advantages."""
        self.rows = rows
        self.num_generations = len(rows)
        scored: dict[str, Any] = self._generate_and_score_completions(
            [{"prompt": ""} for _ in rows]
        )
        like = scored["advantages"]
        scored["advantages"] = like.new_tensor([row.advantage for row in rows])
        scored["num_items_in_batch"] = torch.tensor(num_tokens, device=like.device)
        return scored

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """TRL's for each micro-batch; gradients add up, since each divides by all the tokens."""
        for group in self.optimizer.param_groups:
            group["lr"] *= self.rate_factor  # the scheduler sets the rate anew after every step
        losses = []
        for part in inputs:
            losses.append(super().training_step(model, part, num_items_in_batch))
        return torch.stack(losses).sum()

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """They are prepared."""
        return inputs

    def sum_logps(
        self, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], *, of_start: bool
    ) -> list[float]:
        """Sum of the log-probabilities of each answer, given (prompt, answer) as ids.

        Padded on the right, where a causal model does not look; positions begin at 0.
        """
        size = self.micro_batch_answers
        was_training = self.model.training
        self.model.eval()  # no checkpointing of gradients
        try:
            with torch.no_grad(), self._start() if of_start else nullcontext(self.model) as model:
                parts = [
                    self._sum_logps(model, rows[start : start + size])
                    for start in range(0, len(rows), size)
                ]
        finally:
            self.model.train(was_training)
        return [value for part in parts for value in part]

    @contextmanager
    def _start(self) -> Iterator[torch.nn.Module]:
        if self.ref_model is not None:
            yield self.ref_model
        else:
            with self.model.disable_adapter():
                yield self.model

    def _sum_logps(
        self, model: torch.nn.Module, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> list[float]:
        shape = (len(rows), max(len(prompt) + len(answer) for prompt, answer in rows))
        ids = torch.full(shape, self.processing_class.pad_token_id)
        mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, -100)
        for row, (prompt, answer) in enumerate(rows):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            mask[row, :end] = 1
            labels[row, len(prompt) : end] = torch.tensor(answer)
        device = self.accelerator.device
        with self.accelerator.autocast():
            found = model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                labels=labels.to(device),
                fused_lm_head=True,
            )
        sums: list[float] = found.log_probs.double().sum(-1).tolist()
        return sums

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keeps the figures of one step, and no history: TRL's would grow for ever."""
        clipped = self._metrics["train"]["clip_ratio/region_mean"]
        rate = logs["learning_rate"] * self.rate_factor  # logged is the scheduler's
        self.steps.append(_Step(logs["loss"], logs["grad_norm"], rate, statistics.fmean(clipped)))
        if self.args.report_to:
            means = {
                name: statistics.fmean(values)
                for name, values in self._metrics["train"].items()
                if name.startswith(MEASURED)  # others are of rewards, which TRL does not see here
            }
            self.send({**logs, "learning_rate": rate, **means})
        self._metrics["train"].clear()

    def send(self, figures: dict[str, float]) -> None:
        """To `report_to`, as TRL's own logging does, but without its history."""
        if self.args.report_to:
            self.callback_handler.on_log(self.args, self.state, self.control, figures)

    def write(self, directory: Path) -> None:
        """The files that train(resume_from_checkpoint=...) reads, without model card and pickles
        of settings."""
        if not directory.is_dir():  # transformers would log this and go on
            raise NotADirectoryError(f"{directory} is not a directory")
        model = self.model
        if hasattr(model, "peft_config"):
            tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
            save_file(tensors, directory / "adapter_model.safetensors")
            model.peft_config["default"].save_pretrained(str(directory))
        else:
            model.save_pretrained(directory)
        self.processing_class.save_pretrained(directory)
        self._save_optimizer_and_scheduler(str(directory))
        self._save_rng_state(str(directory))
        self.state.save_to_json(str(directory / "trainer_state.json"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Restores Adam's moments and the schedule's position, but no settings."""
        wanted = [
            (group["initial_lr"], group["weight_decay"]) for group in self.optimizer.param_groups
        ]
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = self.lr_scheduler
        scheduler.base_lrs = [rate for rate, _ in wanted]
        for group, factor, (rate, decay) in zip(
            self.optimizer.param_groups, scheduler.lr_lambdas, wanted, strict=True
        ):
            group["initial_lr"], group["weight_decay"] = rate, decay
            group["lr"] = rate * factor(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """TRL's parent warns and goes on with fresh weights; a tied head is rightly missing."""
        missing = set(load_result.missing_keys) - set(
            getattr(self.model, "all_tied_weights_keys", ())
        )
        if wrong := sorted(missing | set(load_result.unexpected_keys)):
            raise ValueError(f"the checkpoint is of another model; it differs in {wrong[:3]}")

    def _get_grad_norm(self, model: object, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(norm):
            raise NonFiniteGradient(f"the norm of the gradient is {norm}")
        return norm

    def _send_telemetry(self) -> None:
        """TRL would tell the hub that it is used."""

    def floating_point_ops(self, inputs: object) -> int:
        """Not counted."""
        return 0
