"""The tasks of a swarm file as those who write them see them: what each is, what the model reads,
what counts as right, and which kinds are installed.

All of it comes from the verifier's workers: no code of a task runs in this process.
"""

import hashlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib.metadata import entry_points, version

import msgspec
from msgspec import structs

from node.config import ConfigError, NodeConfig
from node.tasks import open_verifier
from rewards.extract import mark_answer
from rewards.process import worker_command
from rewards.question import (
    MAX_INDEX,
    Answer,
    Example,
    Question,
    Unscorable,
    is_correct,
    is_held_out,
)
from rewards.tasks import ENTRY_POINTS, KINDS, TaskFacts, TaskSpec
from rewards.verifier import Verifier, VerifierBroken
from rewards.worker import Refused
from swarm.manifest import Manifest

OpenVerifier = Callable[[Sequence[TaskSpec], int], Verifier]
"""Starts workers for tasks, under a hash seed. All nodes have 0: another shows what depends on it.
"""

MAX_FRUITLESS = 64
"""Addresses in a row that lead to questions seen before, after which a task has no more."""


class DigestState(StrEnum):
    """Whether this machine expands and judges a task as its manifest says."""

    AS_STATED = "as stated"
    DIFFERS = "differs"
    NOT_STATED = "not stated"
    NOT_BUILT = "not built"


class TaskEntry(msgspec.Struct, frozen=True):
    """A task of a manifest, and what this machine makes of it."""

    spec: TaskSpec
    state: DigestState
    why: str = ""
    """Why it is not built."""
    facts: TaskFacts | None = None
    """None where it is not built."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of task that is installed."""

    name: str
    package: str
    version: str
    problem: str = ""
    """Why tasks of it are refused, whatever their manifest says."""


class TaskList(msgspec.Struct, frozen=True):
    """What `sapo tasks ls --json` prints."""

    swarm: str
    """The swarm's id."""
    tasks: tuple[TaskEntry, ...]
    kinds: tuple[Kind, ...]


class Sample(msgspec.Struct, frozen=True):
    """One question as a policy sees it, and what counts as right."""

    question: Question
    is_held_out: bool
    system: str
    examples: tuple[Example, ...]
    text: str
    truth: str
    answer: str
    """The truth as the policy should write it."""
    is_correct: bool
    """Whether the verifier judges that answer correct."""


def opener(
    config: NodeConfig, manifest: Manifest, command: Sequence[str] | None = None
) -> OpenVerifier:
    """What starts workers for some of the manifest's tasks, as a node starts them.

    Args:
        command: starts a worker of another make; for tests.
    """

    def open_tasks(specs: Sequence[TaskSpec], hash_seed: int) -> Verifier:
        start = ("env", f"PYTHONHASHSEED={hash_seed}", *(command or worker_command()))
        rules = structs.replace(manifest.rules, tasks=tuple(specs))
        return open_verifier(config, structs.replace(manifest, rules=rules), start)

    return open_tasks


def start_workers(
    specs: Sequence[TaskSpec], open_tasks: OpenVerifier, hash_seed: int = 0
) -> tuple[Verifier | None, dict[str, TaskFacts | Refused]]:
    """Workers for those of the tasks that can be built, and what is known of each, by name.

    A task that ends every worker in which it is built is found by starting each alone, and refused
    like one that says why. None where no task is left. The caller closes the verifier.
    """
    verifier = open_tasks(specs, hash_seed)
    try:
        return verifier, verifier.describe()
    except VerifierBroken as error:
        verifier.close()
        if len(specs) == 1:
            return None, {specs[0].name: Refused(str(error))}
    described: dict[str, TaskFacts | Refused] = {}
    for spec in specs:
        alone, facts = start_workers([spec], open_tasks, hash_seed)
        described |= facts
        if alone is not None:
            alone.close()
    usable = [spec for spec in specs if isinstance(described[spec.name], TaskFacts)]
    return (open_tasks(usable, hash_seed) if usable else None), described


