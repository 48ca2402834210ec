"""All runs of an experiment: in parallel processes, resumed, each result kept as it is found.

Only this process writes. A run that fails is made once more; if it fails again the others go on,
and it is named at the end. What is stopped or killed loses its unfinished runs and nothing else.
"""

import fcntl
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from statistics import fmean

import msgspec
from rich.console import Console

from node.config import ConfigError
from node.escape import printable
from node.experiment.figures import Declared
from node.experiment.job import make_run, make_start, recipe_of
from node.experiment.plan import RunPlan
from node.experiment.results import RESULTS_FILE, RunResult, append_result, read_results
from node.experiment.spec import Materials, Run, Spec
from node.experiment.view import LINE_EVERY_S, Board, Row
from node.experiment.worker import Failed, Progress, Report, Tell, Work, Worker
from node.live import live_view
from node.words import span
from swarm.manifest import load_manifest

logger = logging.getLogger(__name__)

ATTEMPTS = 2
REPORT = "the report"
"""As the name of what failed."""
TURN_S = 0.5
REPORT_EVERY_S = 20.0
"""Between writings of table and curves; more wait for the next finished run."""
HANG_S = 3600.0
"""A run that makes no round for so long is ended, and counts as failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an experiment stands when the program ends."""

    num_runs: int
    missing: tuple[Run, ...]
    """In the order in which they will be made."""
    failures: Mapping[str, str]
    """What failed to the end -> why."""
    was_stopped: bool
    """By the user, or because its time was over."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The lines of results.jsonl."""

    results: Mapping[Run, RunResult]
    """Of the runs that the file declares now, in that order."""
    ignored: tuple[RunResult, ...]
    """Of another declaration, or at a rate that is not the chosen one."""


def find_materials(spec: Spec) -> Materials:
    """What results depend on besides the file.

    Raises:
        ConfigError: there is no such start.
    """
    recipes = {name: recipe_of(name) for name in spec.starts}
    return Materials(load_manifest(spec.manifest_file).swarm_id, recipes)


def read_kept(spec: Spec, materials: Materials, directory: Path) -> Kept:
    """What is there of the experiment.

    Raises:
        ConfigError: a line that no version of this program wrote.
    """
    try:
        lines = list(read_results(directory))
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    ours = [one for one in lines if spec.declares(one, materials)]
    by_run = {(one.key, one.is_tuning): one for one in ours}
    results = {}
    for run in spec.runs(ours):
        if run.learning_rate is not None and (found := by_run.get((run.key, run.is_tuning))):
            results[run] = found
    used = {id(one) for one in results.values()}
    return Kept(results, tuple(one for one in lines if id(one) not in used))


def run_experiment(
    spec: Spec,
    materials: Materials,
    directory: Path,
    *,
    jobs: int,
    only: Collection[str] = (),
    max_s: float | None = None,
    stop_asked: threading.Event,
    console: Console,
    makers: "Makers | None" = None,
    hang_s: float = HANG_S,
) -> Outcome:
    """Makes the runs that are missing in `directory`. To be called from the main thread.

    Args:
        jobs: runs at once.
        only: arms; all if there are none.
        max_s: then no more runs are started; those that have begun are finished.
        stop_asked: ends it at once.
        makers: what makes starts, runs and reports; for tests.

    Raises:
        ConfigError: what the user has to change.
        OSError: a result cannot be written, e.g. a full disk.
    """
    make_logs(directory)
    with _hold(directory):
        kept = read_kept(spec, materials, directory)
        runner = _Runner(
            spec=spec,
            materials=materials,
            directory=directory,
            jobs=jobs,
            only=frozenset(only),
            until=math.inf if max_s is None else time.monotonic() + max_s,
            stop_asked=stop_asked,
            makers=makers or Makers(),
            hang_s=hang_s,
            results=dict(kept.results),
        )
        return runner.run(console, kept.ignored)


def make_logs(directory: Path) -> Path:
    """The directory of logs: of what workers print, and this program's own.

    Raises:
        ConfigError: it cannot be made.
    """
    logs = directory / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{logs}: cannot be made: {error.strerror}") from None
    return logs


def write_report(spec: Spec, directory: Path, results: Sequence[RunResult]) -> None:
    """table.md and curves.png, from the runs that are there.

    Raises:
        ConfigError: there is none.
    """
    if not results:
        raise ConfigError(f"{directory}: there are no results of {spec.name}")
    from node.experiment.report import report  # matplotlib: a second, and not for --list

    report(results, declared(spec), directory)


