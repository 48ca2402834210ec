"""A process that isolates itself, tries to get out, tries to do its work, and prints what happened.

    python prisoner.py PROFILE CANARY READABLE BYSTANDER

PROFILE is text, programs, or none: then it only tries what does no harm. CANARY is a file that
nobody allowed, READABLE a directory that is allowed, with `file`, and `link` to the canary;
BYSTANDER the id of a process of the same user. The result is JSON: for each attempt "refused" or
what came of it.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from fcntl import fcntl
from functools import partial
from pathlib import Path

from rewards.kernel import LIBSECCOMP
from rewards.sandbox import confine, isolate, readable_now, renew_cpu_budget

PROFILE, CANARY, READABLE, BYSTANDER = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
BESIDE = os.path.join(os.path.dirname(CANARY), "beside")
FILE = os.path.join(READABLE, "file")
FORBIDDEN_CALLS = """
    socket socketpair connect bind listen accept sendto sendmsg recvmsg io_uring_setup fork
    vfork clone execve execveat ptrace process_vm_readv process_vm_writev process_madvise
    pidfd_open pidfd_send_signal pidfd_getfd tkill rt_sigqueueinfo rt_tgsigqueueinfo kcmp mount
    umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount unshare setns bpf
    keyctl add_key request_key userfaultfd perf_event_open personality seccomp landlock_add_rule
    creat truncate chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes
    utimensat futimesat setxattr lsetxattr fsetxattr removexattr fremovexattr rename renameat
    renameat2 unlink unlinkat rmdir mkdir mkdirat mknod mknodat link linkat symlink symlinkat
    chdir fchdir umask name_to_handle_at open_by_handle_at inotify_init1 fanotify_init flock
    fallocate splice vmsplice kexec_load init_module finit_module delete_module reboot swapon
    acct syslog quotactl sethostname settimeofday clock_settime adjtimex iopl ioperm modify_ldt
    setuid setgid setresuid setgroups capset setpgid setsid setpriority sched_setscheduler
    sched_setaffinity setrlimit shmget shmat semget msgget mq_open timer_create migrate_pages
    move_pages mbind
