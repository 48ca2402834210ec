"""Programs of answers from text to verdict, through the real verifier, and what keeps them in.

A hostile program here tries something, and then does what is asked, so that it is correct if, and
only if, what it tried worked.
"""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

import rewards
from rewards import runner as runner_module
from rewards.program import Program, Ran
from rewards.question import Answer, Judged, Question, Reason, Unscorable, Verdict
from rewards.runner import Runner, runner_command
from rewards.tasks import TaskFacts, TaskSpec
from rewards.verifier import Limits, Verifier, VerifierClosed

ROOT = str(Path(rewards.__file__).resolve().parents[1])
WORKER = (sys.executable, "-P", str(Path(__file__).with_name("program_worker.py")), ROOT)
CORRECT, WRONG = Judged(True), Judged(False)

SECRET = "violet-9137"
ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
CALL = "def add(a, b):\n    return a + b\n"


def spec(name: str, inputs: list[object], outputs: list[object], function: str = "") -> TaskSpec:
    tests = json.dumps({"inputs": inputs, "outputs": outputs, "fn_name": function})
    return TaskSpec(name, "programs", "", "1", {"tests": tests, "cpu_s": 1, "memory_mib": 256})


SPECS = (
    spec("add", ["1 2\n", "30 4\n"], ["3\n", "34\n"]),
    spec("call", [[1, 2], ["a", "b"]], [3, "ab"], "add"),
    spec("secret", ["", ""], [SECRET, SECRET]),
    spec("echo", ["é\n" * 50_000], ["100000\n"]),
)


def start(deadline_s: float = 60.0, num_workers: int = 1) -> Verifier:
    limits = Limits(deadline_s, 60, 512, 100_000, 60.0)
    return Verifier(SPECS, limits, num_workers, WORKER)


@pytest.fixture(scope="module", autouse=True)
def _needs_isolation() -> None:
    with_isolation = Runner(60.0)
    ran = with_isolation.run(Program("", ("",)), 60.0)
    with_isolation.close()
    if isinstance(ran, Unscorable):
        pytest.skip(f"nothing isolates programs on this machine: {ran.detail}")


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with start() as verifier:
        yield verifier


@pytest.fixture(scope="module")
def hasty() -> Iterator[Verifier]:
    """For programs that only the deadline ends: a second after the one of CPU time."""
    with start(deadline_s=1.0) as verifier:
        yield verifier


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner(60.0)
    yield runner
    runner.close()


def judge(verifier: Verifier, *sources: str, task: str = "add") -> list[Verdict]:
    """Verdicts on programs, between honest ones, which must be correct."""
    honest = CALL if task == "call" else ADD
    question = Question("call" if task == "call" else "add", 0)
    answers = [Answer(source, True) for source in sources]
    (before, *_), verdicts, (after,) = verifier.judge(
        [
            (question, [Answer(honest, True), Answer(honest.replace("+", "-"), True)]),
            (Question(task, 0), answers),
            (question, [Answer(honest, True)]),
        ]
    )
    assert (before, after) == (CORRECT, CORRECT)
    return verdicts


def judge_all(verifier: Verifier, sources: Sequence[str], task: str = "add") -> dict[str, Verdict]:
    """The verdict on each of several programs, in one call."""
    return dict(zip(sources, judge(verifier, *sources, task=task), strict=True))


def attempt_all(verifier: Verifier, codes: Sequence[str]) -> dict[str, Verdict]:
    """The verdict on each of several attempts, in one call."""
    return dict(zip(codes, judge(verifier, *map(attempt, codes)), strict=True))


def attempt(code: str) -> str:
    return f"import builtins, os, sys, threading, time\n{textwrap.dedent(code)}\n{ADD}"


def test_an_attempt_that_works_is_correct(verifier: Verifier) -> None:
    assert judge(verifier, attempt("assert 1 == 1"), attempt("assert 1 == 2")) == [CORRECT, WRONG]


# --- honest programs ---


