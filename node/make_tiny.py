"""Trains the embedded policy from nothing: `sapo policy make-tiny`.

A Qwen2 of 0.3 million parameters sees questions of the easy manifest with their correct answers,
never a held-out one, and a task's share of the training shrinks to nearly nothing as the policy
gets a set part of it right. So it half-knows every task, and its weakness is skill.
docs/tiny.md says what came out.

Left out: wrong answers in the corpus, loss on the prompt, and more than one thread, with which
the result would depend on the machine's cores.
"""

import json
import logging
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from node.config import ConfigError
from node.evaluate import accuracy
from node.generate import MIN_TEMPERATURE, Sampling
from node.generate_transformers import TransformersGenerator
from node.policy import prompt_ids
from node.tiny_tokenizer import END, MAX_CONTEXT_TOKENS, PAD, SPECIAL_TOKENS, train_tokenizer
from rewards.question import MAX_INDEX, Expansion, is_held_out, normalise
from rewards.tasks import Task, build_task
from swarm.manifest import Manifest, load_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

REPORT_FILE = "TINY.json"

Example = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of its answer, the end-of-sequence token included."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an embedded policy is made; the defaults made the shipped one."""

    max_steps: int = 4000
    """Training ends earlier, once the tasks are at their target on average, each at half of it."""
    batch_questions: int = 64
    learning_rate: float = 2e-3
    """At its peak; a linear warm-up over 100 steps, then a cosine down to a tenth."""
    target: float = 0.08
    """Share of correct answers at temperature 1 at which a task is trained on half as much; at one
    and a half times the target hardly at all."""
    probe_every: int = 50
    """Steps between measurements of that share, on questions that are not held out."""
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
class TaskFigures:
    """What the policy does on held-out questions of one task."""

    task: str
    num_questions: int
    sampled: float
    """Share of correct answers at temperature 1, 8 to each question."""
    sampled_error: float
    """Standard error of `sampled`, over questions."""
    greedy: float
    """Share of questions whose answer of the most likely tokens is correct."""
    finished: float
    """Share of the sampled answers that end by themselves."""
    mixed: float
    """Share of questions with correct and wrong answers among the 8: those GRPO learns from."""


