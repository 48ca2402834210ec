"""A swarm of light nodes as processes (bench/light_node.py), and what came of what they announced.

What a node knows is read from its database: that is what a kill leaves. A fault's figures count
pairs of a record and another honest node that should have it in the end.
"""

import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.light_node import LightSettings, live
from swarm.wire import open_announcement

ROUNDS = int(os.environ.get("TEST_FAULTS", "1"))
"""How often each fault happens, or for how long; `make faults` has 5."""
REPAIR_S, PING_S = (4.0, 3.0) if ROUNDS == 1 else (30.0, 15.0)
"""Of all nodes here, so that nobody waits for long; real ones have 300 and 15 s."""
DEADLINE_S = 180 + 2 * REPAIR_S
"""Only catches what never comes."""
LOOK_S = 0.2
GIVEN_UP = ("crowded_out", "fetch_failed")
"""Reasons for which a rollout that is wanted may never come. Each is counted where it happens."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bench.light_node", "tests.integration.hostile"])


def start_process(run: Callable[..., None], *arguments: object) -> tuple[Any, Connection]:
    """A process that gets one end of a pipe as its last argument, and the other end."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=run, args=(*arguments, theirs))
    process.start()
    theirs.close()
    return process, ours  # type: ignore[return-value]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Known:
    """What a node has on disk."""

    announced: dict[bytes, tuple[str, float, bool, tuple[bytes, ...]]]
    """Id -> author, when it was signed, whether it was told by a peer's catalogue, hashes."""
    rollouts: dict[bytes, float]
    """Hashes of foreign ones in the pool -> when they came there, in Unix seconds."""


