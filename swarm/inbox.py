"""Announcements on their way to the one who reads them: each once, bounded, losses counted."""

from collections import OrderedDict
from hashlib import sha256

import trio

from swarm.gossip import Received
from swarm.protocol import MAX_ANNOUNCEMENT_BYTES
from swarm.wire import ANNOUNCEMENT_MAGIC

CAPACITY = 1024
"""Announcements that may wait for the reader: 8 MiB at most."""

REMEMBERED = 65536
"""Records that are told apart from new ones. An older one that comes again is delivered again:
admission refuses it by its sequence."""


def has_announcement_form(record: bytes) -> bool:
    """Whether size and magic are those of an announcement; nothing else is looked at."""
    return len(record) <= MAX_ANNOUNCEMENT_BYTES and record.startswith(ANNOUNCEMENT_MAGIC)


class Inbox:
    """What came, until it is read. Never blocks and never raises at the side that delivers."""

    def __init__(self, capacity: int = CAPACITY, remembered: int = REMEMBERED) -> None:
        self.num_received = 0
        """Distinct announcements of others, those dropped included."""
        self.num_dropped = 0
        """Not delivered, because nobody took them in time."""
        self._send, self.received = trio.open_memory_channel[Received](capacity)
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._remembered = remembered

    def check_own(self, record: bytes, shard: int = 0) -> None:
        """Remembers an own record, so that it is not delivered when it comes back.

        Raises:
            ValueError: everybody would refuse it by its form.
        """
        if not has_announcement_form(record):
            raise ValueError(f"{len(record)} bytes that are no announcement, or too many")
        self._is_new(record, shard)

    def put(self, record: bytes, carrier: str, shard: int = 0) -> bool:
        """Delivers a record unless it came before on this shard, or has not the form of an
        announcement; whether it was new. Not of what came on another shard: whoever repeats a
        record there would keep out the one that is right."""
        if not has_announcement_form(record) or not self._is_new(record, shard):
            return False
        self.num_received += 1
        try:
            self._send.send_nowait(Received(record, carrier, shard))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.num_dropped += 1
        return True

    def close(self) -> None:
        """Ends the channel: its reader gets what waits, then the end."""
        self._send.close()

    def _is_new(self, record: bytes, shard: int) -> bool:
        digest = sha256(record + bytes([shard])).digest()
        if digest in self._seen:
            return False
        self._seen[digest] = None
        if len(self._seen) > self._remembered:
            self._seen.popitem(last=False)
        return True
