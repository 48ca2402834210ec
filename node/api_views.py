"""What the API answers with, besides the snapshot and its parts: one struct per answer."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from pydantic import BaseModel

from node.checkpoint import find_rounds, read_state
from node.config import NodeConfig
from node.refusal_times import RefusalBucket
from node.snapshot import HARMLESS
from node.status import HeldOutStatus, PeerStatus, RoundReport, TaskHeldOut
from rewards.tasks import TaskSpec
from swarm.ledger import Lie
from swarm.refusal import Charge, Refusal

SECRET = re.compile(r"(^|_)(token|secret|password|passphrase|credentials?|key)$")
"""Names of settings whose values nobody is shown."""
HIDDEN = "(hidden)"
_USER = re.compile(r"(?<=://)[^/@\s]*@")


class Problem(msgspec.Struct, frozen=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    """For people; may change with any version."""


class Version(msgspec.Struct, frozen=True):
    """Of the program."""

    version: str


class OwnAccuracy(msgspec.Struct, frozen=True):
    """Own answers to one task in the last rounds."""

    accuracy: float | None
    """Share that is correct; null where it was not asked."""
    num_answers: int
    num_rounds: int
    """That asked it."""


class HeldOutOfTask(msgspec.Struct, frozen=True):
    """What one evaluation found on a task's held-out questions."""

    round: int
    mean: float
    """pass@1."""
    standard_error: float
    num_questions: int


class TaskView(msgspec.Struct, frozen=True):
    """One task of the swarm file."""

    name: str
    kind: str
    dataset: str
    answer_format: str
    is_offered: bool
    """Whether this node asks and judges it."""
    left_out: str | None
    """Why not, as a sentence."""
    own: OwnAccuracy
    heldout_start: HeldOutOfTask | None
    """The first evaluation that has the task."""
    heldout_now: HeldOutOfTask | None
    """The last one."""


class PeerView(PeerStatus, frozen=True, kw_only=True):
    """One peer."""

    proven_lies: tuple[Lie, ...]
    """Of which proofs are kept, newest first."""


class RefusalCount(msgspec.Struct, frozen=True):
    """One reason."""

    reason: str
    count: int
    """Since the home was made."""
    pays: str
    """Whom it is counted against: author, carrier or nobody."""
    is_harmless: bool
    """Happens all the time where all is well."""


class Refusals(msgspec.Struct, frozen=True):
    """What was not taken, and why; docs/swarm.md explains each reason."""

    total: tuple[RefusalCount, ...]
    """The most frequent first."""
    since: float
    """Unix seconds: the start of the process, before which no times are known."""
    width_s: int
    buckets: tuple[RefusalBucket, ...]
    """Those with any refusals, of the last day at most, oldest first."""


class CheckpointView(msgspec.Struct, frozen=True):
    """One checkpoint on the disk."""

    name: str
    """Of its directory."""
    round: int
    num_bytes: int
    written_at: float
    """Unix seconds."""
    age_s: float
    total_tokens: int | None
    """Generated until then; null where its state cannot be read: it is passed over at a start."""


class Setting(msgspec.Struct, frozen=True):
    """One setting in force."""

    key: str
    """Dotted, e.g. "learn.learning_rate"."""
    value: bool | int | float | str | list[str] | None
    """"(hidden)" where it is a secret."""
    origin: str
    """The file, environment variable or flag that it comes from, or "default"."""
    meaning: str


def view_tasks(
    specs: Sequence[TaskSpec],
    offered: Sequence[str],
    left_out: Mapping[str, str],
    reports: Sequence[RoundReport],
    heldout: Sequence[HeldOutStatus],
) -> list[TaskView]:
    """The tasks of the swarm file in its order.

    Args:
        reports: of the rounds that `own` is of.
    """
    return [
        TaskView(
            name=spec.name,
            kind=spec.kind,
            dataset=spec.dataset,
            answer_format=spec.answer_format,
            is_offered=spec.name in offered,
            left_out=left_out.get(spec.name),
            own=_own_accuracy(spec.name, reports),
            heldout_start=_heldout(spec.name, heldout),
            heldout_now=_heldout(spec.name, heldout[::-1]),
        )
        for spec in specs
    ]


def _own_accuracy(task: str, reports: Sequence[RoundReport]) -> OwnAccuracy:
    found = [report.own_tasks[task] for report in reports if task in report.own_tasks]
    num_answers = sum(one.num_answers for one in found)
    num_correct = sum(one.num_correct for one in found)
    return OwnAccuracy(num_correct / num_answers if num_answers else None, num_answers, len(found))


def _heldout(task: str, heldout: Sequence[HeldOutStatus]) -> HeldOutOfTask | None:
    for one in heldout:
        if (found := one.tasks.get(task)) is not None:
            return _of_task(one.round, found)
    return None


def _of_task(number: int, found: TaskHeldOut) -> HeldOutOfTask:
    return HeldOutOfTask(number, found.mean, found.standard_error, found.num_questions)


def count_refusals(totals: Mapping[str, int]) -> tuple[RefusalCount, ...]:
    """The totals, the most frequent first. Reasons of the learner (node/status.py: ForeignFate),
    like those of other versions, are counted against nobody."""
    known = {refusal.value: refusal.charge for refusal in Refusal}
    return tuple(
        RefusalCount(name, num, known.get(name, Charge.NOBODY).value, name in HARMLESS)
        for name, num in sorted(totals.items(), key=lambda one: (-one[1], one[0]))
    )


def view_checkpoints(directory: Path, now: float | None = None) -> list[CheckpointView]:
    """Those on the disk, newest first. One that is removed meanwhile is left out. Reads the disk:
    not in the trio thread."""
    now = time.time() if now is None else now
    found = []
    for path in reversed(find_rounds(directory)):
        try:
            written_at, num_bytes = path.stat().st_mtime, _size(path)
            number = int(path.name.removeprefix("round-"))
        except (OSError, ValueError):
            continue
        try:
            total_tokens: int | None = read_state(path).total_tokens
        except (OSError, msgspec.DecodeError):
            total_tokens = None
        age_s = max(0.0, now - written_at)
        found.append(CheckpointView(path.name, number, num_bytes, written_at, age_s, total_tokens))
    return found


def _size(directory: Path) -> int:
    return sum(
        os.stat(os.path.join(root, name)).st_size
        for root, _, names in os.walk(directory)
        for name in names
    )


def view_settings(config: NodeConfig) -> list[Setting]:
    """The settings in force, in the order of node/config.py, without secrets.

    Covered: settings named like a secret, and the user and password of a URL. No setting of this
    version is a secret: token and key are files of the home.
    """
    return list(_settings(config, "", config.origins))


def _settings(section: BaseModel, prefix: str, origins: Mapping[str, str]) -> list[Setting]:
    found: list[Setting] = []
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), prefix + name
        if isinstance(value, BaseModel):
            found += _settings(value, f"{key}.", origins)
        else:
            shown = HIDDEN if SECRET.search(name) and value is not None else _shown(value)
            meaning = " ".join((field.description or "").split())
            found.append(Setting(key, shown, origins.get(key, "default"), meaning))
    return found


def _shown(value: object) -> bool | int | float | str | list[str] | None:
    match value:
        case None | bool() | int() | float():
            return value
        case tuple() | list():
            return [_without_user(str(one)) for one in value]
    return _without_user(str(value))


def _without_user(text: str) -> str:
    return _USER.sub(f"{HIDDEN}@", text)
