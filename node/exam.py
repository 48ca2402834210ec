"""`sapo eval`: what policies do on questions that no node trains on, alone or against another.

Nothing is written: a home is only read, its node may be running.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from node.checkpoint import STATE_FILE, NodeState, find_newest, read_state
from node.config import ConfigError, NodeConfig
from node.evaluate import HeldOut, NoQuestionFits, accuracy, evaluate, in_common
from node.exchange import Exchange, LocalExchange
from node.interval import mean_interval, share_interval
from node.status import Status
from node.tasks import find_isolation, find_usable_tasks, open_verifier
from rewards.draw import DrawFailed
from rewards.question import Expansion
from swarm.manifest import Manifest

if TYPE_CHECKING:
    from node.policy import Policy

NUM_QUESTIONS = 128
"""Where neither the command nor the settings name a number."""

AT_ONCE = 16
"""Questions asked at once: how far apart progress is shown."""

HUB_ID = r"\w[\w.-]*(/\w[\w.-]*)?"

ADAPTER_FILE = "adapter_config.json"
"""Says that a directory holds a LoRA adapter, not a whole model."""


@dataclass(frozen=True, slots=True)
class Target:
    """A policy that a user named."""

    name: str
    model: str
    """What the settings call `policy.model`: the model, or what the adapter was made for."""
    adapter: Path | None = None
    state: NodeState | None = None
    """Of a checkpoint."""
    home: Path | None = None
    """Of the node that wrote the checkpoint."""


class Figure(msgspec.Struct, frozen=True):
    """A mean over questions, or of differences per question."""

    mean: float
    standard_error: float
    """Over questions; nan for one."""
    low: float
    """Lower end of the 95 % interval (node/interval.py)."""
    high: float


class TaskFigures(msgspec.Struct, frozen=True):
    """What was found on the questions of one task, or of all."""

    task: str | None
    """None: all."""
    num_questions: int
    pass_1: Figure
    pass_k: Figure
    greedy: Figure
    diversity: Figure
    """Vendi score of the answers to one question (node/diversity.py)."""


class Exam(msgspec.Struct, frozen=True):
    """What one policy did."""

    target: str
    model: str
    round: int | None
    """Rounds that it had made; None where it is no checkpoint of a node."""
    swarm_id: str | None
    """Of the swarm in which it learned."""
    engine: str
    wall_s: float
    """Loading included."""
    tasks: tuple[TaskFigures, ...]
    """Of all questions, then of each task."""


class Report(msgspec.Struct, frozen=True):
    """What `sapo eval` says."""

    swarm: str
    swarm_id: str
    seed: int
    """Of questions and sampling."""
    k: int
    """Answers per question."""
    temperature: float
    exams: tuple[Exam, ...]
    """Before and after, or one."""
    change: tuple[TaskFigures, ...] = ()
    """After minus before, paired by question, of the questions that fit both; empty for one."""


OpenPolicy = Callable[[NodeConfig, Manifest, Path | None, Status], AbstractContextManager["Policy"]]
"""node/build.py: open_examinee."""

Advance = Callable[[str, int], None]
"""Hears whose questions are answered, and how many have been."""


def find_target(name: str, home: Path) -> Target:
    """The policy that the user means: a checkpoint, a node's home (its newest checkpoint), the
    directory of a model, a hub id, or "tiny"; by an empty name, the node in `home`.

    Raises:
        ConfigError: it is none of these.
    """
    path = Path(name).expanduser() if name else home
    if name == "tiny" or (not path.exists() and re.fullmatch(HUB_ID, name)):
        return Target(name, name)
    if path.name == "policy" and (path.parent / STATE_FILE).is_file():
        path = path.parent
    if (path / STATE_FILE).is_file():
        try:
            return _checkpoint(name, read_state(path), path / "policy")
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{path / STATE_FILE}: no state of a node: {error}") from None
    for directory in (path / "checkpoints", path):
        if (newest := find_newest(directory)) is not None:
            return _checkpoint(name or str(path), *newest)
    if (path / ADAPTER_FILE).is_file():
        return Target(name, _adapted_model(path), path)
    if (path / "config.json").is_file():
        return Target(name, str(path))
    if not path.exists():
        hint = "" if name else "; name a checkpoint, a directory, a hub id, or tiny"
        raise ConfigError(f"there is no {path}{hint}")
    raise ConfigError(
        f"{path} is neither a checkpoint, nor a node's home with one, nor a model's directory "
        "(with a config.json)"
    )


def _checkpoint(name: str, state: NodeState, policy: Path) -> Target:
    home = policy.absolute().parents[2]
    if (policy / ADAPTER_FILE).is_file():
        return Target(name, state.model, policy, state, home)
    return Target(name, str(policy), None, state, home)


def _adapted_model(directory: Path) -> str:
    """What an adapter that no checkpoint explains was made for."""
    file = directory / ADAPTER_FILE
    try:
        settings = msgspec.json.decode(file.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    model = settings.get("base_model_name_or_path")
    if not isinstance(model, str) or not model:
        raise ConfigError(f"{file}: does not name the model of the adapter")
    return model


def examine(
    targets: Sequence[Target],
    config: NodeConfig,
    manifest: Manifest,
    open_policy: OpenPolicy,
    advance: Advance = lambda name, num_done: None,
) -> Report:
    """Asks each policy the same held-out questions of the manifest's tasks.

    Args:
        targets: one, or before and after.
        config: `evaluate.questions`, `rollout.answers` and `seed` (None: 0) are those of the exam.

    Raises:
        ConfigError: what the user has to change.
        VerifierBroken: the tasks cannot be expanded and judged on this machine.
    """
    seed = config.seed or 0
    with open_verifier(config, manifest) as verifier:
        usable, _ = find_usable_tasks(verifier, manifest)
        find_isolation(config, verifier)
        exchange = LocalExchange(verifier, list(usable), seed)
        try:
            questions = exchange.draw_held_out(config.evaluate.questions or NUM_QUESTIONS, seed)
        except DrawFailed as error:
            raise ConfigError(f"manifest: {error}") from None
        return ask(targets, config, manifest, exchange, questions, open_policy, advance)


def ask(
    targets: Sequence[Target],
    config: NodeConfig,
    manifest: Manifest,
    exchange: Exchange,
    questions: Sequence[Expansion],
    open_policy: OpenPolicy,
    advance: Advance = lambda name, num_done: None,
) -> Report:
    """See `examine`. One policy after the other, so that only one needs memory."""
    exams, found = [], []
    for target in targets:
        status, start = Status(), time.monotonic()
        advance(target.name, 0)
        policy_config = config.policy.model_copy(update={"model": target.model})
        of_target = config.model_copy(update={"policy": policy_config})
        with open_policy(of_target, manifest, target.adapter, status) as policy:
            heldout = _evaluate(target, policy, exchange, questions, advance)
        found.append(heldout)
        exams.append(
            Exam(
                target.name,
                target.model,
                None if target.state is None else target.state.round,
                None if target.state is None else target.state.swarm_id,
                status.engine,
                time.monotonic() - start,
                figures(heldout),
            )
        )
    return Report(
        manifest.about.name,
        manifest.swarm_id,
        config.seed or 0,
        config.rollout.answers,
        config.rollout.temperature,
        tuple(exams),
        change(*found) if len(found) == 2 else (),
    )


def _evaluate(
    target: Target,
    policy: "Policy",
    exchange: Exchange,
    questions: Sequence[Expansion],
    advance: Advance,
) -> HeldOut:
    num_done = 0

    @contextmanager
    def part() -> Iterator[None]:
        nonlocal num_done
        yield
        num_done += AT_ONCE
        advance(target.name, min(num_done, len(questions)))

    try:
        return evaluate(policy, exchange, questions, part, AT_ONCE)
    except NoQuestionFits as error:
        raise ConfigError(f"{target.name}: {error}") from None


def figures(found: HeldOut) -> tuple[TaskFigures, ...]:
    """Of all questions, then of each task."""
    diversity = partial(mean_interval, least=1, most=found.answers_per_question)
    shares = (share_interval,) * 3
    return _of_tasks(found.tasks, _columns(found), (*shares, diversity))


def change(before: HeldOut, after: HeldOut) -> tuple[TaskFigures, ...]:
    """After minus before, paired by question, of the questions that both have.

    Raises:
        ConfigError: there is none.
    """
    try:
        before, after = in_common(before, after)
    except NoQuestionFits as error:
        raise ConfigError(str(error)) from None
    most = after.answers_per_question - 1
    shares = (partial(mean_interval, least=-1, most=1),) * 3
    differences = [
        [later - earlier for earlier, later in zip(*pair, strict=True)]
        for pair in zip(_columns(before), _columns(after), strict=True)
    ]
    diversity = partial(mean_interval, least=-most, most=most)
    return _of_tasks(after.tasks, differences, (*shares, diversity))


def _columns(found: HeldOut) -> list[tuple[float, ...]]:
    """What TaskFigures are made from, a value per question each."""
    pass_k = found.pass_at_per_question(found.answers_per_question)
    return [found.per_question, pass_k, found.greedy_per_question, found.vendi]


def _of_tasks(
    tasks: Sequence[str],
    columns: Sequence[Sequence[float]],
    intervals: Sequence[Callable[[float, float, int], tuple[float, float]]],
) -> tuple[TaskFigures, ...]:
    rows = []
    for task in (None, *sorted(set(tasks))):
        places = [place for place, of in enumerate(tasks) if task in (None, of)]
        means = [accuracy([column[place] for place in places]) for column in columns]
        found = [
            Figure(one.mean, one.standard_error, *interval(*astuple(one)))
            for one, interval in zip(means, intervals, strict=True)
        ]
        rows.append(TaskFigures(task, len(places), *found))
    return tuple(rows)
