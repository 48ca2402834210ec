"""The engine and the trainer tried on this machine: generate, learn once, sync, probe.

    echo SETTINGS-AS-JSON | python -P -m node.selftest [--gpu]

A process of its own, started by `sapo doctor`: torch stays out of the command line, and what
crashes here is a finding there. Prints a finding as JSON per line. With the embedded policy,
whatever model the settings name, and in a temporary directory; nothing is fetched.

Not covered: the memory that the configured model needs, and its architecture.
"""

import math
import os
import sys
import tempfile
import time
from pathlib import Path

from node.batch import make_strategy
from node.build import PROBE, build_policy
from node.checkpoint import NodeState
from node.config import ConfigError, NodeConfig
from node.finding import Finding, Level
from node.generate import GenerationFailed, check_probe, token_logps
from node.groups import Lesson, OwnRollout, Source, VerifiedRollout
from node.log import log_to
from node.policy import LanguagePolicy, prompt_ids
from node.status import Status
from node.status_json import to_json
from rewards.question import Expansion, Judged, Question
from swarm.manifest import load_manifest

QUESTIONS, ANSWERS, MAX_NEW_TOKENS = 4, 4, 16
NAME = "selftest"


def main() -> None:
    """Runs it; the exit status says only whether it came to its end."""
    findings = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no finding
    log_to(None)
    config = NodeConfig.model_validate_json(sys.stdin.buffer.read(2**20))
    with tempfile.TemporaryDirectory(prefix="sapo-selftest-") as home:
        for finding in run(for_selftest(config, Path(home)), "--gpu" in sys.argv[1:]):
            findings.write(to_json(finding).decode() + "\n")
            findings.flush()


def for_selftest(config: NodeConfig, home: Path) -> NodeConfig:
    """The settings with the embedded policy and a small round."""
    updates = {
        "home": home,
        "mode": "train",
        "manifest": "easy",
        "policy": config.policy.model_copy(update={"model": "tiny", "revision": None}),
        "rollout": config.rollout.model_copy(
            update={
                "questions": QUESTIONS,
                "answers": ANSWERS,
                "max_new_tokens": MAX_NEW_TOKENS,
                "max_prompt_tokens": 128,
                "kv_cache_gib": min(config.rollout.kv_cache_gib, 0.25),
            }
        ),
    }
    return config.model_copy(update=updates)


def run(config: NodeConfig, needs_gpu: bool) -> list[Finding]:
    """What was tried, in order, until something does not work."""
    import torch

    if needs_gpu and not torch.cuda.is_available():
        said = "no GPU that torch can use; nothing was tried"
        remedy = "sapo doctor --selftest tries the same on the CPU; see the finding 'gpu'"
        return [Finding(NAME, Level.BAD, said, remedy)]
    place = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "the CPU"
    found = [Finding(NAME, Level.OK, f"on {place}, torch {torch.__version__}")]
    status, began = Status(), time.monotonic()
    manifest = load_manifest(config.manifest_file)
    state = NodeState(round=0, seed=1, swarm_id=manifest.swarm_id, model="tiny")
    try:
        strategy = make_strategy(config)
        policy = build_policy(config, manifest, strategy, state, None, config.home, status)
    except (ConfigError, GenerationFailed) as error:
        remedy = "choose another rollout.engine (transformers works everywhere), and report this"
        return [*found, Finding(NAME, Level.BAD, f"engine: {error}", remedy)]
    try:
        took = f"{time.monotonic() - began:.1f} s"
        level = Level.WARN if status.engine_warning else Level.OK
        said = f"engine {status.engine} started, synchronised and probed in {took}"
        found.append(Finding(NAME, level, said, status.engine_warning))
        try:
            found += _round(policy)
        except (GenerationFailed, RuntimeError, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
            found.append(Finding(NAME, Level.BAD, said, "report this, with the log above"))
    finally:
        policy.close()
    return found


def _round(policy: LanguagePolicy) -> list[Finding]:
    questions = [
        Expansion(Question("selftest", number), f"What is {number} + 2?", str(number + 2))
        for number in range(QUESTIONS)
    ]
    began = time.monotonic()
    own = policy.roll_out(questions, 1)
    num_tokens = sum(answer.num_tokens for rollout in own for answer in rollout.answers)
    speed = num_tokens / max(time.monotonic() - began, 1e-9)
    found = [
        Finding(NAME, Level.OK, f"generated {num_tokens} tokens, {speed:,.0f} tokens/s"),
    ]
    probe = prompt_ids(policy.tokenizer, PROBE)
    before = token_logps(policy.learner.model, probe)
    began = time.monotonic()
    update = policy.learn([_lesson(rollout) for rollout in own])
    said = f"update {update.skipped or 'made'}, loss {update.loss:.3f}, gradient "
    said += f"{update.gradient_norm:.3f}, {time.monotonic() - began:.1f} s"
    is_sound = update.skipped is None and math.isfinite(update.loss) and update.gradient_norm > 0
    remedy = "" if is_sound else "report this"
    found.append(Finding(NAME, Level.OK if is_sound else Level.BAD, said, remedy))
    policy.sync()
    difference = check_probe(policy.generator, policy.learner.model, probe)
    after = token_logps(policy.learner.model, probe)
    moved = max(abs(one - other) for one, other in zip(before, after, strict=True))
    said = f"synchronised: engine and trainer differ by {difference:.2g} nats at most, after an "
    found.append(
        Finding(NAME, Level.OK, f"{said}update that moved them by {moved:.2g}")
        if moved > 0
        else Finding(NAME, Level.BAD, "the update moved no weight", "report this")
    )
    return found


def _lesson(rollout: OwnRollout) -> Lesson:
    """As if its first answers were right and the others wrong."""
    right = [place < len(rollout.answers) // 2 for place in range(len(rollout.answers))]
    verified = VerifiedRollout(
        rollout.expansion,
        rollout.answers,
        tuple(Judged(one) for one in right),
        rollout.token_ids,
    )
    return Lesson(verified, Source.OWN, tuple(1.0 if one else -1.0 for one in right))


if __name__ == "__main__":
    main()
