"""Runs programs of answers, each in a process of its own that knows inputs and nothing else.

The verifier's workers know which outputs are expected, so no code of an answer may run there. What
runs here is rewards/interpreter.py: a process that forks, a child per program, confined and
isolated (rewards/sandbox.py), killed with its group afterwards and never used again.

What one program costs at most: its `cpu_s` and one more second of CPU time, `deadline_s` of wall
clock, its `memory_mib` of address space, 64 files in memory of its largest input or output, and
here one output of `max_output_bytes` for each input. It writes to no other file, starts no
process, opens no socket, and starts at most sandbox.MAX_THREADS threads.

Not prevented: a program that knows its inputs may put out anything, by any way. So outputs are a
stranger's text, and a forged reply is no more than another output.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from rewards.interpreter import MAX_MESSAGE_BYTES, End, Launch
from rewards.process import ENVIRONMENT, MAX_STDERR_BYTES, Pipes, WorkerLost
from rewards.program import Program, Ran
from rewards.question import Reason, Unscorable
from rewards.sandbox import Isolation
from rewards.worker import MAX_DETAIL_CHARS

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""Of starting a process, for one program."""

# One arena: others would take address space by the number of cores and threads.
_ENVIRONMENT = {**ENVIRONMENT, "MALLOC_ARENA_MAX": "1"}

_BOOT = "import sys; sys.path += sys.argv[1:]; from rewards.interpreter import main; main()"

_encode = msgspec.msgpack.Encoder().encode
_decode_number = msgspec.msgpack.Decoder(int).decode
_decode_isolation = msgspec.msgpack.Decoder(Isolation).decode


def runner_command() -> tuple[str, ...]:
    """The command that starts the process that forks.

    `-S` and `-P` leave only the standard library in the module path; `-I` would ignore
    PYTHONHASHSEED.
    """
    added = [str(Path(file).resolve().parents[1]) for file in (__file__, msgspec.__file__)]
    return (sys.executable, "-P", "-s", "-S", "-c", _BOOT, *added)


