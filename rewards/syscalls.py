"""The system calls that an isolated worker may make; all others fail with EPERM.

A list of what is allowed, so that what a newer kernel brings is forbidden. It is what Python's
standard library, numpy, sympy and pyarrow need to compute, to read files and to start threads.
Where an argument decides, the bits that the kernel reads are compared. Only names and constants
of Python are used, and those of the kernel that are the same on x86-64 and aarch64.

Left out on purpose, though ordinary programs use them: socketpair (so no event loop of asyncio),
sem_open's file (so no locks of multiprocessing), chdir, umask, mlock.
"""

import fcntl
import os
import resource
import termios

from rewards.kernel import ALWAYS, Allowed, Only

_ALWAYS_ALLOWED = """
    brk mmap munmap mremap mprotect madvise mincore membarrier memfd_create
    futex futex_waitv futex_wait futex_wake futex_requeue set_robust_list
    set_tid_address rseq exit exit_group
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max
    sched_get_priority_min getcpu
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait
    sigaltstack pause restart_syscall alarm setitimer getitimer
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage
    getpid getppid gettid getpgrp getuid geteuid getgid getegid getresuid getresgid getgroups
    uname sysinfo getrandom getrlimit
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek close close_range
    stat lstat fstat newfstatat statx fstatfs access faccessat faccessat2 readlink readlinkat
    getdents64 getcwd ftruncate fadvise64 fsync fdatasync
    dup dup2 dup3 pipe pipe2 eventfd2
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
"""

# glibc knows what to do without them. Their arguments lie in memory, where no filter looks.
AS_IF_UNKNOWN = ("clone3", "openat2")

# What opens for writing, creates or truncates; Landlock knows of the last one since version 3.
_NOT_ONLY_READING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC

# VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID: pthread_create.
_NEW_THREAD = 0x003D_0F00

_FCNTL = (
    fcntl.F_DUPFD,
    fcntl.F_DUPFD_CLOEXEC,
    fcntl.F_GETFD,
    fcntl.F_SETFD,
    fcntl.F_GETFL,
    fcntl.F_SETFL,
    fcntl.F_ADD_SEALS,
    fcntl.F_GET_SEALS,
)

_IOCTL = (
    termios.TCGETS,
    termios.TIOCGWINSZ,
    termios.FIONREAD,
    termios.FIONBIO,
    termios.FIOCLEX,
    termios.FIONCLEX,
)

_PRCTL = (15, 16)  # set and get the thread's name


def allowed_calls(pid: int, *, may_renew_cpu_limit: bool) -> Allowed:
    """What the process `pid` may call.

    Args:
        may_renew_cpu_limit: whether it may change RLIMIT_CPU of its own; no other limit.
    """
    unchanged = Only(2, 0, mask=2**64 - 1)  # the pointer to a new limit is null
    limits = [(Only(0, 0), unchanged)]
    if may_renew_cpu_limit:
        limits.append((Only(0, 0), Only(1, resource.RLIMIT_CPU)))
    return {
        **dict.fromkeys(_ALWAYS_ALLOWED.split(), ALWAYS),
        "open": ((Only(1, 0, mask=_NOT_ONLY_READING),),),
        "openat": ((Only(2, 0, mask=_NOT_ONLY_READING),),),
        "clone": ((Only(0, _NEW_THREAD),),),
        "kill": ((Only(0, pid),),),
        "tgkill": ((Only(0, pid),),),
        "fcntl": tuple((Only(1, command),) for command in _FCNTL),
        "ioctl": tuple((Only(1, command),) for command in _IOCTL),
        "prctl": tuple((Only(0, option),) for option in _PRCTL),
        "prlimit64": tuple(limits),
    }
