import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import rewards
from rewards.kernel import LIBSECCOMP
from rewards.sandbox import MAX_OPEN_FILES, MAX_THREADS, Isolation, readable_now, shadow_eval

ROOT = str(Path(rewards.__file__).resolve().parents[1])
CONFINED = "import os; from rewards.sandbox import *; confine(1024, os.getppid()); "
ISOLATED = "import os; from rewards.sandbox import *; confine(4096, os.getppid(), threads={0}); "
ISOLATED += "isolate(readable_now(), runs_programs={0})\n"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def can_isolate() -> bool:
    """Whether this machine has Landlock and libseccomp, asked without the code under test."""
    try:
        ctypes.CDLL(LIBSECCOMP)
    except OSError:
        return False
    return bool(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) > 0)


needs_isolation = pytest.mark.skipif(not can_isolate(), reason="no Landlock or no libseccomp2")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": ROOT, **ENVIRONMENT},
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


# --- isolation ---

Report = dict[str, dict[str, str]]


def imprison(profile: str, place: Path, bystander: int) -> Report:
    """What came of every attempt in prisoner.py."""
    home, readable = place / "home", place / "readable"
    home.mkdir()
    readable.mkdir()
    (home / "identity.key").write_text("secret")
    (home / "identity.key").chmod(0o600)
    (readable / "file").write_text("text")
    (readable / "link").symlink_to(home / "identity.key")
    done = subprocess.run(
        [
            *(sys.executable, "-P", str(Path(__file__).with_name("prisoner.py")), profile),
            *(str(home / "identity.key"), str(readable), str(bystander)),
        ],
        env={"PYTHONPATH": ROOT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    report: Report = json.loads(done.stdout)
    if profile != "none":
        assert (home / "identity.key").read_text() == "secret"
        assert (readable / "file").read_text() == "text"
        assert [path.name for path in home.iterdir()] == ["identity.key"]
    return report


@pytest.fixture(scope="module")
def bystander() -> Iterator[int]:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield process.pid
    assert process.poll() is None, "nobody signalled it"
    process.communicate()


@pytest.fixture(scope="module")
def prisons(tmp_path_factory: pytest.TempPathFactory, bystander: int) -> dict[str, Report]:
    return {
        profile: imprison(profile, tmp_path_factory.mktemp(profile), bystander)
        for profile in ("text", "programs", "none")
    }


@needs_isolation
@pytest.mark.parametrize("profile", ["text", "programs"])
@pytest.mark.parametrize("part", ["files", "network", "processes", "calls"])
def test_an_isolated_process_is_refused_what_would_do_harm(
    prisons: dict[str, Report], profile: str, part: str
) -> None:
    attempts = prisons[profile][part]
    assert len(attempts) > 7
    assert {name: what for name, what in attempts.items() if what != "refused"} == {}


@needs_isolation
def test_the_same_attempts_are_not_refused_without_isolation(prisons: dict[str, Report]) -> None:
    needs_rights = {"chown", "the parent's environment", "the parent's memory", "AF_PACKET"}
    attempts = {**prisons["none"]["files"], **prisons["none"]["network"]}
    assert {name for name, what in attempts.items() if what == "refused"} <= needs_rights
    done = [name for name, what in attempts.items() if what.startswith("done")]
    assert {"read", "read through a link", "write", "list", "chmod", "truncate", "rename"} < {*done}
    assert {"own environment", "AF_INET", "AF_UNIX", "socketpair"} < {*done}


@needs_isolation
@pytest.mark.parametrize("profile", ["text", "programs"])
def test_an_isolated_process_can_do_its_work(prisons: dict[str, Report], profile: str) -> None:
    expected = {
        "thread": "done: True",
        "lazy import": "done: ['colorsys', 'lzma']",
        "pipe": "done: b'text'",
        "memfd": "done: 0",
        "signal itself": "done: True",
        "read a readable file": "done: 'text'",
        "random": "done: 8",
        "renew the CPU budget": "done: None",
        "clone3": "failed: ENOSYS",  # so that glibc takes clone
    }
    if profile == "text":
        expected["thread"] = "failed: RuntimeError: can't start new thread"
    else:
        expected["renew the CPU budget"] = "failed: ValueError: not allowed to raise maximum limit"
    assert prisons[profile]["own rights"] == expected


PROGRAM = r"""
import bisect, collections, copy, dataclasses, datetime, decimal, enum, fractions, functools
import graphlib, hashlib, heapq, io, itertools, json, math, operator, pprint, queue, random, re
import statistics, string, sys, textwrap, threading, time, typing, unicodedata, uuid, zlib, zoneinfo
from concurrent.futures import ThreadPoolExecutor

@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: typing.Optional[int] = None

def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
def squares():
    for number in itertools.count(): yield number * number

sys.setrecursionlimit(20000)
threading.stack_size(2 ** 26)
found = []
thread = threading.Thread(target=lambda: found.append(depth(15000)))
thread.start(); thread.join()
with ThreadPoolExecutor(4) as pool: doubled = sum(pool.map(lambda n: 2 * n, range(100)))
day = datetime.datetime.strptime("2024-02-29 12:30", "%Y-%m-%d %H:%M")
zone = datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")).utcoffset()
random.seed(7)
time.sleep(0.001)
print(sys.stdin.readline().strip(), input(), found, file=sys.stderr)
print([
    json.loads(json.dumps({"a": [1, 2.5, None]})), re.findall(r"\d+", "a1b22"),
    max(Point(1), Point(2)).x, decimal.Decimal(1) / 4, fractions.Fraction(1, 3) * 2,
    day.weekday(), zone.seconds, doubled, heapq.nsmallest(2, [5, 1, 4]),
    collections.Counter("hello").most_common(1), list(itertools.islice(squares(), 4)),
    hashlib.sha256(b"a").hexdigest()[:4], zlib.decompress(zlib.compress(b"text")),
    len(str(3 ** 5000)), random.randrange(10) < 10, statistics.median([1, 3, 2]),
    unicodedata.name("a"), uuid.uuid4().version, math.comb(50, 25),
    functools.reduce(operator.mul, range(1, 6)), time.strftime("%Y", time.gmtime(0)),
])
"""


@needs_isolation
def test_an_ordinary_program_runs_isolated() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", ISOLATED.format(True) + PROGRAM],
        env={"PYTHONPATH": ROOT},
        input="first line\nsecond line\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "first line second line [15000]\n"
    assert done.stdout == (
        "[{'a': [1, 2.5, None]}, ['1', '22'], 2, Decimal('0.25'), Fraction(2, 3), 3, 7200, 9900, "
        "[1, 4], [('l', 2)], [0, 1, 4, 9], 'ca97', b'text', 2386, True, 2, "
        "'LATIN SMALL LETTER A', 4, 126410606437752, 120, '1970']\n"
    )


@needs_isolation
def test_the_libraries_of_tasks_work_isolated() -> None:
    done = run(
        "import matplotlib, numpy, reasoning_gym, sympy\n" + ISOLATED.format(False) + "import sys\n"
        "assert 'sympy.crypto' not in sys.modules\n"
        "import sympy.crypto\n"
        "import matplotlib.pyplot\n"
        "x = sympy.Symbol('x')\n"
        "print(sympy.integrate(x * sympy.exp(x), x), numpy.linalg.det(numpy.eye(3)))\n"
        "data = reasoning_gym.create_dataset('figlet_font', size=1, seed=1)\n"  # reads a font
        "print(data.score_answer(data[0]['answer'], data[0]))"
    )
    assert done.stdout == "(x - 1)*exp(x) 1.0\n1.0\n", done.stderr


@needs_isolation
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes a user whose threads are its own")
def test_a_bomb_of_threads_ends_in_a_refusal() -> None:
    done = run(
        "import threading; threading.stack_size(2 ** 16)\n" + ISOLATED.format(True) + "count = 0\n"
        "hold = threading.Event()\n"
        "try:\n"
        "    while count < 1000:\n"
        "        threading.Thread(target=hold.wait, daemon=True).start()\n"
        "        count += 1\n"
        "except RuntimeError: print(count)\n"
        "hold.set()"
    )
    assert MAX_THREADS // 2 < int(done.stdout) < 2 * MAX_THREADS, done.stderr


IMITATED = "import os; from rewards.sandbox import *; confine(1024, os.getppid(), threads=True)\n"
IMITATED += """
import ctypes, errno, json, resource, socket, msgspec
def refuse(*arguments): raise OSError(errno.ENOSYS, "Function not implemented")
def attempt(name, function):
    try: function(); return name
    except PermissionError: return ""
"""


@needs_isolation
@pytest.mark.parametrize(
    ("lacking", "landlock", "seccomp", "open_ways", "sentences"),
    [
        ("syscall=refuse", False, True, ["read"], ["for lack of Landlock"]),
        ("load=refuse", True, False, ["socket"], ["for lack of seccomp"]),
        (
            "syscall=refuse, load=refuse",
            *(False, False, ["read", "write", "socket"]),
            ["for lack of Landlock", "for lack of seccomp"],
        ),
    ],
)
def test_what_a_machine_lacks_is_reported_and_the_rest_is_in_force(
    tmp_path: Path,
    lacking: str,
    landlock: bool,
    seccomp: bool,
    open_ways: list[str],
    sentences: list[str],
) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    path.chmod(0o666)
    done = run(
        IMITATED + f"isolation = isolate(readable_now(), runs_programs=True, {lacking})\n"
        f"ways = [attempt('read', lambda: open({str(path)!r})),\n"
        f"    attempt('write', lambda: open({str(path)!r}, 'r+b')),\n"
        "    attempt('socket', lambda: socket.socket())]\n"
        "print(json.dumps([list(filter(None, ways)), msgspec.to_builtins(isolation),\n"
        "    resource.getrlimit(resource.RLIMIT_NPROC)[0]]))"
    )
    assert done.stdout, done.stderr
    ways, report, num_threads = json.loads(done.stdout)
    isolation = msgspec.convert(report, Isolation)
    assert ways == open_ways
    assert (isolation.landlock_abi > 0, isolation.seccomp) == (landlock, seccomp)
    assert not isolation.is_complete
    assert len(isolation.missing) == len(sentences)
    assert all(part in text for part, text in zip(sentences, isolation.missing, strict=True))
    assert (num_threads == 0) is not seccomp  # without a filter, threads could be processes


def test_a_process_with_two_threads_is_not_isolated() -> None:
    done = run(
        "import threading; from rewards.sandbox import *\n"
        "hold = threading.Event(); threading.Thread(target=hold.wait).start()\n"
        "try: isolate([], runs_programs=False)\n"
        "except OSError as error: print(error)\n"
        "hold.set()"
    )
    assert done.stdout == "a process with 2 threads cannot be isolated, only with one\n"


def test_an_isolation_with_files_and_network_closed_is_complete() -> None:
    assert Isolation(landlock_abi=1, seccomp=True).is_complete
    assert not Isolation(landlock_abi=0, seccomp=True).is_complete
    assert not Isolation(landlock_abi=7, seccomp=False).is_complete


def test_readable_are_packages_and_files_of_modules_but_no_entry_of_the_module_path(
    tmp_path: Path,
) -> None:
    checkout, installed = tmp_path / "checkout", tmp_path / "venv/lib/site-packages"
    for package in (checkout / "package/inner", checkout / "space", installed / "library"):
        package.mkdir(parents=True)
    for file in ("package/__init__.py", "package/inner/__init__.py", "single.py", "space/part.py"):
        (checkout / file).touch()
    (installed / "library/__init__.py").touch()
    (checkout / "flat").symlink_to(".")  # a package that is the checkout itself
    (checkout / "sapo-home").mkdir()
    done = run(
        f"import sys; sys.path += [{str(checkout)!r}, {str(installed)!r}]\n"
        "import package.inner, single, space.part, library, flat\n"
        "from rewards.sandbox import *\n"
        f"print(*[p for p in readable_now() if p.is_relative_to({str(tmp_path)!r})], sep='\\n')"
    )
    expected = [checkout / "package", checkout / "single.py", checkout / "space", installed]
    assert done.stdout.split() == [str(path) for path in expected], done.stderr


def test_readable_are_the_libraries_of_python_and_of_the_system_but_no_home() -> None:
    readable = readable_now()

    def is_readable(path: str) -> bool:
        return any(Path(path).resolve().is_relative_to(place) for place in readable)

    assert is_readable(json.__file__)
    assert is_readable(pytest.__file__)
    assert is_readable(rewards.__file__)
    assert is_readable("/usr/lib")
    assert is_readable("/dev/urandom")
    for closed in (ROOT, "/", "/etc", "/proc", "/tmp", str(Path.home()), sys.prefix):
        assert not is_readable(closed), closed