class Runner:
    """Runs programs. Thread-safe. Starts nothing before the first one."""

    def __init__(
        self,
        start_deadline_s: float,
        programs_anyway: bool = False,
        command: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            start_deadline_s: wall-clock seconds for a process to be ready for its program.
            programs_anyway: whether programs run also where the kernel cannot isolate them.
            command: starts rewards.interpreter.main(); for tests of other machines.
        """
        self._command = runner_command() if command is None else tuple(command)
        self._start_deadline_s = start_deadline_s
        self._programs_anyway = programs_anyway
        self._lock = threading.Lock()  # guards those below
        self._interpreter: _Interpreter | None = None
        self._closed = False

    def run(self, program: Program, deadline_s: float) -> Ran | Unscorable:
        """What the program does with its inputs, up to the first run that fails.

        That a run fails is the program's doing: it raises, exits with a status, exceeds a limit
        of its own, ends the process. Unscorable is what need not be: it is still running after
        `deadline_s` seconds, it was killed (or closed its pipe), or nothing could run it.
        """
        launch = Launch(program.cpu_s, program.memory_mib, _max_file_bytes(program))
        for attempt in range(1, MAX_ATTEMPTS + 1):
            interpreter = None
            try:
                interpreter = self._take_interpreter()
                with interpreter.launched(launch) as child:
                    return self._converse(child, program, deadline_s)
            except (_NotStarted, OSError) as error:
                if self._closed:
                    return Unscorable(Reason.NO_SANDBOX, "the runner was closed")
                level = logging.ERROR if attempt == MAX_ATTEMPTS else logging.WARNING
                logger.log(level, "no program of an answer can be run: %s", error)
                self._discard(interpreter)
        return Unscorable(Reason.NO_SANDBOX, "its process cannot be started: see the log")

    def close(self) -> None:
        """Ends all processes; programs that run become unscorable. Idempotent."""
        with self._lock:
            self._closed = True
        self._discard(self._interpreter)

    def _converse(self, child: "_Child", program: Program, deadline_s: float) -> Ran | Unscorable:
        """
        Raises:
            _NotStarted: the child ended, or did not answer, before it had its program.
        """
        try:
            isolation = child.receive(_decode_isolation, self._start_deadline_s)
        except WorkerLost as lost:
            raise _NotStarted(f"{lost.detail}\n{child.interpreter.tail}") from None
        if not isolation.is_complete and not self._programs_anyway:
            return Unscorable(Reason.NO_SANDBOX, "; ".join(isolation.missing)[:MAX_DETAIL_CHARS])
        limit = time.monotonic() + deadline_s
        outputs: list[str] = []
        try:
            child.send(_encode(program), deadline_s)
            while len(outputs) < len(program.inputs):
                put_out = child.receive(bytes, limit - time.monotonic())
                if len(put_out) > program.max_output_bytes:
                    break
                outputs.append(put_out.decode())
        except UnicodeDecodeError:
            pass
        except WorkerLost as lost:
            if lost.reason is Reason.DEADLINE:
                return Unscorable(Reason.DEADLINE, f"still running after {deadline_s:.3g} s")
            if child.was_killed:
                return Unscorable(Reason.CRASHED, "it was killed")
        failed = () if len(outputs) == len(program.inputs) else (None,)
        return Ran((*outputs, *failed))

    def _take_interpreter(self) -> "_Interpreter":
        """
        Raises:
            OSError: the system cannot start a process.
        """
        with self._lock:
            if self._closed:
                raise _NotStarted("the runner was closed")
            if self._interpreter is None:
                self._interpreter = _Interpreter(self._command, self._start_deadline_s)
            return self._interpreter

    def _discard(self, interpreter: "_Interpreter | None") -> None:
        with self._lock:
            if interpreter is not None and interpreter is self._interpreter:
                self._interpreter = None
        if interpreter is not None:
            interpreter.kill()


class _NotStarted(Exception):
    """A process ended or hung that a program needs."""


class _Interpreter:
    """The process that forks (rewards/interpreter.py), and the socket to it. Thread-safe."""

    def __init__(self, command: Sequence[str], deadline_s: float) -> None:
        """
        Args:
            deadline_s: for each answer; the first one waits for its start.
        """
        self._lock = threading.Lock()  # one question at a time
        self._stderr = os.memfd_create("stderr")
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(deadline_s)
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=_ENVIRONMENT,
                start_new_session=True,
            )

    def __del__(self) -> None:
        os.close(self._stderr)
        self._socket.close()

    @property
    def tail(self) -> str:
        """The end of what it wrote to stderr. No program of an answer can write there."""
        size = os.fstat(self._stderr).st_size
        written = os.pread(self._stderr, MAX_STDERR_BYTES, max(0, size - MAX_STDERR_BYTES))
        return written.decode(errors="replace")

    @contextlib.contextmanager
    def launched(self, launch: Launch) -> Iterator["_Child"]:
        """A child for one program, which ends afterwards.

        Raises:
            _NotStarted: there is none, or this process ended meanwhile.
        """
        theirs_in, requests = os.pipe()
        replies, theirs_out = os.pipe()
        try:
            try:
                pid = self._ask(launch, [theirs_in, theirs_out])
            finally:
                os.close(theirs_in)
                os.close(theirs_out)
            if pid < 0:
                raise _NotStarted(f"fork: {os.strerror(-pid)}")
            child = _Child(self, pid, requests, replies)
            try:
                yield child
            finally:
                child.end()
        finally:
            os.close(requests)
            os.close(replies)

    def end(self, pid: int) -> int:
        """Kills a child and its group; the status that it ended with. Once for each child."""
        return self._ask(End(pid))

    def kill(self) -> None:
        """Ends the process, and all children with it. Idempotent, from any thread."""
        self._process.kill()
        self._process.wait()

    def _ask(self, message: Launch | End, fds: Sequence[int] = ()) -> int:
        with self._lock:
            try:
                socket.send_fds(self._socket, [_encode(message)], fds)
                reply = self._socket.recv(MAX_MESSAGE_BYTES)
            except OSError as error:
                raise _NotStarted(f"{error}\n{self.tail}") from None
        if not reply:
            raise _NotStarted(f"its process ended\n{self.tail}")
        return _decode_number(reply)


class _Child(Pipes):
    """A process that runs one program."""

    def __init__(self, interpreter: _Interpreter, pid: int, requests: int, replies: int) -> None:
        super().__init__(requests, replies)
        self.interpreter = interpreter
        self._pid = pid
        self._status: int | None = None

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it before end() did."""
        return self._status == -signal.SIGKILL

    def end(self) -> int:
        """Kills it; the status that it ended with. Idempotent."""
        if self._status is None:
            self._status = self.interpreter.end(self._pid)
        return self._status

    def _ended(self) -> WorkerLost:
        return WorkerLost(Reason.CRASHED, f"ended with status {self.end()}")


def _max_file_bytes(program: Program) -> int:
    return max(program.max_output_bytes, *(len(text.encode()) for text in program.inputs))
