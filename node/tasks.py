"""The manifest's tasks on this machine: workers that judge them, and which it judges as all do."""

import logging
from collections.abc import Mapping, Sequence

from node.config import ConfigError, NodeConfig
from node.data import find_data
from rewards.sandbox import Isolation
from rewards.tasks import TaskFacts
from rewards.verifier import Limits, Verifier
from rewards.worker import Refused
from swarm.manifest import Manifest

logger = logging.getLogger(__name__)

FEW_QUESTIONS = 32
"""Below, a task may well have no held-out one."""


def open_verifier(
    config: NodeConfig,
    manifest: Manifest,
    command: Sequence[str] | None = None,
    kind: type[Verifier] = Verifier,
) -> Verifier:
    """Worker processes for the manifest's tasks; the first call waits until they are up.

    Args:
        command: starts a worker otherwise than a node does, see Verifier.
        kind: the class of the verifier.

    Raises:
        ConfigError: a file of rows is missing, or is not the one that the manifest pins.
    """
    limits = Limits(
        deadline_s=config.verify.deadline_s,
        memory_mib=config.verify.memory_mib,
        max_answer_bytes=manifest.rules.max_answer_bytes,
        programs_anyway=config.verify.isolation == "optional",
    )
    data = find_data(manifest, config.home, config.manifest_file.parent)
    return kind(manifest.rules.tasks, limits, config.verify.workers, command, data)


def find_isolation(config: NodeConfig, verifier: Verifier) -> Isolation:
    """What keeps the workers from files and network; of a verifier that has described its tasks.

    Raises:
        ConfigError: the settings demand more than this machine gives.
    """
    isolation = verifier.isolation
    assert isolation is not None, "no worker was ready yet"
    if not isolation.is_complete and config.verify.isolation == "required":
        raise ConfigError(
            "verify.isolation = 'required', but this machine cannot isolate the verifier's "
            f"workers: {'; '.join(isolation.missing)}"
        )
    for sentence in isolation.missing:
        logger.warning("the verifier's workers are not fully isolated: %s", sentence)
    return isolation


def find_usable_tasks(
    verifier: Verifier, manifest: Manifest
) -> tuple[Mapping[str, TaskFacts], Mapping[str, str]]:
    """The tasks that this machine expands and judges as the manifest says, and of those that it
    does not, why: they are neither offered nor judged, and the log says so.

    Raises:
        ConfigError: no task of the manifest can be used.
        VerifierBroken: the tasks cannot be expanded and judged here.
    """
    described = verifier.describe()
    usable: dict[str, TaskFacts] = {}
    left_out: dict[str, str] = {}
    for task in manifest.rules.tasks:
        facts = described[task.name]
        if isinstance(facts, Refused):
            left_out[task.name] = facts.message
        elif facts.digest != task.digest:
            left_out[task.name] = (
                f"its digest here is {facts.digest}, the manifest says {task.digest or 'nothing'}; "
                "is another version of its library installed?"
            )
        else:
            usable[task.name] = facts
            if facts.num_questions is not None and facts.num_questions < FEW_QUESTIONS:
                logger.warning(
                    "task %s has only %d questions: one in 16 texts is held out, perhaps none of "
                    "these; evaluations will say little about it",
                    task.name,
                    facts.num_questions,
                )
            continue
        logger.error("task %s is left out: %s", task.name, left_out[task.name])
    if not usable:
        name, reason = next(iter(left_out.items()))
        more = f" (and {len(left_out) - 1} more: see the log)" if len(left_out) > 1 else ""
        raise ConfigError(f"manifest: no task can be used here; {name}: {reason}{more}")
    return usable, left_out
