"""A learner without a model: speaks the pipe's language and does what its first setting says.

    python scripted_learner.py BEHAVIOUR IN OUT

The behaviours: "rounds" makes the rounds that it is asked for and ends; "crash" dies in each life;
"crash-once" dies once (a file beside tells); "hang" goes silent after a stage; "deaf" ignores a
stop; "refuse" ends with something that a person must change; "wait" idles until it is stopped;
"orders" makes rounds, heeds its orders in between, and dies instead of a checkpoint where a file
tells it to;
"exchange" answers each question once rightly and once wrongly, shares both, and writes down what
verdicts it got and what it could learn from peers, until it is stopped.
"""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from node.batch import Want
from node.config import NodeConfig
from node.pipe import (
    AtStage,
    Checkpointed,
    Done,
    DrawQuestions,
    Failed,
    ForeignRollouts,
    LearnerPipe,
    OwnGroup,
    Questions,
    RoundDone,
    ShareOwn,
    TakeForeign,
    Verdicts,
    Verify,
)
from node.status import RoundReport
from rewards.extract import mark_answer
from rewards.question import Answer, Verdict, is_correct
from swarm.manifest import load_manifest

behaviour, incoming, outgoing = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pipe = LearnerPipe(os.fdopen(incoming, "rb"), outgoing)
config = NodeConfig.model_validate_json(pipe.begin().config)


def report(number: int) -> RoundReport:
    return RoundReport(
        number, 0.5, 0.5, 0.0, 1, 2, 0, 10, 1.0, 1.0, None, 0.0, 1.0, 1e-4, 0.0, {"drawing": 0.1}
    )


def make_round(number: int) -> None:
    reply = pipe.ask(DrawQuestions(number, 1))
    assert isinstance(reply, Questions)
    pipe.tell(RoundDone(report(number), 10 * number))
    pipe.tell(AtStage("drawing", number, "scripted", ""))


def exchange(number: int, formats: dict[str, str]) -> None:
    reply = pipe.ask(DrawQuestions(number, 8))
    assert isinstance(reply, Questions)
    rollouts = []
    for one in reply.expansions:
        marks = formats[one.question.task]
        texts = (mark_answer(one.truth, marks), mark_answer("print('wrong')", marks))
        rollouts.append((one.question, tuple(Answer(text, True, 4, -0.5) for text in texts)))
    judged = pipe.ask(Verify(tuple(rollouts)))
    assert isinstance(judged, Verdicts)
    groups = []
    for (question, answers), verdicts in zip(rollouts, judged.verdicts, strict=True):
        write("own", question.task, verdicts)
        groups.append(OwnGroup(question, answers, tuple(map(is_correct, verdicts)), number))
    pipe.ask(ShareOwn(tuple(groups)))
    offered = pipe.ask(TakeForeign(Want(16, 16)))
    assert isinstance(offered, ForeignRollouts)
    for foreign in offered.rollouts:
        write("foreign", foreign.expansion.question.task, foreign.correct)


def write(whose: str, task: str, found: Sequence[Verdict | bool]) -> None:
    with (Path(config.home) / "exchanged").open("a") as file:
        file.write(f"{whose} {task} {found}\n")


def sleep_for_ever() -> None:
    threading.Event().wait()


pipe.tell(AtStage("drawing", 0, "scripted", ""))
mark = Path(config.home) / "crashed"
if behaviour == "crash" or (behaviour == "crash-once" and not mark.exists()):
    mark.touch()
    os.abort()
if behaviour == "refuse":
    pipe.tell(Failed("there is no model [bold]x\x1b[31m", 2))
    sys.exit(2)
if behaviour in ("hang", "deaf"):
    make_round(1)
    sleep_for_ever()
if behaviour == "wait":
    make_round(1)
    pipe.orders.stop_asked.wait()
    pipe.tell(Done("checkpoints/round-00000001", False))
    sys.exit(0)
if behaviour == "orders":
    orders, number = pipe.orders, 0
    while not orders.stop_asked.is_set():
        if orders.take_checkpoint():
            if (Path(config.home) / "die").exists():
                os.abort()
            (Path(config.home) / "written").write_text(str(number))
            pipe.tell(Checkpointed(number))
        if orders.is_paused:
            pipe.tell(AtStage("paused", number, "scripted", ""))
            orders.wait_in_pause()
        else:
            number += 1
            make_round(number)
            orders.stop_asked.wait(0.05)  # a round takes a while
    pipe.tell(Done("checkpoints/round", False))
    sys.exit(0)
if behaviour == "exchange":
    tasks = load_manifest(config.manifest_file).rules.tasks
    formats = {task.name: task.answer_format for task in tasks}
    for number in range(1, 1000):
        if pipe.orders.stop_asked.is_set():
            break
        exchange(number, formats)
        pipe.tell(RoundDone(report(number), 10 * number))
    pipe.tell(Done("checkpoints/round", False))
    sys.exit(0)
for number in range(1, (config.rounds or 1) + 1):
    make_round(number)
pipe.tell(Done("checkpoints/round", True))
