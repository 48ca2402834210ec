"""What is asked of the kernel and of libseccomp; what it helps against is in test_sandbox.py."""

import ctypes
import errno
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rewards
from rewards.kernel import LIBSECCOMP, restrict_calls, restrict_files

ROOT = str(Path(rewards.__file__).resolve().parents[1])
START = "import ctypes, errno, os, threading\nfrom pathlib import Path\n"
START += "from rewards.kernel import *\nprctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))\n"


def has_libseccomp() -> bool:
    try:
        ctypes.CDLL(LIBSECCOMP)
    except OSError:
        return False
    return True


def has_landlock() -> bool:
    return bool(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) > 0)


needs_libseccomp = pytest.mark.skipif(not has_libseccomp(), reason="no libseccomp2")
needs_landlock = pytest.mark.skipif(not has_landlock(), reason="no Landlock")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", START + code],
        env={"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
    )


class Landlock:
    """A kernel with a version of Landlock; keeps what it was asked for."""

    def __init__(self, abi: int) -> None:
        self.abi = abi
        self.handled: tuple[int, ...] = ()
        self.num_rules = 0
        self.flags: int | None = None

    def __call__(self, number: int, *arguments: object) -> int:
        values = [getattr(argument, "value", argument) for argument in arguments]
        if number == 444 and values[0] is None:
            return self.abi
        if number == 444:
            asked = arguments[0]._obj  # type: ignore[attr-defined]
            self.handled = (asked.files, asked.net, asked.scoped)
            return os.open("/dev/null", os.O_RDONLY)
        if number == 445:
            self.num_rules += 1
        else:
            self.flags = values[1]
        return 0


@pytest.mark.parametrize(
    ("abi", "handled", "flags"),
    [
        (1, (0x1FFF, 0, 0), 0),
        (2, (0x3FFF, 0, 0), 0),
        (3, (0x7FFF, 0, 0), 0),
        (4, (0x7FFF, 3, 0), 0),
        (5, (0xFFFF, 3, 0), 0),
        (6, (0xFFFF, 3, 3), 0),
        (7, (0xFFFF, 3, 3), 1),
        (99, (0xFFFF, 3, 3), 1),
    ],
)
def test_the_kernel_is_asked_for_all_that_its_version_of_landlock_can_forbid(
    abi: int, handled: tuple[int, ...], flags: int
) -> None:
    landlock = Landlock(abi)
    paths = [Path("/dev/null"), Path("/usr/lib"), Path("/no/such/file")]
    assert restrict_files(paths, landlock) == abi
    assert (landlock.handled, landlock.flags) == (handled, flags)
    assert landlock.num_rules == 2


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_kernel_without_landlock_is_an_error_that_names_its_own(number: int) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)):
        restrict_files([Path("/")], refuse)


@needs_landlock
@pytest.mark.parametrize("abi", [1, 2])
def test_an_older_landlock_closes_files_too(tmp_path: Path, abi: int) -> None:
    allowed, closed = tmp_path / "allowed", tmp_path / "closed"
    allowed.write_text("text")
    closed.write_text("secret")
    done = run(
        "def older(number, *arguments):\n"
        f"    return {abi} if arguments[0] is None else syscall(number, *arguments)\n"
        f"print(restrict_files([Path({str(allowed)!r})], older))\n"
        f"print(open({str(allowed)!r}).read())\n"
        f"for path in ({str(closed)!r}, '/proc/self/environ'):\n"
        "    try: print(open(path).read())\n"
        "    except PermissionError: print('refused')\n"
        f"try: os.unlink({str(closed)!r})\n"
        "except PermissionError: print('refused')"
    )
    assert done.stdout == f"{abi}\ntext\nrefused\nrefused\nrefused\n", done.stderr


@needs_libseccomp
def test_calls_are_allowed_by_name_and_by_the_bits_of_an_argument_that_the_kernel_reads() -> None:
    done = run(
        "def attempt(number, *arguments):\n"
        "    try: return syscall(number, *map(ctypes.c_long, arguments))\n"
        "    except OSError as error: return errno.errorcode[error.errno]\n"
        "names = b'getpriority sched_getparam sched_getscheduler sched_rr_get_interval'.split()\n"
        "find = ctypes.CDLL(LIBSECCOMP).seccomp_syscall_resolve_name\n"
        "conditional, forbidden, unknown, high = map(find, names)\n"
        "calls = 'write exit_group rt_sigaction munmap mmap brk futex madvise close'\n"
        "restrict_calls({\n"
        "    **dict.fromkeys(calls.split(), ALWAYS),\n"
        "    'no_such_call': ALWAYS,\n"
        "    'getpriority': ((Only(0, 0), Only(1, 0)), (Only(0, 2), Only(1, 0))),\n"
        "    'sched_rr_get_interval': ((Only(1, 0, mask=2**64 - 1),),),\n"
        "}, ['sched_getscheduler', 'no_such_call_either'])\n"
        "results = [attempt(conditional, 0, 0), attempt(conditional, 2, 0)]\n"
        "results += [attempt(conditional, 1, 0), attempt(conditional, 0, 1)]\n"
        "results += [attempt(conditional, 2**32, 2**32), attempt(conditional, 2**32 + 1, 0)]\n"
        "results += [attempt(forbidden, 0, 0), attempt(unknown, 0)]\n"
        "results += [attempt(high, 0, 0), attempt(high, 0, 2**32)]\n"
        "os.write(1, ' '.join('done' if type(r) is int else r for r in results).encode())\n"
        "os._exit(0)"
    )
    assert done.stdout == "done done EPERM EPERM done EPERM EPERM ENOSYS EFAULT EPERM", done.stderr


@needs_libseccomp
def test_all_threads_are_restricted() -> None:
    done = run(
        "from rewards.syscalls import allowed_calls\n"
        "ready, go = threading.Event(), threading.Event()\n"
        "def attempt():\n"
        "    ready.set(); go.wait()\n"
        "    try: os.sched_setaffinity(0, {0}); print('done')\n"
        "    except PermissionError: print('refused')\n"
        "thread = threading.Thread(target=attempt); thread.start(); ready.wait()\n"
        "restrict_calls(allowed_calls(os.getpid(), may_renew_cpu_limit=False))\n"
        "go.set(); thread.join()"
    )
    assert done.stdout == "refused\n", done.stderr


@needs_libseccomp
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 has a second set of numbers")
def test_numbers_of_another_architecture_end_the_process() -> None:
    done = run(
        "from rewards.syscalls import allowed_calls\n"
        "restrict_calls(allowed_calls(os.getpid(), may_renew_cpu_limit=False))\n"
        "print(syscall(39) == os.getpid(), flush=True); syscall(0x4000_0000 + 39)"
    )
    assert (done.stdout, done.returncode) == ("True\n", -signal.SIGSYS), done.stderr


def test_a_machine_without_the_library_is_an_error_and_restricts_nothing() -> None:
    with pytest.raises(OSError, match="no-such-library"):
        restrict_calls({}, load=lambda name: ctypes.CDLL("no-such-library.so"))
    assert os.getppid() > 0
