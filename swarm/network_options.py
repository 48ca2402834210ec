"""What an operator may choose about a node's connections."""

from dataclasses import dataclass
from typing import Literal

from swarm.connection_limits import IsExempt, is_loopback

RELAYED_BYTES_PER_S = 4.0 * 2**20
RelayUse = Literal["auto", "use", "serve", "off"]


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Defaults are those of the settings (node/config.py says what each means)."""

    max_per_address: int = 8
    max_per_subnet: int = 32
    is_exempt: IsExempt = is_loopback
    """Of an IP address: whether the two limits above do not hold for it."""
    announce: tuple[str, ...] = ()
    """Addresses that peers are told instead of those that this machine sees."""
    hear_bytes_per_s: float = 65_536.0
    """Of announcements: so many shards are heard."""
    dht: bool = True
    mdns: bool = False
    relay: RelayUse = "auto"
    relayed_bytes_per_s: float = RELAYED_BYTES_PER_S
    """Of a relay: of all circuits together; math.inf is no bound."""