def declared(spec: Spec) -> Declared:
    """What table and curves need to know of the file."""
    return Declared(
        title=f"{spec.name}: {spec.question}",
        controls=spec.controls,
        target=spec.target,
        k=spec.k,
        arms=tuple(spec.arms),
        num_runs=len(spec.runs()),
        against=spec.against,
    )


@dataclass(frozen=True, slots=True)
class Makers:
    """What makes the parts of an experiment. The first two are sent to workers: functions of a
    module."""

    start: Callable[[str, Path, Tell], Path] = make_start
    run: Callable[[RunPlan, Tell], RunResult] = make_run
    report: Callable[[Spec, Path, Sequence[RunResult]], None] = write_report


@contextmanager
def _hold(directory: Path) -> Iterator[None]:
    """No two processes write into one directory."""
    try:
        file = (directory / RESULTS_FILE).open("ab")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{directory}: another process is making its runs; choose another --out"
            ) from None
        yield


@dataclass(eq=False, slots=True)
class _Task:
    """What a worker does now."""

    what: Run | str
    """A run, or the name of a start."""
    work: Work
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    """When it last made a round."""
    round: int = 0
    ready: float | None = None
    """When what comes before the first round was done."""

    def note(self, num_rounds: int) -> None:
        """It has made so many rounds."""
        self.round, self.heard = num_rounds, time.monotonic()
        if self.ready is None:
            self.ready = self.heard


