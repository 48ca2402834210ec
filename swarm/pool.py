"""Rollouts at hand, own and foreign, on disk: bounded, deduplicated, expiring, over restarts.

A cache: losing it costs what peers will send again. Used off the trio thread (swarm/database.py).
"""

import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from rewards.question import Example, Expansion, Question
from swarm.database import Database
from swarm.protocol import CLOCK_TOLERANCE_S
from swarm.refusal import Refusal
from swarm.rollout import Rollout
from swarm.seldom import Seldom
from swarm.wanted import Weigh, alike, draw_order
from swarm.wire import WireError, open_rollout, rollout_hash

logger = logging.getLogger(__name__)

MAX_ROWS = 100_000
MAX_SEEN = 200_000
_EVICTED = "%d rollouts gave way to newer ones before they expired (swarm.pool_mib)"
"""Hashes remembered of what was admitted or refused; beyond, those that end first are forgotten."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS rollouts (hash BLOB PRIMARY KEY, kind INTEGER NOT NULL,"
    " author TEXT NOT NULL, sequence INTEGER NOT NULL, task TEXT NOT NULL,"
    " question_index INTEGER NOT NULL, text TEXT, truth TEXT, correct BLOB NOT NULL,"
    " first_seen REAL NOT NULL, admitted_at REAL NOT NULL, used_at REAL, expires REAL NOT NULL,"
    " num_bytes INTEGER NOT NULL, record BLOB NOT NULL, prompting BLOB)",
    "CREATE INDEX IF NOT EXISTS rollouts_order"
    " ON rollouts (kind, first_seen, author, expires, num_bytes, hash)",
    "CREATE INDEX IF NOT EXISTS rollouts_expires ON rollouts (expires)",
    "CREATE TABLE IF NOT EXISTS seen (hash BLOB PRIMARY KEY, content BLOB, author TEXT,"
    " until REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS seen_content ON seen (content) WHERE content IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS seen_until ON seen (until)",
)

_encode = msgspec.msgpack.Encoder().encode
_decode_prompting = msgspec.msgpack.Decoder(tuple[str, tuple[Example, ...]]).decode


class _Kind(IntEnum):
    """In the order in which rows give way."""

    USED = 0
    FRESH = 1
    OWN = 2


@dataclass(frozen=True, slots=True)
class Pooled:
    """A foreign rollout that was judged here, drawn to be learned from."""

    hash: bytes
    rollout: Rollout
    expansion: Expansion
    correct: tuple[bool, ...]
    """What this node's own verifier found, one per answer."""
    first_seen: float
    """Unix seconds of its announcement's arrival."""


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """What lies in the pool now."""

    fresh: int = 0
    """Foreign, not used yet."""
    used: int = 0
    """Foreign, used: kept to be served."""
    own: int = 0
    num_bytes: int = 0
    """Of all: records, and the texts kept with them."""


