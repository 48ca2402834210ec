"""What a worker process may do: limits that it takes on before any task is imported.

Covered (Linux):
- memory: address space (RLIMIT_AS); CPU time per item (RLIMIT_CPU, renewed); no core files
- files: nothing is written to any (RLIMIT_FSIZE 0), few are open at once, the working directory
  is an empty one that no longer has a name, so that nothing can be created by a relative path
- life: the worker dies with the thread that started it (PR_SET_PDEATHSIG), hence with the node;
  it gains no privileges by exec (PR_SET_NO_NEW_PRIVS)
- processes: neither processes nor threads can be started (RLIMIT_NPROC 0), unless the node runs
  as root, which Linux exempts; a child of os.fork() ends at once for root, too; children in the
  worker's process group are killed with it
- environment: the worker's is made by the verifier and holds none of the node's variables
- `eval` on answers in four modules of reasoning_gym (shadow_eval)

NOT covered, before step 3:
- network access, reading any file that the node's user may read, signals to processes of the
  same user, creating empty files by absolute paths
- processes started by other means than os.fork() that leave the group while the node is root
- code that runs inside the worker and forges its replies. Tasks must not run code of answers:
  those of reasoning_gym that would are shadowed here or refused in rewards/tasks/
"""

import ast
import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
from types import ModuleType

MAX_OPEN_FILES = 64

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def confine(memory_mib: int, parent_pid: int) -> None:
    """Takes on all limits but the CPU time. Irrevocable for an ordinary user.

    Ends the process at once if `parent_pid` is no longer its parent: the node has died.

    Raises:
        OSError: the kernel refused a limit; the worker must not go on.
    """
    if sys.platform != "linux":
        raise OSError(f"the verifier's workers need Linux, this is {sys.platform}")
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _enter_nameless_directory()
    os.umask(0o077)
    os.register_at_fork(after_in_child=lambda: os._exit(1))
    _limit(resource.RLIMIT_AS, memory_mib * 2**20)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_NPROC, 0)


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


def _limit(which: int, value: int) -> None:
    """Lowers one limit, soft and hard, unless the hard one is lower already."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


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
