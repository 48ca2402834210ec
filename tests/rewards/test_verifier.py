import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import ANY

import msgspec
import psutil
import pytest

import rewards
from rewards.question import MAX_INDEX, Answer, Expansion, Judged, Question, Reason, Unscorable
from rewards.tasks import TaskFacts, TaskSpec
from rewards.verifier import Limits, Verifier, VerifierBroken, VerifierClosed
from rewards.worker import Refused

ROOT = str(Path(rewards.__file__).resolve().parents[1])
HOSTILE = (sys.executable, "-P", str(Path(__file__).with_name("hostile_worker.py")), ROOT)
HONEST = TaskSpec("honest", "honest", "", "1")
OBEDIENT = TaskSpec("obedient", "obedient", "", "1")
QUESTION = Question("obedient", 7)
RIGHT = Answer("7", finished=True)
CORRECT, WRONG = Judged(True), Judged(False)


def start(
    *specs: TaskSpec,
    deadline_s: float = 60.0,
    cpu_s: int = 60,
    start_deadline_s: float = 60.0,
    num_workers: int = 1,
    command: Sequence[str] = HOSTILE,
) -> Verifier:
    limits = Limits(deadline_s, cpu_s, 512, 1000, start_deadline_s)
    return Verifier(specs or (HONEST, OBEDIENT), limits, num_workers, command)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """For hazards that are noticed without waiting for a deadline."""
    with start() as verifier:
        yield verifier


@pytest.fixture(scope="module")
def hasty() -> Iterator[Verifier]:
    """For hazards that only the deadline ends."""
    with start(deadline_s=1.0) as verifier:
        yield verifier


