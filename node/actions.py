"""What an operator may change in a node while it runs: bans, a pause, a checkpoint, its end.

A pause is kept in the home (`paused`): a node that is started again, by whom or what ever, is
paused as its operator left it, and says so. `sapo run` has no part in it.
"""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from node.store import Store
from node.supervisor import LearnerAbsent
from node.threads import in_thread
from swarm.bans import TooManyBans
from swarm.disk import fsync_directory, write_durably
from swarm.identity import is_node_id

logger = logging.getLogger(__name__)

PAUSE_FILE = "paused"
DROP_S = 5.0
"""For closing a peer's connections; they are closed again while there are any."""


class CannotDo(Exception):
    """An action that is refused; the message says why."""

    def __init__(self, status: int, detail: str) -> None:
        """
        Args:
            status: of HTTP.
        """
        super().__init__(detail)
        self.status = status
        self.detail = detail


class BanDone(msgspec.Struct, frozen=True):
    """A ban that is in force from now on."""

    node_id: str
    banned_until: float | None
    """Unix seconds; None: for good."""
    purged: int
    """Rollouts of the peer that were removed."""


class UnbanDone(msgspec.Struct, frozen=True):
    """The end of a ban."""

    node_id: str
    was_banned: bool


class PauseState(msgspec.Struct, frozen=True):
    """Whether new rounds begin."""

    paused: bool


class CheckpointDone(msgspec.Struct, frozen=True):
    """A checkpoint that is on the disk."""

    round: int
    """Rounds that the policy in it has made."""


class Stopping(msgspec.Struct, frozen=True):
    """The node ends."""

    stopping: bool = True


class Hears(Protocol):
    """Intake, as far as a ban concerns it."""

    def drop_author(self, author: str) -> int:
        """See Intake."""
        ...

    def hear_again(self, author: str) -> None:
        """See Intake."""
        ...

    def wake(self) -> None:
        """See Intake."""
        ...


class AsksAgain(Protocol):
    """CatchUp, as far as the end of a ban concerns it."""

    def ask_again(self) -> None:
        """See CatchUp."""
        ...


class Learner(Protocol):
    """Supervisor and NoLearner."""

    async def set_paused(self, is_paused: bool) -> None:
        """See Supervisor."""
        ...

    async def checkpoint(self) -> int:
        """See Supervisor."""
        ...


class Actions:
    """The actions of one node. Called from the trio thread; each is done on return, but for the end
    of the node, which begins."""

    def __init__(
        self,
        home: Path,
        own_id: str,
        store: Store,
        drop: Callable[[str], Awaitable[None]],
        intake: Hears,
        catch_up: AsksAgain,
        learner: Learner,
        stop: Callable[[], None],
        is_paused: bool = False,
    ) -> None:
        """
        Args:
            own_id: node id of this node.
            drop: ends all connections with a peer.
            stop: begins the end of the node, as SIGTERM does.
            is_paused: whether the learner began so.
        """
        self._home = home
        self._own_id = own_id
        self._store = store
        self._drop = drop
        self._intake = intake
        self._catch_up = catch_up
        self._learner = learner
        self._stop = stop
        self._pausing = trio.Lock()
        self.is_paused = is_paused

    async def ban(self, node_id: str, reason: str, for_s: float | None) -> BanDone:
        """Bans a peer from now on; a ban that it has is replaced.

        Args:
            for_s: seconds; None: for good.

        Raises:
            CannotDo: it is no other node's id, or too many are banned.
        """
        self._check_id(node_id)
        if node_id == self._own_id:
            raise CannotDo(409, "that is this node itself")
        store = self._store
        try:
            ban = await store.offload(store.bans.ban, node_id, reason, for_s)
        except TooManyBans as error:
            raise CannotDo(409, str(error)) from None
        self._intake.drop_author(node_id)
        with trio.move_on_after(DROP_S):
            await self._drop(node_id)
        purged = await store.offload(store.pool.purge, node_id)
        await store.offload(store.announcements.purge, node_id)
        self._intake.wake()  # others' rollouts may take the place
        return BanDone(node_id, ban.until, purged)

    async def unban(self, node_id: str) -> bool:
        """Ends a ban; returns whether there was one. Undoes also one that has ended by itself.

        Raises:
            CannotDo: it is no node's id.
        """
        self._check_id(node_id)
        store = self._store
        was_banned = await store.offload(store.bans.unban, node_id)
        await store.offload(store.pool.forget_purged, node_id)
        self._intake.hear_again(node_id)
        self._catch_up.ask_again()
        return was_banned

    async def pause(self, is_paused: bool) -> None:
        """Begins or ends a pause: a round that is under way is finished, none begins. Peers are
        served as ever.

        Raises:
            CannotDo: this node makes no rounds.
            OSError: it cannot be kept; nothing was changed.
        """
        async with self._pausing:
            try:
                await self._learner.set_paused(is_paused)
            except LearnerAbsent as error:
                raise CannotDo(409, str(error)) from None
            try:
                await in_thread(keep_paused, self._home, is_paused)
            except OSError:
                await self._learner.set_paused(self.is_paused)
                raise
            self.is_paused = is_paused

    async def checkpoint(self) -> int:
        """Has a checkpoint written when the round under way is finished; returns its round.

        Raises:
            CannotDo: no learner runs that could, or it ended before.
        """
        try:
            return await self._learner.checkpoint()
        except LearnerAbsent as error:
            raise CannotDo(503, str(error)) from None

    async def shutdown(self) -> None:
        """Begins the end of the node, as SIGTERM does."""
        await trio.lowlevel.checkpoint()
        self._stop()

    def _check_id(self, node_id: str) -> None:
        if not is_node_id(node_id):
            raise CannotDo(404, "that is no node's id: write it as GET /api/v1/peers does")


def is_kept_paused(home: Path) -> bool:
    """Whether a node of this home begins in a pause."""
    return (home / PAUSE_FILE).exists()


def keep_paused(home: Path, is_paused: bool) -> None:
    """Has the node of this home begin in a pause, or not; on disk on return.

    Raises:
        OSError: it cannot be written.
    """
    if is_paused:
        write_durably(home / PAUSE_FILE, "paused by its operator; POST /api/v1/resume ends it\n")
    else:
        (home / PAUSE_FILE).unlink(missing_ok=True)
        fsync_directory(home)
