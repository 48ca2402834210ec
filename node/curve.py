"""The figures of all rounds as at most so many points, for charts.

A point stands for all rounds whose number minus 1, divided by its width, is the same; the width is
the smallest power of two with which all fit. So points do not move while the node learns: now and
then two neighbours become one. Mean, least and greatest value are kept, so that no peak is lost.
"""

import math
from collections.abc import Collection

import msgspec

from node.status import RoundReport
from swarm.database import Database


class Spread(msgspec.Struct, frozen=True):
    """One figure over the rounds of a point."""

    mean: float
    min: float
    max: float


class RoundPoint(msgspec.Struct, frozen=True):
    """Some rounds, one after another. A figure that none of them has, or that was not asked for,
    is null."""

    first_round: int
    last_round: int
    num_rounds: int
    finished_at: float
    """Unix seconds of the last one's end."""
    own_reward: Spread | None
    """See RoundReport, as for all that follow."""
    batch_reward: Spread | None
    shaped_reward: Spread | None
    zero_advantage_share: Spread | None
    finished_share: Spread | None
    num_unscorable: Spread | None
    entropy: Spread | None
    loss: Spread | None
    gradient_norm: Spread | None
    learning_rate: Spread | None
    clip_share: Spread | None
    effective_sample_size: Spread | None
    kl_to_start: Spread | None
    own_tokens: Spread | None
    tokens_per_s: Spread | None
    round_s: Spread | None
    """Seconds of a whole round."""
    num_groups: Spread | None
    num_replayed: Spread | None
    foreign_wanted: Spread | None
    foreign_groups_used: Spread | None
    num_shared: Spread | None


HEAD = 4
"""Fields of a RoundPoint before its figures."""
FIGURES = RoundPoint.__struct_fields__[HEAD:]

_decode_report = msgspec.msgpack.Decoder(RoundReport).decode


class Curve:
    """A table of the figures alone, derived from that of the reports: made anew where it lacks
    rounds, or where a version with other figures made it. Used from the database's thread."""

    def __init__(self, database: Database, reports: str) -> None:
        """
        Args:
            reports: name of the table (round, report) of all reports.
        """
        self._database = database
        self._table = f"{reports}_figures"
        wanted = ["round", "finished_at", *FIGURES]
        found = database.execute("SELECT name FROM pragma_table_info(?)", (self._table,)).fetchall()
        with database.transaction():
            if found and [name for (name,) in found] != wanted:
                database.execute(f"DROP TABLE {self._table}")
            columns = ", ".join(f"{name} REAL" for name in wanted[1:])
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} (round INTEGER PRIMARY KEY, {columns})"
            )
            rows = database.execute(
                f"SELECT report FROM {reports} WHERE round NOT IN (SELECT round FROM {self._table})"
            )
            for (blob,) in rows:
                self.put(_decode_report(blob))

    def put(self, report: RoundReport) -> None:
        """Keeps a round's figures, within a transaction."""
        values = [report.finished_at, *(getattr(report, name) for name in FIGURES)]
        marks = ", ".join("?" * (len(FIGURES) + 2))
        self._database.execute(
            f"INSERT OR REPLACE INTO {self._table} VALUES ({marks})",
            (report.round, *map(_finite, values)),
        )

    def forget_after(self, number: int) -> None:
        """Forgets the rounds after that one, within a transaction."""
        self._database.execute(f"DELETE FROM {self._table} WHERE round > ?", (number,))

    def points(self, since: int, most: int, figures: Collection[str] = FIGURES) -> list[RoundPoint]:
        """The rounds after round `since` as at most `most` points, oldest first.

        Args:
            figures: of FIGURES: the others are left out, which is quicker.
        """
        first, last = self._database.execute(
            f"SELECT min(round), max(round) FROM {self._table} WHERE round > ?", (since,)
        ).fetchone()
        if first is None:
            return []
        width = width_for(first, last, most)
        spreads = ", ".join(
            f"avg({name}), min({name}), max({name})" if name in figures else "NULL, NULL, NULL"
            for name in FIGURES
        )
        rows = self._database.execute(
            f"SELECT min(round), max(round), count(*), max(finished_at), {spreads}"
            f" FROM {self._table} WHERE round > ? GROUP BY (round - 1) / ? ORDER BY 1",
            (since, width),
        )
        return [RoundPoint(*row[:HEAD], *_spreads(row[HEAD:])) for row in rows]


def width_for(first: int, last: int, most: int) -> int:
    """The smallest power of two of rounds in a point so that rounds from `first` to `last` fit into
    `most` points."""
    width = 1
    while (last - 1) // width - (first - 1) // width + 1 > most:
        width *= 2
    return width


def _spreads(values: tuple[float | None, ...]) -> list[Spread | None]:
    found: list[Spread | None] = []
    for place in range(0, len(values), 3):
        mean, least, greatest = values[place : place + 3]
        if mean is None or least is None or greatest is None:
            found.append(None)
        else:
            found.append(Spread(mean, least, greatest))
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
