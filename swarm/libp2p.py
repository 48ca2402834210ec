"""The real Gossip: announcements over GossipSub, rollouts over a request protocol, on trio.

    open_libp2p -> host (libp2p_host.py) -> pubsub (libp2p_fixes.py) -> Inbox -> the one reader
                   dialer.py keeps peers connected, peer_book.py knows whom

Not covered: peers behind a NAT must dial out, nobody can dial them.
"""

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import trio
from libp2p.abc import IHost
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service

from swarm import libp2p_fixes
from swarm.bans import IsBanned, nobody
from swarm.connection_limits import ConnectionLimits
from swarm.dialer import Dialer
from swarm.gossip import AnswerCatalogue, Connection, FindRollouts, Received, Traffic
from swarm.identity import Identity
from swarm.inbox import Inbox, has_announcement_form
from swarm.kademlia import Kademlia
from swarm.lan import Lan
from swarm.libp2p_fixes import OUTBOUND_QUEUE, CountedQueue, SwarmPubsub
from swarm.libp2p_host import (
    ByteCounter,
    build_host,
    build_limits,
    check_listening,
    close_listeners,
    parse_listen,
    reachable_addresses,
)
from swarm.limits import Kind, PeerLimits
from swarm.network_options import NetworkOptions
from swarm.own_addresses import OwnAddresses
from swarm.peer_book import PeerBook
from swarm.reach import Reach
from swarm.relay import RelayLimits
from swarm.requests import MAX_PEERS_TOLD, Requests
from swarm.shards import ShardChoice, shard_of_record, shard_topics
from swarm.twin import TwinWatch
from swarm.wire import claimed_author

log = logging.getLogger(__name__)

PACE_S = 2.0
"""So long does an announcement wait for a peer whose queue is half full."""
LEAVE_S = 3.0
SHARDS_S = 2.0
"""Between looks at which shards are heard."""
DEFAULTS = NetworkOptions()


class Libp2pDied(RuntimeError):
    """A part of libp2p ended by itself: the node has no peers any more."""


@asynccontextmanager
async def open_libp2p(
    identity: Identity,
    swarm_id: str,
    listen: Sequence[str] | str,
    find: FindRollouts,
    bootstrap: Sequence[str],
    peers_file: Path,
    max_peers: int,
    chance: random.Random | None = None,
    clock: Callable[[], float] = time.time,
    options: NetworkOptions = DEFAULTS,
    answer_catalogue: AnswerCatalogue | None = None,
    peer_limits: PeerLimits | None = None,
    num_shards: int = 1,
    is_banned: IsBanned = nobody,
) -> AsyncIterator["Libp2pGossip"]:
    """A node of the swarm, until the block is left; that takes LEAVE_S at most and tells the peers.

    Args:
        listen: multiaddrs such as /ip4/0.0.0.0/tcp/8421; port 0 takes a free one.
        find: serves peers' fetches; what it raises ends the block.
        bootstrap: multiaddrs with peer ids, dialled until there are peers enough.
        peers_file: where peers are saved, so that a restart needs no bootstrap node.
        max_peers: the newest beyond it is disconnected.
        clock: Unix seconds.
        answer_catalogue: tells peers what they missed, as `find` serves them; None does not.
        peer_limits: how much each peer may do; None takes the defaults.
        num_shards: of the swarm's rules.
        is_banned: such peers are neither dialled nor taken, and what they signed is not passed on;
            who is connected when it becomes so, has to be dropped.

    Raises:
        ListenError: an address cannot be listened on.
        WrongAddress: of a bootstrap address, or one to announce.
        WrongLibp2p: not the version that the remedies are for.
        ExceptionGroup: with Libp2pDied or the error of a part that ended while in the block.
    """
    libp2p_fixes.apply()
    chance = chance or random.Random()
    addresses = parse_listen([listen] if isinstance(listen, str) else listen)
    book = PeerBook(identity.node_id, bootstrap, peers_file, chance)
    counter = ByteCounter()
    limits = build_limits(
        max_peers, options.max_per_address, options.max_per_subnet, options.is_exempt
    )
    own = OwnAddresses(identity.node_id, options.announce, reachable_addresses)
    host = build_host(identity.seed, addresses, max_peers, counter, limits, own, is_banned)
    shards = ShardChoice(swarm_id, identity.node_id, num_shards, options.hear_bytes_per_s, clock)
    gossip = Libp2pGossip(
        host,
        swarm_id,
        find,
        counter,
        limits,
        book,
        max_peers,
        clock,
        shards,
        answer_catalogue,
        peer_limits,
        is_banned,
    )
    gossip.add_reach(own, options)
    if options.mdns:
        gossip.lan = Lan(swarm_id, gossip.addresses, book.hear)
    if options.dht:
        gossip.add_kademlia(Kademlia(host, swarm_id, book, gossip.members, chance))
    outcome = _Outcome()
    try:
        async with (
            host.run(listen_addrs=addresses),
            background_trio_service(gossip.pubsub),
            background_trio_service(gossip.router),
        ):
            check_listening(host, addresses)
            await gossip.pubsub.wait_until_ready()
            await gossip.hear_shards()
            try:
                async with trio.open_nursery() as nursery:
                    for part in (host.get_network(), gossip.pubsub, gossip.router):
                        nursery.start_soon(_watch, part)
                    nursery.start_soon(gossip.run)
                    with outcome:
                        yield gossip
                    nursery.cancel_scope.cancel()
            finally:
                await gossip.leave()
    except* RuntimeError as group:
        outcome.judge(group)
    if outcome.error is not None:
        raise outcome.error