SCRIPTS = [
    ADD,
    "print(sum(map(int, open(0).read().split())))",
    "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))",
    "from sys import *\nstdout.buffer.write(b'%d' % sum(map(int, stdin.buffer.read().split())))",
    "import os\nos.write(1, str(sum(map(int, os.read(0, 99).split()))).encode())",
    "print(sum(map(int, open('/dev/stdin').read().split())))",
    "f = open(1, 'w')\nf.write(str(sum(map(int, input().split()))))",
    ADD + "exit()",
    ADD + "raise SystemExit(0)",
    ADD + "import os, sys\nsys.stdout.flush()\nos.close(0)\nos.close(1)",
    "if __name__ == '__main__':\n    print(sum(map(int, input().split())))",
    "import atexit\natexit.register(lambda: print(sum(map(int, input().split()))))",
    """
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(2**26)
def down(n):
    return 0 if n == 0 else 1 + down(n - 1)
def main():
    assert down(20_000) == 20_000
    print(sum(map(int, input().split())))
threading.Thread(target=main).start()
""",
    """
import heapq, re
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import List
@dataclass
class Pair:
    a: Decimal
    b: Decimal
pair = Pair(*map(Decimal, re.findall(r"[0-9]+", input())))
heap = [pair.b, pair.a]
heapq.heapify(heap)
with ThreadPoolExecutor(2) as pool:
    print(sum(pool.map(Decimal, heap)))
""",
]


def test_a_program_may_read_and_write_as_scripts_do(verifier: Verifier) -> None:
    assert judge_all(verifier, SCRIPTS) == dict.fromkeys(SCRIPTS, CORRECT)


CALLS = {
    CALL: CORRECT,
    "class Solution:\n    def add(self, a, b):\n        return a + b": CORRECT,
    "print('noise')\n" + CALL + "print('noise')": CORRECT,
    "add = lambda *numbers: numbers[0] + numbers[1]": CORRECT,
    "def add(a, b):\n    return 3": WRONG,
    "def add(a, b):\n    return {a}": WRONG,
    "def add(a, b):\n    return float('nan')": WRONG,
    "def add(a, b):\n    raise SystemExit": WRONG,
    "def add(a):\n    return a": WRONG,
    "def add(a, b):\n    return 'x' * 10**6": WRONG,
    "def add(a, b):\n    x = []\n    x.append(x)\n    return x": WRONG,
    "sub = 1": WRONG,
    "add = 1": WRONG,
}


def test_a_function_is_called(verifier: Verifier) -> None:
    assert judge_all(verifier, list(CALLS), task="call") == CALLS


FAILURES = [
    "",
    "pass",
    "print(3)",
    "print(*map(int, input().split()))",
    ADD + "exit(1)",
    ADD + "raise SystemExit('text')",
    ADD + "1 / 0",
    ADD + "raise KeyboardInterrupt",
    ADD + "import numpy",
    ADD + "import msgspec",
    ADD + "import rewards.verifier",
    ADD + "print(open('/etc/hostname').read())",
    "print(3",
    "print('\\ud800')",
    "import sys\nsys.stdout.buffer.write(b'\\xff')",
    "\x00",
    "(" * 10_000,
    "input(); input()",
]


def test_a_program_that_fails_a_test_is_wrong(verifier: Verifier) -> None:
    assert judge_all(verifier, FAILURES) == dict.fromkeys(FAILURES, WRONG)


def test_an_input_larger_than_an_output_may_be_is_read(verifier: Verifier) -> None:
    read_all = "import sys\nprint(len(sys.stdin.read()))"
    echo = "import sys\nprint(sys.stdin.read())"
    assert judge(verifier, read_all, echo, task="echo") == [CORRECT, WRONG]


def test_an_error_output_is_ignored(verifier: Verifier) -> None:
    assert judge(verifier, ADD + "import sys\nsys.stderr.write('x' * 10**7)") == [CORRECT]


# --- attempts to get out, or at the expected outputs ---


ON_FILES = [
    "open({canary!r}).read()",
    "open({canary!r}, 'w').write('dead')",
    "open({canary!r}, 'a')",
    "open({beside!r}, 'x')",
    "os.mkdir({beside!r})",
    "os.listdir({home!r})",
    "os.chmod({canary!r}, 0o777)",
    "os.chmod({home!r}, 0o777)",
    "os.utime({canary!r}, (0, 0))",
    "os.truncate({canary!r}, 0)",
    "os.rename({canary!r}, {beside!r})",
    "os.link({canary!r}, {beside!r})",
    "os.symlink({canary!r}, {beside!r})",
    "os.remove({canary!r})",
]


