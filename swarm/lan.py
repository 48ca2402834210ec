"""Peers in the same local network, by mDNS (`swarm.mdns`, off by default).

libp2p's mDNS: a service of the swarm's own name, addresses in TXT records. What is found is hearsay
in the peer book. Off by default: it tells everybody in the local network that this machine is a
node of this swarm, and has a parser of their packets run in this process, in threads of zeroconf's.
Nothing leaves the local network: multicast of 224.0.0.251 and ff02::fb is not routed.

The library's own is not used: it keeps every service that anybody in the network names, and asks
for each up to three times, 5 s each, one after the other.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio
from zeroconf import ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from swarm.circuit import is_circuit
from swarm.peer_book import MAX_ADDRESS_CHARS, MAX_ADDRESSES

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING = 64
"""Services heard of and not looked at yet; further ones are dropped, and named again later."""
INFO_S = 2.0
CHECK_S = 30.0
"""After so long at most a change of the own addresses is told."""


def service_type(swarm_id: str) -> str:
    """The DNS name under which the nodes of a swarm are found. It may have 15 characters."""
    return f"_p2p-{hashlib.sha256(swarm_id.encode()).hexdigest()[:10]}._udp.local."


class Lan(ServiceListener):
    """Tells and hears of nodes in the local network."""

    def __init__(
        self,
        swarm_id: str,
        addresses: Callable[[], Sequence[str]],
        hear: Callable[[Sequence[str]], object],
        interfaces: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            addresses: the own ones, complete.
            hear: takes complete addresses of others, unchecked.
            interfaces: IP addresses of those to use; None takes all.
        """
        self._type = service_type(swarm_id)
        self._name = f"{secrets.token_hex(16)}.{self._type}"
        self._addresses = addresses
        self._hear = hear
        self._interfaces = interfaces
        self._send, self._heard = trio.open_memory_channel[str](MAX_WAITING)
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self) -> None:
        """For ever. Where there is no network for it, says so and goes on without."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            zeroconf = await trio.to_thread.run_sync(self._open)
        except OSError as error:
            log.warning("no mDNS here, peers of this network are not looked for: %s", error)
            return
        try:
            browser = ServiceBrowser(zeroconf, self._type, listener=self)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell, zeroconf)
                    async for name in self._heard:
                        await self._look(zeroconf, name)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(browser.cancel)
        finally:
            with trio.move_on_after(INFO_S) as scope:
                scope.shield = True
                await _in_thread(zeroconf.close)

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Called by zeroconf, in its thread."""
        if name != self._name and self._token is not None:
            try:
                self._token.run_sync_soon(self._note, name)
            except trio.RunFinishedError:
                log.debug("a service came after the end")

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Called by zeroconf, in its thread."""
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Called by zeroconf. Of no interest: dialling shows who is gone."""

    def _open(self) -> Zeroconf:
        return Zeroconf() if self._interfaces is None else Zeroconf([*self._interfaces])

    def _note(self, name: str) -> None:
        try:
            self._send.send_nowait(name)
        except trio.WouldBlock:
            log.debug("too many services in the local network")

    async def _look(self, zeroconf: Zeroconf, name: str) -> None:
        info = await _in_thread(
            lambda: zeroconf.get_service_info(self._type, name, timeout=int(INFO_S * 1000))
        )
        if info is not None:
            self._hear(addresses_in(info))

    async def _tell(self, zeroconf: Zeroconf) -> None:
        told: list[str] = []
        while True:
            own = [one for one in self._addresses() if not is_circuit(one)][:MAX_ADDRESSES]
            if own and own != told:
                info = make_info(self._type, self._name, own)
                register = zeroconf.update_service if told else zeroconf.register_service
                await trio.to_thread.run_sync(register, info)
                told = own
            await trio.sleep(CHECK_S)


def make_info(kind: str, name: str, addresses: Sequence[str]) -> ServiceInfo:
    """A service whose TXT records name the addresses; its host is made up, as libp2p has it."""
    texts = {f"dnsaddr{number or ''}": one for number, one in enumerate(addresses)}
    server = f"{name.partition('.')[0]}.p2p.local."
    return ServiceInfo(kind, name, port=1, properties=texts, server=server, addresses=[b"\0" * 4])


def addresses_in(info: ServiceInfo) -> list[str]:
    """The addresses that a service names, bounded; the peer book judges them."""
    values = [
        value
        for key, value in info.properties.items()
        if key.startswith(b"dnsaddr") and value is not None and len(value) <= MAX_ADDRESS_CHARS
    ]
    return [value.decode(errors="replace") for value in values[:MAX_ADDRESSES]]


async def _in_thread(call: Callable[[], T]) -> T:
    """Runs a call that ends within seconds; it is left behind where the node ends before."""
    return await trio.to_thread.run_sync(  # trio-typing's stubs are older than this argument
        call,
        abandon_on_cancel=True,  # type: ignore[call-arg]
    )
