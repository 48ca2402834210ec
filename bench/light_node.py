"""A light node: all of a node but policy and verifier. Its judge knows the truth at once.

    open_light_node   identity, real libp2p, intake, pool, announcements kept, catch-up
    live              one as a process that shares when it is told to, and uses all that it gets

For benchmarks (bench/gossip.py) and tests (tests/integration/test_faults.py). Not covered: a
learner beside it, verdicts that take time.
"""

import ctypes
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import trio

from node.config import NODE_PEERS
from node.foreign import IN_A_SWARM
from node.threads import OneAtATime
from rewards.question import Answer, Question, is_held_out
from rewards.tasks import TaskFacts, TaskSpec
from swarm import catalogue, libp2p_fixes
from swarm.announcements import Announcements
from swarm.catch_up import CatchUp, CatchUpLimits
from swarm.database import open_database
from swarm.identity import SEQUENCE_FILE, Identity, Sequences, open_identity
from swarm.intake import Intake
from swarm.judge import ScriptedJudge
from swarm.ledger import Ledger
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.limits import PeerLimits
from swarm.manifest import Rules
from swarm.network_options import NetworkOptions
from swarm.pool import Pool
from swarm.share import OwnRollout, Publisher
from swarm.wanted import Wanted

SWARM_ID = "5" * 64
RULES = Rules(
    (TaskSpec("sums", "reasoning_gym", "chain_sum", "0.1.25"),),
    max_new_tokens=4096,
    max_answer_bytes=131_072,
)
ANSWERS = 8
EVERYTHING = Wanted(100_000, 100_000, could_use=lambda entry: True)
REPORT_S = 0.1
CATCH_UP, OPTIONS = CatchUpLimits(), NetworkOptions()
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class LightNode:
    """Its parts; `run` has to be started."""

    identity: Identity
    gossip: Libp2pGossip
    pool: Pool
    ledger: Ledger
    publisher: Publisher
    intake: Intake
    catch_up: CatchUp
    offload: OneAtATime

    async def run(self) -> None:
        """Takes what peers announce, and asks them what it missed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.catch_up.run)
            await self.intake.run()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_light_node(
    home: Path,
    listen: str,
    bootstrap: Sequence[str],
    wanted: Wanted,
    *,
    catch_up: CatchUpLimits = CATCH_UP,
    options: NetworkOptions = OPTIONS,
    max_peers: int = NODE_PEERS,
) -> AsyncIterator[LightNode]:
    """A node in `home`, which is made where it is missing."""
    home.mkdir(exist_ok=True)
    offload = OneAtATime()
    database = await offload(open_database, home / "pool.sqlite")
    pool = await offload(Pool, database, RULES.lifetime_s, max_bytes=64 * 2**20)
    ledger = await offload(Ledger, database)
    limits = PeerLimits()

    async def find(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        return await offload(pool.find, hashes)

    async def tell(request: bytes) -> tuple[bytes, int] | None:
        return await catalogue.answer(request, kept, offload)

    with open_identity(home) as identity:
        kept = await offload(Announcements, database, identity.node_id)
        async with open_libp2p(
            identity,
            SWARM_ID,
            listen,
            find,
            bootstrap,
            home / "peers.json",
            max_peers,
            options=options,
            answer_catalogue=tell,
            peer_limits=limits,
        ) as gossip:
            intake = Intake(
                gossip,
                ScriptedJudge(),
                pool,
                ledger,
                offload,
                RULES,
                SWARM_ID,
                wanted,
                {"sums": TaskFacts("", True, None)},
                IN_A_SWARM,
                kept=kept,
                peer_limits=limits,
            )
            sequences = Sequences(home / SEQUENCE_FILE)
            publisher = Publisher(
                identity, SWARM_ID, RULES, sequences, pool, gossip, offload, kept=kept
            )
            catching = CatchUp(gossip, kept, intake.hear, offload, catch_up)
            yield LightNode(identity, gossip, pool, ledger, publisher, intake, catching, offload)


def make_own_rollout(rng: random.Random, kib: float) -> OwnRollout:
    """One right answer and seven wrong ones, of so many KiB together."""
    index = rng.randrange(2**40)
    while is_held_out(f"sums: say {index}"):  # as ScriptedJudge expands it
        index += 1
    size = int(kib * 1024) // ANSWERS
    wrong = [Answer("".join(rng.choices("abcdefgh 123", k=size)), True) for _ in range(ANSWERS - 1)]
    correct = (True,) + (False,) * (ANSWERS - 1)
    return Question("sums", index), (Answer(str(index), True), *wrong), correct, 1


# --- a process ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LightSettings:
    """Of one process."""

    home: Path
    listen: str
    bootstrap: tuple[str, ...] = ()
    announce: tuple[str, ...] = ()
    namespace: str = ""
    """Of the network, in which it lives; empty: that of its parent."""
    repair_s: float = 300.0
    """See CatchUpLimits."""
    ping_s: float = 15.0
    """Between pings, and the patience for their answers."""
    kib: float = 10.0
    """Of its rollouts."""


def live(settings: LightSettings, orders: Connection) -> None:
    """Runs a light node until it is told to end.

    Orders: ("share", how many, seconds between them), ("end",). Says, whenever it has changed, what
    it has done so far, as a dict.
    """
    if settings.namespace:
        enter_namespace(settings.namespace)
    sys.stderr = (settings.home.with_suffix(".log")).open("a", buffering=1)
    libp2p_fixes.PING_INTERVAL_S = libp2p_fixes.PONG_TIMEOUT_S = settings.ping_s
    trio.run(_live, settings, orders)


def enter_namespace(name: str) -> None:
    """Moves this process, which must have one thread, into a network namespace.

    Raises:
        OSError: there is none of this name, or only root may.
    """
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    os.close(handle)


async def _live(settings: LightSettings, orders: Connection) -> None:
    limits = CatchUpLimits(repair_s=settings.repair_s, retry_s=min(20.0, settings.repair_s))
    rng = random.Random()
    async with open_light_node(
        settings.home,
        settings.listen,
        settings.bootstrap,
        EVERYTHING,
        catch_up=limits,
        options=NetworkOptions(announce=settings.announce),
    ) as node:
        done = {"shared": 0, "used": 0}

        async def share(num: int, every_s: float) -> None:
            for _ in range(num):
                await node.publisher.share([make_own_rollout(rng, settings.kib)], "none")
                done["shared"] += 1
                await trio.sleep(every_s)

        async def use() -> None:
            while True:
                drawn = await node.offload(node.pool.draw, 1000, 1000, rng)
                done["used"] += len(drawn)
                await node.intake.wait_for_more()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            nursery.start_soon(use)
            nursery.start_soon(_report, node, done, orders)
            while True:
                order = await trio.to_thread.run_sync(orders.recv, abandon_on_cancel=True)
                if order[0] == "end":
                    nursery.cancel_scope.cancel()
                    break
                nursery.start_soon(share, *order[1:])


async def _report(node: LightNode, done: dict[str, int], orders: Connection) -> None:
    before: dict[str, Any] = {}
    while True:
        traffic = node.gossip.traffic()
        state = done | {
            "addresses": node.gossip.addresses(),
            "peers": sorted(node.gossip.members()),
            "connections": len(node.gossip.connections()),
            "dropped": traffic.announcements_dropped,
            "unsent": traffic.messages_unsent,
            "failed": traffic.fetches_failed,
            "connections_refused": traffic.connections_refused,
            "limited": dict(traffic.limited),
            "refused": node.ledger.refused_totals(),
            "newcomers": node.catch_up.stats().num_newcomers,
        }
        if state != before:
            orders.send(state)
        before = state
        await trio.sleep(REPORT_S)
