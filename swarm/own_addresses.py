"""Under which addresses a node tells its peers that it can be dialled.

Those that the operator names (`swarm.announce`), else those that it listens on. What peers see of a
connection that this node dialled is not announced: its port was the operating system's choice, and
nobody listens there. A peer that is dialled tries the address that it sees with the port that it
is told (swarm/dialer.py), which covers an address that is translated one to one, as clouds do.
Addresses through relays come and go with reservations (swarm/relay_client.py).
"""

from collections.abc import Callable, Sequence

from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.peer_book import WrongAddress, split_address

MAX_ANNOUNCED = 4


class OwnAddresses:
    """The addresses of one node."""

    def __init__(
        self,
        node_id: str,
        announce: Sequence[str],
        find_reachable: Callable[[Sequence[Multiaddr]], list[Multiaddr]],
    ) -> None:
        """
        Args:
            announce: transport addresses such as /dns4/box.example.org/tcp/8421; the own peer id
                may stand behind.
            find_reachable: the addresses that a node listens on -> those that others can dial.

        Raises:
            WrongAddress: one cannot be dialled, or there are more than MAX_ANNOUNCED.
        """
        self._node_id = node_id
        self._announced = [self._parse(address) for address in announce]
        if len(self._announced) > MAX_ANNOUNCED:
            raise WrongAddress(f"swarm.announce: {MAX_ANNOUNCED} addresses at most")
        self._find_reachable = find_reachable
        self._relayed: dict[str, list[str]] = {}

    def told(self, listening: Sequence[Multiaddr]) -> list[Multiaddr]:
        """What peers are told, each with the own peer id."""
        direct = self._announced or [str(one) for one in self._find_reachable(listening)]
        relayed = [address for addresses in self._relayed.values() for address in addresses]
        return [Multiaddr(f"{one}/p2p/{self._node_id}") for one in [*direct, *relayed]]

    def add_relay(self, relay: str, addresses: Sequence[str]) -> None:
        """This node can be reached through a relay, at these transport addresses."""
        self._relayed[relay] = list(addresses)

    def drop_relay(self, relay: str) -> None:
        """This node can be reached through a relay no longer."""
        self._relayed.pop(relay, None)

    def _parse(self, address: str) -> str:
        try:
            transport, node_id = split_address(
                address if "/p2p/" in address else f"{address}/p2p/{self._node_id}"
            )
        except WrongAddress:
            raise WrongAddress(
                f"swarm.announce: {address[:200]!r}: write /ip4/ADDRESS/tcp/PORT"
            ) from None
        if node_id != self._node_id:
            raise WrongAddress(f"swarm.announce: {address[:200]!r} is of another node")
        return transport
