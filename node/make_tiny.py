"""Trains the embedded policy from nothing: `sapo policy make-tiny`.

A Qwen2 of some hundred thousand parameters sees questions of the easy manifest with their correct
answers (never a held-out one), and training on a task pauses while the policy answers a set share
of it correctly. So it half-knows all tasks: its weakness is skill. docs/tiny.md says what came out.

Left out: any wrong answer in the corpus, prompt loss, several threads (the result would differ).
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
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from node.tiny_tokenizer import END, MAX_CONTEXT_TOKENS, PAD, train_tokenizer
from rewards.question import MAX_INDEX, Expansion, is_held_out, normalise
from rewards.tasks import Task, build_task
from swarm.manifest import Manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]
Example = tuple[list[int], list[int]]
"""Token ids of a prompt and of its answer, the end-of-sequence token included."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the embedded policy is made; the defaults are how the shipped one was."""

    steps: int = 4000
    """At most; training ends earlier once every task is at its target."""
    batch: int = 64
    learning_rate: float = 2e-3
    """At its peak; a linear warm-up over 100 steps, then a cosine down to a tenth."""
    target: float = 0.10
    """Share of correct answers at temperature 1 above which a task is trained on less."""
    probe_every: int = 100
    """Steps between measurements of that share, on questions that are not held out."""
    probe_questions: int = 48
    """Per task."""
    train_questions: int = 8000
    """Per task, with repetitions where a task has fewer texts."""
    exam_questions: int = 200
    """Held-out ones per task, for the figures at the end."""
    hidden: int = 96
    layers: int = 3
    heads: int = 3
    kv_heads: int = 1
    intermediate: int = 256


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What the policy does on held-out questions of one task, 8 answers each."""

    task: str
    sampled: float
    """Share of correct answers at temperature 1."""
    standard_error: float
    """Of `sampled`, over questions."""
    greedy: float
    """Share of questions whose most likely answer, token by token, is correct."""
    finished: float
    """Share of sampled answers that end within the manifest's number of tokens."""
    mixed: float
    """Share of questions with correct and wrong answers among the 8: those that GRPO uses."""
    questions: int


@dataclass(frozen=True, slots=True)
class TinyReport:
    """How a policy was made and what it can do; TINY.json beside the weights."""

    seed: int
    swarm_id: str
    """Of the manifest whose tasks it was trained on."""
    recipe: Recipe
    steps: int
    parameters: int
    vocabulary: int
    tasks: tuple[TaskFigures, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.parameters:,} parameters, {self.vocabulary} tokens, seed {self.seed}, "
            f"{self.steps} steps",
            f"{'held-out, by task':24} temperature 1   greedy  finished  mixed groups",
        ]
        for one in self.tasks:
            lines.append(
                f"{one.task:24} {one.sampled:6.1%} ± {one.standard_error:.1%}   {one.greedy:6.1%}"
                f"  {one.finished:8.1%}  {one.mixed:6.1%}"
            )
        means = [
            statistics.fmean(getattr(one, name) for one in self.tasks)
            for name in ("sampled", "greedy", "finished", "mixed")
        ]
        lines.append(
            f"{'mean':24} {means[0]:6.1%}          {means[1]:6.1%}  {means[2]:8.1%}  {means[3]:6.1%}"
        )
        return "\n".join(lines)


def make_tiny(
    out: Path,
    seed: int,
    manifest: Manifest,
    recipe: Recipe | None = None,
    progress: Progress = logger.info,
) -> TinyReport:
    """Trains the embedded policy on the manifest's tasks and writes it to `out`.

    The same arguments give the same weights on one machine; another processor or build of torch
    may round otherwise. About ten minutes of one core with the default recipe.

    Raises:
        FileExistsError: `out` exists and is not an empty directory.
        TaskRefused: a task cannot be built here.
    """
    recipe = recipe or Recipe()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _make(out, seed, manifest, recipe, progress)
    finally:
        torch.set_num_threads(num_threads)


