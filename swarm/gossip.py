"""The seam between nodes: announcements go to everybody, rollouts are fetched by hash."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio


class FetchFailed(RuntimeError):
    """A peer did not deliver; the message says how it failed. Says nothing about any author."""


class PeerBusy(FetchFailed):
    """A peer sends no more at present, to whomever: to be asked later, or another one."""


@dataclass(frozen=True, slots=True)
class Received:
    """Announcement bytes as they came, unverified."""

    record: bytes
    carrier: str
    """Node id of the peer whose connection brought it; it need not be the author."""
    shard: int | None = None
    """On which it came (swarm/shards.py); None where it came on none."""
    is_late: bool = False
    """Whether it came because this node asked what it had missed: then it counts as first seen when
    it was signed."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One connected peer."""

    node_id: str
    address: str
    """Multiaddr of the far end."""
    since: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and counts since the start, as far as this layer sees them."""

    bytes_sent: int = 0
    bytes_received: int = 0
    shards_heard: int = 1
    """Now: of those of the swarm."""
    announcements_sent: int = 0
    announcements_received: int = 0
    announcements_dropped: int = 0
    """Received, and thrown away because nobody took them in time: never silent."""
    connections_refused: int = 0
    """Closed since there were as many as may be: in total, of one address or subnet, or at once."""
    messages_unsent: int = 0
    """Own and others', that the full queue of a slow peer did not take; gossip may repair it."""
    limited: Mapping[str, int] = field(default_factory=dict)
    """How often peers met a limit, by its kind (swarm/limits.py)."""
    announcements_served: int = 0
    """Told to peers that had missed them."""
    rollouts_served: int = 0
    visits: int = 0
    """Authors that were connected in order to be asked for their rollouts."""
    visits_failed: int = 0
    """Of those that were not found, could not be reached, or had no place free."""
    rollouts_fetched: int = 0
    fetches_failed: int = 0


AnswerCatalogue = Callable[[bytes], Awaitable[tuple[bytes, int] | None]]
"""Request of a peer (swarm/catalogue.py) -> reply, and how many announcements are in it; None where
the request is malformed. Disks are read off the trio thread."""

FindRollouts = Callable[[Sequence[bytes]], Awaitable[dict[bytes, bytes]]]
"""Hashes -> signed bytes of those rollouts that this node has. Awaited for each request of a peer;
disks are read off the trio thread."""


class Gossip(Protocol):
    """What a node needs of its peers. All methods are called from the trio thread.

    Delivery is at most once, in no order; a peer may be late, lie or be gone. Implementations pace
    and bound everything that they queue, and count what they drop.
    """

    node_id: str
    received: trio.MemoryReceiveChannel[Received]
    """Announcements of others, each distinct record once; never own ones. One reader."""

    async def announce(self, record: bytes) -> None:
        """Hands signed announcement bytes to all peers; returns when they are on their way."""
        ...

    async def fetch(
        self, node_id: str, hashes: Sequence[bytes], max_bytes: int
    ) -> dict[bytes, bytes]:
        """Those of the rollouts that the peer has: hash -> bytes that have this hash. A peer that
        is not connected is found and connected first, where that is possible.

        Args:
            hashes: at most MAX_FETCH_HASHES.
            max_bytes: of the whole reply; a longer one is an error.

        Raises:
            FetchFailed: not connected, too slow, too large, broken off, or bytes of another hash.
        """
        ...

    def connections(self) -> list[Connection]:
        """The peers connected now."""
        ...

    def traffic(self) -> Traffic:
        """What went over this node's connections so far."""
        ...

    def addresses(self) -> list[str]:
        """Multiaddrs under which this node can be dialled, its id included."""
        ...


class AsksCatalogue(Protocol):
    """What a node needs of its peers to catch up on what it missed. Both implementations of Gossip
    have it."""

    def connections(self) -> list[Connection]:
        """The peers connected now."""
        ...

    def heard_shards(self) -> frozenset[int]:
        """Shards whose announcements reach this node now; none where it hears all."""
        ...

    async def ask_catalogue(self, node_id: str, request: bytes) -> bytes:
        """A peer's reply to a request of swarm/catalogue.py, of MAX_REPLY_BYTES at most.

        Raises:
            FetchFailed: not connected, too slow, too large, broken off, refused or not served.
        """
        ...
