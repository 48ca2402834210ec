"""Keeps a node connected: dials, redials, learns of further peers, and lets foreign ones go."""

import ipaddress
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IHost, INetConn, INetwork, INotifee
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.rcmgr import Direction
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from swarm.bans import IsBanned, nobody
from swarm.circuit import CircuitFailed, is_circuit, relay_of
from swarm.debts import Debts
from swarm.gossip import Connection
from swarm.libp2p_fixes import SwarmPubsub
from swarm.peer_book import PeerBook, split_address

log = logging.getLogger(__name__)

TICK_S = 0.5
DIAL_S = 10.0
MAX_DIALS = 8
"""At once."""
SAVE_S = 5.0
"""At most so often is the peer file written."""
ASK_FIRST_S, ASK_S = 1.0, 30.0
"""After so long a new peer is asked for further peers, and then again."""
SUBSCRIBE_S = 30.0
"""A peer that has not joined a topic of ours after so long is disconnected: it is of another swarm,
or its subscription was lost, which connecting again repairs."""

PASS_S, MAX_PASSING = 10.0, 16
"""So long do so many peers stay beside those of a full node: they may ask for further peers, or
nobody could join through a bootstrap node that is full; and for rollouts."""
VISIT_S = 30.0
"""So long after it was asked last does a peer stay that was connected in order to be asked, unless
there is room for it."""
MAX_VISIT_FAILURES, VISIT_FAILURE_S = 16, 2.0
"""Visits that may fail at once, and one more after so long: what strangers sign and tell makes no
node dial more often."""

MAX_NAMED = 16
"""Addresses of one peer that are looked at."""
REACH_S = 20.0
"""So long do peers have for dialling this node before it seems that nobody can."""

AskForPeers = Callable[[str], Awaitable[list[str]]]
"""Node id of a connected peer -> addresses of further peers; empty if it does not answer."""

FindPeer = Callable[[str], Awaitable[None]]
"""Looks for a node: the peer book knows addresses of it afterwards, where any are found."""


class _Peer:
    """A connected peer, from its first connection to the end of its last."""

    def __init__(self, address: str, now: float, is_dialled: bool) -> None:
        self.address = address
        self.since = now
        self.is_dialled = is_dialled
        self.named: list[str] = []
        """Where it says that it can be dialled, without its id."""
        self.is_member = False
        self.visit_ends = math.inf
        """By trio's clock: then it makes room where that is scarce."""
        self.next_ask = trio.current_time() + ASK_FIRST_S
        self.leave_at = trio.current_time() + SUBSCRIBE_S