@dataclass
class _Runner:
    """The state of one call of `run_experiment`."""

    spec: Spec
    materials: Materials
    directory: Path
    jobs: int
    only: frozenset[str]
    until: float
    stop_asked: threading.Event
    makers: Makers
    hang_s: float
    results: dict[Run, RunResult]
    starts: dict[str, Path] = field(default_factory=dict)
    failures: dict[Run | str, list[str]] = field(default_factory=dict)
    """What failed -> the reason of each attempt."""
    idle: list[Worker] = field(default_factory=list)
    busy: dict[Worker, _Task] = field(default_factory=dict)
    num_workers: int = 0
    report_due: float = 0.0
    is_report_old: bool = True

    def run(self, console: Console, ignored: Sequence[RunResult]) -> Outcome:
        """Until nothing is left to do, or it is to stop."""
        began = time.monotonic()
        board = Board(self.spec.name, num_runs=len(self._runs()))
        if ignored:
            board.tell(f"{len(ignored)} lines of {RESULTS_FILE} are ignored: {said(ignored)}")
        try:
            with live_view(board, console, LINE_EVERY_S) as refresh:
                while not self.stop_asked.is_set():
                    self._hand_out()
                    if not self.busy:
                        break
                    self._listen(board)
                    self._end_hung(board)
                    if time.monotonic() >= self.report_due:
                        self._report()
                    self._show(board, time.monotonic() - began)
                    refresh()
        finally:
            for worker in [*self.idle, *self.busy]:
                worker.kill()
        self._report()
        missing = tuple(run for run in self._runs() if run not in self.results)
        failures = {what: why for what, why in self.failures.items() if self._is_given_up(what)}
        return Outcome(
            num_runs=len(self._runs()),
            missing=missing,
            failures={name_of(what): why[-1] for what, why in failures.items()},
            was_stopped=self.stop_asked.is_set() or time.monotonic() >= self.until,
        )

    def _runs(self) -> list[Run]:
        runs = self.spec.runs(self.results.values())
        return [run for run in runs if not self.only or run.arm in self.only]

    def _is_given_up(self, what: Run | str) -> bool:
        return len(self.failures.get(what, ())) >= ATTEMPTS

    def _hand_out(self) -> None:
        """Keeps as many workers busy as there may be."""
        while len(self.busy) < self.jobs and (task := self._next()):
            worker = self._free_worker()
            worker.give(task.work)
            self.busy[worker] = task

    def _free_worker(self) -> Worker:
        while self.idle:
            if (worker := self.idle.pop()).is_alive:
                return worker
            worker.kill()
        self.num_workers += 1
        return Worker(self.directory / "logs" / f"worker-{self.num_workers}.log")

    def _next(self) -> _Task | None:
        """Starts before runs, these in their order."""
        doing = [task.what for task in self.busy.values()]

        def is_open(what: Run | str) -> bool:
            return what not in doing and not self._is_given_up(what)

        if time.monotonic() >= self.until or not self._has_work():
            return None
        if missing := [name for name in self.spec.starts if name not in self.starts]:
            for name in filter(is_open, missing):
                return _Task(name, partial(self.makers.start, name, self.spec.manifest_file))
            return None
        for run in self._runs():
            if run.learning_rate is not None and run not in self.results and is_open(run):
                plan = self.spec.plan(run.key, self.starts)
                return _Task(run, partial(self.makers.run, plan))
        return None

    def _has_work(self) -> bool:
        return any(run not in self.results for run in self._runs())

    def _listen(self, board: Board) -> None:
        """Takes in what workers report, for at most a turn."""
        by_connection = {worker.connection: worker for worker in self.busy}
        for connection in wait(list(by_connection), timeout=TURN_S):
            worker = by_connection[connection]  # type: ignore[index]
            self._take(worker, worker.hear(), board)

    def _take(self, worker: Worker, report: Report, board: Board) -> None:
        task = self.busy[worker]
        if isinstance(report, Progress):
            task.note(report.round)
            return
        del self.busy[worker]
        if isinstance(report, Failed):
            self._note_failure(task, report.reason, board)
        elif isinstance(task.what, str):
            self.starts[task.what] = report.value
        else:
            self._keep(task.what, report.value)
        if worker.is_alive:
            self.idle.append(worker)
        else:
            worker.kill()

    def _keep(self, run: Run, found: RunResult) -> None:
        result = msgspec.structs.replace(
            found,
            experiment=self.spec.name,
            digest=self.spec.digest(run.key, self.materials),
            key=run.key,
            is_tuning=run.is_tuning,
        )
        append_result(self.directory, result)
        self.results[run] = result
        self.is_report_old = True

    def _note_failure(self, task: _Task, reason: str, board: Board) -> None:
        self.failures.setdefault(task.what, []).append(reason)
        logger.error("%s failed: %s", name_of(task.what), reason)
        again = "given up" if self._is_given_up(task.what) else "made once more"
        told = f"{name_of(task.what)} failed and is {again}: {last_line(reason)}"
        board.tell(told, style="bold red")

    def _end_hung(self, board: Board) -> None:
        """Not the making of starts, which tells of nothing until it is done."""
        for worker, task in list(self.busy.items()):
            silent_s = time.monotonic() - task.heard
            if isinstance(task.what, Run) and silent_s > self.hang_s:
                worker.kill()
                self._take(worker, Failed(f"no round for {span(silent_s)}"), board)

    def _report(self) -> None:
        """The table and the curves as the results stand."""
        if self.is_report_old and self.results:
            try:
                self.makers.report(self.spec, self.directory, list(self.results.values()))
                self.failures.pop(REPORT, None)
            except Exception:  # the runs of a night do not end with a picture
                self.failures[REPORT] = [traceback.format_exc()] * ATTEMPTS
                logger.exception(REPORT)
            self.is_report_old = False
            self.report_due = time.monotonic() + REPORT_EVERY_S

    def _show(self, board: Board, elapsed_s: float) -> None:
        now = time.monotonic()
        board.elapsed_s = elapsed_s
        board.num_done = sum(run in self.results for run in self._runs())
        board.rows = tuple(
            Row(name_of(task.what), task.round, self.spec.rounds, now - task.began)
            for task in self.busy.values()
        )
        board.left_s = self._left_s(now)

    def _left_s(self, now: float) -> float | None:
        """From how long runs took; before the first has ended, from how far they are."""
        running = {task.what: task for task in self.busy.values()}
        took = [result.wall_s for result in self.results.values()]
        for task in running.values():
            if task.round and task.ready is not None and not took:
                took.append((now - task.ready) * self.spec.rounds / task.round)
        if not took:
            return None
        typical_s, left_s = fmean(took), 0.0
        by_arm: dict[str, list[float]] = {}
        for run, result in self.results.items():
            by_arm.setdefault(run.arm, []).append(result.wall_s)
        for run in self._runs():
            if run not in self.results and not self._is_given_up(run):
                expected_s = fmean(by_arm.get(run.arm, [typical_s]))
                elapsed_s = now - running[run].began if run in running else 0.0
                left_s += max(expected_s - elapsed_s, 0.0)
        return left_s / self.jobs


def name_of(what: Run | str) -> str:
    """As the user reads it."""
    return f"start {what}" if isinstance(what, str) and what != REPORT else str(what)


def last_line(text: str) -> str:
    """Of a traceback: what was raised."""
    return printable(text.strip().splitlines()[-1] if text.strip() else "", 300)


def said(results: Sequence[RunResult]) -> str:
    """Lines that are ignored, so that the user knows which."""
    shown = [f"{one.key.arm} {one.key.seed} at {one.key.learning_rate:g}" for one in results[:5]]
    more = f" and {len(results) - 5} more" if len(results) > 5 else ""
    return f"{', '.join(shown)}{more} (of another declaration, or not at the chosen rate)"
