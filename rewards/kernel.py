"""What closes a process in: Landlock (files) and seccomp (system calls) of Linux, through ctypes.

Both are for good and for any user, in containers, too. Landlock has no C library; its three system
calls have the same numbers on all architectures. For seccomp there is libseccomp (in Debian:
libseccomp2), which knows the numbers of all the others and writes the filter program.

Every failure is an OSError. The functions that ask the kernel or load the library get these as an
argument, so that a machine without them can be imitated.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Syscall = Callable[..., int]
"""A system call by its number and arguments."""

LoadLibrary = Callable[[str], ctypes.CDLL]
"""Opens a shared library by its name."""

LIBSECCOMP = "libseccomp.so.2"

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 2, 8, 38

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: object) -> int:
    """The result of a system call. Raises: OSError, the kernel's error."""
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise _error(ctypes.get_errno(), f"system call {number}")
    return result


def prctl(option: int, value: object) -> None:
    """Sets or asks for an attribute of the process. Raises: OSError, the kernel's error."""
    none = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), value, none, none, none) != 0:
        raise _error(ctypes.get_errno(), f"prctl({option})")


def _error(number: int, what: str) -> OSError:
    return OSError(number, f"{what}: {os.strerror(number)}")


# --- Landlock: https://docs.kernel.org/userspace-api/landlock.html ---

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NOT_INTO_THE_AUDIT_LOG = 1

_READ_FILE = 1 << 2
_READ_DIR = 1 << 3

# What a process can be forbidden, by the version (ABI) since which the kernel knows it: execute to
# make_sym, refer, truncate, ioctl_dev; bind and connect of TCP; abstract sockets and signals.
_FILE_RIGHTS = {1: 2**13 - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK_RIGHTS = {4: 0b11}
_SCOPES = {6: 0b11}
_LOG_FLAGS_SINCE = 7


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def restrict_files(readable: Iterable[Path], call: Syscall = syscall) -> int:
    """Lets the calling thread and what it starts open only what lies beneath `readable`, and only
    to read; where the kernel knows how, it closes TCP, signals and abstract sockets, too.

    Paths that cannot be opened are left out. Needs PR_SET_NO_NEW_PRIVS.

    Returns the version (ABI) of Landlock.

    Not covered by Landlock: metadata (stat, chmod, utime, xattr), chdir, what is open already.

    Raises:
        OSError: the kernel has no Landlock, or it is off; nothing is restricted then.
    """
    abi = call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    rights = (_FILE_RIGHTS, _NETWORK_RIGHTS, _SCOPES)
    handled = _Ruleset(*(_known(bits, abi) for bits in rights))
    size = ctypes.c_size_t(ctypes.sizeof(handled))  # older kernels take it: the rest is zero
    ruleset = call(_CREATE_RULESET, ctypes.byref(handled), size, ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow_reading(ruleset, path, call)
        flags = _NOT_INTO_THE_AUDIT_LOG if abi >= _LOG_FLAGS_SINCE else 0
        call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(flags))
    finally:
        os.close(ruleset)
    return abi


def _known(rights: dict[int, int], abi: int) -> int:
    return sum(bits for since, bits in rights.items() if since <= abi)


def _allow_reading(ruleset: int, path: Path, call: Syscall) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        is_directory = stat.S_ISDIR(os.fstat(opened).st_mode)
        rule = _Beneath(_READ_FILE | _READ_DIR if is_directory else _READ_FILE, opened)
        call(
            _ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(opened)


# --- seccomp: https://man7.org/linux/man-pages/man3/seccomp_rule_add.3.html ---

_KILL_PROCESS, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_FOREIGN_CALLS, _ALL_THREADS = 2, 4  # attributes of a filter
_MASKED_EQUAL = 7


@dataclass(frozen=True, slots=True)
class Only:
    """Holds for a system call in whose argument the bits `mask` are those of `value`."""

    argument: int
    """Counted from 0."""
    value: int
    mask: int = 0xFFFF_FFFF
    """The default is all that the kernel reads of an int."""


Allowed = dict[str, tuple[tuple[Only, ...], ...]]
"""Names of system calls, each with alternatives; all conditions of one of them must hold."""

ALWAYS: tuple[tuple[Only, ...], ...] = ((),)


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def restrict_calls(
    allowed: Allowed, unknown: Iterable[str] = (), load: LoadLibrary = ctypes.CDLL
) -> None:
    """Forbids all threads of the process all system calls but these, for good: EPERM.

    Args:
        allowed: names that this architecture or this libseccomp does not know are left out.
        unknown: names of calls that fail as in a kernel that does not have them (ENOSYS): for
            those whose callers then try an older one.

    A call by the numbers of another architecture (32 bits on 64) ends the process. Sets
    PR_SET_NO_NEW_PRIVS.

    Raises:
        OSError: no libseccomp, or a kernel without filters; nothing is restricted then.
    """
    library = _declare(load(LIBSECCOMP))
    context = library.seccomp_init(_ERRNO | errno.EPERM)
    if not context:
        raise _error(errno.ENOMEM, "seccomp_init")
    try:
        for attribute, value in ((_FOREIGN_CALLS, _KILL_PROCESS), (_ALL_THREADS, 1)):
            _check(library.seccomp_attr_set(context, attribute, value), "seccomp_attr_set")
        for name in unknown:
            _add_rule(library, context, _ERRNO | errno.ENOSYS, name, ())
        for name, alternatives in allowed.items():
            for conditions in alternatives:
                _add_rule(library, context, _ALLOW, name, conditions)
        _check(library.seccomp_load(context), "seccomp_load")
    finally:
        library.seccomp_release(context)


def _add_rule(
    library: ctypes.CDLL, context: int, action: int, name: str, conditions: tuple[Only, ...]
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return
    comparisons = (_Comparison * len(conditions))(
        *(_Comparison(only.argument, _MASKED_EQUAL, only.mask, only.value) for only in conditions)
    )
    result = library.seccomp_rule_add_array(context, action, number, len(conditions), comparisons)
    _check(result, f"seccomp_rule_add_array({name})")


def _check(result: int, what: str) -> None:
    if result < 0:
        raise _error(-result, what)


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    number, word, context = ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p
    library.seccomp_init.argtypes = [word]
    library.seccomp_init.restype = context
    library.seccomp_attr_set.argtypes = [context, number, word]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [context, word, number, ctypes.c_uint, context]
    library.seccomp_load.argtypes = [context]
    library.seccomp_release.argtypes = [context]
    library.seccomp_release.restype = None
    return library