def test_files_of_the_node_are_out_of_reach(verifier: Verifier, tmp_path: Path) -> None:
    canary, beside = tmp_path / "canary", tmp_path / "beside"
    canary.write_text("alive")
    canary.chmod(0o600)
    before = look(tmp_path), look(canary)
    names = {"canary": str(canary), "beside": str(beside), "home": str(tmp_path)}
    codes = [code.format(**names) for code in ON_FILES]
    assert attempt_all(verifier, codes) == dict.fromkeys(codes, WRONG)
    assert canary.read_text() == "alive"
    assert list(tmp_path.iterdir()) == [canary]
    assert (look(tmp_path), look(canary)) == before


def look(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mode, found.st_mtime_ns, found.st_nlink


ON_OTHERS = [
    "import socket\nsocket.socket()",
    "import socket\nsocket.socketpair()",
    "import socket\nsocket.socket(socket.AF_UNIX)",
    "import socket\nsocket.socket(fileno=0).getsockname()",
    "os.fork()",
    "while True: os.fork()",
    "os.execv('/bin/true', ['true'])",
    "import subprocess\nsubprocess.run(['true'])",
    "os.posix_spawn('/bin/true', ['true'], {})",
    "import ctypes\nassert ctypes.CDLL(None).fork() >= 0",
    "os.kill(os.getppid(), 0)",
    "os.kill(-1, 0)",
    "os.setsid()",
    "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "open('/proc/self/environ', 'rb').read()",
    "import ctypes\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
    "os.nice(1)",
    "import mmap\nmmap.mmap(-1, 2**30)",
    "os.setuid(0); open('/etc/shadow')",
]


def test_network_and_processes_are_out_of_reach(verifier: Verifier) -> None:
    assert attempt_all(verifier, ON_OTHERS) == dict.fromkeys(ON_OTHERS, WRONG)


def test_the_environment_has_nothing_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPO_SECRET", "token")
    with start() as verifier:
        assert judge(verifier, attempt("assert 'SAPO_SECRET' not in os.environ")) == [CORRECT]


SEARCH = """
import gc, re, sys
is_wanted = re.compile(chr(118) + "iolet-[0-9]+").search
seen, open_objects = set(), [gc.get_objects(), sys.modules, sys._getframe(), *gc.get_objects()]
frame = sys._getframe()
while frame:
    open_objects += [frame.f_locals, frame.f_globals]
    frame = frame.f_back
found = []
while open_objects:
    one = open_objects.pop()
    if id(one) in seen:
        continue
    seen.add(id(one))
    if isinstance(one, (str, bytes)):
        text = one if isinstance(one, str) else one.decode("latin-1")
        if is_wanted(text):
            found.append(is_wanted(text)[0])
    else:
        open_objects += gc.get_referents(one)
print(found[0])
"""


def test_expected_outputs_are_nowhere_in_the_process(verifier: Verifier, runner: Runner) -> None:
    assert judge(verifier, f"print({SECRET!r})", SEARCH, task="secret") == [CORRECT, WRONG]
    knows = Program(SEARCH, (SECRET,), cpu_s=9)  # what it has, it finds
    assert runner.run(knows, 60.0) == Ran((SECRET + "\n",))


CHEATS = [
    "import builtins\nbuiltins.print = lambda *_: None",
    "import builtins\nbuiltins.compile = builtins.exec = builtins.len = lambda *_: 0",
    "import os\nos.write = lambda fd, text: len(text)\nos.pread = lambda *_: b'violet'",
    "import gc\nfor one in gc.get_objects():\n"
    "    if type(one) is dict and 'write_frame' in one:\n"
    "        one['write_frame'] = lambda *_: None",
    "import json\njson.dumps = lambda *_, **__: '3'",
    "import sys\nsys._getframe(1).f_locals['put_out'] = b'x'\nprint('x')",
    "print(type('S', (str,), {'__eq__': lambda *_: True, '__hash__': str.__hash__})('x'))",
]


def test_what_a_program_does_to_its_process_makes_it_no_more_correct(verifier: Verifier) -> None:
    assert judge_all(verifier, CHEATS, task="secret") == dict.fromkeys(CHEATS, WRONG)
    calls = [f"{source}\n{CALL.replace('+', '-')}" for source in CHEATS]
    assert judge_all(verifier, calls, task="call") == dict.fromkeys(calls, WRONG)


FORGERIES = {
    "garbage": b"\x00\x00\x00\x05garbage",
    "huge": b"\xff\xff\xff\xffgarbage",
    "long": b"\x00\x01\x00\x01" + b"x" * 65537,
    "not utf-8": b"\x00\x00\x00\x01\xff\x00\x00\x00\x01\xff",
    "short": b"\x00\x00\x00\x013\x00\x00",
    "many": b"\x00\x00\x00\x00" * 1000,
    "no program": b"\x00\x00\x00\x03end",
}


def forge(reply: bytes) -> str:
    return f"""
import os
for fd in range(3, 64):
    try:
        os.set_blocking(fd, False)
        os.write(fd, {reply!r})
    except OSError:
        pass
"""


def test_a_forged_reply_is_only_another_output(verifier: Verifier) -> None:
    forgeries = [forge(reply) + "os._exit(0)" for reply in FORGERIES.values()]
    assert judge_all(verifier, forgeries) == dict.fromkeys(forgeries, WRONG)


def test_half_a_reply_is_waited_for_until_the_deadline(hasty: Verifier) -> None:
    waits = "\nimport time\ntime.sleep(100)"
    late = Unscorable(Reason.DEADLINE, "still running after 2 s")
    assert judge(hasty, forge(FORGERIES["short"]) + waits, waits) == [late, late]


LEAVE = """
builtins.left = sys.left = os.left = True
os.environ["left"] = "1"
sys.path.append("left")
sys.setrecursionlimit(500)
os.write(os.memfd_create("left"), b"x")
"""
FIND = """
assert not any(hasattr(module, "left") for module in (builtins, sys, os))
assert "left" not in os.environ and "left" not in sys.path
assert sys.getrecursionlimit() == 1000
for fd in range(3, 64):
    try:
        assert not os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:left")
    except OSError:
        pass
"""


def test_an_answer_leaves_nothing_to_the_next(verifier: Verifier) -> None:
    verdicts = judge(verifier, attempt(FIND), attempt(LEAVE), attempt(FIND), attempt(LEAVE + FIND))
    assert verdicts == [CORRECT, CORRECT, CORRECT, WRONG]


def test_each_run_has_names_of_its_own(runner: Runner) -> None:
    source = "seen = 'left' in globals()\nleft = 1\nimport __main__\nprint(seen, __main__.left)"
    assert runner.run(Program(source, ("", "")), 60.0) == Ran(("False 1\n", "False 1\n"))


def test_runs_stop_at_the_first_that_fails(runner: Runner) -> None:
    program = Program("print(10 // int(input()))", ("1", "0", "2"))
    assert runner.run(program, 60.0) == Ran(("10\n", None))


# --- resources ---


TOO_MUCH = [
    "x = bytearray(10**10)",
    "x = []\nwhile True: x.append(bytearray(2**20))",
    "x = [0] * 10**9",
    "while True: print('x' * 10**5)",
    "while True: os.write(1, b'x' * 10**5)",
    "while True: os.write(os.memfd_create('x'), b'x' * 10**4)",
    "os.ftruncate(1, 2**40)",
    "def down(): down()\ndown()",
    "print(7 ** 10**5)",
    "while True: threading.Thread(target=time.sleep, args=(100,)).start()",
    "os._exit(0)",
    "os.abort()",
    "os.kill(os.getpid(), 15)",
    "import ctypes\nctypes.string_at(0)",
]


def test_a_program_that_takes_too_much_is_wrong(verifier: Verifier) -> None:
    assert attempt_all(verifier, TOO_MUCH) == dict.fromkeys(TOO_MUCH, WRONG)


def test_cpu_time_is_a_rule_of_the_task(verifier: Verifier) -> None:
    loop, power = "while True: pass", "sys.set_int_max_str_digits(0)\nstr(7 ** 10**7)"
    assert judge(verifier, attempt(loop), attempt(power)) == [WRONG, WRONG]


def test_a_program_that_does_not_heed_the_cpu_limit_is_killed(verifier: Verifier) -> None:
    ignore = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    killed = Unscorable(Reason.CRASHED, "it was killed")
    assert judge(verifier, attempt(ignore), "import os\nos.kill(os.getpid(), 9)") == [killed] * 2


def test_a_program_that_closes_everything_is_no_verdict_or_wrong(verifier: Verifier) -> None:
    """Which of both: whether it ends before it is seen to say nothing more."""
    killed = Unscorable(Reason.CRASHED, "it was killed")
    assert judge(verifier, attempt("os.closerange(0, 64)"))[0] in (WRONG, killed)


def test_threads_that_sleep_are_ended_with_their_program(hasty: Verifier) -> None:
    threads = """
for _ in range(5):
    threading.Thread(target=time.sleep, args=(1000,), daemon=daemon).start()
"""
    late = Unscorable(Reason.DEADLINE, "still running after 2 s")
    assert judge(
        hasty, attempt("daemon = True" + threads), attempt("daemon = False" + threads)
    ) == [
        CORRECT,
        late,
    ]


# --- the verifier and its runner ---


def test_programs_and_others_keep_their_places(verifier: Verifier) -> None:
    before = verifier.stats
    answers = [Answer(text, True) for text in (ADD, "", "x" * 100_001, "pass", "end", ADD)]
    assert verifier.judge([(Question("add", 0), answers), (Question("gone", 0), answers[:1])]) == [
        [
            *(CORRECT, WRONG, Unscorable(Reason.TOO_LONG), WRONG),
            *(Unscorable(Reason.CRASHED, "ended with status 3"), CORRECT),
        ],
        [Unscorable(Reason.UNKNOWN_TASK, "gone")],
    ]
    after = verifier.stats
    assert after.judged - before.judged == 4
    assert after.programs_run - before.programs_run == 3
    assert after.workers_lost - before.workers_lost == 1


def test_several_programs_run_at_once() -> None:
    with start(num_workers=2) as verifier:
        sources = [ADD, "pass", CALL, ADD] * 2
        requests = [(Question("add", 0), [Answer(source, True) for source in sources])] * 2
        assert verifier.judge(requests) == [[CORRECT, WRONG, WRONG, CORRECT] * 2] * 2
        assert verifier.stats.programs_run == 16


def test_one_answer_is_judged_with_the_time_it_took(hasty: Verifier) -> None:
    question = Question("add", 0)
    verdict, held_s = hasty.judge_one(question, Answer(ADD, True))
    assert verdict == CORRECT and held_s > 0
    verdict, held_s = hasty.judge_one(question, Answer("import time\ntime.sleep(100)", True))
    assert verdict == Unscorable(Reason.DEADLINE, "still running after 2 s") and held_s >= 2
    assert hasty.judge_one(question, Answer("x" * 100_001, True)) == (
        Unscorable(Reason.TOO_LONG),
        0.0,
    )


def test_a_second_opinion_runs_the_program_again(verifier: Verifier) -> None:
    answers = [Answer(ADD, True), Answer("pass", True)]
    assert verifier.judge([(Question("add", 0), answers)], afresh=True)[0] == [CORRECT, WRONG]


def test_tasks_of_programs_are_described(verifier: Verifier) -> None:
    described = verifier.describe()
    assert len(described) == len(SPECS)
    for facts in described.values():
        assert isinstance(facts, TaskFacts) and not facts.deterministic
    assert len({facts.digest for facts in described.values()}) == len(SPECS)  # type: ignore[union-attr]


def without(protection: str) -> tuple[str, ...]:
    """Starts the process that forks as on a machine whose kernel lacks it."""
    boot = (
        "import sys; sys.path += sys.argv[1:]; from rewards import interpreter, sandbox; "
        f"{protection}; interpreter.main()"
    )
    return tuple(boot if "interpreter" in part else part for part in runner_command())


NO_LANDLOCK = "sandbox.isolate = lambda *_, **__: sandbox.Isolation(0, True, ('no Landlock',))"


def test_nothing_runs_without_isolation_unless_it_is_asked_for() -> None:
    program = Program("print(1)", ("",))
    refuses = Runner(60.0, command=without(NO_LANDLOCK))
    assert refuses.run(program, 60.0) == Unscorable(Reason.NO_SANDBOX, "no Landlock")
    refuses.close()
    agrees = Runner(60.0, programs_anyway=True, command=without(NO_LANDLOCK))
    assert agrees.run(program, 60.0) == Ran(("1\n",))
    agrees.close()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise RuntimeError('broken from the start')", "broken from the start"),
        ("sandbox.confine = None", "'NoneType' object is not callable"),
    ],
)
def test_a_process_that_does_not_start_is_no_verdict(
    caplog: pytest.LogCaptureFixture, broken: str, said: str
) -> None:
    runner = Runner(60.0, command=without(broken))
    for _ in range(2):
        assert runner.run(Program("print(1)", ("",)), 60.0) == Unscorable(
            Reason.NO_SANDBOX, "its process cannot be started: see the log"
        )
    runner.close()
    assert said in caplog.text


