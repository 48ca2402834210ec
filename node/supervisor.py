"""Starts the learner process, answers it, watches it, and starts it again from its checkpoint."""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.config import NodeConfig
from node.escape import printable
from node.pipe import (
    AtStage,
    Begin,
    Checkpointed,
    Done,
    Failed,
    HeldOutDone,
    Logged,
    Order,
    Reply,
    Request,
    RoundDone,
    SetPaused,
    Stop,
    WriteCheckpoint,
    as_frame,
    decode_from_learner,
    frame_size,
)
from node.status import LearnerStatus, Stage

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 0.5
FIRST_BACKOFF_S = 1.0
MAX_ERROR_CHARS = 500

Serve = Callable[[Request], Awaitable[Reply]]
Hear = Callable[[RoundDone | HeldOutDone | Logged], Awaitable[None]]


class LearnerAbsent(RuntimeError):
    """There is no learner that could do what was ordered; the message says why."""


@dataclass(frozen=True, slots=True)
class LearnerEnd:
    """How the learner's last life ended; there will be no other."""

    all_rounds: bool = False
    failure: str = ""
    """What a person has to change; empty where it ended in order."""
    exit_status: int = 0
    was_killed: bool = False
    """It did not end within `stop_s` after it was told to."""


class Supervisor:
    """One learner process at a time. All methods are called from the trio thread."""

    def __init__(
        self,
        config: NodeConfig,
        serve: Serve,
        hear: Hear,
        command: tuple[str, ...] | None = None,
        is_paused: bool = False,
    ) -> None:
        """
        Args:
            serve: answers what the learner asks.
            hear: is told of finished rounds and evaluations, and of lines of the log.
            is_paused: whether it begins in a pause.
            command: starts a learner, with the two descriptors appended; for tests.
        """
        self._config = config
        self._limits = config.supervise
        self._serve = serve
        self._hear = hear
        self._command = command or (sys.executable, "-P", "-m", "node.learner")
        self._process: trio.Process | None = None
        self._to_learner: trio.lowlevel.FdStream | None = None
        self._send_lock = trio.Lock()
        self._stop_asked = trio.Event()
        self._at = AtStage(Stage.STARTING, 0, "", "")
        self._at_since = time.monotonic()
        self._is_ready = False
        """Whether this life has finished loading."""
        self._restarts = 0
        self._last_error = ""
        self._next_start: float | None = None
        self._end: LearnerEnd | None = None
        self._is_paused = is_paused
        self._ordered: list[_Ordered] = []
        """Checkpoints that are waited for."""

    def status(self) -> LearnerStatus:
        """What there is to show."""
        now = time.monotonic()
        return LearnerStatus(
            pid=self._process.pid if self._process else None,
            stage=self._at.stage if self._process else Stage.STOPPED,
            stage_age_s=now - self._at_since,
            round=self._at.round,
            target_rounds=self._config.rounds,
            engine=self._at.engine,
            engine_warning=self._at.engine_warning,
            restarts=self._restarts,
            last_error=self._last_error,
            restart_in_s=None if self._next_start is None else max(0.0, self._next_start - now),
            is_done=self._end is not None and self._end.all_rounds,
        )

    def stop(self) -> None:
        """Lets the learner finish, within `stop_s`; `run` then returns."""
        self._stop_asked.set()

    async def set_paused(self, is_paused: bool) -> None:
        """Begins or ends a pause, of this life and those that follow."""
        self._is_paused = is_paused
        await self._send(SetPaused(is_paused))

    async def checkpoint(self) -> int:
        """Has a checkpoint written when the round under way is finished, or at once in a pause;
        returns its round when it is on the disk. One that stops writes its last.

        Raises:
            LearnerAbsent: none runs, or it ended before.
        """
        if self._end is not None and self._end.all_rounds:
            return self._at.round
        if self._process is None:
            raise LearnerAbsent("the learner is not running, and its last checkpoint stands")
        ordered = _Ordered()
        self._ordered.append(ordered)
        try:
            await self._send(WriteCheckpoint())
            await ordered.is_over.wait()
        finally:
            if ordered in self._ordered:
                self._ordered.remove(ordered)
        if ordered.round is None:
            why = self._last_error or "it was stopped"
            raise LearnerAbsent(f"the learner ended before it was written: {why}")
        return ordered.round

    def _end_orders(self, number: int | None) -> None:
        """Tells those who wait for a checkpoint: its round, or None where there will be none."""
        ordered, self._ordered = self._ordered, []
        for one in ordered:
            one.round = number
            one.is_over.set()

    def kill(self) -> None:
        """Ends the learner's whole process group at once."""
        if self._process is not None and self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    async def run(self) -> LearnerEnd:
        """Lives of the learner until one ends in order, or by something that a person must change.

        A crash, a kill or a hang is followed by another life, after 1, 2, 4, ... seconds; a life
        that made a round resets the wait. Nothing of the learner is left when this returns.
        """
        backoff_s = FIRST_BACKOFF_S
        while True:
            round_before = self._at.round
            end = await self._live()
            if end is not None:
                self._end = end
                return end
            if self._stop_asked.is_set():
                self._end = LearnerEnd()
                return self._end
            self._restarts += 1
            if self._at.round > round_before:
                backoff_s = FIRST_BACKOFF_S
            logger.error(
                "the learner died: %s; starting it again in %.0f s", self._last_error, backoff_s
            )
            self._next_start = time.monotonic() + backoff_s
            with trio.move_on_after(backoff_s):
                await self._stop_asked.wait()
            self._next_start = None
            backoff_s = min(2 * backoff_s, self._limits.max_backoff_s)

    async def _live(self) -> LearnerEnd | None:
        """One life; None where another one should follow."""
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        try:
            process = await trio.lowlevel.open_process(
                [*self._command, str(their_in), str(their_out)],
                pass_fds=(their_in, their_out),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what libraries print belongs to the log
                start_new_session=True,  # Ctrl-C in a terminal is for the control process alone
            )
        finally:
            os.close(their_in)
            os.close(their_out)
        self._process, self._is_ready = process, False
        self._set_stage(AtStage(Stage.STARTING, self._at.round, "", ""))
        was_killed = False
        end: LearnerEnd | None = None
        try:
            async with (
                trio.lowlevel.FdStream(our_out) as self._to_learner,
                trio.lowlevel.FdStream(our_in) as from_learner,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._watch)
                await self._send(Begin(self._config.model_dump_json(), self._is_paused))
                end = await self._answer(from_learner)
                with trio.move_on_after(self._limits.stop_s):
                    await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            was_killed = process.returncode is None
            self.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            self._process, self._to_learner = None, None
            if end is None:
                self._note_death(process.returncode)
            self._end_orders(None)
        if end is None and self._stop_asked.is_set():
            return LearnerEnd(was_killed=was_killed or process.returncode == -signal.SIGKILL)
        return end

    async def _answer(self, stream: trio.lowlevel.FdStream) -> LearnerEnd | None:
        """Serves the learner until its pipe closes; its end in order, if it announced one."""
        end: LearnerEnd | None = None
        while (payload := await _read_frame(stream)) is not None:
            match decode_from_learner(payload):
                case AtStage() as at:
                    self._is_ready = self._is_ready or at.stage != Stage.STARTING
                    self._set_stage(at)
                case (RoundDone() | HeldOutDone() | Logged()) as news:
                    await self._hear(news)
                case Checkpointed(round=number):
                    self._end_orders(number)
                case Failed(message=message, exit_status=status):
                    end = LearnerEnd(failure=message, exit_status=status)
                    self._last_error = printable(message, MAX_ERROR_CHARS)
                case Done(all_rounds=all_rounds):
                    self._end_orders(self._at.round)
                    end = LearnerEnd(all_rounds=all_rounds)
                case request:
                    await self._send(await self._serve(request))
        return end

    async def _watch(self) -> None:
        """Kills a learner that hangs; passes a stop on, and kills one that does not heed it."""
        stop_by: float | None = None
        while True:
            now = time.monotonic()
            if self._stop_asked.is_set() and stop_by is None:
                stop_by = now + self._limits.stop_s
                if not self._is_ready:  # it still loads: nothing is lost
                    self.kill()
                    return
                await self._send(Stop())
            if stop_by is not None and now > stop_by:
                logger.error("the learner did not stop within %.0f s", self._limits.stop_s)
                self.kill()
                return
            limit_s = self._limits.hang_s if self._is_ready else self._limits.start_s
            if self._at.stage == Stage.PAUSED:
                limit_s = math.inf
            if now - self._at_since > limit_s:
                logger.error("the learner hangs: %s for %.0f s", self._at.stage, limit_s)
                self._last_error = f"hung: {self._at.stage} for more than {limit_s:g} s"
                self.kill()
                return
            with trio.move_on_after(CHECK_EVERY_S):
                if stop_by is None:
                    await self._stop_asked.wait()
                else:
                    await trio.sleep(CHECK_EVERY_S)

    async def _send(self, message: Reply | Begin | Order) -> None:
        """Writes to the learner; one that has ended is noticed by `_answer`."""
        async with self._send_lock:
            if self._to_learner is None:
                return
            try:
                await self._to_learner.send_all(as_frame(message))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def _set_stage(self, at: AtStage) -> None:
        self._at, self._at_since = at, time.monotonic()

    def _note_death(self, status: int | None) -> None:
        if self._last_error.startswith("hung:") and status == -signal.SIGKILL:
            return
        if status is not None and status < 0:
            self._last_error = f"ended by signal: {signal.strsignal(-status)}"
        else:
            self._last_error = f"ended with status {status}; its traceback stands in the log"