def obey(verifier: Verifier, action: str) -> Judged | Unscorable:
    """The verdict on an answer that does `action`, between honest ones, which must be judged."""
    lost = verifier.stats.workers_lost
    before, verdict, after, wrong = verifier.judge(
        [(QUESTION, [RIGHT, Answer(action, True), RIGHT, Answer("8", True)])]
    )[0]
    assert (before, after, wrong) == (CORRECT, CORRECT, WRONG)
    reason = verdict.reason if isinstance(verdict, Unscorable) else None
    ends = reason in (Reason.DEADLINE, Reason.CRASHED, Reason.MEMORY)
    assert verifier.stats.workers_lost == lost + ends
    return verdict


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def assert_they_end(pids: Sequence[int]) -> None:
    """Waits for the end of processes that need not be our children; a zombie has ended."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(30_000), f"process {pid} lives on"
        os.close(handle)


def test_answers_are_judged_in_order(verifier: Verifier) -> None:
    verdicts = verifier.judge(
        [
            (Question("honest", 3), [Answer("3", True), Answer("3", False), Answer("4", True)]),
            (Question("honest", 4), []),
            (Question("obedient", 5), [Answer("5", True)]),
        ]
    )
    assert verdicts == [[CORRECT, WRONG, WRONG], [], [CORRECT]]
    assert verifier.judge([]) == []


def test_questions_are_expanded_in_order(verifier: Verifier) -> None:
    questions = [Question("honest", index) for index in range(2000)]
    expansions = verifier.expand(questions)
    assert expansions == [Expansion(q, f"honest: say {q.index}", str(q.index)) for q in questions]
    assert verifier.expand([]) == []


@pytest.mark.parametrize("action", ["loop", "sleep", "regex", "pow", "fork in c", "half a frame"])
def test_an_answer_that_hangs_is_past_the_deadline(hasty: Verifier, action: str) -> None:
    assert obey(hasty, action) == Unscorable(Reason.DEADLINE, "no reply within 1 s")


@pytest.mark.parametrize(
    ("action", "detail"),
    [
        ("exit", "ended with status 0"),
        ("sys.exit", "ended with status 3"),
        ("segfault", "ended by signal: Segmentation fault"),
        ("abort", "ended by signal: Aborted"),
        ("close", "ended by signal: Killed"),
        ("garbage", "it sent what is not a reply"),
        ("huge frame", "a reply of 4294967295 bytes"),
    ],
)
def test_an_answer_that_ends_the_worker_crashed_it(
    verifier: Verifier, action: str, detail: str
) -> None:
    assert obey(verifier, action) == Unscorable(Reason.CRASHED, detail)


@pytest.mark.parametrize("action", ["bomb", "big"])
def test_an_answer_that_takes_all_memory_costs_a_worker(verifier: Verifier, action: str) -> None:
    assert obey(verifier, action) == Unscorable(Reason.MEMORY)


@pytest.mark.parametrize(
    ("action", "detail"),
    [
        ("recurse", "RecursionError: maximum recursion depth exceeded"),
        ("raise", r"ValueError: \x1b[31mred\nline\ud800" + "x" * 165),
        ("raise unprintable", "Unprintable"),
        ("not a bool", "TypeError: the checker returned float, not bool"),
        ("write file", "OSError: [Errno 27] File too large"),
    ],
)
def test_a_checker_that_raises_is_an_error_of_ours(
    verifier: Verifier, action: str, detail: str
) -> None:
    assert obey(verifier, action) == Unscorable(Reason.CHECKER_ERROR, detail)
    assert len(detail) <= 200


def test_an_answer_cannot_create_a_file(verifier: Verifier) -> None:
    refused = (
        "PermissionError: [Errno 1] Operation not permitted: 'file'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'file'",  # without isolation
    )
    assert obey(verifier, "write here") in [
        Unscorable(Reason.CHECKER_ERROR, detail) for detail in refused
    ]


@pytest.mark.parametrize("action", ["stdout", "stderr"])
def test_output_of_a_task_breaks_nothing(verifier: Verifier, action: str) -> None:
    assert obey(verifier, action) == CORRECT


@pytest.mark.parametrize("action", ["fork", "start process", "start thread"])
def test_an_answer_that_starts_a_process_breaks_nothing(verifier: Verifier, action: str) -> None:
    verdict = obey(verifier, action)
    assert verdict == CORRECT or (
        isinstance(verdict, Unscorable) and verdict.reason is Reason.CHECKER_ERROR
    )


def test_a_worker_has_no_torch_a_fixed_hash_and_its_own_group(verifier: Verifier) -> None:
    assert obey(verifier, "is torch imported") == WRONG
    assert obey(verifier, "is hashing fixed") == CORRECT
    assert obey(verifier, "is my group my own") == CORRECT


def test_a_worker_sees_no_variable_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPO_SECRET", "token")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    with start() as verifier:
        assert obey(verifier, "is secret visible") == WRONG
        assert obey(verifier, "is hashing fixed") == CORRECT


def test_cpu_time_is_counted_for_each_answer() -> None:
    with start(cpu_s=1) as verifier:
        busy = [Answer("busy", True)] * 3  # 0.6 s each
        assert verifier.judge([(QUESTION, busy)]) == [[CORRECT] * 3]
        assert obey(verifier, "loop") == Unscorable(Reason.DEADLINE, "CPU time")


def test_an_expansion_that_hangs_costs_only_itself() -> None:
    spec = TaskSpec("trap", "honest", "", "1", {"hangs": 5})
    with start(spec, deadline_s=1.0) as verifier:
        outcomes = verifier.expand([Question("trap", index) for index in range(10)])
        assert [isinstance(outcome, Expansion) for outcome in outcomes] == [
            index != 5 for index in range(10)
        ]
        assert verifier.stats.unscorable[Reason.DEADLINE] == 1
        assert verifier.stats.workers_lost == 1


def test_every_answer_may_be_guilty(verifier: Verifier) -> None:
    verdicts = verifier.judge([(QUESTION, [Answer("exit", True)] * 5)])[0]
    assert verdicts == [Unscorable(Reason.CRASHED, "ended with status 0")] * 5
    assert obey(verifier, "7") == CORRECT


def test_what_is_refused_needs_no_worker() -> None:
    refused = [
        (Question("unknown\x1b", 1), "1", Unscorable(Reason.UNKNOWN_TASK, r"unknown\x1b")),
        (Question("honest", -1), "1", Unscorable(Reason.BAD_INDEX)),
        (Question("honest", MAX_INDEX), "1", Unscorable(Reason.BAD_INDEX)),
        (Question("honest", 10**30), "1", Unscorable(Reason.BAD_INDEX)),
        (Question("honest", 1), "x" * 10**7, Unscorable(Reason.TOO_LONG)),
        (Question("honest", 1), "é" * 501, Unscorable(Reason.TOO_LONG)),
        (
            Question("honest", 1),
            "1\ud800",
            Unscorable(Reason.CHECKER_ERROR, "the answer's text has no UTF-8 form"),
        ),
    ]
    with start(command=["/no/such/program"]) as verifier:
        for question, text, verdict in refused:
            assert verifier.judge([(question, [Answer(text, True)])]) == [[verdict]]
        assert verifier.expand([question for question, _, _ in refused[:4]]) == [
            verdict for _, _, verdict in refused[:4]
        ]
        assert verifier.stats.unscorable[Reason.TOO_LONG] == 2
        with pytest.raises(VerifierBroken, match="cannot be started"):
            verifier.judge([(Question("honest", 1), [Answer("x" * 1000, True)])])


@pytest.mark.parametrize("text", ["", "\x00", "7\x00", "x" * 1000, "é" * 500, "\uffff\U0010ffff"])
def test_any_text_within_the_limit_is_judged(verifier: Verifier, text: str) -> None:
    assert verifier.judge([(QUESTION, [Answer(text, True), RIGHT])]) == [[WRONG, CORRECT]]


def test_refused_answers_keep_their_places(verifier: Verifier) -> None:
    too_long = Answer("x" * 1001, True)
    assert verifier.judge(
        [(Question("gone", 7), [RIGHT]), (QUESTION, [too_long, RIGHT, too_long, RIGHT])]
    ) == [
        [Unscorable(Reason.UNKNOWN_TASK, "gone")],
        [Unscorable(Reason.TOO_LONG), CORRECT, Unscorable(Reason.TOO_LONG), CORRECT],
    ]


def test_a_lost_worker_is_logged_with_what_it_said(
    verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        obey(verifier, "segfault")
    assert "an answer to obedient/7" in caplog.text
    assert "Segmentation fault" in caplog.text
    assert "in judge" in caplog.text  # the traceback of faulthandler


def test_stats_count_what_happened() -> None:
    with start(deadline_s=1.0) as verifier:
        for action in ("loop", "exit", "big", "recurse", "7"):
            obey(verifier, action)
        stats = verifier.stats
    assert stats.judged == 4 * 3 + 4
    assert {reason: count for reason, count in stats.unscorable.items() if count} == {
        Reason.DEADLINE: 1,
        Reason.CRASHED: 1,
        Reason.MEMORY: 1,
        Reason.CHECKER_ERROR: 1,
    }
    assert stats.workers_lost == 3
    assert stats.workers_started == 5


def test_idle_workers_that_die_cost_no_answer() -> None:
    before = children()
    with start() as verifier:
        assert obey(verifier, "7") == CORRECT
        pids = [process.pid for process in children() - before]
        assert len(pids) == 2
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert_they_end(pids)
        assert verifier.judge([(QUESTION, [RIGHT])]) == [[CORRECT]]
        assert verifier.stats.workers_lost == 2


def test_a_spare_outlives_the_thread_that_asked() -> None:
    with start() as verifier:
        for _ in range(3):
            asker = threading.Thread(target=lambda: obey(verifier, "exit"))
            asker.start()
            asker.join()
        assert verifier.judge([(QUESTION, [RIGHT])]) == [[CORRECT]]
        assert verifier.stats.workers_lost == 3


def test_threads_share_the_workers() -> None:
    verdicts: dict[int, list[list[Judged | Unscorable]]] = {}

    def ask(number: int) -> None:
        requests = [
            (Question("obedient", index), [Answer(str(index), True), Answer("exit", True)])
            for index in range(number, number + 3)
        ]
        verdicts[number] = verifier.judge(requests)

    with start(num_workers=2) as verifier:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        crashed = Unscorable(Reason.CRASHED, "ended with status 0")
        assert verdicts == {number: [[CORRECT, crashed]] * 3 for number in range(6)}
        assert verifier.stats.workers_lost == 18


def test_several_workers_share_one_call() -> None:
    with start(num_workers=3) as verifier:
        questions = [Question("honest", index) for index in range(1000)]
        requests = [(question, [Answer(str(question.index), True)]) for question in questions]
        assert verifier.judge(requests) == [[CORRECT]] * 1000


def test_a_second_opinion_comes_from_a_worker_that_did_nothing_before() -> None:
    answers = [RIGHT, Answer("8", True), Answer("am I first", True), Answer("x" * 1001, True)]
    with start() as verifier:
        first = Answer("am I first", True)
        assert verifier.judge([(QUESTION, [RIGHT, first, RIGHT])]) == [[CORRECT, WRONG, CORRECT]]
        for number in range(1, 4):
            assert verifier.judge([(QUESTION, [first, *answers])], afresh=True)[0] == [
                *(CORRECT, CORRECT, WRONG, WRONG),
                Unscorable(Reason.TOO_LONG),
            ]
            assert verifier.judge([(QUESTION, [first])]) == [[WRONG]], "the first goes on"
            assert verifier.stats.workers_started == 2 + number
        assert verifier.stats.workers_lost == 0
        assert verifier.judge([(QUESTION, [])], afresh=True)[0] == []
        assert verifier.judge_one(QUESTION, first, afresh=True)[0] == CORRECT


def test_what_one_question_cost_is_the_time_of_its_worker(hasty: Verifier) -> None:
    expanded, held_s = hasty.expand_one(Question("honest", 7))
    assert isinstance(expanded, Expansion) and held_s > 0
    tasks = TaskSpec("slow", "honest", "", "1", {"hangs": 3})
    with start(tasks, deadline_s=1.0) as verifier:
        expanded, held_s = verifier.expand_one(Question("slow", 3))
    assert isinstance(expanded, Unscorable) and expanded.reason is Reason.DEADLINE and held_s >= 1
    assert hasty.expand_one(Question("unknown", 1))[1] == 0


def test_a_second_opinion_needs_no_spare() -> None:
    """Where all idle workers were used, one of them gives way."""
    first = Answer("am I first", True)
    with start(num_workers=2) as verifier:
        with verifier._lock:
            verifier._start_missing()
            verifier._unused.clear()
        assert verifier.judge([(QUESTION, [first])], afresh=True)[0] == [CORRECT]
        assert verifier.stats.workers_lost == 0
        assert verifier.stats.workers_started == 3 + 2


def test_an_answer_that_ends_a_fresh_worker_is_unscorable() -> None:
    with start() as verifier:
        answers = [RIGHT, Answer("exit", True), RIGHT]
        [verdicts] = verifier.judge([(QUESTION, answers)], afresh=True)
        assert verdicts == [CORRECT, Unscorable(Reason.CRASHED, "ended with status 0"), CORRECT]
        assert verifier.stats.workers_lost == 1
        assert obey(verifier, "7") == CORRECT


def test_second_opinions_leave_no_process() -> None:
    before = children()
    with start() as verifier:
        verifier.judge([(QUESTION, [RIGHT])], afresh=True)
        verifier.judge([(QUESTION, [RIGHT])])
        assert len(children() - before) == 2
    assert not children() - before


def test_no_process_is_left_after_close() -> None:
    before = children()
    with start(num_workers=2) as verifier:
        obey(verifier, "start process")
        obey(verifier, "fork")
        pids = [process.pid for process in children() - before]
        assert len(pids) >= 3
    assert_they_end(pids)
    assert not children() - before


@pytest.mark.parametrize("num_answers", [1, 2])
def test_close_ends_a_call_that_hangs(num_answers: int, tmp_path: Path) -> None:
    outcome: list[VerifierClosed] = []

    def ask() -> None:
        try:
            verifier.judge([(QUESTION, [Answer("tell and sleep", True)] * num_answers)])
        except VerifierClosed as error:
            outcome.append(error)

    os.mkfifo(tmp_path / "fifo")
    told = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    hangs = select.poll()
    hangs.register(told, select.POLLIN)
    with start(command=(*HOSTILE, str(tmp_path / "fifo"))) as verifier:
        asker = threading.Thread(target=ask)
        asker.start()
        assert hangs.poll(60_000)
    asker.join()
    os.close(told)
    assert len(outcome) == 1
    assert verifier.stats.workers_lost == 0


def test_a_closed_verifier_says_so() -> None:
    verifier = start()
    verifier.close()
    verifier.close()
    with pytest.raises(VerifierClosed):
        verifier.judge([(QUESTION, [RIGHT])])


@pytest.mark.parametrize("action", ["7", "sleep", "pow"])
def test_no_process_is_left_after_the_node_is_killed(action: str) -> None:
    script = (
        "import psutil; from rewards.question import *; from rewards.tasks import TaskSpec\n"
        "from rewards.verifier import *\n"
        "spec = TaskSpec('obedient', 'obedient', '', '1')\n"
        f"verifier = Verifier([spec], command={HOSTILE})\n"
        "question = Question('obedient', 7)\n"
        "verifier.judge([(question, [Answer('7', True)])])\n"
        "print(*(child.pid for child in psutil.Process().children()), flush=True)\n"
        f"verifier.judge([(question, [Answer({action!r}, True)] * 100)])\n"
        "input()\n"
    )
    node = subprocess.Popen(
        [sys.executable, "-P", "-c", script],
        env={"PYTHONPATH": ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with node:
        assert node.stdout is not None
        pids = [int(pid) for pid in node.stdout.readline().split()]
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        node.kill()
    assert_they_end(pids)


def test_a_refused_task_is_left_out_and_the_others_are_judged() -> None:
    with start(HONEST, TaskSpec("odd", "no_such_kind", "", "1")) as verifier:
        requests = [(Question("odd", 1), [RIGHT]), (Question("honest", 7), [RIGHT])]
        refused = Unscorable(Reason.UNKNOWN_TASK, "unknown kind 'no_such_kind'")
        assert verifier.judge(requests) == [[refused], [CORRECT]]
        assert verifier.describe() == {
            "honest": TaskFacts(ANY, True, None),
            "odd": Refused("unknown kind 'no_such_kind'"),
        }
        assert verifier.stats.workers_lost == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("crashes", "ended with status 7"),
        ("shouts", "cannot import name 'chain_sum'"),
        ("hangs", "no reply within"),
    ],
)
def test_workers_that_cannot_start_break_the_verifier(kind: str, message: str) -> None:
    deadline_s = 1.0 if kind == "hangs" else 60.0
    with start(TaskSpec("odd", kind, "", "1"), start_deadline_s=deadline_s) as verifier:
        for _ in range(2):
            with pytest.raises(VerifierBroken, match=message) as broken:
                verifier.expand([Question("odd", 1)])
        assert "3 workers in a row did not start" in str(broken.value)
        assert "\x1b" not in str(broken.value)
        assert verifier.stats.workers_started <= 5


def test_tasks_need_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="the same name"):
        Verifier([HONEST, HONEST])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Verifier([HONEST], num_workers=0),
        lambda: Verifier([HONEST], Limits(max_answer_bytes=2**30)),
        lambda: Verifier([HONEST], Limits(max_answer_bytes=0)),
    ],
)
def test_limits_out_of_range_are_refused(make: Callable[[], Verifier]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


def test_workers_come_from_the_package_of_their_parent(tmp_path: Path) -> None:
    """As installed: not from the checkout, and not from what lies in the working directory."""
    site, here = tmp_path / "site", tmp_path / "here"
    shutil.copytree(Path(ROOT) / "rewards", site / "rewards")
    with (site / "rewards" / "tasks" / "__init__.py").open("a") as file:
        file.write("\n\ndef find_kind(spec):\n    raise TaskRefused('loaded by the copy')\n")
    (here / "rewards").mkdir(parents=True)
    for name in ("msgspec.py", "random.py", "rewards/__init__.py"):
        (here / name).write_text("raise SystemExit('shadowed by the working directory')\n")
    script = (
        "from rewards.tasks import TaskSpec\n"
        "from rewards.verifier import Verifier\n"
        "with Verifier([TaskSpec('sum', 'reasoning_gym', 'chain_sum', '0.1.25')]) as verifier:\n"
        "    print(verifier.describe())\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={"PYTHONPATH": str(site)},
        cwd=here,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Refused(message='loaded by the copy')" in done.stdout, done.stderr


def test_real_tasks_run_without_torch() -> None:
    before = children()
    spec = TaskSpec("sum", "reasoning_gym", "chain_sum", "0.1.25")
    with Verifier([spec]) as verifier:
        (expansion,) = verifier.expand([Question("sum", 1)])
        assert isinstance(expansion, Expansion)
        workers = children() - before
        assert len(workers) == 2
        for worker in workers:
            assert not any("torch" in mapped.path for mapped in worker.memory_maps())
        (facts,) = verifier.describe().values()
        assert isinstance(facts, TaskFacts) and len(bytes.fromhex(facts.digest)) == 32
        assert facts.deterministic and facts.num_questions is None
        assert verifier.describe() == {"sum": facts}


def test_a_digest_that_cannot_be_computed_names_its_task() -> None:
    with (
        start(TaskSpec("odd", "honest", "", "1", {"fails": True})) as verifier,
        pytest.raises(VerifierBroken, match="task odd cannot be described: checker_error Runtime"),
    ):
        verifier.describe()


def test_a_request_larger_than_the_pipe_is_judged() -> None:
    specs = [HONEST, TaskSpec("x", "honest", "y" * 200_000, "1")]
    assert len(msgspec.msgpack.encode(specs)) > 200_000
    limits = Limits(max_answer_bytes=500_000)
    with Verifier(specs, limits, command=HOSTILE) as verifier:
        answers = [Answer("z" * 500_000, True), Answer("3", True)] * 20
        assert verifier.judge([(Question("honest", 3), answers)]) == [[WRONG, CORRECT] * 20]