def test_there_may_be_no_such_program() -> None:
    runner = Runner(60.0, command=("/no/such/program",))
    ran = runner.run(Program("print(1)", ("",)), 60.0)
    assert isinstance(ran, Unscorable) and ran.reason is Reason.NO_SANDBOX
    runner.close()


def test_a_process_that_was_killed_is_started_again() -> None:
    runner = Runner(60.0)
    program = Program("print(1)", ("",))
    assert runner.run(program, 60.0) == Ran(("1\n",))
    children = [one for one in psutil.Process().children() if "-S" in one.cmdline()]
    for child in children:
        child.kill()
    assert runner.run(program, 60.0) == Ran(("1\n",))
    runner.close()


def test_nothing_is_left_open_or_running() -> None:
    files = sorted(os.listdir("/proc/self/fd"))
    children = psutil.Process().children(recursive=True)
    with start() as verifier:
        judge(verifier, "import time\nprint(1)", "import os\nos._exit(1)")
    assert psutil.Process().children(recursive=True) == children
    assert sorted(os.listdir("/proc/self/fd")) == files


class Announced(runner_module._Child):
    """Tells when a program's process was started."""

    started: threading.Event

    def send(self, payload: bytes, timeout_s: float) -> None:
        super().send(payload, timeout_s)
        self.started.set()


