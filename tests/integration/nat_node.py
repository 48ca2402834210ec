"""One node of a test in network namespaces: shares a signed rollout, fetches those of others.

    python nat_node.py SEED_NUMBER LISTEN RELAY_USE PEERS_FILE [BOOTSTRAP ...]

Prints one JSON line whenever something changes, and ends when its standard input does.
"""

import json
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import trio

from rewards.question import Answer, Question
from swarm.gossip import FetchFailed
from swarm.identity import Identity
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.network_options import NetworkOptions, RelayUse
from swarm.rollout import Announcement, Entry, Rollout
from swarm.wire import open_announcement, open_rollout, rollout_hash, seal

SWARM_ID = "5" * 64


def make_rollout(identity: Identity, number: int) -> bytes:
    answers = tuple(Answer(text, True) for text in ("7", "8"))
    question = Question("sums", number)
    rollout = Rollout(
        SWARM_ID, identity.node_id, number + 1, question, answers, "model", 3, time.time()
    )
    return seal(rollout, identity)


async def announce(gossip: Libp2pGossip, identity: Identity, record: bytes) -> None:
    """Again and again, for peers come late."""
    question = open_rollout(record).question
    entry = Entry(rollout_hash(record), question, len(record), (True, False), 3)
    sequence = int(time.time() * 1000)
    while True:
        sequence += 1
        news = Announcement(SWARM_ID, identity.node_id, sequence, sequence, time.time(), (entry,))
        await gossip.announce(seal(news, identity))
        await trio.sleep(1)


async def fetch(gossip: Libp2pGossip, got: dict[str, int]) -> None:
    """From the author alone, so that it says who can reach whom."""
    async for received in gossip.received:
        news = open_announcement(received.record)
        hashes = [entry.hash for entry in news.entries]
        try:
            found = await gossip.fetch(news.author, hashes, 100_000)
        except FetchFailed:
            continue
        for record in found.values():
            assert open_rollout(record).author == news.author
            got[news.author] = got.get(news.author, 0) + 1


async def report(gossip: Libp2pGossip, got: dict[str, int]) -> None:
    before = ""
    while True:
        reach = gossip.reach
        line = json.dumps(
            {
                "node_id": gossip.node_id,
                "addresses": gossip.addresses(),
                "peers": {one.node_id: one.address for one in gossip.connections()},
                "got": {node_id: min(num, 3) for node_id, num in got.items()},
                "punched": reach.puncher.num_direct if reach and reach.puncher else 0,
            }
        )
        if line != before:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        before = line
        await trio.sleep(0.1)


async def main(seed: int, listen: str, use: str, file: str, *bootstrap: str) -> None:
    identity = Identity(seed.to_bytes(32))
    record = make_rollout(identity, seed)

    async def find(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return {one: record for one in hashes if one == rollout_hash(record)}

    options = NetworkOptions(relay=cast(RelayUse, use))
    got: dict[str, int] = {}
    async with (
        open_libp2p(
            identity, SWARM_ID, listen, find, bootstrap, Path(file), 16, random.Random(seed),
            options=options,
        ) as gossip,
        trio.open_nursery() as nursery,
    ):  # fmt: skip
        nursery.start_soon(announce, gossip, identity, record)
        nursery.start_soon(fetch, gossip, got)
        nursery.start_soon(report, gossip, got)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.DEBUG, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s"
    )
    for quiet in ("multiaddr", "libp2p", "asyncio"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    trio.run(main, int(sys.argv[1]), *sys.argv[2:])
