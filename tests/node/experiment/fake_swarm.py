"""Runs without models: their results are made up, and what goes wrong is the arm's name."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from node.experiment.plan import RunPlan
from node.experiment.results import Exam, Role, Rounds, RunKey, RunResult

BEST_RATE = 3e-4


def made(key: RunKey, rounds: int = 2, is_tuning: bool = False, digest: str = "") -> RunResult:
    """A result whose held-out accuracy is best at BEST_RATE."""
    pass_1 = 0.5 if key.learning_rate == BEST_RATE else 0.25
    figures = tuple(0.25 for _ in range(rounds))
    exams = tuple(
        Exam(number, 100.0 * number, 8, pass_1, 0.5, 0.25, 1.5, {"chain_sum": pass_1})
        for number in (0, rounds)
    )
    role = Role(
        name="node",
        num_nodes=2,
        rounds=Rounds(*[figures] * 9, (float("nan"), *figures[1:]), figures, figures),
        exams=exams,
        node_reward=(0.5, 0.5),
        node_pass_1=(pass_1, pass_1),
    )
    return RunResult(
        experiment="",
        digest=digest,
        key=key,
        is_tuning=is_tuning,
        roles=(role,),
        wall_s=2.0,
        cpu_s=1.0,
        stage_s={},
        node_rounds=2 * rounds,
        started="2026-01-01T00:00:00Z",
        versions={},
    )


def make_start(directory: Path, name: str, manifest: Path, tell: Callable[[int], None]) -> Path:
    """A directory in which runs leave marks."""
    if name == "broken":
        raise ValueError("no such weights")
    return directory


def make_run(plan: RunPlan, tell: Callable[[int], None]) -> RunResult:
    """What happens in it is the arm's name."""
    arm, marks = plan.key.arm, plan.nodes[0].start
    with (marks / f"{arm} {plan.key.seed} {plan.key.learning_rate:g}").open("a") as mark:
        mark.write(f"{os.environ['OMP_NUM_THREADS']} {os.getpid()}\n")
    if arm == "crash":
        raise ValueError("the weights are nan")
    if arm == "hang":
        threading.Event().wait()
    tell(1)
    if arm == "killed" or (arm == "killed-once" and not (marks / "was killed").exists()):
        (marks / "was killed").touch()
        sys.stdout.write("last words")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return made(plan.key, plan.rounds)
