"""What a node's traffic depends on: swarms of 50 to 1,000 nodes in memory, by the product's parts.

    .venv/bin/python bench/swarm_size.py                   # some ten minutes
    .venv/bin/python bench/swarm_size.py --nodes 50 200 --shards 1

Each node has identity, gossip (in memory), intake and pool as they are, no policy, and a judge
that knows the truth at once. It shares a rollout of --kib KiB every round and draws --want of
others' out of its pool. Time is simulated. A node hears as many of --shards shards as fit into
--hear bytes a second; with one shard it hears everybody, however much that is.

Printed, per node: shards heard, announcements heard in a round, payload bytes received for each
rollout used, and how much of that is announcements and requests. Measured is the second half of
the rounds, when the choice of shards has settled.
"""

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

import msgspec
import trio
from light_node import RULES, SWARM_ID, make_own_rollout
from tqdm import tqdm
from trio.testing import MockClock

from node.experiment.member import Numbers, inline
from rewards.tasks import TaskFacts
from swarm.database import MemoryDatabase
from swarm.gossip import Traffic
from swarm.identity import Identity
from swarm.intake import Intake
from swarm.judge import ScriptedJudge
from swarm.ledger import Ledger
from swarm.memory_gossip import MemoryNetwork
from swarm.pool import Pool
from swarm.shards import ShardChoice
from swarm.share import Publisher
from swarm.wanted import Wanted

START = 1_800_000_000.0


def main() -> None:
    """Runs every size and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--hear", type=float, default=1000.0, help="bytes a second")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--round-s", type=float, default=20.0)
    parser.add_argument("--want", type=int, default=4)
    parser.add_argument("--kib", type=int, default=10)
    options = parser.parse_args()
    heads = (
        "nodes",
        "shards heard",
        "announcements heard a round",
        "used of wanted",
        "bytes received per rollout used",
        "of them no rollouts",
        "dropped",
        "failed",
        "s",
    )
    lines: list[tuple[str, ...]] = [heads, ("---",) * len(heads)]
    for num in options.nodes:
        clock = MockClock(autojump_threshold=0)
        lines.append(trio.run(run_swarm, num, options, clock, clock=clock))
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


class Node:
    """One of many."""

    def __init__(
        self,
        number: int,
        network: MemoryNetwork,
        options: argparse.Namespace,
        now: Callable[[], float],
    ) -> None:
        identity = Identity(hashlib.sha256(f"node {number}".encode()).digest())
        rules = msgspec.structs.replace(RULES, shards=options.shards)
        self.pool = Pool(MemoryDatabase(), rules.lifetime_s, 2**26, clock=now)
        self.gossip = network.join(
            identity.node_id,
            self._find,
            shards=ShardChoice(SWARM_ID, identity.node_id, options.shards, options.hear, now),
        )
        self.publisher = Publisher(
            identity, SWARM_ID, rules, Numbers(), self.pool, self.gossip, inline, now
        )
        self.rng = random.Random(number)
        self.intake = Intake(
            self.gossip,
            ScriptedJudge(),
            self.pool,
            Ledger(MemoryDatabase()),
            inline,
            rules,
            SWARM_ID,
            Wanted(options.want, max(1, options.want // 2), could_use=lambda entry: True),
            {"sums": TaskFacts("", True, None)},
            clock=now,
            rng=self.rng,
        )
        self.num_used = self.num_wanted = 0
        self._options = options

    async def play(self, rounds: int) -> None:
        """Rounds, begun at a moment of its own."""
        options = self._options
        await trio.sleep(self.rng.uniform(0, options.round_s))
        for _ in range(rounds):
            drawn = self.pool.draw(options.want, options.want, self.rng)
            self.num_used += len(drawn)
            self.num_wanted += options.want
            self.intake.wake()
            await self.publisher.share([make_own_rollout(self.rng, options.kib)], "none")
            await trio.sleep(options.round_s)

    async def _find(self, hashes: Any) -> dict[bytes, bytes]:
        return self.pool.find(hashes)


async def run_swarm(num: int, options: argparse.Namespace, clock: MockClock) -> tuple[str, ...]:
    """One line of the table."""
    began = time.perf_counter()

    def now() -> float:
        return START + clock.current_time()

    network = MemoryNetwork(clock=now, delay_s=0.05, num_shards=options.shards)
    nodes = [Node(number, network, options, now) for number in range(num)]
    half = options.rounds // 2
    async with trio.open_nursery() as running:
        for node in nodes:
            running.start_soon(node.intake.run)
        with tqdm(total=options.rounds, desc=f"{num} nodes", leave=False) as bar:
            async with trio.open_nursery() as rounds:
                for node in nodes:
                    rounds.start_soon(node.play, options.rounds)
                for _ in range(half):
                    await trio.sleep(options.round_s)
                    bar.update()
                before = [node.gossip.traffic() for node in nodes]
                fetched = sum(node.intake.stats().fetched_bytes for node in nodes)
                used = [(node.num_used, node.num_wanted) for node in nodes]
                for _ in range(options.rounds - half):
                    await trio.sleep(options.round_s)
                    bar.update()
        running.cancel_scope.cancel()
    after = [node.gossip.traffic() for node in nodes]
    fetched = sum(node.intake.stats().fetched_bytes for node in nodes) - fetched
    return line(nodes, before, after, used, fetched, options, time.perf_counter() - began)


def line(
    nodes: list[Node],
    before: list[Traffic],
    after: list[Traffic],
    used: list[tuple[int, int]],
    fetched_bytes: int,
    options: argparse.Namespace,
    seconds: float,
) -> tuple[str, ...]:
    """What was measured between two moments."""
    num_used = sum(node.num_used for node in nodes) - sum(one for one, _ in used)
    num_wanted = sum(node.num_wanted for node in nodes) - sum(one for _, one in used)
    received = _between(before, after, "bytes_received")
    heard = _between(before, after, "announcements_received")
    num_rounds = num_wanted / options.want
    return (
        str(len(nodes)),
        f"{fmean(one.shards_heard for one in after):.1f} of {options.shards}",
        f"{heard / num_rounds:.1f}",
        f"{num_used / max(1, num_wanted):.1%} of {num_wanted}",
        f"{received / max(1, num_used):,.0f}",
        f"{(received - fetched_bytes) / max(1, num_used):,.0f}",
        str(_between(before, after, "announcements_dropped")),
        str(_between(before, after, "fetches_failed")),
        f"{seconds:.0f}",
    )


def _between(before: list[Traffic], after: list[Traffic], name: str) -> int:
    return sum(
        getattr(one, name) - getattr(earlier, name)
        for one, earlier in zip(after, before, strict=True)
    )


if __name__ == "__main__":
    main()