class _Outcome:
    """How the block ended. Its own error leaves as it is, not wrapped by every nursery here."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.is_leaving = False

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.is_leaving = True
        if isinstance(error, Exception):
            self.error = error
        return self.error is not None

    def judge(self, group: ExceptionGroup[RuntimeError]) -> None:
        """Forgives what messages in flight raise while the node leaves; raises all else."""

        def is_real(error: BaseException) -> bool:
            return not (self.is_leaving and "Nursery is closed" in str(error))

        real = group.subgroup(
            lambda error: not isinstance(error, ExceptionGroup) and is_real(error)
        )
        if real is not None:
            raise real


async def _watch(service: Any) -> NoReturn:
    await service.manager.wait_finished()
    raise Libp2pDied(f"{type(service).__name__} ended")


class Libp2pGossip:
    """See Gossip. Bytes in its traffic are all that its connections carry, encrypted."""

    def __init__(
        self,
        host: IHost,
        swarm_id: str,
        find: FindRollouts,
        counter: ByteCounter,
        limits: ConnectionLimits,
        book: PeerBook,
        max_peers: int,
        clock: Callable[[], float],
        shards: ShardChoice,
        answer_catalogue: AnswerCatalogue | None = None,
        peer_limits: PeerLimits | None = None,
        is_banned: IsBanned = nobody,
    ) -> None:
        self.node_id = str(host.get_id())
        self.topics = shard_topics(swarm_id, shards.num_shards)
        self._shards = shards
        self._heard: frozenset[int] = frozenset()
        self._inbox = Inbox()
        self.received: trio.MemoryReceiveChannel[Received] = self._inbox.received
        self.pubsub = SwarmPubsub(
            host, self.topics, has_announcement_form, self._deliver, self._is_welcome
        )
        self.router = self.pubsub.gossip_router
        self._peer_limits = peer_limits or PeerLimits()
        self._is_banned = is_banned
        self._host = host
        self._counter = counter
        self._limits = limits
        self._book = book
        self.kademlia: Kademlia | None = None
        self.reach: Reach | None = None
        self.lan: Lan | None = None
        self.twins = TwinWatch(host, swarm_id, book)
        self._num_announced = 0
        self._requests = Requests(
            host,
            swarm_id,
            find,
            tell_peers=self._tell_peers,
            is_connected=lambda node_id: self._dialer.is_connected(node_id),
            answer_catalogue=answer_catalogue,
            limits=self._peer_limits,
        )
        self._dialer = Dialer(
            host, self.pubsub, book, max_peers, self._requests.ask_for_peers, clock, is_banned
        )

    async def announce(self, record: bytes) -> None:
        """See Gossip. Raises ValueError for what is no announcement by size and magic."""
        shard = shard_of_record(record, len(self.topics))
        self._inbox.check_own(record, shard)
        await self._wait_for_room()
        await self.pubsub.publish(self.topics[shard], record)
        self._num_announced += 1

    async def fetch(
        self, node_id: str, hashes: Sequence[bytes], max_bytes: int
    ) -> dict[bytes, bytes]:
        """See Gossip."""
        await self._dialer.visit(node_id)  # where that fails, the next line says so, and counts it
        return await self._requests.fetch(node_id, hashes, max_bytes)

    async def ask_catalogue(self, node_id: str, request: bytes) -> bytes:
        """See AsksCatalogue."""
        return await self._requests.ask_catalogue(node_id, request)

    def connections(self) -> list[Connection]:
        """See Gossip."""
        return self._dialer.connections()

    def heard_shards(self) -> frozenset[int]:
        """See AsksCatalogue."""
        return self._heard if len(self._heard) < len(self.topics) else frozenset()

    def traffic(self) -> Traffic:
        """See Gossip."""
        return Traffic(
            bytes_sent=self._counter.sent,
            bytes_received=self._counter.received,
            shards_heard=len(self._heard),
            announcements_sent=self._num_announced,
            announcements_received=self._inbox.num_received,
            announcements_dropped=self._inbox.num_dropped,
            connections_refused=self._limits.num_refused
            + self._dialer.num_turned_away
            + (self.reach.num_refused if self.reach else 0),
            messages_unsent=CountedQueue.num_unsent,
            limited=dict(self._peer_limits.num_limited),
            announcements_served=self._requests.num_sent[Kind.CATALOGUE],
            rollouts_served=self._requests.num_sent[Kind.FETCHES],
            visits=self._dialer.num_visits,
            visits_failed=self._dialer.num_visits_failed,
            rollouts_fetched=self._requests.num_fetched,
            fetches_failed=self._requests.num_failed,
        )

    def addresses(self) -> list[str]:
        """See Gossip. "Any interface" is shown as the address that packets to the world leave
        from; what a NAT makes of it is not known here."""
        return [str(address) for address in self._host.get_addrs()]

    def add_reach(self, own: OwnAddresses, options: NetworkOptions) -> None:
        """Lets it be reached, and reach others, through relays; before it runs."""
        limits = RelayLimits(bytes_per_s=options.relayed_bytes_per_s)
        self.reach = Reach(self._host, own, self._book, self._dialer, options.relay, limits)

    def add_kademlia(self, kademlia: Kademlia) -> None:
        """Lets it look peers up; before it runs."""
        self.kademlia = kademlia
        self._dialer.find = kademlia.find

    async def drop(self, node_id: str) -> None:
        """Ends all connections with a peer."""
        await self._dialer.drop(node_id)

    def members(self) -> list[str]:
        """Node ids of the connected peers that are of this swarm."""
        return self._dialer.members()

    async def run(self) -> None:
        """Keeps peers connected; raises what `find` raised."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.twins.run)
            if self.lan is not None:
                nursery.start_soon(self.lan.run)
            if self.reach is not None:
                nursery.start_soon(self.reach.run)
            if self.kademlia is not None:
                nursery.start_soon(self.kademlia.run)
            if len(self.topics) > 1:
                nursery.start_soon(self._keep_hearing)
            nursery.start_soon(self._dialer.run)
            await self._requests.wait_for_crash()

    async def hear_shards(self) -> None:
        """Joins the topics of the shards that are to be heard now, and leaves those of others."""
        wanted = self._shards.heard()
        for shard in sorted(wanted - self._heard):
            await self.pubsub.subscribe(self.topics[shard])
        for shard in sorted(self._heard - wanted):
            await self.pubsub.unsubscribe(self.topics[shard])
        self._heard = wanted

    async def leave(self) -> None:
        """Saves the peers, says goodbye to them all at once, and ends `received`."""
        with trio.move_on_after(LEAVE_S) as scope:
            scope.shield = True
            await self._dialer.save()
            await close_listeners(self._host)
            async with trio.open_nursery() as nursery:
                for connection in self.connections():
                    peer_id = ID.from_string(connection.node_id)
                    nursery.start_soon(self._host.disconnect, peer_id)
        self._inbox.close()

    async def _keep_hearing(self) -> None:
        while True:
            await trio.sleep(SHARDS_S)
            await self.hear_shards()

    def _deliver(self, record: bytes, carrier: str, topic: str) -> None:
        if self._inbox.put(record, carrier, self.topics.index(topic)):
            self._shards.note(len(record))

    def _is_welcome(self, carrier: str, record: bytes) -> bool:
        """Whether a peer may bring one more announcement; over its limit others may bring it."""
        if carrier == self.node_id:
            return True
        self.twins.hear(record)
        if not self._peer_limits.allows(carrier, Kind.ANNOUNCEMENTS):
            return False
        if self._is_banned(claimed_author(record)):
            # Heard, so that it is refused by its name, and not passed on.
            self._inbox.put(record, carrier)
            return False
        return True

    async def _wait_for_room(self) -> None:
        """A burst is slowed to what the slowest peer takes, but no peer stops it for ever."""
        with trio.move_on_after(PACE_S):
            while any(len(one) > OUTBOUND_QUEUE // 2 for one in self.pubsub.peer_queues.values()):
                await trio.sleep(0.01)

    def _tell_peers(self, node_id: str) -> list[str]:
        connected = {connection.node_id for connection in self.connections()}
        return self._book.to_share(connected, node_id, MAX_PEERS_TOLD)