def _make(
    out: Path, seed: int, manifest: Manifest, recipe: Recipe, progress: Progress
) -> TinyReport:
    rng = random.Random(seed)
    tasks = [build_task(spec) for spec in manifest.rules.tasks]
    progress(f"drawing {recipe.train_questions} questions for each of {len(tasks)} tasks")
    corpus = [_draw(task, recipe.train_questions, rng) for task in tasks]
    tokenizer = train_tokenizer(
        ([one.text for one in drawn], [one.truth for one in drawn]) for drawn in corpus
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(_config(len(tokenizer), recipe))
    progress(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    taught = _teach(model, tokenizer, tasks, corpus, manifest, recipe, rng, progress)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # what is examined is what is shipped: the weights after rounding to bfloat16
    model.float()
    exams = [_draw(task, recipe.exam_questions, rng, held_out=True) for task in tasks]
    figures = examine(model, tokenizer, tasks, exams, manifest.rules.max_new_tokens, seed)
    report = TinyReport(
        seed=seed,
        swarm_id=manifest.swarm_id,
        recipe=recipe,
        steps=taught,
        parameters=model.num_parameters(),
        vocabulary=len(tokenizer),
        tasks=figures,
    )
    (out / "TINY.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
    return report


def _config(vocabulary: int, recipe: Recipe) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=MAX_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


def _draw(task: Task, count: int, rng: random.Random, held_out: bool = False) -> list[Expansion]:
    """Questions to train on (texts may repeat), or held-out ones of distinct texts."""
    drawn: list[Expansion] = []
    texts: set[str] = set()
    while len(drawn) < count:
        expansion = task.expand(rng.randrange(MAX_INDEX))
        text = normalise(expansion.text)
        if is_held_out(expansion.text) == held_out and not (held_out and text in texts):
            texts.add(text)
            drawn.append(expansion)
    return drawn


def _teach(
    model: Qwen2ForCausalLM,
    tokenizer: "PreTrainedTokenizerBase",
    tasks: Sequence[Task],
    corpus: Sequence[Sequence[Expansion]],
    manifest: Manifest,
    recipe: Recipe,
    rng: random.Random,
    progress: Progress,
) -> int:
    """Supervised training with a target per task; returns the steps that were made."""
    examples = [
        [(prompt_ids(tokenizer, one.text), _answer_ids(tokenizer, one.truth)) for one in drawn]
        for drawn in corpus
    ]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    share = [0.0] * len(tasks)
    losses: list[float] = []
    start = time.monotonic()
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        weights = [_weight(one, recipe.target) for one in share]
        chosen = rng.choices(range(len(tasks)), weights, k=recipe.batch)
        loss = _loss(model, [rng.choice(examples[task]) for task in chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % recipe.probe_every == 0:
            probes = [
                rng.sample(drawn, min(len(drawn), recipe.probe_questions)) for drawn in corpus
            ]
            share = _probe(
                model, tokenizer, tasks, probes, manifest.rules.max_new_tokens, share, step
            )
            progress(
                f"step {step}/{recipe.steps}, {time.monotonic() - start:.0f} s, loss "
                f"{statistics.fmean(losses[-recipe.probe_every :]):.3f}, correct "
                + " ".join(
                    f"{task.spec.name[:8]} {one:.0%}"
                    for task, one in zip(tasks, share, strict=True)
                )
            )
            if all(one >= recipe.target for one in share):
                return step
    return recipe.steps


def _schedule(step: int, steps: int) -> float:
    return min(1.0, step / 100) * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def _weight(share: float, target: float) -> float:
    """How much a task is trained on: fully well below its target, hardly above."""
    return min(1.0, max(0.03, 0.5 + (target - share) / (0.5 * target)))


def _probe(model, tokenizer, tasks, probes, max_new_tokens, share, step):
    generator = torch.Generator().manual_seed(step)
    fresh = []
    for task, questions in zip(tasks, probes, strict=True):
        prompts = [prompt_ids(tokenizer, one.text) for one in questions]
        answers = sample(model, prompts, max_new_tokens, generator)
        fresh.append(
            statistics.fmean(
                _judge(task, one, a, tokenizer) for one, a in zip(questions, answers, strict=True)
            )
        )
    return [0.5 * a + 0.5 * b for a, b in zip(share, fresh, strict=True)]


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """A question through the chat template, the assistant's header included."""
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    return ids


def _answer_ids(tokenizer: "PreTrainedTokenizerBase", truth: str) -> list[int]:
    return [*tokenizer(truth, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def _loss(model: Qwen2ForCausalLM, examples: Sequence[Example]) -> torch.Tensor:
    """Mean cross-entropy in nats per answer token."""
    length = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    is_answer = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(examples):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        is_answer[row, len(prompt) : len(prompt) + len(answer)] = True
    # padding stands on the right, where a causal model's answers cannot see it: no mask is needed
    hidden = model.model(ids[:, :-1]).last_hidden_state[is_answer[:, 1:]]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][is_answer[:, 1:]])


@torch.no_grad()
def sample(
    model: Qwen2ForCausalLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    generator: torch.Generator | None,
) -> list[list[int]]:
    """One answer per prompt at temperature 1, or the most likely tokens without a generator.

    An answer ends with the end-of-sequence token if it was reached.
    """
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(one)) + list(one) for one in prompts])
    mask = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in prompts])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, tokens = DynamicCache(), []
    eos = model.config.eos_token_id
    done = torch.zeros(len(prompts), dtype=torch.bool)
    for _ in range(max_new_tokens):
        logits = model(
            ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        if generator is None:
            ids = logits.argmax(-1, keepdim=True)
        else:
            ids = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        tokens.append(ids[:, 0])
        done |= ids[:, 0] == eos
        if done.all():
            break
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = positions[:, -1:] + 1
    rows = torch.stack(tokens, 1).tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


def _judge(task: Task, question: Expansion, answer: Sequence[int], tokenizer) -> bool:
    text = tokenizer.decode(answer, skip_special_tokens=True)
    return task.judge(question.question.index, text, answer[-1] == tokenizer.eos_token_id)


def examine(model, tokenizer, tasks, exams, max_new_tokens, seed) -> tuple[TaskFigures, ...]:
    """The policy's figures on the questions of each task, 8 answers to each."""
    generator = torch.Generator().manual_seed(seed)
    figures = []
    for task, questions in zip(tasks, exams, strict=True):
        prompts = [prompt_ids(tokenizer, one.text) for one in questions]
        groups: list[list[bool]] = [[] for _ in questions]
        finished = 0
        for _ in range(8):
            answers = sample(model, prompts, max_new_tokens, generator)
            finished += sum(a[-1] == tokenizer.eos_token_id for a in answers)
            for group, one, answer in zip(groups, questions, answers, strict=True):
                group.append(_judge(task, one, answer, tokenizer))
        shares = [statistics.fmean(group) for group in groups]
        greedy = sample(model, prompts, max_new_tokens, None)
        figures.append(
            TaskFigures(
                task=task.spec.name,
                sampled=statistics.fmean(shares),
                standard_error=statistics.stdev(shares) / math.sqrt(len(shares)),
                greedy=statistics.fmean(
                    _judge(task, one, a, tokenizer)
                    for one, a in zip(questions, greedy, strict=True)
                ),
                finished=finished / 8 / len(questions),
                mixed=statistics.fmean(0 < share < 1 for share in shares),
                questions=len(questions),
            )
        )
    return tuple(figures)
