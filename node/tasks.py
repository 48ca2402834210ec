"""The manifest's tasks on this machine: workers that judge them, and which it judges as all do."""

import logging

from node.config import ConfigError, NodeConfig
from rewards.verifier import Limits, Verifier
from swarm.manifest import Manifest

logger = logging.getLogger(__name__)


def open_verifier(config: NodeConfig, manifest: Manifest) -> Verifier:
    """Worker processes for the manifest's tasks; the first call waits until they are up."""
    limits = Limits(
        deadline_s=config.verify.deadline_s,
        memory_mib=config.verify.memory_mib,
        max_answer_bytes=manifest.rules.max_answer_bytes,
    )
    return Verifier(manifest.rules.tasks, limits, config.verify.workers)


def find_usable_tasks(verifier: Verifier, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Names of the tasks that this machine expands and judges as the manifest says, and of those
    that it does not: they are neither offered nor judged, and the log says so.

    Raises:
        ConfigError: no task of the manifest has the digest that it states.
        VerifierBroken: the tasks cannot be expanded and judged here.
    """
    digests = verifier.digests()
    usable, left_out = [], []
    for task in manifest.rules.tasks:
        if task.digest == digests[task.name]:
            usable.append(task.name)
            continue
        left_out.append(task.name)
        logger.error(
            "task %s is left out: its digest here is %s, the manifest says %s; "
            "is another version of its library installed?",
            task.name,
            digests[task.name],
            task.digest or "nothing",
        )
    if not usable:
        raise ConfigError("manifest: no task has the digest that it states; see the log")
    return usable, left_out