class Pool:
    """Own rollouts to be served, foreign ones to be learned from and served.

    At the bounds used foreign ones give way first, then fresh foreign ones, then own ones, the
    oldest first each. Own ones may take half of the bytes, so that they never keep all others out.
    """

    def __init__(
        self,
        database: Database,
        lifetime_s: float,
        max_bytes: int,
        max_rows: int = MAX_ROWS,
        max_seen: int = MAX_SEEN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Makes its tables where they are missing.

        Args:
            lifetime_s: of a rollout, from the swarm's rules.
            max_bytes: of records and the texts kept with them; the file is somewhat larger.
            clock: Unix seconds.
        """
        self._database = database
        self._lifetime_s = lifetime_s
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._max_seen = max_seen
        self._clock = clock
        self.num_evicted = 0
        """Since the start: that had to give way before they expired."""
        self._evicted = Seldom(logger, _EVICTED)
        with database.transaction():
            for statement in _TABLES:
                database.execute(statement)
            columns = database.execute("SELECT name FROM pragma_table_info('rollouts')").fetchall()
            if ("prompting",) not in columns:  # of schema 1
                database.execute("ALTER TABLE rollouts ADD COLUMN prompting BLOB")
            (self._num_seen,) = database.execute("SELECT count(*) FROM seen").fetchone()

    def add_foreign(
        self,
        record: bytes,
        rollout: Rollout,
        expansion: Expansion,
        correct: Sequence[bool],
        first_seen: float,
    ) -> Refusal | None:
        """Takes a rollout that admission passed; or SEEN or COPIED, where it came meanwhile."""
        expires = min(self._end(rollout), first_seen + self._lifetime_s)
        with self._database.transaction():
            if known := self._known(rollout_hash(record), rollout):
                return known
            self._insert(_Kind.FRESH, record, rollout, expansion, correct, first_seen, expires)
            self._bound()
        return None

    def add_own(self, record: bytes, rollout: Rollout, correct: Sequence[bool]) -> None:
        """Keeps an own rollout to be served until it expires."""
        with self._database.transaction():
            if self._known(rollout_hash(record), rollout) is not Refusal.SEEN:
                expires = self._end(rollout)
                self._insert(_Kind.OWN, record, rollout, None, correct, rollout.created, expires)
                self._bound()

    def known(self, hash: bytes, rollout: Rollout) -> Refusal | None:
        """SEEN for a hash that was added or refused, COPIED where somebody else is known to have
        given the same answers to the same question.

        Not noticed: a copy with a blank more, one that comes before what it copies, and one of
        what was forgotten (expired, or beyond the bound).
        """
        with self._database.transaction():
            return self._known(hash, rollout)

    def has_seen(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Those of the hashes that were added or refused before."""
        with self._database.transaction():
            return {one for one in hashes if self._is_seen(one)}

    def refuse(self, hash: bytes, until: float) -> None:
        """Remembers what need not be fetched again until then (Unix seconds)."""
        with self._database.transaction():
            self._num_seen += self._database.execute(
                "INSERT OR IGNORE INTO seen VALUES (?, NULL, NULL, ?)", (hash, until)
            ).rowcount
            self._bound_seen()

    def find(self, hashes: Iterable[bytes]) -> dict[bytes, bytes]:
        """The signed bytes of those that are here and have not expired: what peers are served."""
        found: dict[bytes, bytes] = {}
        with self._database.transaction():
            for one in hashes:
                row = self._database.execute(
                    "SELECT record FROM rollouts WHERE hash = ? AND expires > ?",
                    (one, self._clock()),
                ).fetchone()
                if row is not None:
                    found[one] = row[0]
        return found

    def draw(
        self, num: int, max_per_author: int, rng: random.Random, weigh: Weigh = alike
    ) -> list[Pooled]:
        """Up to `num` fresh rollouts, by weight among those that the cap on each author leaves.

        The same contents and the same generator give the same draw, in whatever order they came.
        They are marked as used in the same transaction: each is handed out once, whatever happens
        to the process afterwards.
        """
        with self._database.transaction():
            taken: Counter[str] = Counter()
            drawn: list[Pooled] = []
            for hash, author in draw_order(self._fresh(weigh), rng):
                if len(drawn) == num:
                    break
                if taken[author] < max_per_author and (pooled := self._use(hash)):
                    taken[author] += 1
                    drawn.append(pooled)
        return drawn

    def count_drawable(self, num: int, max_per_author: int, weigh: Weigh = alike) -> int:
        """How many `draw` would give now."""
        fresh = self.fresh_by_author(weigh).values()
        return min(num, sum(min(count, max_per_author) for count in fresh))

    def fresh_by_author(self, weigh: Weigh = alike) -> dict[str, int]:
        """Fresh rollouts that have a weight, of each author that has any."""
        with self._database.transaction():
            return dict(Counter(author for (_, author), weight in self._fresh(weigh) if weight > 0))

    def purge(self, author: str) -> int:
        """Deletes the foreign rollouts of an author; returns how many that were. They stay known,
        so that a copy under another name is refused as one."""
        with self._database.transaction():
            return self._database.execute(
                "DELETE FROM rollouts WHERE author = ? AND kind <> ?", (author, _Kind.OWN)
            ).rowcount

    def forget_purged(self, author: str) -> None:
        """Rollouts of an author that are known and not here may be admitted again."""
        with self._database.transaction():
            self._num_seen -= self._database.execute(
                "DELETE FROM seen WHERE author = ? AND hash NOT IN (SELECT hash FROM rollouts)",
                (author,),
            ).rowcount

    def used(self, hashes: Iterable[bytes]) -> dict[bytes, bool]:
        """Of those of the foreign rollouts that are here: whether they were handed out."""
        found: dict[bytes, bool] = {}
        with self._database.transaction():
            for one in hashes:
                row = self._database.execute(
                    "SELECT kind FROM rollouts WHERE hash = ? AND kind <> ? AND expires > ?",
                    (one, _Kind.OWN, self._clock()),
                ).fetchone()
                if row is not None:
                    found[one] = row[0] == _Kind.USED
        return found

    def counts(self) -> PoolCounts:
        """What has not expired."""
        with self._database.transaction():
            self._expire()
            rows = self._database.execute(
                "SELECT kind, count(*), sum(num_bytes) FROM rollouts GROUP BY kind"
            ).fetchall()
        nums = {kind: num for kind, num, _ in rows}
        return PoolCounts(
            fresh=nums.get(_Kind.FRESH, 0),
            used=nums.get(_Kind.USED, 0),
            own=nums.get(_Kind.OWN, 0),
            num_bytes=sum(num_bytes for _, _, num_bytes in rows),
        )

    def _end(self, rollout: Rollout) -> float:
        return rollout.created + self._lifetime_s + CLOCK_TOLERANCE_S

    def _is_seen(self, hash: bytes) -> bool:
        """What is in the pool is, too, where it was forgotten beyond the bound."""
        rows = self._database.execute(
            "SELECT 1 FROM seen WHERE hash = ? UNION ALL SELECT 1 FROM rollouts WHERE hash = ?",
            (hash, hash),
        )
        return rows.fetchone() is not None

    def _known(self, hash: bytes, rollout: Rollout) -> Refusal | None:
        if self._is_seen(hash):
            return Refusal.SEEN
        copied = self._database.execute(
            "SELECT 1 FROM seen WHERE content = ? AND author <> ?",
            (_content(rollout), rollout.author),
        )
        return Refusal.COPIED if copied.fetchone() is not None else None

    def _insert(
        self,
        kind: _Kind,
        record: bytes,
        rollout: Rollout,
        expansion: Expansion | None,
        correct: Sequence[bool],
        first_seen: float,
        expires: float,
    ) -> None:
        text, truth = (expansion.text, expansion.truth) if expansion else (None, None)
        prompting = None
        if expansion and (expansion.system or expansion.examples):
            prompting = _encode((expansion.system, expansion.examples))
        num_bytes = len(record) + len((text or "").encode()) + len((truth or "").encode())
        num_bytes += len(prompting or b"")
        hash, question = rollout_hash(record), rollout.question
        self._database.execute(
            "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)",
            (
                *(hash, kind, rollout.author, rollout.sequence, question.task, question.index),
                *(text, truth, bytes(correct), first_seen, self._clock(), expires),
                *(num_bytes, record, prompting),
            ),
        )
        self._database.execute(
            "INSERT INTO seen VALUES (?, ?, ?, ?)",
            (hash, _content(rollout), rollout.author, expires),
        )
        self._num_seen += 1

    def _fresh(self, weigh: Weigh) -> list[tuple[tuple[bytes, str], float]]:
        """Hash and author, and the weight, in an order that does not depend on when they came."""
        now = self._clock()
        rows = self._database.execute(
            "SELECT hash, author, task, question_index, correct, first_seen FROM rollouts"
            " WHERE kind = ? AND expires > ? ORDER BY hash",
            (_Kind.FRESH, now),
        )
        return [
            (
                (hash, author),
                weigh(Question(task, index), tuple(map(bool, correct)), max(0.0, now - first_seen)),
            )
            for hash, author, task, index, correct, first_seen in rows.fetchall()
        ]

    def _use(self, hash: bytes) -> Pooled | None:
        task, index, text, truth, prompting, correct, first_seen, record = self._database.execute(
            "SELECT task, question_index, text, truth, prompting, correct, first_seen, record"
            " FROM rollouts WHERE hash = ?",
            (hash,),
        ).fetchone()
        self._database.execute(
            "UPDATE rollouts SET kind = ?, used_at = ? WHERE hash = ?",
            (_Kind.USED, self._clock(), hash),
        )
        try:
            rollout = open_rollout(record)
        except WireError as error:
            logger.error("rollout %s of the pool is damaged: %s", hash.hex(), error)
            self._database.execute("DELETE FROM rollouts WHERE hash = ?", (hash,))
            return None
        system, examples = _decode_prompting(prompting) if prompting else ("", ())
        expansion = Expansion(Question(task, index), text, truth, system, examples)
        return Pooled(hash, rollout, expansion, tuple(map(bool, correct)), first_seen)

    def _expire(self) -> None:
        now = self._clock()
        self._database.execute("DELETE FROM rollouts WHERE expires <= ?", (now,))
        self._num_seen -= self._database.execute(
            "DELETE FROM seen WHERE until <= ?", (now,)
        ).rowcount

    def _bound(self) -> None:
        self._expire()
        self._evict(f"WHERE kind = {_Kind.OWN:d}", self._max_bytes // 2, self._max_rows // 2)
        self._evict("", self._max_bytes, self._max_rows)
        self._bound_seen()

    def _evict(self, where: str, max_bytes: int, max_rows: int) -> None:
        """Deletes rows in the order in which they give way, until the rest is within both."""
        num_bytes, num_rows = self._database.execute(
            f"SELECT coalesce(sum(num_bytes), 0), count(*) FROM rollouts {where}"
        ).fetchone()
        if num_bytes <= max_bytes and num_rows <= max_rows:
            return
        rows = self._database.execute(
            f"SELECT rowid, num_bytes FROM rollouts {where} ORDER BY kind, first_seen"
        )
        leaving = []
        while num_bytes > max_bytes or num_rows > max_rows:
            rowid, size = rows.fetchone()
            leaving.append((rowid,))
            num_bytes, num_rows = num_bytes - size, num_rows - 1
        rows.close()
        for one in leaving:
            self._database.execute("DELETE FROM rollouts WHERE rowid = ?", one)
        self.num_evicted += len(leaving)
        self._evicted.note(len(leaving))

    def _bound_seen(self) -> None:
        if self._num_seen > self._max_seen:
            self._num_seen -= self._database.execute(
                "DELETE FROM seen WHERE hash IN (SELECT hash FROM seen ORDER BY until LIMIT ?)",
                (self._num_seen - self._max_seen,),
            ).rowcount


def _content(rollout: Rollout) -> bytes:
    """Question and answers as one hash: the same for a copy under another name."""
    hashed = hashlib.sha256(f"{rollout.question.task}\n{rollout.question.index}\n".encode())
    for answer in rollout.answers:
        text = answer.text.encode()
        hashed.update(len(text).to_bytes(4) + text)
    return hashed.digest()
