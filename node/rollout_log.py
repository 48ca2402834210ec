"""Rollouts kept to be read by people, and what became of them (node/rollout_view.py).

Kept beside the pool, since most of what is worth reading is not in it: own rollouts that nobody is
offered, peers' that were refused, those that have expired. Bounded: own ones, admitted ones and
refused ones may take a third of the bytes each, so that no flood of one kind hides the others.

Not kept: what was refused before it was fetched, or is no rollout at all (the refusals are
counted), and answers to held-out questions.
"""

import time
from collections.abc import Callable, Sequence
from enum import IntEnum

import msgspec

from node.rollout_view import (
    Fate,
    JudgedAnswers,
    Kind,
    RolloutSummary,
    RolloutText,
    RolloutView,
    of_foreign,
    of_own,
)
from node.status import ForeignFate, RoundReport
from rewards.question import Answer, Expansion, Question, Verdict
from swarm.database import Database
from swarm.intake import Outcome
from swarm.pool import Pool
from swarm.refusal import Refusal
from swarm.rollout import Rollout

MAX_ROWS = 5000
"""Of each part."""


class _Part(IntEnum):
    OWN = 0
    ADMITTED = 1
    REFUSED = 2


_PARTS = {Kind.OWN: (_Part.OWN,), Kind.FOREIGN: (_Part.ADMITTED, _Part.REFUSED)}
_TABLES = (
    "CREATE TABLE IF NOT EXISTS shown (number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " part INTEGER NOT NULL, hash BLOB NOT NULL, author TEXT NOT NULL, task TEXT NOT NULL,"
    " fate TEXT NOT NULL, round INTEGER, reason TEXT, num_bytes INTEGER NOT NULL,"
    " summary BLOB NOT NULL, body BLOB NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS shown_hash ON shown (hash)",
    "CREATE INDEX IF NOT EXISTS shown_part ON shown (part, number)",
)
_encode = msgspec.msgpack.Encoder().encode
_decode_summary = msgspec.msgpack.Decoder(RolloutSummary).decode
_decode_text = msgspec.msgpack.Decoder(RolloutText).decode


