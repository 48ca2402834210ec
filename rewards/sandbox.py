"""What a worker process may do: limits that it takes on first, then the isolation.

A worker takes on the limits (confine), imports the installed code that it needs, closes itself in
(isolate), and only then meets a stranger's text or runs a stranger's program.

Covered by the limits (Linux):
- memory: address space (RLIMIT_AS); CPU time per item (RLIMIT_CPU, renewed); no core files
- files: no byte is written to any (RLIMIT_FSIZE 0), few are open at once, the working directory
  is an empty one that no longer has a name
- processes and threads: none (RLIMIT_NPROC 0), unless the node runs as root; a child of os.fork()
  ends at once for root, too; children in the worker's process group are killed with it
- life: the worker dies with the thread that started it (PR_SET_PDEATHSIG), hence with the node;
  it gains no privileges by exec (PR_SET_NO_NEW_PRIVS)
- environment: the worker's is made by the verifier and holds none of the node's variables
- `eval` on answers in four modules of reasoning_gym (shadow_eval)

Covered by the isolation, also for root, in containers, and against machine code (ctypes):
- files (Landlock, Linux 5.13): only those of installed software and what the worker is given can
  be opened or listed, none of /proc, so no environment or memory of any process. Nothing is opened
  for writing, created, renamed, removed, linked, truncated; no mode, owner, time or attribute
  changed: that is seccomp's work, too, and holds without Landlock
- network (seccomp): there are no sockets of any family, no io_uring
- processes (seccomp): no fork, exec, signal to others, ptrace, reading of other memory, namespaces,
  mounts, keys, BPF, kernel modules, limits raised; only calls on a list (rewards/syscalls.py)
- threads of a program: MAX_THREADS, by the limit on the user's threads. For that a worker of root
  becomes a user of its own without capabilities but to read (rewards/privileges.py)

Where a part is missing on a machine, the rest is in force, and Isolation says what is missing.

NOT covered:
- that a file exists, its size, times and mode, where a link points to: stat, access and readlink
  of any path work where its directories can be searched
- what is open before: the pipes to the verifier. A program can write any reply there; whoever
  reads it must take it for a stranger's text
- memory outside of the address space: what open pipes and files in memory hold (MAX_OPEN_FILES of
  64 KiB or max_file_bytes), the kernel's own for threads
- SIGXCPU can be ignored by a program: only a hard limit on CPU time or being killed ends it
- side channels (caches, timing), the load on CPU and memory bandwidth, flaws of the kernel
- what the worker knows already: its own memory. No secret belongs there
- other architectures than x86-64 and aarch64
"""

import ast
import ctypes
import os
import resource
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import msgspec

from rewards import kernel
from rewards.kernel import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, prctl
from rewards.privileges import bound_threads, give_up_privileges
from rewards.syscalls import AS_IF_UNKNOWN, allowed_calls

MAX_OPEN_FILES = 64
MAX_THREADS = 256
"""Of a program, beyond those that its user has when it starts."""

_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
)


class Isolation(msgspec.Struct, frozen=True):
    """What of the isolation is in force in a process."""

    landlock_abi: int
    """Version of Landlock in the kernel; 0: none, so it can read what its user may read."""
    seccomp: bool
    """Whether system calls are filtered; if not, network and processes are open to it."""
    missing: tuple[str, ...] = ()
    """A sentence for each protection that is not in force, and why."""

    @property
    def is_complete(self) -> bool:
        """Whether files and network are both closed."""
        return self.landlock_abi > 0 and self.seccomp


def confine(
    memory_mib: int, parent_pid: int, *, threads: bool = False, max_file_bytes: int = 0
) -> None:
    """Takes on all limits but the CPU time. Irrevocable for an ordinary user.

    Ends the process at once if `parent_pid` is no longer its parent: the node has died.

    Args:
        threads: whether it will be able to start threads. Then it can start processes, too, until
            it is isolated.
        max_file_bytes: of any file that it writes, those in memory included.

    Raises:
        OSError: the kernel refused a limit; the worker must not go on.
    """
    if sys.platform != "linux":
        raise OSError(f"the verifier's workers need Linux, this is {sys.platform}")
    prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent_pid:
        os._exit(1)
    prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    _enter_nameless_directory()
    os.umask(0o077)
    os.register_at_fork(after_in_child=lambda: os._exit(1))
    _limit(resource.RLIMIT_AS, memory_mib * 2**20)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, max_file_bytes)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    if not threads:
        _limit(resource.RLIMIT_NPROC, 0)


