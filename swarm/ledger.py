"""What each peer did, counted since this node first met it, and the proofs of lies.

Counts only: nothing is scored yet. Who is banned stands apart (swarm/bans.py).
"""

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from swarm.database import Database
from swarm.refusal import Refusal

MAX_PEERS = 4096
"""Keys cost nothing: beyond this those heard least recently are forgotten, first those that
neither lied nor gave anything that was used, then liars, then the rest."""

MAX_PROOFS = 256
MAX_PROOF_BYTES = 16 * 2**20
"""Records kept as proofs; beyond either the oldest go, the counts of lies stay."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS peers (node_id TEXT PRIMARY KEY, counts TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS refusals (reason TEXT PRIMARY KEY, count INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS proofs (id INTEGER PRIMARY KEY, node_id TEXT NOT NULL,"
    " reason TEXT NOT NULL, at REAL NOT NULL, num_bytes INTEGER NOT NULL, records BLOB NOT NULL)",
)


class PeerRecord(msgspec.Struct, frozen=True):
    """One peer's counts since it was first met, over restarts."""

    node_id: str
    first_met: float
    """Unix seconds."""
    last_heard: float = 0.0
    """Unix seconds of its last announcement; 0 if never."""
    announcements: int = 0
    """Signed by it, new ones only."""
    offered: int = 0
    """Entries of its announcements."""
    fetched: int = 0
    """Its rollouts that arrived here, whoever served them."""
    num_bytes: int = 0
    """Of these."""
    admitted: int = 0
    used: int = 0
    """In batches of this node."""
    refused: dict[str, int] = {}
    """Reason -> count, of announcements that it signed or carried and rollouts that it named."""
    lies: int = 0
    """Refusals that are proven by what it signed, and charged to it."""


class Proof(msgspec.Struct, frozen=True):
    """Bytes that a peer signed and that show its lie to anybody."""

    node_id: str
    reason: str
    at: float
    """Unix seconds."""
    records: tuple[bytes, ...]
    """Announcements and rollouts, as received."""


class Lie(msgspec.Struct, frozen=True):
    """A refusal that is proven, without its proof."""

    reason: str
    at: float
    """Unix seconds."""
    num_bytes: int
    """Of the proof."""


