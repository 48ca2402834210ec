"""The learner's end of the pipe: what it asks, what it tells, and what it does when alone."""

import os
import threading
from collections.abc import Iterator

import pytest

from node.batch import Want
from node.groups import Origin, OwnRollout, VerifiedRollout
from node.pipe import (
    AtStage,
    Begin,
    Broken,
    Checkpointed,
    DrawCommon,
    DrawQuestions,
    ForeignRollout,
    ForeignRollouts,
    LearnerPipe,
    Narrator,
    PipeExchange,
    Questions,
    RoundDone,
    SetPaused,
    Shared,
    ShareOwn,
    Stop,
    TakeForeign,
    Verdicts,
    Verify,
    WriteCheckpoint,
    as_frame,
    decode_from_learner,
    frame_size,
)
from node.status import RoundReport, Stage, Status
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable
from rewards.verifier import VerifierBroken

QUESTION = Question("sums", 7)
EXPANSION = Expansion(QUESTION, "1 + 1", "2")
ANSWERS = (Answer("2", True, 2, -0.5), Answer("3", True, 2, -0.7))
DEADLINE_S = 20
WANT = Want(4, 4, 0.5, True, {"sums": 0.25}, frozenset({QUESTION}), 60.0)


class ControlEnd:
    """The other end: reads what the learner says, writes what it is told to."""

    def __init__(self) -> None:
        their_in, self._out = os.pipe()
        self._in, self.their_out = os.pipe()
        self.reader = os.fdopen(self._in, "rb")
        self.is_broken = threading.Event()
        self.pipe = LearnerPipe(
            os.fdopen(their_in, "rb"), self.their_out, on_broken=self.is_broken.set
        )

    def say(self, *messages: object) -> None:
        for message in messages:
            os.write(self._out, as_frame(message))  # type: ignore[arg-type]

    def hear(self) -> object:
        return decode_from_learner(self.reader.read(frame_size(self.reader.read(4))))

    def hang_up(self) -> None:
        os.close(self._out)


@pytest.fixture
def control() -> Iterator[ControlEnd]:
    end = ControlEnd()
    yield end
    if not end.is_broken.is_set():
        end.hang_up()
        assert end.is_broken.wait(DEADLINE_S)


def test_a_question_is_asked_and_answered(control: ControlEnd) -> None:
    control.say(Begin("{}"), Questions((EXPANSION,)))
    assert control.pipe.begin() == Begin("{}")
    exchange = PipeExchange(control.pipe, "lessons")
    assert exchange.draw_questions(3, 1) == [EXPANSION]
    assert control.hear() == DrawQuestions(3, 1)


def test_further_questions_weighed_ones_and_common_ones_are_asked_for(control: ControlEnd) -> None:
    control.say(Questions((EXPANSION,)), Questions((EXPANSION,)))
    exchange = PipeExchange(control.pipe, "lessons")
    assert exchange.draw_questions(3, 1, first=8, task_weights={"sums": 0.5}) == [EXPANSION]
    assert control.hear() == DrawQuestions(3, 1, 8, {"sums": 0.5})
    assert exchange.draw_common(3, 2) == [EXPANSION]
    assert control.hear() == DrawCommon(3, 2)


def test_own_answers_are_judged_and_keep_what_only_the_author_knows(control: ControlEnd) -> None:
    verdicts = (Judged(True), Unscorable(Reason.DEADLINE))
    control.say(Verdicts((verdicts,)))
    own = OwnRollout(EXPANSION, ANSWERS, 4, ((5, 1), (6, 1)))
    [verified] = PipeExchange(control.pipe, "lessons").verify([own])
    assert control.hear() == Verify(((QUESTION, ANSWERS),))
    assert verified == VerifiedRollout(EXPANSION, ANSWERS, verdicts, ((5, 1), (6, 1)), 4)


def test_only_what_may_be_shared_crosses_the_pipe(control: ControlEnd) -> None:
    mixed = VerifiedRollout(EXPANSION, ANSWERS, (Judged(True), Judged(False)), ((5,), (6,)), 4)
    undecided = VerifiedRollout(
        EXPANSION, ANSWERS, (Judged(True), Unscorable(Reason.DEADLINE)), ((5,), (6,)), 4
    )
    control.say(Shared(1))
    assert PipeExchange(control.pipe, "informative").share([mixed, undecided]) == 1
    heard = control.hear()
    assert isinstance(heard, ShareOwn)
    [group] = heard.groups
    assert (group.question, group.correct, group.policy_round) == (QUESTION, (True, False), 4)
    assert PipeExchange(control.pipe, "none").share([mixed]) == 0


def test_foreign_rollouts_come_judged_and_without_token_ids(control: ControlEnd) -> None:
    origin = Origin("12D3KooW", b"h" * 32, 9, 1.5)
    control.say(ForeignRollouts((ForeignRollout(EXPANSION, ANSWERS, (True, False), origin),)))
    [foreign] = PipeExchange(control.pipe, "lessons").offered(WANT)
    assert control.hear() == TakeForeign(WANT)
    assert foreign.origin == origin
    assert foreign.token_ids is None
    assert foreign.rewards == (1.0, 0.0)


def test_a_broken_verifier_is_an_error_here(control: ControlEnd) -> None:
    control.say(Broken("no worker starts"))
    with pytest.raises(VerifierBroken, match="no worker starts"):
        PipeExchange(control.pipe, "none").draw_held_out(3)


def test_a_stop_is_heard_while_nothing_is_asked(control: ControlEnd) -> None:
    control.say(Stop())
    assert control.pipe.orders.stop_asked.wait(DEADLINE_S)


def test_a_learner_notices_that_its_control_process_is_gone(control: ControlEnd) -> None:
    control.hang_up()
    assert control.is_broken.wait(DEADLINE_S)


def test_what_the_learner_does_is_told_once(control: ControlEnd) -> None:
    status = Status(engine="vllm")
    narrator = Narrator(control.pipe, status)
    with status.during(Stage.DRAWING):
        assert control.hear() == AtStage("drawing", 0, "vllm", "")
    report = RoundReport(
        3, 0.5, 0.5, 0.0, 1, 2, 0, 10, 1.0, 1.0, None, 0.0, 1.0, 1e-4, 0.0, {"drawing": 0.1}
    )
    status.reports.append(report)
    narrator.tell()
    assert control.hear() == RoundDone(report, 10)
    assert control.hear() == AtStage("drawing", 3, "vllm", "")
    narrator.tell()
    assert control.hear() == AtStage("drawing", 3, "vllm", "")


def test_a_frame_of_absurd_size_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        frame_size(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_pause_holds_from_the_first_message(control: ControlEnd, is_paused: bool) -> None:
    control.say(Begin("{}", is_paused))
    assert control.pipe.begin().config == "{}"
    assert control.pipe.orders.is_paused == is_paused


def test_orders_are_heard_at_any_time(control: ControlEnd) -> None:
    control.say(Begin("{}", True), SetPaused(False), WriteCheckpoint(), Stop())
    assert control.pipe.orders.stop_asked.wait(DEADLINE_S)
    assert not control.pipe.orders.is_paused
    assert control.pipe.orders.take_checkpoint() and not control.pipe.orders.take_checkpoint()
    control.pipe.tell(Checkpointed(7))
    assert control.hear() == Checkpointed(7)
