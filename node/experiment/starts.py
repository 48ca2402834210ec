"""The policies that nodes of an experiment start from, made on first use: `find_start`.

tiny            the embedded policy as shipped (docs/tiny.md)
specialist-K    able in the manifest's tasks K and K + 1 as far as so small a model learns them in
                seconds, unable in all others; K = 0 to 7, so that each of 8 tasks has two masters
sparse          the embedded policy made weaker in all tasks: a very sparse reward
small, large    a third and three times its size, tokenizers of their own, half as able

Specialists and the sparse start are the embedded policy after some more steps of supervised
training on questions that are not held out. Where a policy is to be unable it learns answers in
which one letter or digit stands twice: so it keeps the form of an answer and is nearly always
wrong.

docs/experiments-starts.md has what each can do. Such inability is made, and shallow: ten steps on
correct answers bring much of it back. An experiment with these starts shows what sharing does in
that case.
"""

import hashlib
import json
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from node.config import ConfigError, PolicyConfig
from node.make_tiny import Recipe, example, make_tiny, new_optimizer, schedule, train_step
from node.model import find_model, load_model, load_tokenizer
from node.tiny_exam import Student, TaskFigures, draw_held_out, draw_to_train, examine
from node.tiny_tokenizer import Pieces
from rewards.question import Expansion
from rewards.tasks import build_task
from swarm.manifest import Manifest

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

logger = logging.getLogger(__name__)

REPORT_FILE = "START.json"

VERSION = 1
"""Of what this file does with a recipe; a change that makes other policies raises it."""

