"""What a node does about NATs, as `swarm.relay` says.

| `swarm.relay` | reserves with relays | dials through relays | serves as one |
|---|---|---|---|
| auto | when it seems that nobody can dial it | yes | no |
| use | always | yes | no |
| serve | no | yes | yes |
| off | no | no | no |
"""

from typing import Any

import trio
from libp2p.abc import IHost

from swarm.dialer import Dialer
from swarm.hole_punch import HolePuncher
from swarm.network_options import RelayUse
from swarm.own_addresses import OwnAddresses
from swarm.peer_book import PeerBook
from swarm.relay import Relay, RelayLimits
from swarm.relay_client import RelayClient


class Reach:
    """The parts for it of one node."""

    def __init__(
        self,
        host: IHost,
        own: OwnAddresses,
        book: PeerBook,
        dialer: Dialer,
        use: RelayUse,
        relay_limits: RelayLimits,
    ) -> None:
        self._use = use
        self._dialer = dialer
        self.relay = Relay(host, dialer.members, relay_limits) if use == "serve" else None
        self.client: RelayClient | None = None
        self.puncher: HolePuncher | None = None
        if use != "off":
            self.client = RelayClient(
                host, own, dialer.members, self._needs_relay, book, dialer.ask_soon
            )
            self.puncher = HolePuncher(host, dialer.members, dialer.punching)
            dialer.dial_circuit = self.client.dial

    @property
    def num_refused(self) -> int:
        """Reservations and circuits beyond a limit."""
        parts: list[Any] = [self.relay, self.client]
        return sum(part.num_refused for part in parts if part is not None)

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            if self.client is not None:
                nursery.start_soon(self.client.run)
            if self.puncher is not None:
                nursery.start_soon(self.puncher.run)

    def _needs_relay(self) -> bool:
        return self._use == "use" or (self._use == "auto" and self._dialer.seems_unreachable())
