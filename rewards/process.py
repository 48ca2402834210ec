"""One worker process as the verifier sees it: start it, exchange frames by a deadline, kill it."""

import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

import msgspec

import rewards
from rewards.frames import frame
from rewards.question import Reason
from rewards.sandbox import Isolation
from rewards.worker import Item, Ready, Start

MAX_REPLY_BYTES = 2**20
MAX_STDERR_BYTES = 4096

ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # some data sets depend on it: all nodes must share it
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # its own one takes 1 GiB of addresses at once
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""All that a process that meets text of strangers sees: none of the node's variables."""

_BOOT = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from rewards.worker import main; main()"
)

_encode = msgspec.msgpack.Encoder().encode
_decode_first = msgspec.msgpack.Decoder(Ready).decode

_Reply = TypeVar("_Reply")


class WorkerLost(Exception):
    """A process is not usable any more and must be killed."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def worker_command() -> tuple[str, ...]:
    """The command that starts a worker of this package, wherever it was imported from.

    `-P` keeps the working directory out of the module path. `-I` would ignore PYTHONHASHSEED.
    """
    root = str(Path(rewards.__file__).resolve().parents[1])
    return (sys.executable, "-P", "-c", _BOOT, root)


class Pipes:
    """Frames to and from a process, by deadlines. Used by one thread at a time.

    What comes from the process is a stranger's: its length is bounded before it is kept, and it
    can neither block this end nor make it wait beyond a deadline.
    """

    def __init__(self, requests: int, replies: int, complaints: int | None = None) -> None:
        """
        Args:
            requests, replies, complaints: our ends. They are made not to block.
            complaints: its stderr; None if it is not for us.
        """
        self._requests, self._replies, self._stderr = requests, replies, complaints
        self._poll = select.poll()
        for fd in (replies, complaints):
            if fd is not None:
                os.set_blocking(fd, False)
                self._poll.register(fd, select.POLLIN)
        os.set_blocking(requests, False)
        self._received = bytearray()
        self._complaints = bytearray()

    @property
    def tail(self) -> str:
        """The end of what it wrote to stderr, in printable ASCII but for line feeds."""
        lines = self._complaints.decode(errors="replace").splitlines()
        return "\n".join(ascii(line)[1:-1] for line in lines)

    def send(self, payload: bytes, timeout_s: float) -> None:
        """Writes a frame.

        Raises:
            WorkerLost: it ended, or did not read in time.
        """
        limit = time.monotonic() + timeout_s
        rest = memoryview(frame(payload))
        room = select.poll()
        room.register(self._requests, select.POLLOUT)
        while rest:
            if not room.poll(max(0.0, limit - time.monotonic()) * 1000):
                raise WorkerLost(Reason.DEADLINE, f"it did not read within {timeout_s:.3g} s")
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._ended() from None

    def receive(self, decode: Callable[[bytes], _Reply], timeout_s: float) -> _Reply:
        """The next reply.

        Raises:
            WorkerLost: it ended, was late, or sent what `decode` refuses.
        """
        limit = time.monotonic() + timeout_s
        is_late = False
        while (payload := self._pop_frame()) is None:
            if is_late:
                raise WorkerLost(Reason.DEADLINE, f"no reply within {timeout_s:.3g} s")
            # Asked before reading: what came while this thread was held up is still in time.
            is_late = time.monotonic() >= limit
            self._pump(max(0.0, limit - time.monotonic()))
        try:
            return decode(payload)
        except msgspec.MsgspecError:
            raise WorkerLost(Reason.CRASHED, "it sent what is not a reply") from None

    def _ended(self) -> WorkerLost:
        """Why a pipe is closed at its end."""
        raise NotImplementedError

    def _pump(self, timeout_s: float) -> None:
        """Reads what is there from both pipes; waits for something at most so long."""
        for fd, _ in self._poll.poll(timeout_s * 1000):
            chunk = os.read(fd, 65536)
            if fd == self._replies:
                self._received += chunk
                if not chunk:
                    raise self._ended()
            else:
                self._complain(chunk)
                if not chunk:
                    self._poll.unregister(fd)

    def _pop_frame(self) -> bytes | None:
        if len(self._received) < 4:
            return None
        size = struct.unpack_from(">I", self._received)[0]
        if size > MAX_REPLY_BYTES:
            raise WorkerLost(Reason.CRASHED, f"a reply of {size} bytes")
        if len(self._received) < 4 + size:
            return None
        payload = bytes(self._received[4 : 4 + size])
        del self._received[: 4 + size]
        return payload

    def _complain(self, chunk: bytes) -> None:
        self._complaints += chunk
        del self._complaints[:-MAX_STDERR_BYTES]


class WorkerProcess(Pipes):
    """A worker and its three pipes. Used by one thread at a time; kill() by any.

    The worker dies with the thread that made this object.
    """

    def __init__(self, command: Sequence[str], start: Start, start_deadline_s: float) -> None:
        """Starts the process without waiting until it is ready.

        Raises:
            OSError: the system cannot start a process now, or there is no such program.
        """
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT,
            start_new_session=True,  # its own group, to be killed as a whole
        )
        super().__init__(
            _fd(self._process.stdin), _fd(self._process.stdout), _fd(self._process.stderr)
        )
        self._kill_lock = threading.Lock()
        self._ready_by = time.monotonic() + start_deadline_s
        self.is_ready = False
        """Whether it is known to have built its tasks."""
        self.isolation: Isolation | None = None
        """What keeps it from files and network; None before it is ready."""
        with contextlib.suppress(WorkerLost):  # wait_ready() will meet it again
            self.send(_encode(start), start_deadline_s)

    @property
    def reluctance(self) -> int:
        """0 if ready, 1 if it has just become ready (or ended), 2 while it starts."""
        if self.is_ready:
            return 0
        return 1 if any(fd == self._replies for fd, _ in self._poll.poll(0)) else 2

    def wait_ready(self) -> None:
        """Returns when it has built its tasks, and lives.

        Raises:
            WorkerLost: it ended, or took too long.
        """
        if not self.is_ready:
            try:
                ready = self.receive(_decode_first, self._ready_by - time.monotonic())
            except WorkerLost as lost:
                raise WorkerLost(lost.reason, f"not ready: {lost.detail}") from None
            self.isolation = ready.isolation
            self.is_ready = True
        self._pump(timeout_s=0)  # it may have ended since
        if self._received:
            raise WorkerLost(Reason.CRASHED, "it wrote without being asked")

    def ask(self, items: Sequence[Item], timeout_s: float) -> None:
        """Asks for one reply to each item, in order.

        Raises:
            WorkerLost: it ended, or did not read in time.
        """
        self.send(_encode(items), timeout_s)

    def kill(self) -> int:
        """Kills it and its process group; returns the status it ended with, as Popen does.

        That is its own status if it was ending already. Idempotent, from any thread.
        """
        with self._kill_lock:
            if self._process.returncode is None:
                # Before wait(): as long as nobody has waited for the leader, the group's number
                # cannot belong to others.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            return self._process.returncode

    def close_pipes(self) -> None:
        """To be called after kill(), when no thread uses the worker any more. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _ended(self) -> WorkerLost:
        status = self.kill()
        with contextlib.suppress(BlockingIOError):
            self._complain(os.read(_fd(self._process.stderr), 65536))  # all that a pipe holds
        if status == -signal.SIGXCPU:
            return WorkerLost(Reason.DEADLINE, "CPU time")
        if status < 0:
            return WorkerLost(Reason.CRASHED, f"ended by signal: {signal.strsignal(-status)}")
        return WorkerLost(Reason.CRASHED, f"ended with status {status}")


def _fd(pipe: IO[bytes] | None) -> int:
    assert pipe is not None
    return pipe.fileno()
