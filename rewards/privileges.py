"""What a worker gives up of its user's rights: being root, capabilities, any number of threads.

The kernel exempts root from the limit on processes and threads, and lets it signal everybody. So
a worker of root becomes a user that nobody else is. It keeps the capability to read what root may
read, since Python itself may lie in a directory of root's.
"""

import ctypes
import os
import resource
import threading

from rewards.kernel import PR_GET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_PDEATHSIG, libc, prctl

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2
_CAPABILITY_VERSION = 0x20080522

_FIRST_WORKER_USER = 0x7000_0000
_MAX_PID = 2**22


def give_up_privileges() -> None:
    """Leaves root, where the process is root and this machine lets it, and drops capabilities.

    Root stays root in a container without CAP_SETUID, or with a map of few users. To be called
    while the process has one thread. It ends at once if its parent has died meanwhile.
    """
    parent, death_signal = os.getppid(), ctypes.c_int()
    prctl(PR_GET_PDEATHSIG, ctypes.byref(death_signal))
    if os.geteuid() == 0:
        _become_nobody_else()
    _drop_capabilities()
    prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(death_signal.value))  # another user's is forgotten
    if os.getppid() != parent:
        os._exit(1)


def bound_threads(num_more: int) -> bool:
    """Lets the process's user have so many more threads (and processes) than now, and at most as
    many again as it has.

    The kernel counts those of the user everywhere, in other containers, too, and does not tell. So
    the lowest power of two is sought under which one more thread starts.

    Returns whether they are counted at all: those of root are not.
    """
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if _starts_thread(0, hard):
        return False
    most = _MAX_PID if hard == resource.RLIM_INFINITY else min(hard, _MAX_PID)
    limit = 1
    while limit < most and not _starts_thread(limit, hard):
        limit *= 2
    limit = min(limit + num_more, most)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    return True


def _starts_thread(limit: int, hard: int) -> bool:
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
    thread = threading.Thread(target=bool)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def _become_nobody_else() -> None:
    user = _FIRST_WORKER_USER + os.getpid()
    prctl(PR_SET_KEEPCAPS, ctypes.c_ulong(1))
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:
        return


def _drop_capabilities() -> None:
    """All but one: CAP_DAC_READ_SEARCH; where that is not there, CAP_DAC_OVERRIDE."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    libc.capget(header, sets)
    kept = sets[1] & _CAP_DAC_READ_SEARCH or sets[1] & _CAP_DAC_OVERRIDE
    libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept))
