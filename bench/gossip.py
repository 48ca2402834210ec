"""How well rollouts travel over real libp2p: delivery, latency, CPU and bytes, N processes.

    .venv/bin/python bench/gossip.py                 # 8, 20 and 50 hosts, some five minutes
    .venv/bin/python bench/gossip.py --hosts 8 --seconds 60

Every host is a process: a node without a policy (identity, gossip, intake, pool) whose judge knows
the truth at once. It shares rollouts of --kib KiB, and each round draws --want of others' out of
its pool, which it then fetches again. All hosts together announce --total times a second, however
many they are. One core more is kept busy, as by a learner, unless --idle.

Printed: announcements that arrived of those sent to others; rollouts drawn of those wanted; seconds
from "announced and wanted" to the pool; CPU per announcement received, from a run of the same hosts
that want nothing, and what each fetch costs beside it; bytes on the wire (encrypted, TCP's own
excluded) per byte of the rollouts used; authors that were connected in order to be asked. All hosts
share this machine, so seconds hold for it alone.
"""

import argparse
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

HOSTS = (8, 20, 50)
Figures = dict[str, Any]


def main() -> None:
    """Runs every number of hosts and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--hosts", type=int, nargs="+", default=list(HOSTS))
    parser.add_argument("--total", type=float, default=8.0, help="announcements a second, of all")
    parser.add_argument("--want", type=int, default=4, help="rollouts a round")
    parser.add_argument("--round-s", type=float, default=2.0)
    parser.add_argument("--kib", type=int, default=10, help="size of a rollout")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--max-peers", type=int, default=64, help="of each host")
    parser.add_argument("--idle", action="store_true", help="no core is kept busy")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return run_host(json.loads(options.child))
    learner = None if options.idle else multiprocessing.Process(target=compute, daemon=True)
    if learner:
        learner.start()
    rows = []
    for num in options.hosts:
        for want in (0, options.want):
            rows.append((num, want, run_swarm(num, want, options)))
    show(rows)


def compute() -> None:
    """A learner, as far as others notice it."""
    import torch

    torch.set_num_threads(1)
    weights = torch.randn(512, 512)
    while True:
        weights = torch.nn.functional.normalize(weights @ weights)


# --- the hosts, from outside ----------------------------------------------------------------------


def run_swarm(num: int, want: int, options: argparse.Namespace) -> Figures:
    """All hosts from their start to their figures, summed."""
    settings = {
        "want": want,
        "every_s": num / options.total,
        "round_s": options.round_s,
        "kib": options.kib,
        "max_peers": options.max_peers,
        "seconds": options.seconds,
    }
    hosts: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as place:
        addresses: list[str] = []
        for number in tqdm(range(num), desc=f"{num} hosts", leave=False):
            own = settings | {"home": f"{place}/{number}", "bootstrap": addresses[:3]}
            command = [sys.executable, __file__, "--child", json.dumps(own)]
            host = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            hosts.append(host)
            addresses.append(_read(host.stdout)["address"])
        for word in ("meet", "share", "end"):
            for host in hosts:
                _write(host.stdin, word)
            found = [_read(host.stdout) for host in tqdm(hosts, desc=f"{num} {word}", leave=False)]
        for host in hosts:
            host.wait()
    return summed(found)


def summed(found: list[Figures]) -> Figures:
    """Lists are joined, numbers added."""
    return {
        name: [one for figures in found for one in figures[name]]
        if isinstance(found[0][name], list)
        else sum(figures[name] for figures in found)
        for name in found[0]
    }


def _write(stream: IO[str] | None, word: str) -> None:
    assert stream is not None
    stream.write(word + "\n")
    stream.flush()


def _read(stream: IO[str] | None) -> Figures:
    assert stream is not None
    return json.loads(stream.readline())  # type: ignore[no-any-return]


def show(rows: list[tuple[int, int, Figures]]) -> None:
    """The table."""
    heads = (
        "hosts",
        "wanted",
        "announced",
        "arrived",
        "used of wanted",
        "to the pool p50 / p99 / max s",
        "CPU ms per announcement",
        "CPU ms per fetch",
        "wire bytes per byte used",
        "visits",
        "dropped",
        "failed",
    )
    lines = [heads, ("---",) * len(heads)]
    base: dict[int, float] = {}
    for num, want, one in rows:
        expected = one["sent"] * (num - 1)
        seconds = sorted(one["seconds"])
        if not want:
            base[num] = one["cpu_s"] / max(1, one["received"])
        per_fetch = (one["cpu_s"] - base[num] * one["received"]) / max(1, one["fetched"])
        figures = (
            str(num),
            str(want),
            str(one["sent"]),
            f"{one['received'] / max(1, expected):.2%} of {expected}",
            f"{one['used']} of {one['wanted']}" if want else "-",
            " / ".join(f"{quantile(seconds, q):.2f}" for q in (0.5, 0.99, 1)) if want else "-",
            f"{1000 * base[num]:.1f}" if not want else "-",
            f"{1000 * per_fetch:.1f}" if want else "-",
            f"{one['wire_bytes'] / max(1, one['used_bytes']):.2f}" if want else "-",
            f"{one['visits']}, {one['visits_failed']} failed" if want else "-",
            str(one["dropped"]),
            str(one["failed"]),
        )
        lines.append(figures)
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


def quantile(ordered: list[float], share: float) -> float:
    """Of sorted values, the smallest that so many do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


