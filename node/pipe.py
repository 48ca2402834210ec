"""The pipe between learner and control process: messages, frames, and the learner's end of it.

A message is a frame: 4 bytes length (big-endian), then msgpack. The learner asks, one question at a
time, and is answered; in between it tells what it does. The control process begins with `Begin`,
and may give an Order at any time. When the pipe breaks, the learner ends at once: without a control
process nobody would watch it. Both ends are this program on this machine: nothing here meets bytes
of a stranger but as strings inside of messages.
"""

import logging
import os
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import BinaryIO, Protocol

import msgspec

from node.batch import Want, may_share
from node.config import Share
from node.groups import Origin, OwnRollout, VerifiedRollout
from node.log_lines import LogLine
from node.orders import Orders
from node.status import HeldOutStatus, RoundReport, Status
from rewards.frames import frame
from rewards.question import Answer, Expansion, Judged, Question, Verdict
from rewards.verifier import VerifierBroken

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 2**30
EXIT_ALONE = 70
"""Status of a learner that ended because its control process is gone."""


# --- asked by the learner ---


class DrawQuestions(msgspec.Struct, frozen=True, tag=True):
    """Asks for Questions: those of a training round."""

    round: int
    num_questions: int
    first: int = 0
    task_weights: Mapping[str, float] = {}


class DrawCommon(msgspec.Struct, frozen=True, tag=True):
    """Asks for Questions: such as the swarm's other nodes are asked, too."""

    round: int
    num_questions: int


class DrawHeldOut(msgspec.Struct, frozen=True, tag=True):
    """Asks for Questions: an exam."""

    num_questions: int
    seed: int


class Verify(msgspec.Struct, frozen=True, tag=True):
    """Asks for Verdicts."""

    rollouts: tuple[tuple[Question, tuple[Answer, ...]], ...]


class OwnGroup(msgspec.Struct, frozen=True):
    """An own rollout that peers may have."""

    question: Question
    answers: tuple[Answer, ...]
    correct: tuple[bool, ...]
    policy_round: int


class ShareOwn(msgspec.Struct, frozen=True, tag=True):
    """Asks for Shared."""

    groups: tuple[OwnGroup, ...]


class TakeForeign(msgspec.Struct, frozen=True, tag=True):
    """Asks for ForeignRollouts."""

    want: Want


# --- told by the learner ---


class AtStage(msgspec.Struct, frozen=True, tag=True):
    """What the learner does from now on."""

    stage: str
    round: int
    """Rounds that the policy has made."""
    engine: str
    engine_warning: str


class RoundDone(msgspec.Struct, frozen=True, tag=True):
    """A round is finished."""

    report: RoundReport
    total_tokens: int


class HeldOutDone(msgspec.Struct, frozen=True, tag=True):
    """All evaluations on disk."""

    heldout: tuple[HeldOutStatus, ...]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The learner ends because of something that a person has to change."""

    message: str
    exit_status: int


class Logged(msgspec.Struct, frozen=True, tag=True):
    """A line of the learner's log."""

    line: LogLine


class Checkpointed(msgspec.Struct, frozen=True, tag=True):
    """A checkpoint that was asked for is written."""

    round: int
    """Rounds that the policy in it has made."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The learner ends in order, stopped or with all rounds made. A checkpoint is written."""

    checkpoint: str
    all_rounds: bool


# --- said by the control process ---


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message."""

    config: str
    """NodeConfig as JSON."""
    is_paused: bool = False
    """As if SetPaused had followed at once."""


class Questions(msgspec.Struct, frozen=True, tag=True):
    """Expanded questions."""

    expansions: tuple[Expansion, ...]


class Verdicts(msgspec.Struct, frozen=True, tag=True):
    """One verdict per answer of each rollout."""

    verdicts: tuple[tuple[Verdict, ...], ...]


class Shared(msgspec.Struct, frozen=True, tag=True):
    """How many rollouts were offered to peers."""

    num_rollouts: int


class ForeignRollout(msgspec.Struct, frozen=True):
    """A peer's rollout, admitted: every answer judged here."""

    expansion: Expansion
    answers: tuple[Answer, ...]
    correct: tuple[bool, ...]
    origin: Origin


