"""Who is banned: what it signs is refused, its connections are closed, and none are made again.

A ban holds the author, whoever carries what it signed, and nobody else: what a banned peer would
have carried of others is taken from those who still bring it.

Not covered: a banned person makes a new key, and is a stranger again.
"""

import time
from collections.abc import Callable
from enum import StrEnum

import msgspec

from swarm.database import Database

MAX_BANS = 10_000
"""Beyond it none is added: what an operator decided is not forgotten to make room."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS bans (node_id TEXT PRIMARY KEY, reason TEXT NOT NULL,"
    " by TEXT NOT NULL, at REAL NOT NULL, until REAL)"
)

IsBanned = Callable[[str], bool]
"""Of a node id; from any thread, without touching the disk."""


def nobody(node_id: str) -> bool:
    """The `IsBanned` of a node that bans nobody."""
    return False


class BannedBy(StrEnum):
    """Whose decision a ban is."""

    OPERATOR = "operator"


class TooManyBans(RuntimeError):
    """There are MAX_BANS; the message says what to do."""


class Ban(msgspec.Struct, frozen=True):
    """One peer that is banned."""

    node_id: str
    reason: str
    """For people; as it was given, unescaped."""
    by: str
    """A BannedBy; a later version may know others."""
    at: float
    """Unix seconds of its begin."""
    until: float | None
    """Unix seconds of its end; None: for good."""


class Bans:
    """Bans over restarts. `is_banned` and `bans` from any thread; `ban` and `unban` touch the disk
    and belong off the trio thread (swarm/database.py).

    Only operators ban today. Bans by a score of what the ledger counts belong here, too, under a
    `BannedBy` of their own: `ban` is the one way in, and such a ban must replace none of an
    operator's.
    """

    def __init__(
        self, database: Database, max_bans: int = MAX_BANS, clock: Callable[[], float] = time.time
    ) -> None:
        """Makes its table where it is missing, and reads all bans.

        Args:
            clock: Unix seconds.
        """
        self._database = database
        self._max_bans = max_bans
        self._clock = clock
        with database.transaction():
            database.execute(_TABLE)
            rows = database.execute("SELECT node_id, reason, by, at, until FROM bans").fetchall()
        self._bans = {row[0]: Ban(*row) for row in rows}

    def is_banned(self, node_id: str) -> bool:
        """Whether it is now."""
        ban = self._bans.get(node_id)
        return ban is not None and (ban.until is None or ban.until > self._clock())

    def bans(self) -> tuple[Ban, ...]:
        """All that are in force, the oldest first."""
        return tuple(ban for ban in list(self._bans.values()) if self.is_banned(ban.node_id))

    def ban(
        self,
        node_id: str,
        reason: str,
        for_s: float | None,
        by: BannedBy = BannedBy.OPERATOR,
    ) -> Ban:
        """Bans a peer, on disk on return; a ban that it has is replaced.

        Args:
            for_s: seconds; None: for good.

        Raises:
            TooManyBans: nothing was changed.
        """
        now = self._clock()
        made = Ban(node_id, reason, by, now, None if for_s is None else now + for_s)
        ended = [one.node_id for one in self._bans.values() if not self.is_banned(one.node_id)]
        num_others = len(self._bans.keys() - {node_id, *ended})
        if num_others >= self._max_bans:
            raise TooManyBans(f"{num_others} peers are banned; unban some first")
        with self._database.transaction():
            for one in ended:
                self._database.execute("DELETE FROM bans WHERE node_id = ?", (one,))
            self._database.execute(
                "INSERT OR REPLACE INTO bans (node_id, reason, by, at, until)"
                " VALUES (?, ?, ?, ?, ?)",
                (made.node_id, made.reason, str(made.by), made.at, made.until),
            )
        kept = {one: ban for one, ban in self._bans.items() if one not in {node_id, *ended}}
        self._bans = {**kept, node_id: made}
        return made

    def unban(self, node_id: str) -> bool:
        """Ends a ban, on disk on return; whether there was one."""
        was_banned = self.is_banned(node_id)
        with self._database.transaction():
            self._database.execute("DELETE FROM bans WHERE node_id = ?", (node_id,))
        self._bans = {one: ban for one, ban in self._bans.items() if one != node_id}
        return was_banned
