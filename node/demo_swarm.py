"""The nodes of a demo from their start to their end: watched, kept alive, asked, stopped."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from node.ask import NodeUnreachable, fetch_rounds, fetch_snapshot
from node.checkpoint import Checkpoints
from node.demo_home import Place
from node.demo_process import STOP_S, NodeProcess
from node.escape import printable
from node.evaluate import read_heldout
from node.home import HomeError
from node.status import RoundReport, Snapshot
from node.summary import NodeSummary
from node.view import Board, Row

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
FRESH_S = 2.0
"""A snapshot that is older does not say what the node is now."""

TURN_S = 0.1
"""Between two looks at the processes."""

STUCK_S = 120.0
"""A node that lives but never answered, or no longer answers, for so long is given up."""


@dataclass(frozen=True, slots=True)
class Source:
    """How the demo asks a node by its home; both raise NodeUnreachable where it does not answer."""

    snapshot: Callable[[Path], Snapshot] = fetch_snapshot
    """The node as it is."""
    rounds: Callable[[Path, int], list[RoundReport]] = fetch_rounds
    """Some of its rounds after a given one, oldest first; none where there are no more."""


class Watcher:
    """Asks one node for its snapshot twice a second, in a thread of its own."""

    def __init__(self, home: Path, source: Source, clock: Callable[[], float]) -> None:
        self._home = home
        self._source = source
        self._clock = clock
        self._stop = threading.Event()
        self._heard_at = clock()
        self._known_restarts = 0
        self.snapshot: Snapshot | None = None
        """The last one."""
        self.peak_memory_mib: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"watch {home.name}")
        self._thread.start()

    @property
    def age_s(self) -> float:
        """Of the snapshot, or since the beginning."""
        return self._clock() - self._heard_at

    def take_learner_death(self) -> str:
        """Why the learner ended, where it did since the last call; else nothing."""
        if self.snapshot is None:
            return ""
        learner, known = self.snapshot.learner, self._known_restarts
        self._known_restarts = learner.restarts
        return printable(learner.last_error) if learner.restarts > known else ""

    def stop(self) -> None:
        """Asks no more."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                snapshot = self._source.snapshot(self._home)
            except (NodeUnreachable, HomeError):
                continue  # it starts, or is busy, or is gone: the age of the last one shows it
            except Exception:
                logger.exception("asking %s failed", self._home.name)
                continue
            for part, mib in snapshot.memory_mib.items():
                self.peak_memory_mib[part] = max(mib, self.peak_memory_mib.get(part, 0.0))
            self.snapshot, self._heard_at = snapshot, self._clock()


@dataclass(frozen=True, slots=True)
class SwarmRun:
    """What a run of the nodes came to."""

    nodes: tuple[NodeSummary, ...]
    interruptions: tuple[str, ...]
    """What kept it from its end, one sentence each; empty when all nodes were done."""


@dataclass(frozen=True, slots=True)
class _Member:
    place: Place
    process: NodeProcess
    watcher: Watcher

    def events(self) -> Iterator[str]:
        """Starts the process again where that is due; what happened since the last call."""
        if happened := self.process.watch():
            yield happened
        if died := self.watcher.take_learner_death():
            yield f"lost its learner ({died}); its supervisor starts it from the last checkpoint"

    @property
    def is_done(self) -> bool:
        """It lives, answers, and has made everything."""
        snapshot = self.watcher.snapshot
        answers = self.process.pid is not None and self.watcher.age_s < FRESH_S
        return snapshot is not None and answers and snapshot.learner.is_done

    def row(self) -> Row:
        trouble = "given up" if self.process.failure else ""
        if (pause_s := self.process.restart_in_s) is not None:
            trouble = f"killed, starts again in {pause_s:.0f} s"
        return Row(self.place.name, self.watcher.snapshot, self.watcher.age_s, trouble)


Command = Callable[[Place], Sequence[str]]
"""What starts a node."""