"""

libc = ctypes.CDLL(None, use_errno=True)
number_of = ctypes.CDLL(LIBSECCOMP).seccomp_syscall_resolve_name
IOCTL, TGKILL, PRCTL, CLONE, CLONE3 = map(
    number_of, (b"ioctl", b"tgkill", b"prctl", b"clone", b"clone3")
)
NEW_THREAD, NEW_USER_NAMESPACE = 0x003D_0F00, 0x1000_0000
SET_FLAGS_OF_FILE, TYPE_CHARACTER = 0x4008_6602, 0x5412


def call(number: int, *arguments: int) -> int:
    """A system call without any library in between."""
    result = int(libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def outcome(attempt: Callable[[], object]) -> str:
    try:
        return f"done: {attempt()!r}"
    except PermissionError:
        return "refused"
    except OSError as error:
        return f"failed: {errno.errorcode[error.errno or 0]}"
    except (ValueError, RuntimeError, ImportError) as error:
        return f"failed: {type(error).__name__}: {error}"


def open_for_reading(path: str, flags: int = 0) -> int:
    return os.open(path, os.O_RDONLY | flags)


def start_child() -> None:
    if os.fork() == 0:
        os._exit(0)


def raise_limit(which: int) -> None:
    try:
        resource.setrlimit(which, (2**40, 2**40))
    except ValueError:
        raise PermissionError from None


def execute_memory() -> None:
    program = os.memfd_create("program")
    os.execve(program, ["program"], {})


def files() -> dict[str, Callable[[], object]]:
    return {
        "read": lambda: open(CANARY),
        "read through a link": lambda: open(f"{READABLE}/link"),
        "write": lambda: open(CANARY, "r+b"),
        "append": lambda: os.open(CANARY, os.O_WRONLY | os.O_APPEND),
        "write a readable file": lambda: open(FILE, "r+b"),
        "truncate a readable file while opening it": lambda: open_for_reading(FILE, os.O_TRUNC),
        "create": lambda: open(BESIDE, "x"),
        "create without a name": lambda: os.open(READABLE, os.O_TMPFILE | os.O_RDWR),
        "create in a readable directory": lambda: open_for_reading(f"{READABLE}/new", os.O_CREAT),
        "list": lambda: os.listdir(os.path.dirname(CANARY)),
        "list the root": lambda: os.listdir("/"),
        "truncate": lambda: os.truncate(CANARY, 0),
        "chmod": lambda: os.chmod(CANARY, 0o777),
        "chmod an open file": lambda: os.fchmod(open_for_reading(FILE), 0o777),
        "chown": lambda: os.chown(CANARY, 1, 1),
        "utime": lambda: os.utime(CANARY, (0, 0)),
        "utime of an open file": lambda: os.utime(open_for_reading(FILE), (0, 0)),
        "setxattr": lambda: os.setxattr(CANARY, "user.a", b"b"),
        "rename": lambda: os.rename(CANARY, BESIDE),
        "unlink": lambda: os.unlink(CANARY),
        "link": lambda: os.link(CANARY, BESIDE),
        "symlink": lambda: os.symlink(CANARY, BESIDE),
        "mkdir": lambda: os.mkdir(BESIDE),
        "mkfifo": lambda: os.mkfifo(BESIDE),
        "own environment": lambda: open("/proc/self/environ"),
        "the parent's environment": lambda: open(f"/proc/{os.getppid()}/environ"),
        "the parent's memory": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
        "own memory": lambda: open("/proc/self/mem", "r+b"),
        "accounts": lambda: open("/etc/passwd"),
        "flags of an open file": lambda: call(IOCTL, open_for_reading(FILE), SET_FLAGS_OF_FILE, 0),
    }


def network() -> dict[str, Callable[[], object]]:
    families = ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG")
    attempts = {name: partial(socket.socket, getattr(socket, name)) for name in families}
    return {**attempts, "socketpair": socket.socketpair}


def processes() -> dict[str, Callable[[], object]]:
    set_owner, set_signal = 8, 10
    return {
        "fork": start_child,
        "posix_spawn": lambda: os.posix_spawn(sys.executable, [sys.executable], {}),
        "subprocess": lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        "exec": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
        "exec memory": execute_memory,
        "signal the parent": lambda: os.kill(os.getppid(), 0),
        "signal a bystander": lambda: os.kill(BYSTANDER, 0),
        "signal the own group": lambda: os.kill(0, 0),
        "signal all": lambda: os.kill(-1, 0),
        "signal a bystander's thread": lambda: call(TGKILL, BYSTANDER, BYSTANDER, 0),
        "signal a bystander when a pipe is ready": lambda: fcntl(0, set_owner, BYSTANDER),
        "choose that signal": lambda: fcntl(0, set_signal, signal.SIGKILL),
        "type into the terminal": lambda: call(IOCTL, 0, TYPE_CHARACTER, 0),
        "outlive the parent": lambda: call(PRCTL, 1, 0),
        "raise the memory": lambda: raise_limit(resource.RLIMIT_AS),
        "raise the file size": lambda: raise_limit(resource.RLIMIT_FSIZE),
        "raise the open files": lambda: raise_limit(resource.RLIMIT_NOFILE),
        "limit a bystander": lambda: resource.prlimit(BYSTANDER, resource.RLIMIT_CPU, (1, 1)),
    }


def calls() -> dict[str, Callable[[], object]]:
    known = {name: number_of(name.encode()) for name in FORBIDDEN_CALLS.split()}
    return {name: partial(call, known[name], *[-1] * 6) for name in known if known[name] >= 0} | {
        "a thread in a namespace": lambda: call(CLONE, NEW_THREAD | NEW_USER_NAMESPACE),
    }


def own_rights() -> dict[str, Callable[[], object]]:
    """What must go on working."""

    def start_thread() -> bool:
        seen = threading.Event()
        threading.Thread(target=seen.set).start()
        return seen.wait(30)

    def import_lazily() -> list[str]:
        import colorsys
        import lzma  # with a shared library of the system

        return [colorsys.__name__, lzma.__name__]

    def pass_through_pipe() -> bytes:
        reader, writer = os.pipe()
        os.write(writer, b"text")
        return os.read(reader, 4)

    def name_memory() -> int:
        return os.lseek(os.memfd_create("name"), 0, os.SEEK_END)

    def raise_signal() -> bool:
        got: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
        signal.raise_signal(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        return len(got) == 2

    return {
        "thread": start_thread,
        "lazy import": import_lazily,
        "pipe": pass_through_pipe,
        "memfd": name_memory,
        "signal itself": raise_signal,
        "read a readable file": lambda: Path(FILE).read_text(),
        "random": lambda: len(Path("/dev/urandom").open("rb").read(4) + os.urandom(4)),
        "renew the CPU budget": lambda: renew_cpu_budget(60),
        "clone3": lambda: call(CLONE3, 0, 0),
    }


if __name__ == "__main__":
    attempts = {"files": files(), "network": network()}
    if PROFILE != "none":
        attempts |= {"processes": processes(), "calls": calls(), "own rights": own_rights()}
        confine(1024, os.getppid(), threads=PROFILE == "programs")
        isolate([*readable_now(), Path(READABLE)], runs_programs=PROFILE == "programs")
    report = {
        part: {name: outcome(attempt) for name, attempt in some.items()}
        for part, some in attempts.items()
    }
    sys.stdout.write(json.dumps(report))