class FaultNode:
    """A process of a light node that can be killed, stopped and started again."""

    def __init__(self, settings: LightSettings) -> None:
        self.settings = settings
        self.state: dict[str, Any] = {}
        self.lost: Counter[str] = Counter()
        """What its processes before the present one had counted, but for refusals: the ledger has
        them on disk."""
        self.started = 0.0
        self.peak_mib = self.cpu_s = self.cpu_before_s = 0.0
        self._changed = threading.Condition()
        self._process: Any = None
        self._orders: Connection | None = None

    def start(self) -> "FaultNode":
        self.state = {}
        self.started = time.time()
        self._process, ours = start_process(live, self.settings)
        self._orders = ours
        threading.Thread(target=self._listen, args=(ours,), daemon=True).start()
        return self

    def _listen(self, orders: Connection) -> None:
        try:
            while True:
                state = orders.recv()
                with self._changed:
                    if orders is self._orders:
                        self.state = state
                        self._changed.notify_all()
        except (EOFError, OSError):
            return

    @property
    def node_id(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def address(self) -> str:
        self.wait_until(lambda state: state["addresses"])
        return str(self.state["addresses"][0])

    def share(self, num: int, every_s: float) -> None:
        assert self._orders is not None
        self._orders.send(("share", num, every_s))

    def wait_until(self, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first state of which it is so."""

        def is_there() -> bool:
            return bool(self.state and is_so(self.state))

        with self._changed:
            assert self._changed.wait_for(is_there, DEADLINE_S), f"{self.state}\n{self.log()}"
            return self.state

    def log(self) -> str:
        log = self.settings.home.with_suffix(".log")
        return log.read_text()[-3000:] if log.exists() else ""

    def kill(self) -> None:
        """With -9."""
        self._note()
        self._process.kill()
        self._process.join(DEADLINE_S)

    def stop(self) -> None:
        """In order."""
        self._note()
        assert self._orders is not None
        self._orders.send(("end",))
        self._process.join(DEADLINE_S)
        assert self._process.exitcode == 0, self.log()

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def measure(self) -> None:
        """Notes the peak of its resident memory, and its seconds of CPU."""
        times = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        self.cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                self.peak_mib = max(self.peak_mib, int(line.split()[1]) / 1024)

    def _note(self) -> None:
        self.measure()
        self.cpu_before_s += self.cpu_s
        counts = self.counted().items()
        self.lost.update({name: num for name, num in counts if not name.startswith("refused")})
        self.state = {}

    def counted(self) -> Counter[str]:
        """All that its present process says it dropped, refused or failed at."""
        state = self.state
        counts = Counter({name: state.get(name, 0) for name in ("dropped", "unsent", "failed")})
        counts.update({f"limited {name}": n for name, n in state.get("limited", {}).items()})
        counts.update({f"refused {name}": n for name, n in state.get("refused", {}).items()})
        return +counts

    def end(self) -> None:
        """Whatever it does now."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join(DEADLINE_S)

    def known(self) -> Known:
        database = sqlite3.connect(f"file:{self.settings.home}/pool.sqlite?mode=ro", uri=True)
        try:
            kept = database.execute("SELECT id, first_seen, record FROM announcements").fetchall()
            pooled = database.execute(
                "SELECT hash, admitted_at FROM rollouts WHERE author <> ?", (self.node_id,)
            ).fetchall()
        finally:
            database.close()
        announced = {}
        for name, first_seen, record in kept:
            one = open_announcement(record)
            hashes = tuple(entry.hash for entry in one.entries)
            is_late = first_seen == one.created
            announced[name] = one.author, one.created, is_late, hashes
        return Known(announced, dict(pooled))


@dataclass(slots=True)
class FaultSwarm:
    """The nodes of one test."""

    directory: Path
    nodes: list[FaultNode] = field(default_factory=list)
    others: list[FaultNode] = field(default_factory=list)
    """Dead for good, or hostile: what they announced nobody has to have."""

    def start(
        self, *bootstrap: str, listen: str = "", is_honest: bool = True, **more: Any
    ) -> FaultNode:
        number = len(self.nodes) + len(self.others)
        settings = LightSettings(
            self.directory / f"node-{number}",
            listen or f"/ip4/127.0.0.1/tcp/{free_port()}",
            bootstrap,
            repair_s=REPAIR_S,
            ping_s=PING_S,
        )
        node = FaultNode(replace(settings, **more))
        (self.nodes if is_honest else self.others).append(node)
        return node.start()

    def bootstrap(self) -> list[str]:
        """Addresses of the first two nodes."""
        return [node.address for node in self.nodes[:2]]

    def start_many(self, num: int) -> None:
        """So many that find each other through the first two."""
        for _ in range(num):
            self.start(*self.bootstrap())
        self.meet()

    def meet(self, nodes: Iterable[FaultNode] | None = None, num_peers: int | None = None) -> None:
        """Waits until each has so many peers; all others, if not said."""
        nodes = list(self.nodes if nodes is None else nodes)
        wanted = len(nodes) - 1 if num_peers is None else num_peers
        for node in nodes:
            node.wait_until(lambda state: len(state["peers"]) >= wanted)

    def share(
        self, num: int = 0, every_s: float = 0.25, nodes: Sequence[FaultNode] | None = None
    ) -> None:
        """Has all share, and waits until they have."""
        num = num or 4 * ROUNDS
        nodes = self.nodes if nodes is None else nodes
        aims = [node.wait_until(bool)["shared"] + num for node in nodes]
        for node in nodes:
            node.share(num, every_s)
        for node, aim in zip(nodes, aims, strict=True):
            node.wait_until(lambda state, aim=aim: state["shared"] >= aim)

    def find(self) -> "Figures":
        """What all of them have now."""
        for node in self.nodes:
            node.wait_until(bool)  # after a restart, too
        return Figures.of(self.nodes)

    def wait_for_all(self) -> "Figures":
        """Returns when nothing is missing, or at the deadline."""
        give_up = time.monotonic() + DEADLINE_S
        while (figures := self.find()).missing and time.monotonic() < give_up:
            time.sleep(LOOK_S)  # between looks at databases
        return figures

    def settle(self, title: str) -> "Figures":
        """Waits until everybody has everything, but for rollouts that it gave up and counted, and
        prints the figures; raises where something is missing at the deadline."""
        figures = self.wait_for_all()
        sys.stdout.write(f"\n{title}: {figures}\n")
        assert not figures.missing, figures.missing
        return figures

    def close(self) -> None:
        for node in (*self.nodes, *self.others):
            node.end()


@dataclass(slots=True)
class Figures:
    """What honest nodes delivered to one another."""

    num_sent: int = 0
    """Pairs of an announcement and another node."""
    num_heard: int = 0
    num_late: int = 0
    """Of these: told by a catalogue."""
    num_wanted: int = 0
    """Pairs of an announced rollout and another node."""
    num_used: int = 0
    in_time: list[float] = field(default_factory=list)
    """Seconds from announcement to pool."""
    late: list[float] = field(default_factory=list)
    """The same of what was told late or announced while the node was not there."""
    peak_mib: float = 0.0
    cpu_s: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    """In words, but for the rollouts below."""
    not_used: Counter[str] = field(default_factory=Counter)
    """Node id -> rollouts that it heard of and that are not in its pool."""

    @classmethod
    def of(cls, nodes: Sequence[FaultNode]) -> "Figures":
        self = cls()
        known = {node.node_id: node.known() for node in nodes}
        started = {node.node_id: node.started for node in nodes}
        truth = {
            name: one
            for of_one in known.values()  # all: an author may have lost its own
            for name, one in of_one.announced.items()
            if one[0] in known
        }
        for name, (author, created, _, hashes) in truth.items():
            if name not in known[author].announced:
                self.missing.append(f"{author[-6:]} forgot that it announced {name.hex()}")
            for node_id in known.keys() - {author}:
                self._add(known[node_id], node_id, name, created, hashes, started[node_id])
        for node in nodes:
            node.measure()
            self.peak_mib = max(self.peak_mib, node.peak_mib)
            self.cpu_s += node.cpu_before_s + node.cpu_s
            counted = node.lost + node.counted()
            self.counted += counted
            num_refused = sum(counted[f"refused {one}"] for one in GIVEN_UP)
            if self.not_used[node.node_id] > num_refused:
                num = self.not_used[node.node_id] - num_refused
                self.missing.append(f"{node.node_id[-6:]} has {num} rollouts not, and says nothing")
        return self

    def _add(
        self,
        known: Known,
        node_id: str,
        name: bytes,
        created: float,
        hashes: tuple[bytes, ...],
        started: float,
    ) -> None:
        self.num_sent += 1
        self.num_wanted += len(hashes)
        heard = known.announced.get(name)
        is_late = heard is not None and heard[2]
        self.num_heard += heard is not None
        self.num_late += is_late
        if heard is None:
            self.missing.append(f"{node_id[-6:]} never heard {name.hex()}")
        for one in hashes:
            if (at := known.rollouts.get(one)) is not None:
                self.num_used += 1
                (self.late if is_late or created < started else self.in_time).append(at - created)
            else:
                self.not_used[node_id] += 1

    def __str__(self) -> str:
        return (
            f"heard {self.num_heard} of {self.num_sent} announcements "
            f"({self.num_late} by catalogue), "
            f"used {self.num_used} of {self.num_wanted} rollouts; to the pool "
            f"p50 {_quantile(self.in_time, 0.5)}, p99 {_quantile(self.in_time, 0.99)}, "
            f"after an absence {_quantile(self.late, 0.5)}, {_quantile(self.late, 0.99)}; "
            f"peak RSS {self.peak_mib:.0f} MiB, {self.cpu_s:.0f} s of CPU of all; counted: "
            + (
                ", ".join(f"{num} {name}" for name, num in sorted(self.counted.items()))
                or "nothing"
            )
        )


def _quantile(seconds: list[float], share: float) -> str:
    ordered = sorted(seconds)
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.2f} s" if ordered else "-"
