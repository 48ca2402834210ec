"""The reports of all rounds and evaluations, kept over restarts in the node's database."""

from collections.abc import Collection

import msgspec

from node.curve import FIGURES, Curve, RoundPoint
from node.status import HeldOutStatus, RoundReport
from swarm.database import Database

_encode = msgspec.msgpack.Encoder().encode
_decode_report = msgspec.msgpack.Decoder(RoundReport).decode
_decode_heldout = msgspec.msgpack.Decoder(HeldOutStatus).decode


class History:
    """Synchronous; like the pool it is used from the database's thread only."""

    def __init__(self, database: Database, of: str = "") -> None:
        """Makes its tables where they are missing.

        Args:
            of: begins their names: what a fixed model did is kept apart from what was trained in
                the same home, since both count their rounds from 1.
        """
        self._database = database
        self._rounds, self._heldout = f"{of}rounds", f"{of}heldout"
        with database.transaction():
            for table in (self._rounds, self._heldout):
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} "
                    "(round INTEGER PRIMARY KEY, report BLOB NOT NULL)"
                )
        self._curve = Curve(database, self._rounds)

    def put_round(self, report: RoundReport) -> None:
        """Keeps a round. One that is made again after a restart replaces its first try, and what
        followed on that is forgotten: the policy went back to before it."""
        with self._database.transaction():
            self._put(self._rounds, report.round, _encode(report))
            self._database.execute(f"DELETE FROM {self._rounds} WHERE round > ?", (report.round,))
            self._curve.put(report)
            self._curve.forget_after(report.round)

    def put_heldout(self, found: HeldOutStatus) -> None:
        """Keeps an evaluation."""
        with self._database.transaction():
            self._put(self._heldout, found.round, _encode(found))

    def rounds(self, since: int = 0, limit: int = 1000) -> list[RoundReport]:
        """Up to `limit` rounds after round `since`, oldest first."""
        rows = self._database.execute(
            f"SELECT report FROM {self._rounds} WHERE round > ? ORDER BY round LIMIT ?",
            (since, limit),
        )
        return [_decode_report(blob) for (blob,) in rows]

    def points(self, since: int, most: int, figures: Collection[str] = FIGURES) -> list[RoundPoint]:
        """The rounds after round `since` as at most `most` points (node/curve.py)."""
        return self._curve.points(since, most, figures)

    def last_rounds(self, limit: int) -> list[RoundReport]:
        """The newest `limit` rounds, oldest first."""
        rows = self._database.execute(
            f"SELECT report FROM {self._rounds} ORDER BY round DESC LIMIT ?", (limit,)
        )
        return [_decode_report(blob) for (blob,) in rows][::-1]

    def heldout(self) -> list[HeldOutStatus]:
        """All evaluations, oldest first."""
        rows = self._database.execute(f"SELECT report FROM {self._heldout} ORDER BY round")
        return [_decode_heldout(blob) for (blob,) in rows]

    def _put(self, table: str, number: int, blob: bytes) -> None:
        self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (number, blob))