class ForeignRollouts(msgspec.Struct, frozen=True, tag=True):
    """What the pool had."""

    rollouts: tuple[ForeignRollout, ...]


class Broken(msgspec.Struct, frozen=True, tag=True):
    """The verifier cannot be used."""

    message: str


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Finish or abandon the round, write a checkpoint, end."""


class SetPaused(msgspec.Struct, frozen=True, tag=True):
    """Begin no new round, or begin rounds again."""

    is_paused: bool


class WriteCheckpoint(msgspec.Struct, frozen=True, tag=True):
    """Write one before the next round, and tell Checkpointed."""


Request = DrawQuestions | DrawCommon | DrawHeldOut | Verify | ShareOwn | TakeForeign
Told = AtStage | RoundDone | HeldOutDone | Logged | Checkpointed | Failed | Done
Reply = Questions | Verdicts | Shared | ForeignRollouts | Broken
Order = SetPaused | WriteCheckpoint | Stop

_encode = msgspec.msgpack.Encoder().encode
decode_from_learner: Callable[[bytes], Request | Told] = msgspec.msgpack.Decoder(
    DrawQuestions
    | DrawCommon
    | DrawHeldOut
    | Verify
    | ShareOwn
    | TakeForeign
    | AtStage
    | RoundDone
    | HeldOutDone
    | Logged
    | Checkpointed
    | Failed
    | Done
).decode
decode_from_control: Callable[[bytes], Begin | Order | Reply] = msgspec.msgpack.Decoder(
    Begin
    | SetPaused
    | WriteCheckpoint
    | Stop
    | Questions
    | Verdicts
    | Shared
    | ForeignRollouts
    | Broken
).decode


def as_frame(message: Request | Told | Reply | Begin | Order) -> bytes:
    """A message ready to be written."""
    return frame(_encode(message))


def frame_size(header: bytes) -> int:
    """Bytes that follow the 4 of a header.

    Raises:
        ValueError: the other end sends nonsense.
    """
    size = int(struct.unpack(">I", header)[0])
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {size} bytes")
    return size


class LearnerPipe:
    """The learner's end. `ask` and `tell` from any thread; a thread of its own reads."""

    def __init__(
        self, incoming: BinaryIO, outgoing: int, on_broken: Callable[[], None] | None = None
    ) -> None:
        """Starts the reading thread.

        Args:
            outgoing: file descriptor to write to.
            on_broken: called by the reading thread when the control process is gone; by default
                the process ends at once with EXIT_ALONE.
        """
        self.orders = Orders()
        self._incoming = incoming
        self._outgoing = outgoing
        self._on_broken = on_broken or (lambda: os._exit(EXIT_ALONE))
        self._replies: SimpleQueue[Begin | Reply] = SimpleQueue()
        self._write_lock = threading.Lock()
        self._ask_lock = threading.Lock()
        threading.Thread(target=self._read, name="pipe-reader", daemon=True).start()

    def begin(self) -> Begin:
        """Waits for the first message."""
        first = self._replies.get()
        assert isinstance(first, Begin), "the control process spoke out of turn"
        return first

    def ask(self, request: Request) -> Reply:
        """Sends a request and waits for its reply.

        Raises:
            VerifierBroken: the control process cannot expand or judge.
        """
        with self._ask_lock:
            self._write(request)
            reply = self._replies.get()
        if isinstance(reply, Broken):
            raise VerifierBroken(reply.message)
        assert not isinstance(reply, Begin), "the control process spoke out of turn"
        return reply

    def tell(self, message: Told) -> None:
        """Sends without an answer."""
        self._write(message)

    def _write(self, message: Request | Told) -> None:
        rest = memoryview(as_frame(message))
        with self._write_lock:
            try:
                while rest:
                    rest = rest[os.write(self._outgoing, rest) :]
            except BrokenPipeError:
                self._on_broken()
                raise

    def _read(self) -> None:
        while True:
            header = self._incoming.read(4)
            payload = self._incoming.read(frame_size(header)) if len(header) == 4 else b""
            if not payload:
                self._on_broken()
                return
            match decode_from_control(payload):
                case Stop():
                    self.orders.stop()
                case SetPaused(is_paused=is_paused):
                    self.orders.pause(is_paused)
                case WriteCheckpoint():
                    self.orders.ask_checkpoint()
                case Begin() as begin:
                    self.orders.pause(begin.is_paused)
                    self._replies.put(begin)
                case reply:
                    self._replies.put(reply)


