"""Whom a node can dial: bootstrap, saved and heard addresses, and when to try each again."""

import json
import logging
import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.disk import write_durably

log = logging.getLogger(__name__)

MAX_KNOWN = 256
MAX_ADDRESSES = 4
"""Per peer."""
MAX_ADDRESS_CHARS = 400
MAX_FILE_BYTES = 1_000_000
FIRST_RETRY_S = 1.0
MAX_RETRY_S = 60.0
"""Between attempts to reach a bootstrap node."""
MAX_RETRY_KNOWN_S = 600.0
"""Between attempts to reach anybody else."""
LOST_AFTER = 4
"""Attempts to reach a peer that was connected; then what others tell of it is listened to, too: it
may have moved, or be behind another relay."""
STABLE_S = 10.0
"""A connection that ends sooner counts as an attempt that failed: the peer may be full."""
NOT_OURS_S = 300.0
"""For so long a peer that turned out to belong to another swarm is left alone."""

_ID = "[1-9A-HJ-NP-Za-km-z]+"
_FORM = re.compile(
    rf"(/(?:ip4|ip6|dns|dns4|dns6)/[^/]{{1,255}}/tcp/\d{{1,5}}(?:/p2p/{_ID}/p2p-circuit)?)/p2p/({_ID})"
)


class WrongAddress(ValueError):
    """No address of a peer; the message says what to write."""


def split_address(address: str) -> tuple[str, str]:
    """An address of a peer as its transport part and its node id. The transport part may lead
    through a relay: /ip4/ADDRESS/tcp/PORT/p2p/RELAY_ID/p2p-circuit.

    Raises:
        WrongAddress: it is none, or not over TCP.
    """
    match = _FORM.fullmatch(address) if len(address) <= MAX_ADDRESS_CHARS else None
    try:
        if match is None:
            raise ValueError
        Multiaddr(address)
    except ValueError:
        raise WrongAddress(
            f"{address[:MAX_ADDRESS_CHARS]!r}: write /ip4/ADDRESS/tcp/PORT/p2p/PEER_ID"
        ) from None
    return match[1], match[2]


def unpack_address(packed: bytes) -> str:
    """An address of a message in bytes as text, cut to MAX_ADDRESS_CHARS before it is read; empty
    where it is malformed. Whether it can be dialled is not checked."""
    try:
        return str(Multiaddr(packed[:MAX_ADDRESS_CHARS]))
    except Exception as error:  # noqa: BLE001  the parser raises whatever a codec raises
        log.debug("an address that cannot be read: %s", error)
        return ""


@dataclass(slots=True)
class _Known:
    addresses: list[str] = field(default_factory=list)
    """Transport parts, the one that worked last first."""
    is_bootstrap: bool = False
    was_connected: bool = False
    num_failures: int = 0
    next_try: float = 0.0