class Ledger:
    """Counts in memory, from any thread; `flush`, `charge`, `take_back`, `proofs` and `lies` touch
    the disk and belong off the trio thread (swarm/database.py).

    A crash loses what was counted since the last flush, but never a lie.
    """

    def __init__(
        self,
        database: Database,
        max_peers: int = MAX_PEERS,
        max_proof_bytes: int = MAX_PROOF_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Makes its tables where they are missing, and reads all counts."""
        self._database = database
        self._max_peers = max_peers
        self._max_proof_bytes = max_proof_bytes
        self._clock = clock
        self._lock = threading.Lock()  # guards all below
        self._dirty: set[str] = set()
        """Node ids to be written at the next flush; those without a record, to be deleted."""
        with database.transaction():
            for statement in _TABLES:
                database.execute(statement)
            peers = database.execute("SELECT counts FROM peers").fetchall()
            refusals = database.execute("SELECT reason, count FROM refusals").fetchall()
        records = [msgspec.json.decode(text, type=PeerRecord) for (text,) in peers]
        self._peers = {record.node_id: record for record in records}
        self._refusals: Counter[str] = Counter(dict(refusals))

    def count_announcement(self, author: str, num_entries: int) -> None:
        """A new, valid announcement of the author arrived."""
        with self._lock:
            peer = self._peer(author)
            self._put(
                peer,
                last_heard=self._clock(),
                announcements=peer.announcements + 1,
                offered=peer.offered + num_entries,
            )

    def count_fetched(self, author: str, num_bytes: int) -> None:
        """A rollout that the author announced arrived."""
        with self._lock:
            peer = self._peer(author)
            self._put(peer, fetched=peer.fetched + 1, num_bytes=peer.num_bytes + num_bytes)

    def count_admitted(self, author: str) -> None:
        """A rollout of the author went into the pool."""
        with self._lock:
            peer = self._peer(author)
            self._put(peer, admitted=peer.admitted + 1)

    def count_used(self, author: str, num: int) -> None:
        """So many rollouts of the author were in a batch."""
        with self._lock:
            peer = self._peer(author)
            self._put(peer, used=peer.used + num)

    def count_refused(self, node_id: str, reason: str, num: int = 1) -> None:
        """Something that the peer signed or carried was refused, which proves nothing."""
        with self._lock:
            self._refuse(node_id, reason, num)

    def charge(self, node_id: str, reason: Refusal, records: Sequence[bytes]) -> None:
        """A refusal proven by what the peer signed: counted as a lie, and on disk on return."""
        with self._lock:
            self._refuse(node_id, reason, 1)
            self._put(self._peers[node_id], lies=self._peers[node_id].lies + 1)
        num_bytes = sum(map(len, records))
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO proofs (node_id, reason, at, num_bytes, records)"
                " VALUES (?, ?, ?, ?, ?)",
                (node_id, reason, self._clock(), num_bytes, msgspec.msgpack.encode(records)),
            )
            self._bound_proofs()
            self._write()

    def take_back(self, reason: Refusal, instead: Refusal, since: float) -> int:
        """Turns the charges for a reason since then (Unix seconds) into refusals that are free.

        For a node that finds that it was probably the one who was wrong. Returns how many. Not
        taken back: charges whose proof was given up at the bound.
        """
        with self._database.transaction():
            where = "WHERE reason = ? AND at >= ?"
            rows = self._database.execute(
                f"SELECT node_id FROM proofs {where}", (reason, since)
            ).fetchall()
            with self._lock:
                for (node_id,) in rows:
                    if (peer := self._peers.get(node_id)) is not None:
                        self._put(peer, lies=peer.lies - 1)
                        self._refuse(node_id, reason, -1)
                        self._refuse(node_id, instead, 1)
            self._database.execute(f"DELETE FROM proofs {where}", (reason, since))
            self._write()
        return len(rows)

    def flush(self) -> None:
        """Writes what was counted since the last flush."""
        with self._lock:
            if not self._dirty:
                return
        with self._database.transaction():
            self._write()

    def peers(self) -> tuple[PeerRecord, ...]:
        """All that are remembered, in no order."""
        with self._lock:
            return tuple(self._peers.values())

    def refused_totals(self) -> dict[str, int]:
        """Reason -> count over all peers, those forgotten included."""
        with self._lock:
            return {reason: count for reason, count in self._refusals.items() if count}

    def proofs(self) -> list[Proof]:
        """The newest proofs of lies, oldest first."""
        with self._database.transaction():
            rows = self._database.execute(
                "SELECT node_id, reason, at, records FROM proofs ORDER BY id"
            ).fetchall()
        decode = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
        return [Proof(node_id, reason, at, decode(blob)) for node_id, reason, at, blob in rows]

    def lies(self, node_id: str) -> list[Lie]:
        """A peer's lies whose proofs are kept, newest first. Touches the disk."""
        rows = self._database.execute(
            "SELECT reason, at, num_bytes FROM proofs WHERE node_id = ? ORDER BY id DESC",
            (node_id,),
        )
        return [Lie(*row) for row in rows.fetchall()]

    def _peer(self, node_id: str) -> PeerRecord:
        if (peer := self._peers.get(node_id)) is not None:
            return peer
        if len(self._peers) >= self._max_peers:
            num = max(1, self._max_peers // 16)  # some at once: looking for them takes a while
            for gone in heapq.nsmallest(num, self._peers.values(), key=_worth):
                del self._peers[gone.node_id]
                self._dirty.add(gone.node_id)
        return PeerRecord(node_id, first_met=self._clock())

    def _put(self, peer: PeerRecord, **changes: float | dict[str, int]) -> None:
        self._peers[peer.node_id] = msgspec.structs.replace(peer, **changes)
        self._dirty.add(peer.node_id)

    def _refuse(self, node_id: str, reason: str, num: int) -> None:
        peer = self._peer(node_id)
        count = peer.refused.get(reason, 0) + num
        rest = {name: others for name, others in peer.refused.items() if name != reason}
        self._put(peer, refused={**rest, reason: count} if count else rest)
        self._refusals[reason] += num

    def _write(self) -> None:
        """Within a transaction. What is counted meanwhile is written the next time."""
        with self._lock:
            dirty = {node_id: self._peers.get(node_id) for node_id in self._dirty}
            self._dirty.clear()
            refusals = list(self._refusals.items())
        for node_id, peer in dirty.items():
            if peer is None:
                self._database.execute("DELETE FROM peers WHERE node_id = ?", (node_id,))
            else:
                text = msgspec.json.encode(peer).decode()
                self._database.execute(
                    "INSERT OR REPLACE INTO peers VALUES (?, ?)", (node_id, text)
                )
        for reason, count in refusals:
            self._database.execute(
                "INSERT OR REPLACE INTO refusals VALUES (?, ?)", (str(reason), count)
            )

    def _bound_proofs(self) -> None:
        rows = self._database.execute("SELECT id, num_bytes FROM proofs ORDER BY id DESC")
        kept_bytes = 0
        for kept, (number, num_bytes) in enumerate(rows.fetchall()):
            kept_bytes += num_bytes
            if kept >= MAX_PROOFS or kept_bytes > self._max_proof_bytes:
                self._database.execute("DELETE FROM proofs WHERE id <= ?", (number,))
                return


def _worth(peer: PeerRecord) -> tuple[bool, bool, float]:
    """Who is forgotten first comes first."""
    return peer.used > 0, peer.lies > 0, max(peer.last_heard, peer.first_met)
