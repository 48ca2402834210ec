import os
import subprocess
import sys

from node.memory import descendants, memory_by_part, memory_mib

WAIT = "import sys; print('up', flush=True); sys.stdin.read()"
PARENT = (
    "import subprocess, sys; "
    f"subprocess.Popen([sys.executable, '-c', {WAIT!r}], stdin=sys.stdin, stdout=sys.stdout).wait()"
)


def test_this_process_has_some_memory_and_a_process_that_is_gone_has_none() -> None:
    assert 1 < memory_mib() <= memory_mib(peak=True) + 1
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert memory_mib(done.pid) == 0


def test_children_of_children_are_found_and_counted_to_their_part() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"up\n"
        [grandchild] = descendants(child.pid)
        assert {child.pid, grandchild} <= set(descendants(os.getpid()))
        whole = memory_by_part(child.pid)
        assert whole["learner"] > memory_mib(grandchild)
        assert whole["control"] > 1
        child.stdin.close()
