"""Trains the embedded policy from nothing: `sapo policy make-tiny`.

A Qwen2 of 0.3 million parameters first sees questions of the easy manifest with their correct
answers, never a held-out question, and stops far from mastering them. Then it sees such questions
for a short time with answers many of which are spoilt by a slip: a digit or letter doubled,
dropped, swapped or replaced. So it is weak in two ways that reinforcement can mend, the second
sooner than the first: it half-knows its tasks, and it is careless. docs/tiny.md has the figures.

Left out: loss on the prompt, and more than one thread, with which the result would depend on the
machine's cores.
"""

import json
import logging
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from node.config import ConfigError, find_manifest
from node.policy import answer_ids, prompt_ids
from node.tiny_exam import Student, TaskFigures, draw_held_out, draw_to_train, examine
from node.tiny_tokenizer import (
    END,
    MAX_CONTEXT_TOKENS,
    PAD,
    SPECIAL_TOKENS,
    Pieces,
    train_tokenizer,
)
from rewards.question import Expansion
from rewards.tasks import Task, build_task
from swarm.manifest import Manifest, load_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

REPORT_FILE = "TINY.json"

Progress = Callable[[str], None]

Example = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of its answer, the end-of-sequence token included."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an embedded policy is made; the defaults made the shipped one."""

    skill: float = 0.25
    """Share of correct answers, at temperature 1 and as a mean over tasks, at which learning the
    tasks ends, if it is at least a quarter of that in each. A task that is above it is trained on
    less, at one and a half times of it hardly at all."""
    accuracy: float = 0.09
    """Share of correct answers that is left in each task after learning to slip."""
    max_steps: int = 4000
    """Of learning the tasks."""
    slip_steps: int = 300
    batch_questions: int = 64
    learning_rate: float = 3e-3
    slip_learning_rate: float = 1e-3
    probe_every: int = 50
    """Steps between measurements of the skill, on questions that are not held out."""
    probe_questions: int = 48
    """Per task."""
    train_questions: int = 8000
    """Per task; texts may repeat."""
    exam_questions: int = 200
    """Held-out ones per task, for the figures at the end."""
    hidden_size: int = 96
    num_layers: int = 3
    num_heads: int = 3
    """Heads have hidden_size / num_heads = 32 dimensions: vLLM on a CPU takes no 16."""
    num_kv_heads: int = 1
    intermediate_size: int = 256


@dataclass(frozen=True, slots=True)
class TinyReport:
    """How a policy was made and what it can do; written beside the weights."""

    seed: int
    swarm_id: str
    """Of the manifest whose tasks it was trained on."""
    recipe: Recipe
    num_steps: int
    """Of learning the tasks; recipe.slip_steps came after them."""
    slip_rates: dict[str, float]
    """By task: the share of wrong answers in the second corpus."""
    num_parameters: int
    vocabulary: int
    tasks: tuple[TaskFigures, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.num_parameters:,} parameters, {self.vocabulary} tokens, seed {self.seed}, "
            f"{self.num_steps} steps",
            f"{'held-out questions':24}    sampled         greedy finished  mixed",
        ]
        for one in self.tasks:
            lines.append(
                f"{one.task:24} {one.sampled:6.1%} ±{one.sampled_error:5.1%}   "
                f"{one.greedy:6.1%}   {one.finished:6.1%} {one.mixed:6.1%}"
            )
        mean = {
            name: statistics.fmean(getattr(one, name) for one in self.tasks)
            for name in ("sampled", "greedy", "finished", "mixed")
        }
        lines.append(
            f"{'mean':24} {mean['sampled']:6.1%}          {mean['greedy']:6.1%}   "
            f"{mean['finished']:6.1%} {mean['mixed']:6.1%}"
        )
        return "\n".join(lines)


