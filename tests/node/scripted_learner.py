"""A learner without a model: speaks the pipe's language and does what its first setting says.

    python scripted_learner.py BEHAVIOUR IN OUT

The behaviours: "rounds" makes the rounds that it is asked for and ends; "crash" dies in each life;
"crash-once" dies once (a file beside tells); "hang" goes silent after a stage; "deaf" ignores a
stop; "refuse" ends with something that a person must change; "wait" idles until it is stopped.
"""

import os
import sys
import threading
from pathlib import Path

from node.config import NodeConfig
from node.pipe import (
    AtStage,
    Done,
    DrawQuestions,
    Failed,
    LearnerPipe,
    Questions,
    RoundDone,
)
from node.status import RoundReport

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
    pipe.stop_asked.wait()
    pipe.tell(Done("checkpoints/round-00000001", False))
    sys.exit(0)
for number in range(1, (config.rounds or 1) + 1):
    make_round(number)
pipe.tell(Done("checkpoints/round", True))
