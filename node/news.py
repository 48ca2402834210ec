"""Tells whoever listens what happens in the node: rounds, evaluations, stages, warnings, peers.

One queue per listener, bounded: who does not take its news in time is let go, and comes again
(rounds that it missed are then told from the history). Nobody else waits for it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import trio

from node.status import HeldOutStatus, LearnerStatus, PeerStatus, RoundReport, Snapshot

MAX_LISTENERS = 16
QUEUE = 256
"""News that one listener may be behind."""
LOOK_EVERY_S = 0.5
"""Between looks at the snapshot, while somebody listens: a stage that is shorter may go untold."""
REFUSALS_EVERY_S = 5.0
_NUMBER = re.compile(r"\d[\d.,]*")


class Event(StrEnum):
    """What happened. Later versions may tell of more."""

    STATUS = "status"
    ROUND = "round"
    EVALUATION = "evaluation"
    WARNINGS = "warnings"
    PEERS = "peers"
    REFUSALS = "refusals"


class StatusNow(msgspec.Struct, frozen=True):
    """Event "status": told first, and when another stage begins, or the learner starts or ends."""

    now: float
    """Unix seconds."""
    learner: LearnerStatus
    peers_connected: int
    paused: bool = False


class WarningsNow(msgspec.Struct, frozen=True):
    """Event "warnings": told first, and when their words change (not for each second in them)."""

    warnings: tuple[str, ...]
    """All."""


class PeersChanged(msgspec.Struct, frozen=True):
    """Event "peers": who came and who went since the last look."""

    came: tuple[PeerStatus, ...]
    left: tuple[str, ...]
    """Node ids."""
    peers_connected: int


class RefusalsMore(msgspec.Struct, frozen=True):
    """Event "refusals": by how much they grew, every 5 s at most."""

    refused: dict[str, int]
    """Reason -> how many more."""


Data = StatusNow | RoundReport | HeldOutStatus | WarningsNow | PeersChanged | RefusalsMore


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of news."""

    event: Event
    data: Data
    id: int | None = None
    """Of a round: its number. A listener that comes again names the last one it heard."""


class TooManyListeners(RuntimeError):
    """As many listen as may."""


class Listener:
    """One who listens, until it is let go."""

    def __init__(self, incoming: trio.MemoryReceiveChannel[Item]) -> None:
        self._incoming = incoming
        self.was_slow = False
        """Whether it was let go for having too much to hear."""

    async def next(self, timeout_s: float) -> Item | None:
        """The next piece of news; None after so many seconds without any.

        Raises:
            trio.EndOfChannel: there will be no more.
        """
        item: Item | None = None
        with trio.move_on_after(timeout_s):
            item = await self._incoming.receive()
        return item


class News:
    """Told by the control process, heard by clients of the API. Used from the trio thread."""

    def __init__(self, max_listeners: int = MAX_LISTENERS, queue: int = QUEUE) -> None:
        self._max_listeners = max_listeners
        self._queue = queue
        self._listeners: dict[Listener, trio.MemorySendChannel[Item]] = {}
        self._someone = trio.Event()
        self._is_closed = False
        self.num_let_go = 0
        """Since the start: listeners that were too slow."""

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """A listener, from now on and until the block ends.

        Raises:
            TooManyListeners: as many listen as may.
        """
        if len(self._listeners) >= self._max_listeners:
            raise TooManyListeners(f"{self._max_listeners} clients listen already")
        outgoing, incoming = trio.open_memory_channel[Item](self._queue)
        listener = Listener(incoming)
        if self._is_closed:
            outgoing.close()
        else:
            self._listeners[listener] = outgoing
            self._someone.set()
        try:
            yield listener
        finally:
            self._let_go(listener)
            incoming.close()

    @property
    def num_listeners(self) -> int:
        """Now."""
        return len(self._listeners)

    def tell(self, item: Item) -> None:
        """To all who listen; never waits."""
        for listener, outgoing in list(self._listeners.items()):
            try:
                outgoing.send_nowait(item)
            except trio.WouldBlock:
                listener.was_slow = True
                self.num_let_go += 1
                self._let_go(listener)

    def close(self) -> None:
        """Ends what all hear: the node stops."""
        self._is_closed = True
        for listener in list(self._listeners):
            self._let_go(listener)

    async def watch(self, snapshot: Callable[[], Snapshot]) -> None:
        """Looks at the node while somebody listens, and tells what has changed. Rounds and
        evaluations are told by whoever hears of them. Runs until it is cancelled."""
        changes = Changes()
        while True:
            if not self._listeners:
                self._someone, changes = trio.Event(), Changes()
                await self._someone.wait()
            for item in changes.look(snapshot(), trio.current_time()):
                self.tell(item)
            await trio.sleep(LOOK_EVERY_S)

    def _let_go(self, listener: Listener) -> None:
        if (outgoing := self._listeners.pop(listener, None)) is not None:
            outgoing.close()


def first_news(snapshot: Snapshot) -> list[Item]:
    """What a new listener hears first, so that it needs nothing else to begin."""
    return [
        Item(Event.STATUS, _status(snapshot)),
        Item(Event.WARNINGS, WarningsNow(snapshot.warnings)),
    ]


class Changes:
    """Compares a snapshot with the one before. The first changes nothing."""

    def __init__(self) -> None:
        self._before: Snapshot | None = None
        self._refusals_at = float("-inf")
        self._refused: dict[str, int] = {}

    def look(self, now: Snapshot, clock_s: float) -> list[Item]:
        """What has changed since the last look.

        Args:
            clock_s: seconds that never jump back.
        """
        before, self._before = self._before, now
        if before is None:
            self._refused, self._refusals_at = dict(now.refused), clock_s
            return []
        found: list[Item] = []
        if _essence(now) != _essence(before):
            found.append(Item(Event.STATUS, _status(now)))
        if _wording(now) != _wording(before):
            found.append(Item(Event.WARNINGS, WarningsNow(now.warnings)))
        found += _peers_changed(before, now)
        if clock_s - self._refusals_at >= REFUSALS_EVERY_S:
            more = Counter(now.refused)
            more.subtract(self._refused)
            self._refused, self._refusals_at = dict(now.refused), clock_s
            if grown := {name: num for name, num in more.items() if num > 0}:
                found.append(Item(Event.REFUSALS, RefusalsMore(grown)))
        return found


def _status(snapshot: Snapshot) -> StatusNow:
    return StatusNow(
        snapshot.now,
        snapshot.learner,
        sum(peer.connected for peer in snapshot.peers),
        snapshot.paused,
    )


def _essence(snapshot: Snapshot) -> tuple[LearnerStatus, bool]:
    """Without what changes by itself."""
    learner = snapshot.learner
    down = None if learner.restart_in_s is None else 0.0
    learner = msgspec.structs.replace(learner, stage_age_s=0.0, restart_in_s=down)
    return learner, snapshot.paused


def _wording(snapshot: Snapshot) -> tuple[str, ...]:
    return tuple(_NUMBER.sub("0", warning) for warning in snapshot.warnings)


def _peers_changed(before: Snapshot, now: Snapshot) -> list[Item]:
    was = {peer.node_id for peer in before.peers if peer.connected}
    there = {peer.node_id: peer for peer in now.peers if peer.connected}
    if there.keys() == was:
        return []
    came = tuple(peer for node_id, peer in there.items() if node_id not in was)
    left = tuple(sorted(was - there.keys()))
    return [Item(Event.PEERS, PeersChanged(came, left, len(there)))]
