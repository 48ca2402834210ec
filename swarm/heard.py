"""Which announcements were heard: tells repeated ones, and those that contradict an earlier one.

There is no rule that a sequence must be higher than the last: gossip reorders. Only the same
sequence twice is noticed, as far back as the memory goes; beyond it age bounds what is taken.
"""

from collections import OrderedDict
from dataclasses import dataclass

from swarm.wire import SEAL_BYTES

MAX_PER_AUTHOR = 64
MAX_BYTES = 16 * 2**20
"""Of all records kept. Beyond it the author heard least recently is forgotten."""


@dataclass(slots=True)
class _Announced:
    record: bytes
    """The first with its sequence, as received: half of a proof."""
    is_contradicted: bool = False


class Heard:
    """The newest announcements of each author, bounded per author and over all."""

    def __init__(self, max_per_author: int = MAX_PER_AUTHOR, max_bytes: int = MAX_BYTES) -> None:
        self._max_per_author = max_per_author
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._authors: OrderedDict[str, OrderedDict[int, _Announced]] = OrderedDict()

    def is_repeated(self, author: str, sequence: int, record: bytes) -> bool:
        """Whether this says what was heard under the sequence before, or the sequence is known to
        be contradicted already. Only what is signed is compared, not the signature."""
        known = self._find(author, sequence)
        return known is not None and (
            known.is_contradicted or known.record[SEAL_BYTES:] == record[SEAL_BYTES:]
        )

    def contradicted(self, author: str, sequence: int) -> bytes | None:
        """The record that was heard under this sequence, which from now on counts as repeated
        whatever comes under it: nobody pays twice for one sequence. None where it is new."""
        known = self._find(author, sequence)
        if known is None:
            return None
        known.is_contradicted = True
        return known.record

    def remember(self, author: str, sequence: int, record: bytes, is_late: bool = False) -> None:
        """Keeps a new announcement, and gives up older ones at the bounds.

        Args:
            is_late: others of its author may be newer.
        """
        sequences = self._authors.setdefault(author, OrderedDict())
        self._authors.move_to_end(author)
        sequences[sequence] = _Announced(record)
        if is_late:
            self._authors[author] = sequences = OrderedDict(sorted(sequences.items()))
        self._num_bytes += len(record)
        if len(sequences) > self._max_per_author:
            _, oldest = sequences.popitem(last=False)
            self._num_bytes -= len(oldest.record)
        while self._num_bytes > self._max_bytes and len(self._authors) > 1:
            _, forgotten = self._authors.popitem(last=False)
            self._num_bytes -= sum(len(one.record) for one in forgotten.values())

    def forget(self, author: str) -> None:
        """Forgets all that was heard of an author."""
        forgotten = self._authors.pop(author, OrderedDict())
        self._num_bytes -= sum(len(one.record) for one in forgotten.values())

    def _find(self, author: str, sequence: int) -> _Announced | None:
        sequences = self._authors.get(author)
        return sequences.get(sequence) if sequences is not None else None