def test_close_ends_programs_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    Announced.started = threading.Event()
    monkeypatch.setattr(runner_module, "_Child", Announced)
    outcome: list[VerifierClosed] = []

    def ask() -> None:
        try:
            verifier.judge([(Question("add", 0), [Answer("import time\ntime.sleep(1000)", True)])])
        except VerifierClosed as error:
            outcome.append(error)

    with start(deadline_s=600.0) as verifier:
        asker = threading.Thread(target=ask)
        asker.start()
        assert Announced.started.wait(60)
    asker.join()
    assert len(outcome) == 1


def test_no_program_outlives_a_node_that_is_killed() -> None:
    script = """
import os, sys
from rewards import runner
from rewards.program import Program
class Announced(runner._Child):
    def send(self, payload, timeout_s):
        super().send(payload, timeout_s)
        print(self.interpreter._process.pid, self._pid, flush=True)
runner._Child = Announced
runner.Runner(60.0).run(Program("import time; time.sleep(1000)", ("",)), 600.0)
"""
    node = subprocess.Popen(
        [sys.executable, "-P", "-c", script],
        env={"PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        text=True,
    )
    with node:
        assert node.stdout is not None
        pids = [int(pid) for pid in node.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        assert len(handles) == 2
        node.send_signal(signal.SIGKILL)
    for handle in handles:
        ends = select.poll()
        ends.register(handle, select.POLLIN)
        assert ends.poll(30_000)
        os.close(handle)
