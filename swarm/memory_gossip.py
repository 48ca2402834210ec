"""The Gossip of tests: many nodes in one process, with delay, loss and partitions on demand."""

import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

import trio

from swarm import catalogue
from swarm.fetch import MAX_REPLY_BYTES, decode_reply, decode_request, encode_reply, encode_request
from swarm.gossip import (
    AnswerCatalogue,
    Connection,
    FetchFailed,
    FindRollouts,
    PeerBusy,
    Received,
    Traffic,
)
from swarm.inbox import CAPACITY, Inbox
from swarm.limits import Kind, PeerLimits
from swarm.shards import ShardChoice, shard_of_record

APART_S = 1e-6
"""Between two delayed announcements of a node: what is due at one instant, trio does in any
order."""


class MemoryNetwork:
    """Joins nodes to one swarm. Everybody is connected to everybody whom no partition cuts off.

    Deterministic for one seed. Under trio's mock clock a delay costs no time.
    """

    def __init__(
        self,
        seed: int = 0,
        delay_s: float = 0.0,
        loss: float = 0.0,
        clock: Callable[[], float] = time.time,
        num_shards: int = 1,
    ) -> None:
        """
        Args:
            delay_s: of every announcement and of every fetch.
            loss: probability that one announcement does not reach one node.
            clock: Unix seconds.
            num_shards: of the swarm's rules.
        """
        self.num_shards = num_shards
        self.delay_s = delay_s
        self.loss = loss
        self._random = random.Random(seed)
        self._clock = clock
        self._nodes: dict[str, MemoryGossip] = {}
        self._groups: tuple[frozenset[str], ...] = ()

    def join(
        self,
        node_id: str,
        find: FindRollouts,
        capacity: int = CAPACITY,
        answer_catalogue: AnswerCatalogue | None = None,
        limits: PeerLimits | None = None,
        shards: ShardChoice | None = None,
    ) -> "MemoryGossip":
        """A new node, connected at once. Under an id that left before, it is a restart.

        Args:
            capacity: announcements that may wait for the node's reader.
            answer_catalogue: tells peers what they missed; None tells nothing.
            limits: of what each peer may do to the node; None is no limit.
            shards: which of them the node hears; None hears all.
        """
        if node_id in self._nodes:
            raise ValueError(f"{node_id} is here already")
        node = MemoryGossip(self, node_id, find, self._clock(), capacity, answer_catalogue, limits)
        node.shards = shards
        self._nodes[node_id] = node
        return node

    def leave(self, node_id: str) -> None:
        """Takes a node away; its `received` ends."""
        self._nodes.pop(node_id).close()

    def partition(self, *groups: Collection[str]) -> None:
        """Cuts the groups off from each other until `heal`; nodes in no group reach everybody."""
        self._groups = tuple(map(frozenset, groups))

    def heal(self) -> None:
        """Connects everybody again."""
        self._groups = ()

    def reachable(self, node_id: str) -> list["MemoryGossip"]:
        """The other nodes that a node is connected to; none once it has left."""
        if node_id not in self._nodes:
            return []
        own = [group for group in self._groups if node_id in group]
        return [
            node
            for other, node in self._nodes.items()
            if other != node_id and not (own and self._is_cut_off(other, own))
        ]

    def loses(self) -> bool:
        """Whether the delivery at hand is lost."""
        return self._random.random() < self.loss

    def _is_cut_off(self, node_id: str, own: list[frozenset[str]]) -> bool:
        return any(node_id in group for group in self._groups if group not in own)