def make_tiny(
    out: Path,
    seed: int,
    manifest: Manifest | None = None,
    recipe: Recipe | None = None,
    progress: Progress = logger.info,
    *,
    pieces: Pieces = "phrases",
    max_new_tokens: int | None = None,
) -> TinyReport:
    """Trains an embedded policy for the manifest's tasks (by default "easy") and writes it.

    Args:
        pieces: what its tokenizer holds besides bytes.
        max_new_tokens: of an answer when it is examined; None takes the manifest's limit.

    The same arguments give the same files on the same machine; another processor or build of
    torch may round otherwise and end up with a similar policy. One core, about eight minutes.

    Raises:
        ConfigError: `out` is a file or not empty.
        TaskRefused: a task cannot be built here.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"--out {out}: choose a directory that does not exist yet, or is empty")
    if manifest is None:
        manifest = load_manifest(find_manifest("easy"))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        limit = max_new_tokens or manifest.rules.max_new_tokens
        return _make(out, seed, manifest, recipe or Recipe(), progress, pieces, limit)
    finally:
        torch.set_num_threads(num_threads)


def _make(
    out: Path,
    seed: int,
    manifest: Manifest,
    recipe: Recipe,
    progress: Progress,
    pieces: Pieces,
    max_new_tokens: int,
) -> TinyReport:
    rng = random.Random(seed)
    tasks = [build_task(spec) for spec in manifest.rules.tasks]
    progress(f"drawing {recipe.train_questions} questions for each of {len(tasks)} tasks")
    corpus = [draw_to_train(task, recipe.train_questions, rng) for task in tasks]
    tokenizer = train_tokenizer(
        (([one.text for one in drawn], [one.truth for one in drawn]) for drawn in corpus), pieces
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(_config(tokenizer, recipe))  # type: ignore[no-untyped-call]
    progress(f"training {model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    student = Student(model, tokenizer, max_new_tokens)
    num_steps, shares = _learn_tasks(student, tasks, corpus, recipe, rng, progress)
    rates = _learn_slips(student, tasks, corpus, shares, recipe, rng)
    progress(f"learned to slip: {_listed(tasks, rates)}")
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16)  # type: ignore[arg-type]
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    progress("examining it on held-out questions")
    # what is examined is what is shipped: the weights as rounded
    model.to(torch.float32)  # type: ignore[arg-type]
    report = TinyReport(
        seed=seed,
        swarm_id=manifest.swarm_id,
        recipe=recipe,
        num_steps=num_steps,
        slip_rates={task.spec.name: rate for task, rate in zip(tasks, rates, strict=True)},
        num_parameters=model.num_parameters(),
        vocabulary=len(tokenizer),
        tasks=tuple(
            examine(student, task, draw_held_out(task, recipe.exam_questions, rng), seed)
            for task in tasks
        ),
    )
    (out / REPORT_FILE).write_text(json.dumps(asdict(report), indent=1) + "\n")
    return report


def _config(tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_kv_heads,
        max_position_embeddings=MAX_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index(END),
        pad_token_id=SPECIAL_TOKENS.index(PAD),
    )


def _learn_tasks(
    student: Student,
    tasks: Sequence[Task],
    corpus: Sequence[Sequence[Expansion]],
    recipe: Recipe,
    rng: random.Random,
    progress: Progress,
) -> tuple[int, list[float]]:
    """Learns from correct answers until `recipe.skill`; returns steps, and share right per task."""
    examples = [[example(student, one.text, one.truth) for one in drawn] for drawn in corpus]
    optimizer = new_optimizer(student)
    shares = [0.0] * len(tasks)
    start = time.monotonic()
    for step in range(1, recipe.max_steps + 1):
        rate = recipe.learning_rate * schedule(step, recipe.max_steps)
        weights = [min(1.0, max(0.005, 1.5 - share / recipe.skill)) for share in shares]
        chosen = rng.choices(examples, weights, k=recipe.batch_questions)
        loss = train_step(student, optimizer, rate, [rng.choice(of_task) for of_task in chosen])
        if step % recipe.probe_every == 0:
            for place, (task, drawn) in enumerate(zip(tasks, corpus, strict=True)):
                probe = rng.sample(drawn, recipe.probe_questions)
                fresh = student.share_correct(task, probe, step)
                shares[place] += (fresh - shares[place]) / 3  # one probe alone is noisy
            progress(
                f"step {step} of at most {recipe.max_steps}, {time.monotonic() - start:.0f} s, "
                f"loss {loss:.2f}, correct: {_listed(tasks, shares)}"
            )
            if statistics.fmean(shares) >= recipe.skill and min(shares) >= recipe.skill / 4:
                return step, shares
    return recipe.max_steps, shares


def _learn_slips(
    student: Student,
    tasks: Sequence[Task],
    corpus: Sequence[Sequence[Expansion]],
    shares: Sequence[float],
    recipe: Recipe,
    rng: random.Random,
) -> list[float]:
    """Learns to be careless, the more the better it is at a task; returns the rates of slips."""
    rates = [max(0.0, 1 - recipe.accuracy / max(share, recipe.accuracy)) for share in shares]
    optimizer = new_optimizer(student)
    for step in range(1, recipe.slip_steps + 1):
        batch = []
        for place in rng.choices(range(len(tasks)), k=recipe.batch_questions):
            one = rng.choice(corpus[place])
            slips = rng.random() < rates[place]
            batch.append(example(student, one.text, slip(one.truth, rng) if slips else one.truth))
        rate = recipe.slip_learning_rate * schedule(step, recipe.slip_steps)
        train_step(student, optimizer, rate, batch)
    return rates


def slip(answer: str, rng: random.Random) -> str:
    """The answer as a careless hand would write it: one letter or digit, or two, are wrong."""
    places = [place for place, sign in enumerate(answer) if sign.isalnum()]
    place = rng.choice(places) if places else len(answer)
    before, sign, after = answer[:place], answer[place : place + 1], answer[place + 1 :]
    match rng.choice(("neighbour", "doubled", "dropped", "swapped")):
        case "dropped" if len(places) > 1:
            return before + after
        case "swapped" if after[:1].isalnum() and after[0] != sign:
            return before + after[0] + sign + after[1:]
        case "neighbour" if sign.isdigit():
            return before + str((int(sign) + rng.choice((1, 9))) % 10) + after
        case "neighbour" if sign.isalpha():
            return before + rng.choice("abcdefghijklmnopqrstuvwxyz".replace(sign, "")) + after
    return before + (sign or rng.choice("0123456789")) + sign + after


def _listed(tasks: Sequence[Task], shares: Sequence[float]) -> str:
    pairs = zip(tasks, shares, strict=True)
    return ", ".join(f"{task.spec.name} {share:.0%}" for task, share in pairs)


def new_optimizer(student: Student) -> torch.optim.Optimizer:
    """For `train_step`, which sets the learning rate."""
    return torch.optim.AdamW(student.model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)


def train_step(
    student: Student, optimizer: torch.optim.Optimizer, rate: float, batch: Sequence[Example]
) -> float:
    """One step on the batch at this learning rate; returns the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = _loss(student.model, batch)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(student.model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def schedule(step: int, num_steps: int, warmup_steps: int = 100) -> float:
    """Factor of the learning rate: a linear warm-up, and a cosine down to a tenth."""
    return min(1.0, step / warmup_steps) * (0.55 + 0.45 * math.cos(math.pi * step / num_steps))


def example(student: Student, text: str, answer: str) -> Example:
    """A question and this finished answer to it."""
    tokenizer = student.tokenizer
    return prompt_ids(tokenizer, text), answer_ids(tokenizer, answer, finished=True)


def _loss(model: Qwen2ForCausalLM, examples: Sequence[Example]) -> torch.Tensor:
    """Mean cross-entropy in nats per answer token."""
    length = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    is_answer = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        is_answer[row, len(prompt) : end] = True
    # padding stands on the right, where no answer sees it: no attention mask is needed
    hidden = model.model(ids[:, :-1]).last_hidden_state[is_answer[:, 1:]]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][is_answer[:, 1:]])