@dataclass(frozen=True, slots=True)
class TinyReport:
    """How a policy was made and what it can do; written beside the weights."""

    seed: int
    swarm_id: str
    """Of the manifest whose tasks it was trained on."""
    recipe: Recipe
    num_steps: int
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
    progress: Callable[[str], None] = logger.info,
) -> TinyReport:
    """Trains an embedded policy for the manifest's tasks (by default "easy") and writes it.

    The same arguments give the same files on the same machine; another processor or build of
    torch may round otherwise and end up with a similar policy. One core, about six minutes.

    Raises:
        ConfigError: `out` is a file or not empty.
        TaskRefused: a task cannot be built here.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"--out {out}: choose a directory that does not exist yet, or is empty")
    if manifest is None:
        shipped = files("node") / "configs" / "swarms" / "easy.toml"
        manifest = load_manifest(Path(str(shipped)))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _make(out, seed, manifest, recipe or Recipe(), progress)
    finally:
        torch.set_num_threads(num_threads)


def _make(
    out: Path, seed: int, manifest: Manifest, recipe: Recipe, progress: Callable[[str], None]
) -> TinyReport:
    rng = random.Random(seed)
    tasks = [build_task(spec) for spec in manifest.rules.tasks]
    progress(f"drawing {recipe.train_questions} questions for each of {len(tasks)} tasks")
    corpus = [draw_to_train(task, recipe.train_questions, rng) for task in tasks]
    tokenizer = train_tokenizer(
        ([one.text for one in drawn], [one.truth for one in drawn]) for drawn in corpus
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(_config(tokenizer, recipe))  # type: ignore[no-untyped-call]
    progress(f"training {model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    student = Student(model, tokenizer, manifest.rules.max_new_tokens)
    num_steps = _teach(student, tasks, corpus, recipe, rng, progress)
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


def draw_to_train(task: Task, num_questions: int, rng: random.Random) -> list[Expansion]:
    """Questions of a task that are not held out; texts may repeat."""
    drawn: list[Expansion] = []
    while len(drawn) < num_questions:
        question = task.expand(rng.randrange(MAX_INDEX))
        if not is_held_out(question.text):
            drawn.append(question)
    return drawn


def draw_held_out(task: Task, num_questions: int, rng: random.Random) -> list[Expansion]:
    """Held-out questions of a task with distinct texts. Does not end if it has fewer."""
    drawn: dict[str, Expansion] = {}
    while len(drawn) < num_questions:
        question = task.expand(rng.randrange(MAX_INDEX))
        if is_held_out(question.text):
            drawn.setdefault(normalise(question.text), question)
    return list(drawn.values())


class Student:
    """A model with its tokenizer, answering questions one batch after the other."""

    def __init__(
        self,
        model: Qwen2ForCausalLM,
        tokenizer: "PreTrainedTokenizerBase",
        max_new_tokens: int,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        eos = SPECIAL_TOKENS.index(END)
        self.generator = TransformersGenerator(model, [eos], max_rows=256)

    def answer(
        self, task: Task, questions: Sequence[Expansion], sampling: Sampling, seed: int
    ) -> list[list[tuple[bool, bool]]]:
        """For each question, for each answer to it: whether it is correct, and finished."""
        prompts = [prompt_ids(self.tokenizer, question.text) for question in questions]
        seeds = [(seed * 1_000_003 + place) % 2**31 for place in range(len(questions))]
        groups = self.generator.generate(prompts, seeds, sampling)
        return [
            [
                (
                    task.judge(question.question.index, self._text(one.token_ids), one.finished),
                    one.finished,
                )
                for one in group
            ]
            for question, group in zip(questions, groups, strict=True)
        ]

    def _text(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def share_correct(self, task: Task, questions: Sequence[Expansion], seed: int) -> float:
        """Of one answer to each question at temperature 1."""
        groups = self.answer(task, questions, Sampling(1, self.max_new_tokens), seed)
        return statistics.fmean(correct for group in groups for correct, _ in group)


def examine(student: Student, task: Task, questions: Sequence[Expansion], seed: int) -> TaskFigures:
    """What the policy does on these questions, 8 answers to each."""
    groups = student.answer(task, questions, Sampling(8, student.max_new_tokens), seed)
    shares = [statistics.fmean(correct for correct, _ in group) for group in groups]
    sampled = accuracy(shares)
    # cold enough that only the most likely token has a chance
    greedy = student.answer(
        task, questions, Sampling(1, student.max_new_tokens, MIN_TEMPERATURE), seed
    )
    return TaskFigures(
        task=task.spec.name,
        num_questions=len(questions),
        sampled=sampled.mean,
        sampled_error=sampled.standard_error,
        greedy=statistics.fmean(group[0][0] for group in greedy),
        finished=statistics.fmean(finished for group in groups for _, finished in group),
        mixed=statistics.fmean(0 < share < 1 for share in shares),
    )


def _teach(
    student: Student,
    tasks: Sequence[Task],
    corpus: Sequence[Sequence[Expansion]],
    recipe: Recipe,
    rng: random.Random,
    progress: Callable[[str], None],
) -> int:
    """Trains until the tasks are at their target; returns the number of steps."""
    examples = [[_example(student.tokenizer, one) for one in drawn] for drawn in corpus]
    optimizer = torch.optim.AdamW(
        student.model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    shares = [0.0] * len(tasks)
    start = time.monotonic()
    for step in range(1, recipe.max_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step / recipe.max_steps, step)
        weights = [min(1.0, max(0.005, 1.5 - share / recipe.target)) for share in shares]
        chosen = rng.choices(examples, weights, k=recipe.batch_questions)
        loss = _loss(student.model, [rng.choice(of_task) for of_task in chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(student.model.parameters(), 1.0)
        optimizer.step()
        if step % recipe.probe_every == 0:
            for place, (task, drawn) in enumerate(zip(tasks, corpus, strict=True)):
                probe = rng.sample(drawn, recipe.probe_questions)
                fresh = student.share_correct(task, probe, step)
                shares[place] += (fresh - shares[place]) / 3  # one probe alone is noisy
            progress(
                f"step {step} of at most {recipe.max_steps}, {time.monotonic() - start:.0f} s, "
                f"loss {loss.item():.2f}, correct: "
                + ", ".join(
                    f"{task.spec.name} {share:.0%}"
                    for task, share in zip(tasks, shares, strict=True)
                )
            )
            if statistics.fmean(shares) >= recipe.target and min(shares) >= recipe.target / 2:
                return step
    return recipe.max_steps


def _schedule(progress: float, step: int) -> float:
    """Factor of the learning rate after this part of the training."""
    return min(1.0, step / 100) * (0.55 + 0.45 * math.cos(math.pi * progress))


def _example(tokenizer: "PreTrainedTokenizerBase", question: Expansion) -> Example:
    answer = tokenizer.encode(question.truth, add_special_tokens=False, split_special_tokens=True)
    return prompt_ids(tokenizer, question.text), (*answer, SPECIAL_TOKENS.index(END))


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
