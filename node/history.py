"""The reports of all rounds and evaluations, kept over restarts in the node's database."""

import msgspec

from node.status import HeldOutStatus, RoundReport
from swarm.database import Database

_encode = msgspec.msgpack.Encoder().encode
_decode_report = msgspec.msgpack.Decoder(RoundReport).decode
_decode_heldout = msgspec.msgpack.Decoder(HeldOutStatus).decode


class History:
    """Synchronous; like the pool it is used from the database's thread only."""

    def __init__(self, database: Database) -> None:
        """Makes its tables where they are missing."""
        self._database = database
        with database.transaction():
            for table in ("rounds", "heldout"):
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} "
                    "(round INTEGER PRIMARY KEY, report BLOB NOT NULL)"
                )

    def put_round(self, report: RoundReport) -> None:
        """Keeps a round; one that is made again after a restart replaces its first try."""
        self._put("rounds", report.round, _encode(report))

    def put_heldout(self, found: HeldOutStatus) -> None:
        """Keeps an evaluation."""
        self._put("heldout", found.round, _encode(found))

    def rounds(self, since: int = 0, limit: int = 1000) -> list[RoundReport]:
        """Up to `limit` rounds after round `since`, oldest first."""
        rows = self._database.execute(
            "SELECT report FROM rounds WHERE round > ? ORDER BY round LIMIT ?", (since, limit)
        )
        return [_decode_report(blob) for (blob,) in rows]

    def last_rounds(self, limit: int) -> list[RoundReport]:
        """The newest `limit` rounds, oldest first."""
        rows = self._database.execute(
            "SELECT report FROM rounds ORDER BY round DESC LIMIT ?", (limit,)
        )
        return [_decode_report(blob) for (blob,) in rows][::-1]

    def heldout(self) -> list[HeldOutStatus]:
        """All evaluations, oldest first."""
        rows = self._database.execute("SELECT report FROM heldout ORDER BY round")
        return [_decode_heldout(blob) for (blob,) in rows]

    def _put(self, table: str, number: int, blob: bytes) -> None:
        with self._database.transaction():
            self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (number, blob))
