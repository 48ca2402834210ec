"""A node of the demo as a process: started, started again when it dies, ended for good."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from node.config import ENVIRONMENT_PREFIX
from node.exit_status import FINAL

BACKOFF_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses before a dead process is started again; one more death gives it up."""

STOP_S = 20.0
"""From SIGTERM to SIGKILL: enough for a round and a checkpoint of the embedded policy."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


class NodeProcess:
    """One node's process, through all its lives.

    It is sent SIGTERM when the thread that called `start` or `watch` ends: call both from the
    main thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            command: starts the node.
            log: stdout and stderr of all lives are appended to it.
            environment: all that the process sees.
        """
        self._command = tuple(command)
        self._log = log
        self._environment = dict(environment)
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self.deaths = 0
        """How often it ended without having been asked to."""
        self.failure = ""
        """Why it is not started again; empty while it is."""

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process else None

    @property
    def restart_in_s(self) -> float | None:
        """Seconds until the next life, while there is none."""
        if self._process is not None or self.failure:
            return None
        return max(0.0, self._start_at - self._clock())

    def start(self) -> None:
        """Starts a life."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the demo alone
                preexec_fn=_end_with_parent,
            )

    def watch(self) -> str:
        """Starts the process again where that is due; what happened, in words, else nothing."""
        if self.failure:
            return ""
        if self._process is None:
            if self._clock() >= self._start_at:
                self.start()
            return ""
        if (ended := self._take_end(self._process)) is None:
            return ""
        self._process = None
        return self._plan_next_life(ended)

    def _plan_next_life(self, status: int) -> str:
        how = f"ended with status {status}"
        if status < 0:
            how = f"was ended by signal {-status} ({signal.strsignal(-status)})"
        if status in FINAL or self.deaths >= len(BACKOFF_S):
            self.failure = f"{how}, see {self._log}: {last_line(self._log)}"
            return f"{how} and is given up"
        pause_s = BACKOFF_S[self.deaths]
        self.deaths += 1
        self._start_at = self._clock() + pause_s
        return f"{how}; it is started again in {pause_s:.0f} s with the same home"

    def ask_to_stop(self) -> None:
        """Sends SIGTERM; the node ends in order."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()  # of its own children a node takes care itself

    def end(self, deadline: float) -> bool:
        """Waits until `deadline` of the clock, then kills; whether it ended by itself."""
        process, self._process = self._process, None
        self.failure = self.failure or "ended by the demo"
        if process is None:
            return True
        in_order = True
        try:
            process.wait(max(0.0, deadline - self._clock()))
        except subprocess.TimeoutExpired:
            in_order = False
        _kill_group(process.pid)
        process.wait()
        return in_order

    @staticmethod
    def _take_end(process: "subprocess.Popen[bytes]") -> int | None:
        """The exit status of a process that has ended; the rest of its group is killed first, while
        its number still stands for it."""
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _kill_group(process.pid)
        return process.wait()


def last_line(log: Path, max_bytes: int = 4096) -> str:
    """The last line that says something, in printable ASCII."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - max_bytes))
        lines = file.read().decode(errors="replace").splitlines()
    return next((ascii(line.strip())[1:-1] for line in reversed(lines) if line.strip()), "")


def node_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a node of the demo sees: our own variables without settings (they stand in its
    `node.toml` by now, and would override it), and one thread for arithmetic, since several nodes
    share the cores."""
    own = os.environ if environment is None else environment
    kept = {name: text for name, text in own.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def adopting_orphans() -> Iterator[Callable[[Sequence[int | None]], None]]:
    """Makes this process the parent of its descendants whose own parents die, and ends those that
    are left when the block ends: whoever was killed, nothing stays behind.

    Yields a function that takes the exit statuses of adopted processes, all but the given ones, so
    that they do not stay as zombies. Children from before are spared. Linux only.
    """
    before = set(children())

    def reap(ours: Sequence[int | None]) -> None:
        for pid in set(children()) - before - set(ours):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
    try:
        yield reap
    finally:
        while strays := set(children()) - before:
            for pid in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(0), 0, 0, 0)


def children() -> list[int]:
    """The processes whose parent is this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_bytes().rpartition(b")")[2].split()[1])
        except OSError:
            continue  # it has just ended
        if parent == os.getpid():
            found.append(int(stat.parent.name))
    return found


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _end_with_parent() -> None:
    """Runs between fork and exec: nothing but one system call."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