class RolloutLog:
    """The rollouts kept to be read. Like the pool it is used from the database's thread only."""

    def __init__(
        self,
        database: Database,
        pool: Pool,
        max_bytes: int,
        max_rows: int = MAX_ROWS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Makes its table where it is missing.

        Args:
            pool: says which foreign ones still wait to be used.
            max_bytes: of all; 0 keeps none.
            max_rows: of each part.
            clock: Unix seconds.
        """
        self._database = database
        self._pool = pool
        self._max_bytes = max_bytes // len(_Part)
        self._max_rows = max_rows if max_bytes else 0
        self._clock = clock
        with database.transaction():
            for statement in _TABLES:
                database.execute(statement)
            for part in _Part:
                self._bound(part)

    def add_own(self, rollouts: Sequence[tuple[RolloutSummary, RolloutText]]) -> None:
        """Keeps the own rollouts of a round."""
        with self._database.transaction():
            for summary, text in rollouts:
                self._put(_Part.OWN, summary, text)
            self._bound(_Part.OWN)

    def add_foreign(self, outcome: Outcome) -> None:
        """Keeps a rollout that was fetched, if its bytes are one. What is known already, stays as
        it is, but for what was refused before and is admitted now."""
        if outcome.seen.rollout is None or outcome.refusal is Refusal.SEEN:
            return
        part = _Part.ADMITTED if outcome.refusal is None else _Part.REFUSED
        summary, text = of_foreign(outcome, outcome.seen.rollout)
        with self._database.transaction():
            known = self._database.execute(
                "SELECT part FROM shown WHERE hash = ?", (summary.hash,)
            ).fetchone()
            if known is None or known == (_Part.REFUSED,):
                self._put(part, summary, text)
                self._bound(part)

    def note_round(self, report: RoundReport) -> None:
        """Writes down what the round did with the foreign rollouts that were drawn for it."""
        with self._database.transaction():
            for group in report.foreign:
                is_used = group.fate is ForeignFate.USED
                fate, reason = (Fate.USED, None) if is_used else (Fate.REFUSED, group.fate.value)
                self._database.execute(
                    "UPDATE shown SET fate = ?, reason = ?, round = ? WHERE hash = ? AND part = ?",
                    (fate, reason, report.round, group.hash, _Part.ADMITTED),
                )

    def newest(
        self,
        kind: Kind | None,
        limit: int,
        before: int | None = None,
        author: str | None = None,
        task: str | None = None,
    ) -> list[RolloutSummary]:
        """Up to `limit` rollouts, newest first, of those with a number below `before`."""
        parts = _PARTS[kind] if kind is not None else tuple(_Part)
        where, values = [f"part IN ({', '.join(str(int(part)) for part in parts)})"], []
        for condition, value in (("number <", before), ("author =", author), ("task =", task)):
            if value is not None:
                where.append(f"{condition} ?")
                values.append(value)
        rows = self._database.execute(
            "SELECT number, fate, round, reason, summary FROM shown"
            f" WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?",
            (*values, limit),
        ).fetchall()
        return self._with_fates([self._summary(*row) for row in rows])

    def find(self, hash: bytes) -> RolloutView | None:
        """The whole rollout, if it is kept."""
        row = self._database.execute(
            "SELECT number, fate, round, reason, summary, body FROM shown WHERE hash = ?", (hash,)
        ).fetchone()
        if row is None:
            return None
        *head, body = row
        (summary,) = self._with_fates([self._summary(*head)])
        text = _decode_text(body)
        return RolloutView(**msgspec.structs.asdict(summary), **msgspec.structs.asdict(text))

    def _summary(
        self, number: int, fate: str, round_number: int | None, reason: str | None, blob: bytes
    ) -> RolloutSummary:
        summary = _decode_summary(blob)
        return msgspec.structs.replace(
            summary,
            number=number,
            age_s=max(0.0, self._clock() - summary.seen),
            fate=Fate(fate),
            round=round_number,
            reason=reason,
        )

    def _with_fates(self, summaries: list[RolloutSummary]) -> list[RolloutSummary]:
        """What was admitted may have been drawn or have expired since: the pool knows."""
        is_used = self._pool.used([one.hash for one in summaries if one.fate is Fate.IN_POOL])
        now = {True: Fate.DRAWN, False: Fate.IN_POOL, None: Fate.GONE}
        return [
            msgspec.structs.replace(one, fate=now[is_used.get(one.hash)])
            if one.fate is Fate.IN_POOL
            else one
            for one in summaries
        ]

    def _put(self, part: _Part, summary: RolloutSummary, text: RolloutText) -> None:
        head, body = _encode(summary), _encode(text)
        self._database.execute(
            "INSERT OR REPLACE INTO shown"
            " (part, hash, author, task, fate, round, reason, num_bytes, summary, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(part, summary.hash, summary.author, summary.task),
                *(summary.fate, summary.round, summary.reason),
                *(len(head) + len(body), head, body),
            ),
        )

    def _bound(self, part: _Part) -> None:
        """Deletes the oldest of a part until the rest is within both bounds."""
        num_bytes, num_rows = self._database.execute(
            "SELECT coalesce(sum(num_bytes), 0), count(*) FROM shown WHERE part = ?", (part,)
        ).fetchone()
        if num_bytes <= self._max_bytes and num_rows <= self._max_rows:
            return
        last = 0
        for number, size in self._database.execute(
            "SELECT number, num_bytes FROM shown WHERE part = ? ORDER BY number", (part,)
        ):
            if num_bytes <= self._max_bytes and num_rows <= self._max_rows:
                break
            last, num_bytes, num_rows = number, num_bytes - size, num_rows - 1
        self._database.execute("DELETE FROM shown WHERE part = ? AND number <= ?", (part, last))


class OwnRollouts:
    """Collects the own rollouts of the round under way, as the learner asks for its parts. Used
    from the trio thread, but for `hear_kept`."""

    def __init__(self, author: str, model: str, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            author: this node's id.
            clock: Unix seconds.
        """
        self._author = author
        self._model = model
        self._clock = clock
        self._round = 0
        self._asked: dict[Question, Expansion] = {}
        self._judged: dict[Question, JudgedAnswers] = {}
        self._shared: dict[Question, tuple[Rollout, bytes]] = {}

    def asked(self, round_number: int, expansions: Sequence[Expansion]) -> None:
        """The learner was given training questions; those of an earlier round are forgotten."""
        if round_number != self._round:
            self._begin(round_number)
        self._asked.update((one.question, one) for one in expansions)

    def judged(
        self,
        rollouts: Sequence[tuple[Question, Sequence[Answer]]],
        verdicts: Sequence[Sequence[Verdict]],
    ) -> None:
        """Its answers were judged. Those to other questions (held-out ones) are not kept."""
        now = self._clock()
        for (question, answers), found in zip(rollouts, verdicts, strict=True):
            if question in self._asked:
                self._judged[question] = JudgedAnswers(answers, found, now)

    def hear_kept(self, rollout: Rollout, hash: bytes) -> None:
        """A rollout was signed for peers (swarm/share.py). Called from the database's thread."""
        self._shared[rollout.question] = rollout, hash

    def take(self, round_number: int) -> list[tuple[RolloutSummary, RolloutText]]:
        """What was collected of a round that is finished."""
        found = []
        if round_number == self._round:
            found = [
                of_own(
                    self._author,
                    self._model,
                    round_number,
                    self._asked[question],
                    self._judged[question],
                    self._shared.get(question),
                )
                for question in self._judged
            ]
        self._begin(0)
        return found

    def _begin(self, round_number: int) -> None:
        self._round = round_number
        self._asked, self._judged, self._shared = {}, {}, {}