class Asks(Protocol):
    """Who answers an exchange: a `LearnerPipe`, or in one process its other end itself."""

    def ask(self, request: Request) -> Reply:
        """See `LearnerPipe`."""
        ...


class PipeExchange:
    """`Exchange` (node/exchange.py) whose other side is the control process."""

    def __init__(self, pipe: Asks, share: Share) -> None:
        self._pipe = pipe
        self._share: Share = share

    def draw_questions(
        self,
        round_number: int,
        num_questions: int,
        *,
        first: int = 0,
        task_weights: Mapping[str, float] = {},
    ) -> list[Expansion]:
        """See `Exchange`."""
        return self._questions(DrawQuestions(round_number, num_questions, first, task_weights))

    def draw_common(self, round_number: int, num_questions: int) -> list[Expansion]:
        """See `Exchange`."""
        return self._questions(DrawCommon(round_number, num_questions))

    def draw_held_out(self, num_questions: int, seed: int = 0) -> list[Expansion]:
        """See `Exchange`."""
        return self._questions(DrawHeldOut(num_questions, seed))

    def verify(self, own: Sequence[OwnRollout]) -> list[VerifiedRollout]:
        """See `Exchange`."""
        rollouts = tuple((one.expansion.question, one.answers) for one in own)
        reply = self._pipe.ask(Verify(rollouts))
        assert isinstance(reply, Verdicts)
        return [
            VerifiedRollout(one.expansion, one.answers, verdicts, one.token_ids, one.policy_round)
            for one, verdicts in zip(own, reply.verdicts, strict=True)
        ]

    def share(self, own: Sequence[VerifiedRollout]) -> int:
        """See `Exchange`."""
        groups = tuple(
            OwnGroup(
                one.expansion.question,
                one.answers,
                tuple(isinstance(verdict, Judged) and verdict.correct for verdict in one.verdicts),
                one.policy_round,
            )
            for one in may_share(own, self._share)
        )
        if not groups:
            return 0
        reply = self._pipe.ask(ShareOwn(groups))
        assert isinstance(reply, Shared)
        return reply.num_rollouts

    def offered(self, want: Want) -> list[VerifiedRollout]:
        """See `Exchange`. The control process waits for them where the settings say so."""
        reply = self._pipe.ask(TakeForeign(want))
        assert isinstance(reply, ForeignRollouts)
        return [
            VerifiedRollout(
                one.expansion,
                one.answers,
                tuple(Judged(correct) for correct in one.correct),
                token_ids=None,
                origin=one.origin,
            )
            for one in reply.rollouts
        ]

    def _questions(self, request: DrawQuestions | DrawCommon | DrawHeldOut) -> list[Expansion]:
        reply = self._pipe.ask(request)
        assert isinstance(reply, Questions)
        return list(reply.expansions)


class Narrator:
    """Tells the control process what a `Status` shows, whenever it changes."""

    def __init__(self, pipe: LearnerPipe, status: Status) -> None:
        self._pipe = pipe
        self._status = status
        self._last_report: RoundReport | None = None
        self._num_heldout = 0
        self.round = 0
        """Rounds that the policy has made."""
        self.total_tokens = 0
        status.on_change = self.tell

    def tell(self) -> None:
        """Sends what is new since the last call."""
        status = self._status
        if status.reports and (last := status.reports[-1]) is not self._last_report:
            self._last_report, self.round = last, last.round
            self.total_tokens += last.own_tokens
            self._pipe.tell(RoundDone(last, self.total_tokens))
        if len(status.heldout) != self._num_heldout:
            self._num_heldout = len(status.heldout)
            self._pipe.tell(HeldOutDone(tuple(status.heldout)))
        self._pipe.tell(AtStage(status.stage, self.round, status.engine, status.engine_warning))