def run_swarm(
    places: Sequence[Place],
    board: Board,
    *,
    command: Command,
    environment: dict[str, str],
    until: float,
    stop_asked: threading.Event,
    each_turn: Callable[[Sequence[int | None]], None],
    stop_s: float = STOP_S,
    source: Source = Source(),
    clock: Callable[[], float] = time.monotonic,
) -> SwarmRun:
    """Runs nodes until all have made their rounds. Nothing of them is left when this returns.

    Called from the main thread: the nodes are stopped when the calling thread ends.

    Args:
        board: is kept up to date.
        until: when it ends at the latest, by `clock`.
        each_turn: called all the time, with the process ids of the nodes.
        stop_s: for stopping, after which the nodes are killed.
    """
    members: list[_Member] = []
    try:
        for place in places:
            process = NodeProcess(command(place), place.log, environment, clock)
            process.start()
            members.append(_Member(place, process, Watcher(place.home, source, clock)))
        interruptions = _watch(members, board, until, stop_asked, each_turn, clock)
        reports = [_all_rounds(member.place.home, source) for member in members]
    finally:
        for member in members:
            member.watcher.stop()
        board.tell("stopping the nodes", style="dim")
        try:
            each_turn([member.process.pid for member in members])
        finally:
            _stop([member.process for member in members], clock() + stop_s)
    nodes = tuple(_summarise(*pair) for pair in zip(members, reports, strict=True))
    return SwarmRun(nodes, tuple(interruptions))


def _watch(
    members: Sequence[_Member],
    board: Board,
    until: float,
    stop_asked: threading.Event,
    each_turn: Callable[[Sequence[int | None]], None],
    clock: Callable[[], float],
) -> list[str]:
    """Returns when all nodes are done, with nothing, or with what makes that impossible."""
    while True:
        for member in members:
            for event in member.events():
                board.tell(f"{member.place.name} {event}")
        board.rows = tuple(member.row() for member in members)
        each_turn([member.process.pid for member in members])
        if all(member.is_done for member in members):
            return []
        if lost := [
            f"{one.place.name} {one.process.failure}" for one in members if one.process.failure
        ]:
            return lost
        if stuck := [one for one in members if one.watcher.age_s > STUCK_S]:
            return [
                f"{one.place.name} did not answer for {one.watcher.age_s:.0f} s, see "
                f"{one.place.log}"
                for one in stuck
            ]
        if clock() > until:
            return ["the time was up (--max-s)"]
        if stop_asked.wait(TURN_S):
            return ["it was stopped"]


def _all_rounds(home: Path, source: Source) -> tuple[RoundReport, ...]:
    """All that the node kept; nothing where it does not answer."""
    found: list[RoundReport] = []
    try:
        while page := source.rounds(home, found[-1].round if found else 0):
            found += page
    except (NodeUnreachable, HomeError) as error:
        logger.warning("the rounds of %s are unknown: %s", home.name, error)
    return tuple(found)


def _stop(processes: Sequence[NodeProcess], deadline: float) -> None:
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.end(deadline)


def _summarise(member: _Member, reports: tuple[RoundReport, ...]) -> NodeSummary:
    """What is known of a node, even if it never answered."""
    place, snapshot = member.place, member.watcher.snapshot
    rounds = snapshot.learner.round if snapshot else 0
    heldout = read_heldout(place.home / "heldout")
    latest = Checkpoints(place.home / "checkpoints", keep=1).latest()
    summary = NodeSummary(
        id=place.name,
        node_id=place.node_id,
        rounds=rounds,
        reports=reports,
        heldout_before=heldout.get(0),
        heldout_after=heldout.get(rounds) if rounds else None,
        checkpoint=str(latest[1].parent) if latest else "",
        peak_memory_mib=member.watcher.peak_memory_mib,
        restarts=member.process.deaths,
    )
    if snapshot is None:
        return summary
    used = {peer.node_id: peer.rollouts_used for peer in snapshot.peers if peer.rollouts_used}
    return replace(
        summary,
        engine=snapshot.learner.engine,
        engine_warning=snapshot.learner.engine_warning,
        refused=snapshot.refused,
        peers=sum(peer.connected for peer in snapshot.peers),
        used_by_peer=used,
        bytes_sent=snapshot.bytes_sent,
        bytes_received=snapshot.bytes_received,
        control_cpu_s=snapshot.control_cpu_s,
        announced_to_pool_s=snapshot.pool.announced_to_pool_s,
        learner_restarts=snapshot.learner.restarts,
    )
