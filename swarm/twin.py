"""One identity on two machines: a node stops when it finds its key at work elsewhere.

Two proofs count. A handshake: peers tell a node under which addresses its id is known, it dials
those, and whoever completes the handshake there has the key; a number that every process draws
tells it from this node itself. A signature: an announcement of this id whose incarnation is higher
than the own one, which only a process that started later can have signed. What this node or an
earlier process of it has announced has a lower or the same one, however often it is replayed.

Of two, the one that finds the other stops: by announcements that is the older one.

Not covered: two that no peer ever connects, or of which neither can be dialled nor announces.
"""

import logging
import secrets

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.circuit import end
from swarm.identity import TwinFound
from swarm.peer_book import PeerBook
from swarm.wire import WireError, open_announcement

log = logging.getLogger(__name__)

PROTOCOL = TProtocol("/sapo/process/1")
TICK_S = 1.0
AGAIN_S = 600.0
"""Before an address of the own id is dialled again."""
DIAL_S = 10.0
_NUM_BYTES = 16


class TwinWatch:
    """Looks for other users of the own key."""

    def __init__(self, host: IHost, swarm_id: str, book: PeerBook) -> None:
        self.incarnation: int | None = None
        """Of this process's announcements; None makes none."""
        self._host = host
        self._own_id = str(host.get_id())
        self._swarm_id = swarm_id
        self._book = book
        self._number = secrets.token_bytes(_NUM_BYTES)
        self._not_before: dict[str, float] = {}
        self._found: str | None = None
        host.set_stream_handler(PROTOCOL, self._answer)

    def hear(self, record: bytes) -> None:
        """Looks at an announcement that a peer brought, before it is known to be valid."""
        if self.incarnation is None or self._own_id.encode() not in record:
            return
        try:
            news = open_announcement(record)
        except WireError:
            return
        is_own = news.author == self._own_id and news.swarm_id == self._swarm_id
        if is_own and news.incarnation > self.incarnation:
            self._found = "it signed an announcement and started after this node"

    async def run(self) -> None:
        """For ever; raises TwinFound."""
        while True:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            own = {str(one) for one in self._host.get_addrs()}
            heard = [one for one in self._book.own_heard if one not in own]
            self._not_before = {one: at for one, at in self._not_before.items() if one in heard}
            for address in [one for one in heard if self._not_before.get(one, 0.0) <= now]:
                self._not_before[address] = now + AGAIN_S
                await self._visit(address)
            if self._found is not None:
                raise TwinFound(
                    f"another machine is this node ({self._own_id}): {self._found}. "
                    "Stop it there, or give this home an identity of its own: remove identity.key"
                )

    async def _visit(self, address: str) -> None:
        """Dials an address of the own id: this node is there, nobody, or another with the key."""
        peer_id = self._host.get_id()
        network = self._host.get_network()
        with trio.move_on_after(DIAL_S):
            try:
                await network.dial_addr(Multiaddr(address), peer_id)
                stream = await self._host.new_stream(peer_id, [PROTOCOL])
                number = await stream.read(_NUM_BYTES)
                await end(stream)
                if number != self._number:
                    self._found = f"it answers at {address}"
            except BaseLibp2pError as error:
                log.debug("nobody with the own id at %s: %s", address, error)
        with trio.move_on_after(DIAL_S):
            await self._host.disconnect(peer_id)

    async def _answer(self, stream: INetStream) -> None:
        try:
            await stream.write(self._number)
            with trio.move_on_after(DIAL_S):
                await stream.read(1)
        except BaseLibp2pError as error:
            log.debug("the number was not read: %s", error)
        finally:
            await end(stream)