class Dialer(INotifee):
    """Which peers are connected, and the task that keeps it so."""

    def __init__(
        self,
        host: IHost,
        pubsub: SwarmPubsub,
        book: PeerBook,
        max_peers: int,
        ask: AskForPeers,
        clock: Callable[[], float],
        is_banned: IsBanned = nobody,
    ) -> None:
        """
        Args:
            clock: Unix seconds.
            is_banned: such peers are not dialled, nor relays that are.
        """
        network: Any = host.get_network()
        assert isinstance(network, Swarm)
        self._host, self._network, self._pubsub = host, network, pubsub
        self._book = book
        self._max_peers = max_peers
        self._wanted_peers = max(1, max_peers * 3 // 4)
        self._ask = ask
        self._clock = clock
        self._is_banned = is_banned
        self.num_turned_away = 0
        """Peers that were disconnected since the node has as many as it may."""
        self.dial_circuit: Callable[[str], Awaitable[None]] | None = None
        """Connects to a peer through a relay; None: such addresses are not used."""
        self.punching: set[str] = set()
        """Peers to whom a hole is being punched: that they come in proves nothing."""
        self.find: FindPeer | None = None
        """Looks for a peer that is to be visited; None: only those that the book knows are."""
        self.num_visits = self.num_visits_failed = 0
        """Peers that were connected in order to be asked, and those that could not be."""
        self._visit_failures = Debts[str](1)
        self._to_visit: set[str] = set()
        """To be dialled, whether there is room or not."""
        self._dial_ended = trio.lowlevel.ParkingLot()
        self._member_since: float | None = None
        self._came_in: set[bool] = set()  # whether from a public address
        self._peers: dict[str, _Peer] = {}
        self._dialling: dict[str, str] = {}
        self._passing: dict[str, float] = {}
        """Peers beyond `max_peers` -> when they are disconnected, by trio's clock."""
        self._wake = trio.Event()
        self._next_save = 0.0
        network.register_notifee(self)

    def connections(self) -> list[Connection]:
        """See Gossip."""
        return [
            Connection(node_id, peer.address, peer.since)
            for node_id, peer in self._peers.items()
            if node_id not in self._passing
        ]

    def members(self) -> list[str]:
        """Node ids of the connected peers that have joined a topic of the swarm."""
        return [
            node_id
            for node_id, peer in self._peers.items()
            if peer.is_member and node_id not in self._passing
        ]

    @property
    def _num_peers(self) -> int:
        return len(self._peers) - len(self._passing)

    def is_connected(self, node_id: str) -> bool:
        """Whether there is a connection to the peer now."""
        return node_id in self._peers

    async def visit(self, node_id: str) -> bool:
        """Connects to a peer that is to be asked for something, where it is not connected; returns
        whether it is now. It stays for VISIT_S, or for good where there is room; where this node is
        full, for PASS_S."""
        if self._is_banned(node_id):
            return False
        if not self.is_connected(node_id):
            debt_s = self._visit_failures.left_s("", trio.current_time())
            if debt_s > (MAX_VISIT_FAILURES - 1) * VISIT_FAILURE_S:
                return False
            with trio.move_on_after(2 * DIAL_S):
                await self._reach(node_id)
            if not self.is_connected(node_id):
                self.num_visits_failed += 1
                self._visit_failures.add("", VISIT_FAILURE_S, trio.current_time())
                return False
            self.num_visits += 1
            self._peers[node_id].visit_ends = 0.0
        peer = self._peers[node_id]
        if peer.visit_ends < math.inf:
            peer.visit_ends = trio.current_time() + VISIT_S
        return True

    async def _reach(self, node_id: str) -> None:
        """Has `run` dial it, which goes on when nobody waits for it any more: the address through
        a relay is the last that is tried."""
        if self.find is not None:
            await self.find(node_id)
        if self._book.addresses(node_id):
            self._to_visit.add(node_id)
            self._wake.set()
        while node_id in self._to_visit or node_id in self._dialling:
            await self._dial_ended.park()

    async def drop(self, node_id: str) -> None:
        """Ends all connections with a peer; whether it may come back is for others to say."""
        await self._network.close_peer(ID.from_string(node_id))

    def ask_soon(self, node_id: str) -> None:
        """Has a connected peer asked for further peers before it is its turn."""
        if (peer := self._peers.get(node_id)) is not None:
            peer.next_ask = trio.current_time() + ASK_FIRST_S

    def seems_unreachable(self) -> bool:
        """Whether there are peers for REACH_S and none of them ever dialled this node: where some
        have public addresses, such count only."""
        is_public = any(_is_public(peer.address) for peer in self._peers.values())
        return (
            self._member_since is not None
            and trio.current_time() - self._member_since >= REACH_S
            and (True not in self._came_in if is_public else not self._came_in)
        )

    def _note_inbound(self, node_id: str, conn: Any, address: str) -> None:
        came_in = conn.direction is Direction.INBOUND and not is_circuit(address)
        if came_in and node_id not in self.punching:
            self._came_in.add(_is_public(address))

    async def run(self) -> None:
        """Dials whoever is due, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                now = trio.current_time()
                self._dial_due(now, nursery)
                self._tend(now, nursery)
                await self._save_if_changed(now)
                with trio.move_on_after(TICK_S):
                    await self._wake.wait()

    async def save(self) -> None:
        """Writes the peer file; an error is logged, for the node can do without."""
        if self._book.is_changed:
            try:
                await trio.to_thread.run_sync(self._book.save)
            except OSError as error:
                log.warning("the peer file cannot be written: %s", error)

    def _dial_due(self, now: float, nursery: trio.Nursery) -> None:
        """Whom somebody waits for, and then who is due: that leaves a quarter of the places to
        those who dial us."""
        for node_id in self._to_visit - self._peers.keys() - self._dialling.keys():
            self._start_dial(node_id, nursery, is_visit=True)
        self._to_visit.clear()
        self._dial_ended.unpark_all()
        wanted = self._wanted_peers - self._num_peers - len(self._dialling)
        room = min(wanted, MAX_DIALS - len(self._dialling))
        busy = self._peers.keys() | self._dialling.keys()
        due = [one for one in self._book.due(now, busy) if not self._is_banned(one)]
        for node_id in due[: max(0, room)]:
            self._start_dial(node_id, nursery, is_visit=False)

    def _start_dial(self, node_id: str, nursery: trio.Nursery, is_visit: bool) -> None:
        self._dialling[node_id] = ""
        nursery.start_soon(self._dial, node_id, is_visit)

    async def _dial(self, node_id: str, is_visit: bool) -> None:
        try:
            for address in self._book.addresses(node_id):
                if self.is_connected(node_id):
                    return
                self._dialling[node_id] = address
                with trio.move_on_after(DIAL_S):
                    try:
                        await self._connect(address, node_id)
                        return
                    except (SwarmException, CircuitFailed) as error:
                        log.debug("cannot reach %s: %s", address, error)
            if not is_visit:  # else what many announce would never be dialled by itself
                self._book.failed(node_id, trio.current_time())
        finally:
            del self._dialling[node_id]
            self._dial_ended.unpark_all()

    async def _connect(self, address: str, node_id: str) -> None:
        if not is_circuit(address):
            await self._network.dial_addr(Multiaddr(address), ID.from_string(node_id))
        elif self._is_banned(relay_of(address)):
            raise CircuitFailed("the relay is banned")
        elif self.dial_circuit is not None:
            await self.dial_circuit(address)
        else:
            raise CircuitFailed("this node uses no relay")

    def _tend(self, now: float, nursery: trio.Nursery) -> None:
        """Looks after each connected peer."""
        joined = self._pubsub.members()
        for node_id, peer in list(self._peers.items()):
            peer_id = ID.from_string(node_id)
            peer.is_member = peer_id in joined
            if peer.is_member:
                if self._member_since is None:
                    self._member_since = now
                peer.leave_at = now + SUBSCRIBE_S
                self._learn(node_id, peer_id, peer)
            if peer_id not in self._pubsub.peers and peer.since + 5 < self._clock():
                self._pubsub._schedule_peer_stream_retry(peer_id)
            if peer.leave_at <= now:
                log.info("peer %s is not of this swarm", node_id)
                self._book.is_not_ours(node_id, now)
            if peer.visit_ends <= now and self._num_peers <= self._wanted_peers:
                peer.visit_ends = math.inf
            ends = min(peer.leave_at, peer.visit_ends, self._passing.get(node_id, math.inf))
            if ends <= now or self._is_banned(node_id):
                nursery.start_soon(self._network.close_peer, peer_id)
            elif peer.is_member and peer.next_ask <= now:
                peer.next_ask = now + ASK_S
                nursery.start_soon(self._hear, node_id)

    async def _hear(self, node_id: str) -> None:
        self._book.hear(await self._ask(node_id))

    def _learn(self, node_id: str, peer_id: ID, peer: _Peer) -> None:
        """Where a peer can be dialled: under public addresses that it names, through its relays,
        at the ports that it listens on under the address that we see, then under all it names.
        Where we dialled it ourselves, that address comes first, and only relays are added."""
        try:
            listed = self._host.get_peerstore().addrs(peer_id)[:MAX_NAMED]
        except PeerStoreError:
            return
        named = [str(one).removesuffix(f"/p2p/{node_id}") for one in listed]
        if not named or named == peer.named:
            return
        peer.named = named
        relayed = [one for one in named if is_circuit(one)]
        direct = [one for one in named if not is_circuit(one)]
        if peer.is_dialled:
            if relayed:
                self._book.connected(node_id, [*self._book.transports(node_id)[:1], *relayed[:2]])
            return
        base = peer.address.rpartition("/")[0]
        seen = [] if is_circuit(base) else [f"{base}/{one.rpartition('/')[2]}" for one in direct]
        public = [one for one in direct if _is_public(one)]
        self._book.connected(node_id, [*public[:2], *relayed[:2], *seen, *direct])

    async def _save_if_changed(self, now: float) -> None:
        if now >= self._next_save and self._book.is_changed:
            self._next_save = now + SAVE_S
            await self.save()

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """Called by the library for every connection that is made."""
        await trio.lowlevel.checkpoint()
        node_id = str(conn.muxed_conn.peer_id)
        if node_id == str(self._host.get_id()):  # swarm/twin.py looks who that is
            return
        addresses = conn.get_transport_addresses()
        address = str(addresses[0]) if addresses else ""
        self._note_inbound(node_id, conn, address)
        if (peer := self._peers.get(node_id)) is not None:
            if is_circuit(peer.address) and not is_circuit(address):
                peer.address = address
                log.info("peer %s is now connected directly at %s", node_id, address)
            return
        dialled = self._dialling.get(node_id, "")
        self._peers[node_id] = _Peer(address, self._clock(), bool(dialled))
        if self._num_peers > self._max_peers:
            pass_s = PASS_S if len(self._passing) < MAX_PASSING else 0.0
            self._passing[node_id] = trio.current_time() + pass_s
            self.num_turned_away += not dialled
            self._wake.set()
            return
        if dialled:
            self._book.connected(node_id, [split_address(dialled)[0]])
        log.info("peer %s connected at %s (%d peers)", node_id, address, len(self._peers))

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """Called by the library for every connection that ended."""
        await trio.lowlevel.checkpoint()
        peer_id = conn.muxed_conn.peer_id
        node_id = str(peer_id)
        if self._network.get_connections(peer_id) or node_id not in self._peers:
            return
        peer = self._peers.pop(node_id)
        if self._passing.pop(node_id, None) is not None:
            return
        self._book.lost(node_id, trio.current_time(), self._clock() - peer.since)
        log.info("peer %s lost at %s (%d peers)", node_id, peer.address, len(self._peers))
        self._wake.set()

    async def opened_stream(self, network: INetwork, stream: object) -> None:
        """Not of interest."""

    async def closed_stream(self, network: INetwork, stream: object) -> None:
        """Not of interest."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Not of interest."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Not of interest."""


def _is_public(address: str) -> bool:
    """Whether it is a name, or an IP address that holds everywhere."""
    kind, host = address.split("/")[1:3]
    try:
        return kind.startswith("dns") or ipaddress.ip_address(host).is_global
    except ValueError:
        return False