# --- one host, from within ------------------------------------------------------------------------


def run_host(settings: Figures) -> None:
    """A node until it is told to end."""
    import trio

    trio.run(_run_host, settings)


async def _run_host(settings: Figures) -> None:
    import trio
    from light_node import make_own_rollout, open_light_node

    from swarm.wanted import Wanted

    rng = random.Random(settings["home"])
    want = int(settings["want"])
    seconds: list[float] = []
    wanted_since = time.time()
    async with open_light_node(
        Path(settings["home"]),
        "/ip4/127.0.0.1/tcp/0",
        settings["bootstrap"],
        Wanted(want, max(1, want // 2), could_use=lambda entry: True),
        max_peers=settings["max_peers"],
    ) as node:
        gossip, pool, offload = node.gossip, node.pool, node.offload
        add = pool.add_foreign

        def add_timed(*arguments: Any) -> Any:
            added = add(*arguments)
            if added is None:
                seconds.append(time.time() - max(arguments[1].created, wanted_since))
            return added

        pool.add_foreign = add_timed  # type: ignore[method-assign]
        used = wanted = used_bytes = 0

        async def share_often() -> None:
            await trio.sleep(rng.uniform(0, settings["every_s"]))
            while True:
                await node.publisher.share([make_own_rollout(rng, settings["kib"])], "none")
                await trio.sleep(settings["every_s"])

        async def draw_often() -> None:
            nonlocal used, wanted, used_bytes, wanted_since
            await trio.sleep(rng.uniform(0, settings["round_s"]) + settings["every_s"])
            while True:
                await trio.sleep(settings["round_s"])
                drawn = await offload(pool.draw, want, want, rng)
                used += len(drawn)
                wanted += want
                used_bytes += settings["kib"] * 1024 * len(drawn)
                wanted_since = time.time()
                node.intake.wake()

        _say({"address": gossip.addresses()[0]})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await _hear("meet")
            with trio.move_on_after(60):
                while len(gossip.connections()) < 3:
                    await trio.sleep(0.1)
            await trio.sleep(5)  # until the mesh has been made
            _say({})
            await _hear("share")
            before, cpu = gossip.traffic(), time.process_time()
            async with trio.open_nursery() as work:
                work.start_soon(share_often)
                if want:
                    work.start_soon(draw_often)
                await trio.sleep(settings["seconds"])
                work.cancel_scope.cancel()
            await trio.sleep(3)  # what is on its way arrives
            after = gossip.traffic()
            _say({})
            await _hear("end")
            _say(
                {
                    "sent": after.announcements_sent,
                    "received": after.announcements_received,
                    "dropped": after.announcements_dropped,
                    "visits": after.visits - before.visits,
                    "visits_failed": after.visits_failed - before.visits_failed,
                    "fetched": after.rollouts_fetched,
                    "failed": after.fetches_failed,
                    "wire_bytes": after.bytes_sent - before.bytes_sent,
                    "cpu_s": time.process_time() - cpu,
                    "used": used,
                    "used_bytes": used_bytes,
                    "wanted": wanted,
                    "seconds": seconds,
                }
            )
            nursery.cancel_scope.cancel()


async def _hear(word: str) -> None:
    import trio

    said = await trio.to_thread.run_sync(sys.stdin.readline)
    assert said.strip() == word, said


def _say(figures: Figures) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
