import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rewards
from rewards.sandbox import MAX_OPEN_FILES, shadow_eval

ROOT = str(Path(rewards.__file__).resolve().parents[1])
CONFINED = "import os; from rewards.sandbox import *; confine(1024, os.getppid()); "


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("RLIMIT_AS", 2**30),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NOFILE", MAX_OPEN_FILES),
        ("RLIMIT_NPROC", 0),
    ],
)
def test_soft_and_hard_limits_are_set(limit: str, value: int) -> None:
    done = run(CONFINED + f"import resource; print(resource.getrlimit(resource.{limit}))")
    assert done.stdout == f"({value}, {value})\n", done.stderr


def test_a_lower_hard_limit_of_the_system_stays() -> None:
    done = run(
        "import os, resource; from rewards.sandbox import *; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)); confine(1024, os.getppid()); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert done.stdout == "(20, 20)\n", done.stderr


def test_privileges_cannot_be_gained() -> None:
    done = run(CONFINED + "print(open('/proc/self/status').read())")
    assert "NoNewPrivs:\t1" in done.stdout, done.stderr


def test_nothing_can_be_created_in_the_working_directory() -> None:
    done = run(CONFINED + "print(os.listdir('.'), oct(os.umask(0))); open('file', 'w')")
    assert done.stdout == "[] 0o77\n"
    assert "FileNotFoundError" in done.stderr


def test_files_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    done = run(CONFINED + f"open({str(path)!r}, 'wb', buffering=0).write(b'x')")
    assert "File too large" in done.stderr
    assert not path.exists() or path.stat().st_size == 0


def test_a_forked_child_ends_at_once_or_is_refused() -> None:
    done = run(
        CONFINED + "pid = None\n"
        "try: pid = os.fork()\n"
        "except BlockingIOError: print('refused')\n"
        "if pid is not None: print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert done.stdout in ("refused\n", "1\n"), done.stderr


def test_a_process_whose_parent_has_died_ends() -> None:
    done = run("from rewards.sandbox import *; confine(1024, 2**22 + 1); print('alive')")
    assert (done.returncode, done.stdout) == (1, "")


def test_cpu_time_is_limited_and_can_be_renewed() -> None:
    done = run(
        CONFINED + "import resource, time\n"
        "for budget in (5, 1, 2):\n"
        "    renew_cpu_budget(budget)\n"
        "    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)\n"
        "    print(soft - int(time.process_time()), hard == resource.RLIM_INFINITY, flush=True)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (1, -1))\n"
        "while True: pass"
    )
    assert done.stdout == "6 True\n2 True\n3 True\n", done.stderr
    assert done.returncode == -signal.SIGXCPU


def test_shadowed_eval_reads_literals_and_runs_nothing(tmp_path: Path) -> None:
    module = ModuleType("scorer")
    exec("def read(answer): return eval(answer)", vars(module))
    proof = tmp_path / "ran"
    attack = f"open({str(proof)!r}, 'w')"
    shadow_eval(module)
    assert module.read("[[0, 1], [1, 0]]") == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="malformed"):
        module.read(attack)
    assert not proof.exists()
    vars(module).pop("eval")
    module.read(attack).close()
    assert proof.exists()  # so the attack is one


def test_this_process_is_not_confined() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0
    assert os.path.isdir(os.getcwd())