@dataclass(eq=False, slots=True)
class _Ordered:
    """A checkpoint that somebody waits for."""

    is_over: trio.Event = field(default_factory=trio.Event)
    round: int | None = None
    """Of the checkpoint; None where there is none."""


class NoLearner:
    """Stands where a Supervisor would in a node without a policy: waits until it is to stop."""

    def __init__(self) -> None:
        self._stop_asked = trio.Event()

    def status(self) -> LearnerStatus:
        """There is none."""
        return LearnerStatus(stage=Stage.STOPPED)

    def stop(self) -> None:
        """Lets `run` return."""
        self._stop_asked.set()

    async def set_paused(self, is_paused: bool) -> None:
        """See Supervisor. Raises LearnerAbsent."""
        raise LearnerAbsent("this node makes no rounds")

    async def checkpoint(self) -> int:
        """See Supervisor. Raises LearnerAbsent."""
        raise LearnerAbsent("this node makes no rounds")

    def kill(self) -> None:
        """Nothing to end."""

    async def run(self) -> LearnerEnd:
        """Until `stop`."""
        await self._stop_asked.wait()
        return LearnerEnd()


async def _read_frame(stream: trio.lowlevel.FdStream) -> bytes | None:
    """The next message's payload; None at the end of the stream, also in the middle of a frame."""
    header = await _read_exactly(stream, 4)
    return None if header is None else await _read_exactly(stream, frame_size(header))


async def _read_exactly(stream: trio.lowlevel.FdStream, num_bytes: int) -> bytes | None:
    received = bytearray()
    while len(received) < num_bytes:
        chunk = await stream.receive_some(min(num_bytes - len(received), 1 << 16))
        if not chunk:
            return None
        received += chunk
    return bytes(received)