def isolate(
    readable: Iterable[Path],
    *,
    runs_programs: bool,
    syscall: kernel.Syscall = kernel.syscall,
    load: kernel.LoadLibrary = ctypes.CDLL,
) -> Isolation:
    """Closes the process in, for good: it opens no file but those beneath `readable`, and these
    only to read; it opens no socket, starts no process, signals no other.

    What is open stays usable. What this machine lacks is left out and reported.

    Args:
        readable: directories and files. Those that cannot be opened are left out.
        runs_programs: whether a stranger's program will run in it. Then no limit can be changed
            (renew_cpu_budget fails), and threads are counted instead of forbidden, if confine()
            left them.
        syscall, load: as rewards/kernel.py takes them; others imitate other machines.

    Raises:
        OSError: the process has a second thread, which Landlock would not close in.
    """
    num_threads = len(os.listdir("/proc/self/task"))
    if num_threads > 1:
        raise OSError(f"a process with {num_threads} threads cannot be isolated, only with one")
    prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    give_up_privileges()
    missing = []
    landlock_abi, has_seccomp = 0, False
    try:
        landlock_abi = kernel.restrict_files(readable, syscall)
    except OSError as error:
        missing.append(
            f"files that the user may read can be read, for lack of Landlock ({error}): it needs "
            "Linux 5.13 or newer, and landlock among the security modules (boot option lsm=)"
        )
    if not bound_threads(MAX_THREADS):
        missing.append("threads are not counted: this is root, and cannot become another user")
    try:
        calls = allowed_calls(os.getpid(), may_renew_cpu_limit=not runs_programs)
        kernel.restrict_calls(calls, AS_IF_UNKNOWN, load)
        has_seccomp = True
    except OSError as error:
        _limit(resource.RLIMIT_NPROC, 0)
        missing.append(
            f"network and processes are open, for lack of seccomp ({error}): it needs a kernel "
            f"with seccomp filters, and {kernel.LIBSECCOMP} (Debian package libseccomp2)"
        )
    return Isolation(landlock_abi, has_seccomp, tuple(missing))


def readable_now() -> list[Path]:
    """What the modules imported so far may read later: modules that they import lazily, data of
    their packages, shared libraries, time zones, random numbers.

    That is: the libraries of the system and of Python with the packages installed there, the
    directory of every package imported from elsewhere, the file of every other module. Never an
    entry of the module path as a whole, which may be a checkout with the node's home and key.
    """
    installed = {os.path.realpath(path) for path in _installed() if os.path.exists(path)}
    imported = {os.path.realpath(path) for path in set(_imported())}
    roots = [os.path.realpath(entry) for entry in sys.path if os.path.isabs(entry)]
    closed = {path for path in imported if any(_is_beneath(root, path) for root in roots)}
    return [Path(path) for path in _outermost(installed | (imported - closed))]


def renew_cpu_budget(cpu_s: int) -> None:
    """Lets the process use `cpu_s` seconds of CPU time (up to one more) from now on.

    The signal that ends it is SIGXCPU.
    """
    soft = int(time.process_time()) + cpu_s + 1
    if resource.getrlimit(resource.RLIMIT_CPU)[0] != soft:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def shadow_eval(*modules: ModuleType) -> None:
    """Makes `eval` inside these modules read literals only.

    For modules that call `eval` on an answer where a literal is meant: an expression raises
    ValueError or SyntaxError instead of running. To be called right after their import, by the
    task that imports them; in a worker, since it changes the module for the whole process.

    Not checked: other ways from text to code in them (exec, parse_expr, pickle).
    """
    for module in modules:
        vars(module)["eval"] = ast.literal_eval


def _installed() -> Iterator[str]:
    yield from _SYSTEM
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        yield from (f"{prefix}/lib", f"{prefix}/lib64")
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield sysconfig.get_path(name)
    for entry in sys.path:
        if entry.endswith(("/site-packages", "/dist-packages", ".zip")):
            yield entry


def _imported() -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        attributes = vars(module) if isinstance(module, ModuleType) else {}
        paths = attributes.get("__path__")
        if paths is None:
            paths = [] if "." in name else [attributes.get("__file__")]
        yield from (path for path in paths if isinstance(path, str) and os.path.isabs(path))


def _is_beneath(path: str, place: str) -> bool:
    return f"{path}/".startswith(f"{place}/")


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie beneath others."""
    kept: list[str] = []
    for path in sorted({f"{path}/" for path in paths}):
        if not kept or not path.startswith(kept[-1]):
            kept.append(path)
    return [path[:-1] for path in kept]


def _limit(which: int, value: int) -> None:
    """Lowers one limit, soft and hard, unless the hard one is lower already."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _enter_nameless_directory() -> None:
    """Makes an empty directory without a name the current one; `/` where no directory can be made.

    Nothing is left to clean up, unless the worker is killed between these lines: then an empty
    directory.
    """
    try:
        directory = tempfile.mkdtemp(prefix="sapo-worker-")
    except OSError:
        os.chdir("/")
        return
    os.chdir(directory)
    os.rmdir(directory)
