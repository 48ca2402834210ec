"""How many connections a node takes: in total, from one address and subnet, and how fast.

A connection beyond a limit is closed at once and counted; the same address may come again a moment
later, for nothing is remembered but the connections that are open and the starts of the last
seconds. Loopback is exempt from all but the total. A peer behind a relay has no address here: what
it may use is bounded by its reservation (swarm/relay.py).

Not covered: somebody with addresses in many subnets; to them only the total is a limit.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

STARTS_PER_S, STARTS_AT_ONCE = 2.0, 8.0
"""Inbound connections of one address that may start in the long run, and at once."""
MAX_REMEMBERED = 4096
"""Addresses whose last starts are remembered."""

IsExempt = Callable[[str], bool]


def is_loopback(host: str) -> bool:
    """Whether it is an address of this machine alone; False for what is no address."""
    try:
        return _parse(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection leads: what counts as one address, and its neighbourhood."""

    address: str
    """One IPv4 address, or the /64 of an IPv6 one, which one machine has all of."""
    subnet: str
    """The /24 of an IPv4 address, the /56 of an IPv6 one."""


def find_origin(host: str) -> Origin:
    """The origin of an IP address; what is no address has one of its own."""
    try:
        ip = _parse(host)
    except ValueError:
        return Origin(host, host)
    wide, narrow = (24, 32) if ip.version == 4 else (56, 64)
    return Origin(_network(ip, narrow), _network(ip, wide))


class ConnectionLimits:
    """Who is connected from where. Counts connections from their start, so handshakes, too."""

    def __init__(
        self,
        max_total: int,
        max_per_address: int,
        max_per_subnet: int,
        clock: Callable[[], float],
        is_exempt: IsExempt = is_loopback,
    ) -> None:
        """
        Args:
            clock: seconds, from any start.
            is_exempt: of an IP address: whether only `max_total` holds for it.
        """
        self.num_refused = 0
        self.num_open = 0
        self._max_total = max_total
        self._max_per_address = max_per_address
        self._max_per_subnet = max_per_subnet
        self._clock = clock
        self._is_exempt = is_exempt
        self._addresses: Counter[str] = Counter()
        self._subnets: Counter[str] = Counter()
        self._starts: dict[str, tuple[float, float]] = {}  # address -> starts left, when

    def enter(self, host: str, is_inbound: bool) -> "Place | None":
        """A place for a connection with this IP address, or None where a limit is reached."""
        origin = None if self._is_exempt(host) else find_origin(host)
        if self.num_open >= self._max_total or (origin and not self._has_room(origin, is_inbound)):
            self.num_refused += 1
            return None
        self.num_open += 1
        if origin:
            self._addresses[origin.address] += 1
            self._subnets[origin.subnet] += 1
        return Place(self, origin)

    def leave(self, origin: Origin | None) -> None:
        """Frees what a place held."""
        self.num_open -= 1
        if origin:
            _take_one(self._addresses, origin.address)
            _take_one(self._subnets, origin.subnet)

    def _has_room(self, origin: Origin, is_inbound: bool) -> bool:
        return (
            self._addresses[origin.address] < self._max_per_address
            and self._subnets[origin.subnet] < self._max_per_subnet
            and (not is_inbound or self._may_start(origin.address))
        )

    def _may_start(self, address: str) -> bool:
        now = self._clock()
        left, since = self._starts.get(address, (STARTS_AT_ONCE, now))
        left = min(STARTS_AT_ONCE, left + (now - since) * STARTS_PER_S)
        may = left >= 1
        self._starts.pop(address, None)  # to the end: the one that came last
        self._starts[address] = (left - 1 if may else left, now)
        if len(self._starts) > MAX_REMEMBERED:
            del self._starts[next(iter(self._starts))]
        return may


class Place:
    """What one connection holds until it ends; leaving twice is leaving once."""

    __slots__ = ("_limits", "_origin")

    def __init__(self, limits: ConnectionLimits, origin: Origin | None) -> None:
        self._limits: ConnectionLimits | None = limits
        self._origin = origin

    def leave(self) -> None:
        """Frees the place."""
        if self._limits is not None:
            self._limits.leave(self._origin)
            self._limits = None


def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(host.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _network(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int) -> str:
    return str(ipaddress.ip_network((ip, bits), strict=False))


def _take_one(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
