import os
import subprocess
import sys
from pathlib import Path

import pytest

import rewards

ROOT = str(Path(rewards.__file__).resolve().parents[1])
START = "import ctypes, os, resource, threading\nfrom rewards.privileges import *\n"
START += "from rewards.kernel import *\n"
STATUS = (
    "signal = ctypes.c_int(); prctl(PR_GET_PDEATHSIG, ctypes.byref(signal))\n"
    "lines = dict(line.split(':\\t') for line in open('/proc/self/status'))\n"
    "own = str(0x7000_0000 + os.getpid())\n"
    "print({*lines['Uid'].split(), *lines['Gid'].split()} == {own}, lines['Groups'].split(),\n"
    "    {lines[name].strip().lstrip('0') for name in ('CapEff', 'CapPrm')}, signal.value)"
)
WITHOUT_CAPABILITIES = (
    "libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())\n"
)

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="it is about root")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", START + code],
        env={"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
    )


@only_root
def test_root_becomes_a_user_of_its_own_that_may_only_read_and_dies_with_its_parent() -> None:
    done = run("prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(9)); give_up_privileges()\n" + STATUS)
    # 4: CAP_DAC_READ_SEARCH; 2: CAP_DAC_OVERRIDE, where a container has only that
    assert done.stdout in ("True [] {'4'} 9\n", "True [] {'2'} 9\n"), done.stderr


@only_root
def test_root_that_cannot_become_another_user_stays_and_says_that_threads_are_not_counted() -> None:
    done = run(
        WITHOUT_CAPABILITIES + "from rewards.sandbox import confine, isolate, readable_now\n"
        "confine(1024, os.getppid(), threads=True)\n"
        "isolation = isolate(readable_now(), runs_programs=True)\n"
        "print(os.getuid(), isolation.missing)"
    )
    assert done.stdout.startswith("0 ("), done.stderr
    assert "threads are not counted" in done.stdout


def test_threads_are_bounded_and_the_limit_stands_at_what_was_there_before() -> None:
    done = run(
        "before = resource.getrlimit(resource.RLIMIT_NPROC)\n"
        "give_up_privileges(); print(bound_threads(50))\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)\n"
        "print(soft == hard, soft > 50 or before[1] == soft)\n"
        "thread = threading.Thread(target=print, args=('started',)); thread.start(); thread.join()"
    )
    assert done.stdout == "True\nTrue True\nstarted\n", done.stderr


def test_forbidden_threads_stay_forbidden() -> None:
    done = run(
        "give_up_privileges(); resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        "print(bound_threads(50), resource.getrlimit(resource.RLIMIT_NPROC))"
    )
    assert done.stdout == "True (0, 0)\n", done.stderr