class PeerBook:
    """Addresses by node id. Never the own one. Times are those of one clock, in seconds."""

    def __init__(
        self, own_id: str, bootstrap: Sequence[str], file: Path, chance: random.Random
    ) -> None:
        """
        Args:
            file: JSON list of addresses of peers that were connected, the last one first. One that
                cannot be used is left out; a file that cannot be read counts as empty.
            chance: spreads the attempts, so that nodes do not dial in step.

        Raises:
            WrongAddress: of a bootstrap address.
        """
        self.is_changed = False
        """Whether `save` would write something else than was written last."""
        self.num_heard = 0
        """Nodes that peers told of and that were not known."""
        self.own_heard: list[str] = []
        """Where others say that the own id can be dialled: few, the newest last."""
        self._own_id = own_id
        self._file = file
        self._chance = chance
        self._known: dict[str, _Known] = {}  # ordered: the peer connected last is at the end
        for address in reversed(_read(file)):
            self._add(address, was_connected=True)
        for address in bootstrap:
            self._add(address, is_bootstrap=True)

    def hear(self, addresses: Iterable[str]) -> None:
        """Takes addresses from a peer: bounded, and unusable ones are left out."""
        for address in addresses:
            try:
                _, node_id = split_address(address)
            except WrongAddress:
                continue
            known = self._known.get(node_id)
            self.num_heard += known is None and node_id != self._own_id
            is_proven = known is not None and (known.was_connected or known.is_bootstrap)
            if known is None or not is_proven or known.num_failures >= LOST_AFTER:
                self._add(address, is_news=True)

    def due(self, now: float, busy: Collection[str]) -> list[str]:
        """Node ids to dial now, the longest due first, without those that are busy."""
        waiting = [
            (known.next_try, node_id)
            for node_id, known in self._known.items()
            if known.next_try <= now and known.addresses and node_id not in busy
        ]
        return [node_id for _, node_id in sorted(waiting)]

    def addresses(self, node_id: str) -> list[str]:
        """Complete addresses of a peer, the best first."""
        known = self._known.get(node_id)
        return [f"{one}/p2p/{node_id}" for one in known.addresses] if known else []

    def is_proven(self, node_id: str) -> bool:
        """Whether the peer was connected, and its addresses have not failed often since."""
        known = self._known.get(node_id)
        return known is not None and known.was_connected and known.num_failures < LOST_AFTER

    def transports(self, node_id: str) -> list[str]:
        """The same without the id."""
        known = self._known.get(node_id)
        return list(known.addresses) if known else []

    def connected(self, node_id: str, addresses: Sequence[str]) -> None:
        """A peer is connected and can be dialled at these transport addresses, the best first."""
        known = self._known.pop(node_id, None) or _Known()
        merged = list(dict.fromkeys([*addresses, *known.addresses]))[:MAX_ADDRESSES]
        self.is_changed |= merged != known.addresses or not known.was_connected
        known.addresses, known.was_connected = merged, True
        self._known[node_id] = known
        self._shrink()

    def lost(self, node_id: str, now: float, lasted_s: float) -> None:
        """A peer is gone: it is tried again soon, unless it goes as soon as it comes."""
        if lasted_s >= STABLE_S and (known := self._known.get(node_id)):
            known.num_failures = 0
        self.failed(node_id, now)

    def failed(self, node_id: str, now: float) -> None:
        """No address of a peer worked: it is tried again later each time."""
        if known := self._known.get(node_id):
            longest = MAX_RETRY_S if known.is_bootstrap else MAX_RETRY_KNOWN_S
            wait = min(longest, FIRST_RETRY_S * 2 ** min(known.num_failures, 16))
            known.num_failures += 1
            known.next_try = max(known.next_try, now + wait * self._spread())

    def is_not_ours(self, node_id: str, now: float) -> None:
        """A peer belongs to another swarm."""
        if known := self._known.get(node_id):
            known.next_try = now + NOT_OURS_S
            self.is_changed |= known.was_connected
            known.was_connected = False

    def to_share(self, connected: Collection[str], but: str, limit: int) -> list[str]:
        """The best address each of connected peers, and one through a relay where there is one,
        for a peer (`but`) that asks for more. And at the end where that peer itself is known: what
        is not its own is of another machine with its key (swarm/twin.py)."""
        own = self.addresses(but)
        ids = [one for one in self._known if one in connected and one != but]
        self._chance.shuffle(ids)
        return [address for one in ids for address in self._to_tell(one)][: limit - len(own)] + own

    def _to_tell(self, node_id: str) -> list[str]:
        addresses = self.addresses(node_id)
        relayed = [one for one in addresses if "/p2p-circuit/" in one]
        return list(dict.fromkeys([*addresses[:1], *relayed[:1]]))

    def save(self) -> None:
        """Writes the file aside and renames it. Blocks for a moment.

        Raises:
            OSError: it cannot be written.
        """
        lines = [
            address
            for node_id in reversed(self._known)
            if self._known[node_id].was_connected
            for address in self.addresses(node_id)
        ]
        write_durably(self._file, json.dumps(lines, indent=0))
        self.is_changed = False

    def _add(
        self,
        address: str,
        is_bootstrap: bool = False,
        was_connected: bool = False,
        is_news: bool = False,
    ) -> None:
        transport, node_id = split_address(address)
        if node_id == self._own_id:
            if address not in self.own_heard:
                self.own_heard = [*self.own_heard, address][-MAX_ADDRESSES:]
            return
        known = self._known.setdefault(node_id, _Known())
        known.is_bootstrap |= is_bootstrap
        known.was_connected |= was_connected
        if transport not in known.addresses and len(known.addresses) < MAX_ADDRESSES:
            known.addresses.append(transport)
            if is_news and known.num_failures < LOST_AFTER:
                known.next_try = 0.0  # not often: there is room for few
        elif transport not in known.addresses and is_news and known.was_connected:
            known.addresses[-1] = transport  # the least proven one
        self._shrink()

    def _shrink(self) -> None:
        """Forgets the least proven peers: heard before connected, failing and old ones first."""
        while len(self._known) > MAX_KNOWN:  # bootstrap addresses are fewer: they come from us
            others = [one for one in self._known.items() if not one[1].is_bootstrap]
            worst = min(others, key=lambda one: (one[1].was_connected, -one[1].num_failures))
            del self._known[worst[0]]

    def _spread(self) -> float:
        return self._chance.uniform(0.5, 1.5)


def _read(file: Path) -> list[str]:
    try:
        with file.open("rb") as handle:
            text = handle.read(MAX_FILE_BYTES + 1)
        lines = json.loads(text) if len(text) <= MAX_FILE_BYTES else None
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read, saved peers are lost: %s", file, error)
        return []
    usable = [line for line in lines if _is_usable(line)] if isinstance(lines, list) else []
    return usable[: MAX_KNOWN * MAX_ADDRESSES]


def _is_usable(line: object) -> bool:
    try:
        return isinstance(line, str) and bool(split_address(line))
    except WrongAddress:
        return False