EXAM_QUESTIONS = 60


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the embedded policy is made able in some tasks and unable in others."""

    able: tuple[int, ...] = ()
    """Places of tasks in the manifest, modulo their number; learned from correct answers."""
    able_share: float = 0.0
    """Of the examples of a step, in equal parts for these tasks; the others are of one other task,
    drawn anew for each step (equal lengths need less padding)."""
    spoilt: float = 1.0
    """Share of the answers of other tasks that are spoilt."""
    steps: int = 200
    batch_questions: int = 32
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    able_questions: int = 2000
    """Drawn per task that it is to be able in; a step draws from them with replacement."""
    other_questions: int = 400
    """Drawn per other task."""
    exam_questions: int = EXAM_QUESTIONS
    """Held-out ones per task, for the report."""

    @property
    def min_tasks(self) -> int:
        """Of a manifest: it has the first of the own tasks, and one that is not."""
        return max(len(self.able), *self.able[:1], 0) + 1


@dataclass(frozen=True, slots=True)
class Making:
    """How a policy of another size and tokenizer is made from nothing."""

    recipe: Recipe
    pieces: Pieces
    max_new_tokens: int
    """That its tokenizer needs for an answer: the least that a node which starts from it must set
    as `rollout.max_new_tokens`, lest it cut its own answers and leave out foreign ones."""


STARTS: dict[str, Tuning | Making | None] = {
    "tiny": None,
    **{f"specialist-{k}": Tuning(able=(k, k + 1), able_share=0.75) for k in range(8)},
    "sparse": Tuning(spoilt=0.9, steps=100),
    "small": Making(
        Recipe(
            hidden_size=64,
            num_layers=2,
            num_heads=2,
            intermediate_size=160,
            max_steps=1000,
            slip_steps=60,
            batch_questions=32,
            probe_every=250,
            train_questions=3000,
            exam_questions=EXAM_QUESTIONS,
        ),
        pieces="bytes",
        max_new_tokens=24,
    ),
    "large": Making(
        Recipe(
            hidden_size=160,
            num_layers=4,
            num_heads=5,
            intermediate_size=416,
            max_steps=700,
            slip_steps=60,
            batch_questions=32,
            learning_rate=2e-3,
            probe_every=100,
            train_questions=3000,
            exam_questions=EXAM_QUESTIONS,
        ),
        pieces="words",
        max_new_tokens=24,
    ),
}
"""Name -> how it is made; None: it is shipped."""


@dataclass(frozen=True, slots=True)
class StartReport:
    """What a start is and can do; written beside the weights."""

    name: str
    seed: int
    swarm_id: str
    """Of the manifest whose tasks it was made for."""
    recipe: Tuning | Making
    num_parameters: int
    vocabulary: int
    tasks: tuple[TaskFigures, ...]

    def __str__(self) -> str:
        sampled = ", ".join(f"{one.task} {one.sampled:.1%}" for one in self.tasks)
        return f"{self.name}: {fmean(one.sampled for one in self.tasks):.1%} correct: {sampled}"


def find_start(name: str, seed: int, manifest: Manifest, cache: Path) -> Path:
    """The directory of a policy (safetensors, tokenizer), made if it is not in `cache` yet.

    The same arguments give the same files on the same machine. One thread; docs/
    experiments-starts.md says how long. What is in the cache under the right name is trusted.

    Args:
        seed: of the questions drawn, and of a model that is made from nothing; "tiny" has none.

    Raises:
        ConfigError: no start has this name, or the manifest has too few tasks for it.
        TaskRefused: a task cannot be built here.
    """
    if name not in STARTS:
        raise ConfigError(f"start = {name!r}: there are {', '.join(STARTS)}")
    recipe = STARTS[name]
    embedded = find_model(PolicyConfig(model="tiny"))
    if recipe is None:
        return embedded
    num_tasks = len(manifest.rules.tasks)
    if isinstance(recipe, Tuning) and num_tasks < recipe.min_tasks:
        raise ConfigError(f"start = {name!r}: the manifest has only {num_tasks} tasks")
    made = cache / f"{name}-{seed}-{_digest(recipe, seed, manifest, embedded)}"
    if not made.exists():
        _make_aside(made, name, recipe, seed, manifest)
    return made


def spoil(answer: str, rng: random.Random) -> str:
    """The answer with one letter or digit of it twice: no zero, since 00 is 0, and with nothing
    else to double a 1 at its end."""
    places = [place for place, sign in enumerate(answer) if sign.isalnum() and sign != "0"]
    if not places:
        return f"{answer}1"
    place = rng.choice(places)
    return answer[:place] + answer[place] + answer[place:]


def _digest(recipe: Tuning | Making, seed: int, manifest: Manifest, embedded: Path) -> str:
    """Names all that decides the files."""
    weights = hashlib.sha256((embedded / "model.safetensors").read_bytes()).hexdigest()
    parts = [VERSION, asdict(recipe), seed, manifest.swarm_id, weights]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _make_aside(
    made: Path, name: str, recipe: Tuning | Making, seed: int, manifest: Manifest
) -> None:
    """Makes the policy in a directory of its own and renames it when it is complete."""
    began = time.monotonic()
    logger.info("making the start %s, seed %d", name, seed)
    made.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{made.name}-", dir=made.parent))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if isinstance(recipe, Tuning):
            report = _tune(aside, name, recipe, seed, manifest)
        else:
            report = _make(aside, name, recipe, seed, manifest)
        (aside / REPORT_FILE).write_text(json.dumps(asdict(report), indent=1) + "\n")
        try:
            aside.rename(made)
        except OSError:
            if not made.exists():
                raise
            # another process was quicker, and made the same
    finally:
        torch.set_num_threads(num_threads)
        shutil.rmtree(aside, ignore_errors=True)
    logger.info("%s (%.0f s)", report, time.monotonic() - began)


def _make(out: Path, name: str, making: Making, seed: int, manifest: Manifest) -> StartReport:
    tiny = make_tiny(
        out,
        seed,
        manifest,
        making.recipe,
        pieces=making.pieces,
        max_new_tokens=making.max_new_tokens,
    )
    return StartReport(
        name, seed, manifest.swarm_id, making, tiny.num_parameters, tiny.vocabulary, tiny.tasks
    )


def _tune(out: Path, name: str, tuning: Tuning, seed: int, manifest: Manifest) -> StartReport:
    rng = random.Random(seed)
    policy = PolicyConfig(model="tiny")
    embedded = find_model(policy)
    model: Qwen2ForCausalLM = load_model(embedded, policy)  # type: ignore[assignment]
    tokenizer = load_tokenizer(embedded, policy)
    torch.nn.Module.to(model, "cpu")
    student = Student(model, tokenizer, manifest.rules.max_new_tokens)
    tasks = [build_task(spec) for spec in manifest.rules.tasks]
    able = {place % len(tasks) for place in tuning.able}
    corpus = []
    for place, task in enumerate(tasks):
        num_questions = tuning.able_questions if place in able else tuning.other_questions
        corpus.append(draw_to_train(task, num_questions, rng))
    model.train()
    _learn(student, corpus, able, tuning, rng)
    model.eval()  # type: ignore[no-untyped-call]
    model.to(torch.bfloat16)  # type: ignore[arg-type]
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # what is examined is what is kept: the weights as rounded
    model.to(torch.float32)  # type: ignore[arg-type]
    exams = [draw_held_out(task, tuning.exam_questions, rng) for task in tasks]
    figures = tuple(
        examine(student, task, exam, seed) for task, exam in zip(tasks, exams, strict=True)
    )
    return StartReport(
        name, seed, manifest.swarm_id, tuning, model.num_parameters(), len(tokenizer), figures
    )


def _learn(
    student: Student,
    corpus: Sequence[Sequence[Expansion]],
    able: Set[int],
    tuning: Tuning,
    rng: random.Random,
) -> None:
    """Correct answers to questions of the tasks `able`, spoilt ones to those of all others."""
    lessons = [corpus[place] for place in sorted(able)]
    others = [drawn for place, drawn in enumerate(corpus) if place not in able]
    num_able = round(tuning.able_share * tuning.batch_questions)
    optimizer = new_optimizer(student)
    for step in range(1, tuning.steps + 1):
        other = rng.choice(others)
        batch = []
        for row in range(tuning.batch_questions):
            is_able = row < num_able
            one = rng.choice(lessons[row % len(lessons)] if is_able else other)
            spoils = not is_able and rng.random() < tuning.spoilt
            answer = spoil(one.truth, rng) if spoils else one.truth
            batch.append(example(student, one.text, answer))
        factor = schedule(step, tuning.steps, tuning.warmup_steps)
        loss = train_step(student, optimizer, tuning.learning_rate * factor, batch)
        if step % 50 == 0:
            logger.info("step %d of %d, loss %.2f", step, tuning.steps, loss)