def list_tasks(specs: Sequence[TaskSpec], open_tasks: OpenVerifier) -> list[TaskEntry]:
    """What this machine makes of each task, in the manifest's order."""
    verifier, described = start_workers(specs, open_tasks)
    if verifier is not None:
        verifier.close()
    return [entry_of(spec, described[spec.name]) for spec in specs]


def entry_of(spec: TaskSpec, found: TaskFacts | Refused) -> TaskEntry:
    """A task with what a worker said of it."""
    if isinstance(found, Refused):
        return TaskEntry(spec, DigestState.NOT_BUILT, found.message)
    if not spec.digest:
        state = DigestState.NOT_STATED
    else:
        state = DigestState.AS_STATED if spec.digest == found.digest else DigestState.DIFFERS
    return TaskEntry(spec, state, facts=found)


def find_task(manifest: Manifest, name: str) -> TaskSpec:
    """The manifest's task of that name.

    Raises:
        ConfigError: it has none.
    """
    specs = {spec.name: spec for spec in manifest.rules.tasks}
    if name not in specs:
        there = ", ".join(specs)
        raise ConfigError(f"the swarm {manifest.about.name!r} has no task {name!r}; it has {there}")
    return specs[name]


def draw_samples(
    spec: TaskSpec, open_tasks: OpenVerifier, num_samples: int, seed: int
) -> list[Sample]:
    """Different questions of a task, drawn from its addresses by hash; fewer if it has no more.

    Raises:
        ConfigError: the task is not built here, or a question cannot be made; the message says why.
    """
    verifier, described = start_workers([spec], open_tasks)
    found = described[spec.name]
    if verifier is None or isinstance(found, Refused):
        raise ConfigError(found.message if isinstance(found, Refused) else "no worker")
    with verifier:
        samples: dict[Question, Sample] = {}
        fruitless = 0
        for question in addresses(spec.name, f"sample {seed}", MAX_FRUITLESS * (num_samples + 1)):
            if len(samples) == num_samples or fruitless == MAX_FRUITLESS:
                break
            sample = _sample(verifier, spec, question)
            fruitless = fruitless + 1 if sample.question in samples else 0
            samples.setdefault(sample.question, sample)
    return list(samples.values())


def addresses(task: str, purpose: str, number: int) -> list[Question]:
    """Addresses of a task, spread by hash, the same for the same purpose."""
    hashes = (hashlib.sha256(f"{purpose}\n{task}\n{i}".encode()) for i in range(number))
    return [Question(task, int.from_bytes(each.digest()[:8]) % MAX_INDEX) for each in hashes]


def installed_kinds() -> list[Kind]:
    """This package's kinds, and those that installed packages name. Reads metadata, imports
    nothing."""
    kinds = [Kind(name, "sapo-swarm", version("sapo-swarm")) for name in KINDS]
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name)
    names = [entry.name for entry in found]
    for entry in found:
        problem = ""
        if entry.name in KINDS:
            problem = "is a kind of sapo-swarm: this one is never used"
        elif names.count(entry.name) > 1:
            problem = f"{names.count(entry.name)} packages define it: uninstall all but one"
        package = ("", "") if entry.dist is None else (entry.dist.name, entry.dist.version)
        kinds.append(Kind(entry.name, *package, problem))
    return kinds


def _sample(verifier: Verifier, spec: TaskSpec, question: Question) -> Sample:
    expansion = verifier.expand([question])[0]
    if isinstance(expansion, Unscorable):
        why = f"{expansion.reason} {expansion.detail}".strip()
        raise ConfigError(f"task {spec.name!r}: question {question.index} cannot be made: {why}")
    answer = mark_answer(expansion.truth, spec.answer_format)
    verdict = verifier.judge([(question, [Answer(answer, finished=True)])])[0][0]
    return Sample(
        question=expansion.question,
        is_held_out=is_held_out(expansion.text),
        system=expansion.system,
        examples=expansion.examples,
        text=expansion.text,
        truth=expansion.truth,
        answer=answer,
        is_correct=is_correct(verdict),
    )