class MemoryGossip:
    """One node of a MemoryNetwork; see Gossip. Bytes in its traffic are payload."""

    def __init__(
        self,
        network: MemoryNetwork,
        node_id: str,
        find: FindRollouts,
        joined: float,
        capacity: int,
        answer_catalogue: AnswerCatalogue | None = None,
        limits: PeerLimits | None = None,
    ) -> None:
        self.node_id = node_id
        self._limits = limits or PeerLimits({})
        self._network = network
        self._find = find
        self._answer_catalogue = answer_catalogue
        self._joined = joined
        self._inbox = Inbox(capacity)
        self._bytes_sent = self._bytes_received = 0
        self._num_announced = self._num_served = self._num_fetched = self._num_failed = 0
        self._num_told = 0
        self.received: trio.MemoryReceiveChannel[Received] = self._inbox.received
        self.shards: ShardChoice | None = None

    async def announce(self, record: bytes) -> None:
        """See Gossip. Raises ValueError for what is no announcement by size and magic."""
        shard = shard_of_record(record, self._network.num_shards)
        self._inbox.check_own(record, shard)
        peers = [one for one in self._network.reachable(self.node_id) if one.hears(shard)]
        self._num_announced += 1
        self._bytes_sent += len(record) * len(peers)
        for peer in peers:
            if self._network.loses():
                continue
            if self._network.delay_s:
                later_s = APART_S * ((self._num_announced - 1) % 1000)
                trio.lowlevel.spawn_system_task(self._deliver_late, peer, record, shard, later_s)
            else:
                peer.deliver(record, self.node_id, shard)
        await trio.lowlevel.checkpoint()

    async def fetch(
        self, node_id: str, hashes: Sequence[bytes], max_bytes: int
    ) -> dict[bytes, bytes]:
        """See Gossip."""
        request = encode_request(hashes)
        try:
            reply = await self._ask(node_id, request, MemoryGossip.serve, Kind.FETCHES)
            found = decode_reply(reply, hashes, max_bytes)
        except FetchFailed:
            self._num_failed += 1
            raise
        self._num_fetched += len(found)
        return found

    async def ask_catalogue(self, node_id: str, request: bytes) -> bytes:
        """See AsksCatalogue."""
        serve = MemoryGossip.serve_catalogue
        reply = await self._ask(node_id, request, serve, Kind.CATALOGUE)
        if len(reply) > catalogue.MAX_REPLY_BYTES:
            raise FetchFailed(f"a reply of {len(reply)} bytes")
        return reply

    def connections(self) -> list[Connection]:
        """See Gossip."""
        return [
            Connection(node.node_id, f"/memory/{node.node_id}", max(self._joined, node._joined))
            for node in self._network.reachable(self.node_id)
        ]

    def heard_shards(self) -> frozenset[int]:
        """See AsksCatalogue."""
        heard = self.shards.heard() if self.shards else frozenset()
        return heard if len(heard) < self._network.num_shards else frozenset()

    def traffic(self) -> Traffic:
        """See Gossip."""
        return Traffic(
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            shards_heard=len(self.shards.heard()) if self.shards else self._network.num_shards,
            announcements_sent=self._num_announced,
            announcements_received=self._inbox.num_received,
            announcements_dropped=self._inbox.num_dropped,
            announcements_served=self._num_told,
            limited=dict(self._limits.num_limited),
            rollouts_served=self._num_served,
            rollouts_fetched=self._num_fetched,
            fetches_failed=self._num_failed,
        )

    def addresses(self) -> list[str]:
        """See Gossip."""
        return [f"/memory/{self.node_id}"]

    def hears(self, shard: int) -> bool:
        """Whether announcements on this shard reach the node."""
        return self.shards is None or shard in self.shards.heard()

    def deliver(self, record: bytes, carrier: str, shard: int = 0) -> None:
        """Takes an announcement from the network, whatever its bytes are."""
        self._bytes_received += len(record)
        if self._limits.allows(carrier, Kind.ANNOUNCEMENTS):
            is_new = self._inbox.put(record, carrier, shard)
            if is_new and self.shards is not None:
                self.shards.note(len(record))

    async def serve(self, request: bytes) -> bytes:
        """The reply to a request.

        Raises:
            FetchFailed: the request is malformed.
        """
        hashes = decode_request(request)
        if hashes is None:
            raise FetchFailed("the peer refused the request as malformed")
        reply, num_records = encode_reply(hashes, await self._find(hashes), MAX_REPLY_BYTES)
        self._num_served += num_records
        return reply

    async def serve_catalogue(self, request: bytes) -> bytes:
        """The reply to a catalogue request.

        Raises:
            FetchFailed: the request is malformed, or this node tells nothing.
        """
        answered = self._answer_catalogue and await self._answer_catalogue(request)
        if answered is None:
            raise FetchFailed("the peer refused the request")
        reply, num_records = answered
        self._num_told += num_records
        return reply

    def close(self) -> None:
        """Ends `received`; called by the network."""
        self._inbox.close()

    async def _ask(
        self,
        node_id: str,
        request: bytes,
        serve: Callable[["MemoryGossip", bytes], Awaitable[bytes]],
        kind: Kind,
    ) -> bytes:
        await trio.sleep(self._network.delay_s)
        for peer in self._network.reachable(self.node_id):
            if peer.node_id == node_id:
                if not peer._limits.allows_request(self.node_id, kind):
                    raise FetchFailed("the peer refused the request: too many")
                if peer._limits.is_busy(self.node_id):
                    raise PeerBusy("the peer is busy")
                reply = await serve(peer, request)
                peer._limits.spend_reply(self.node_id, len(reply))
                for end, sent, received in ((self, request, reply), (peer, reply, request)):
                    end._bytes_sent += len(sent)
                    end._bytes_received += len(received)
                return reply
        raise FetchFailed("not connected")

    async def _deliver_late(
        self, peer: "MemoryGossip", record: bytes, shard: int, later_s: float
    ) -> None:
        await trio.sleep(self._network.delay_s + later_s)
        if peer in self._network.reachable(self.node_id):
            peer.deliver(record, self.node_id, shard)
