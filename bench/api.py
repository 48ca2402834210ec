"""How quickly the API answers while the learner trains: one real node with the embedded policy.

    .venv/bin/python bench/api.py                     # some three minutes
    .venv/bin/python bench/api.py --rounds 100000     # with a longer history

A node makes two rounds and is stopped; its history is then made as long as that of a node that has
run for long, and it starts again. Each path is asked on one kept connection, in turns, while rounds
go on. Printed: per path the size of an answer and p50, p99 and the longest time in milliseconds;
how many rounds were made meanwhile; what the machine was busy with besides.
"""

import argparse
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from node.access import read_address, read_token
from node.checkpoint import NodeState, find_newest
from node.history import History
from node.status import ForeignFate, ForeignGroup, RoundReport
from swarm.database import open_database

PATHS = (
    "/health",
    "/ready",
    "/metrics",
    "/api/v1/status",
    "/api/v1/rounds?limit=100",
    "/api/v1/rounds?limit=1000",
    "/api/v1/rounds?points=500",
    "/api/v1/tasks",
    "/api/v1/rollouts",
    "/api/v1/rollouts/{hash}",
    "/api/v1/peers",
    "/api/v1/refusals",
    "/api/v1/checkpoints",
    "/api/v1/config",
    "/api/v1/logs?limit=1000",
)
DEADLINE_S = 300


def main() -> None:
    """Makes the node, measures, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10_000, help="of the history")
    parser.add_argument("--asks", type=int, default=200, help="of each path")
    parser.add_argument("--engine", default="transformers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sapo-bench-") as directory:
        home = Path(directory) / "home"
        with Node(home, options.engine) as node:
            node.wait_for_round(2)
        lengthen(home, options.rounds)
        with Node(home, options.engine) as node:
            node.wait_for_round(options.rounds + 1)
            measure(node, options.asks, options.rounds)


class Node:
    """`sapo run`, until the block ends."""

    def __init__(self, home: Path, engine: str) -> None:
        self.home = home
        settings = {
            "api.port": 0,
            "swarm.listen": "/ip4/127.0.0.1/tcp/0",
            "rollout.engine": engine,
            "checkpoint.every": 1,
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        sapo = str(Path(sys.executable).with_name("sapo"))
        self.command = [sapo, "run", "--home", str(home), *words]

    def __enter__(self) -> "Node":
        with self.home.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_S)

    def connect(self) -> http.client.HTTPConnection:
        address = read_address(self.home)
        assert address is not None
        return http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)

    def ask(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        bearer = {"Authorization": f"Bearer {read_token(self.home)}"}
        connection.request("GET", path, headers=bearer)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body[:200])
        return body

    def round(self, connection: http.client.HTTPConnection) -> int:
        return int(json.loads(self.ask(connection, "/api/v1/status"))["learner"]["round"])

    def wait_for_round(self, number: int) -> None:
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            assert self.process.poll() is None, self.home.with_suffix(".log").read_text()[-2000:]
            if read_address(self.home) is not None:
                with closing(self.connect()) as connection:
                    if self.round(connection) >= number:
                        return
            time.sleep(0.2)
        raise TimeoutError(f"no round {number}")


def lengthen(home: Path, num_rounds: int) -> None:
    """The same node, as if it had made so many rounds with eight foreign groups each."""
    newest = find_newest(home / "checkpoints")
    assert newest is not None
    state, policy = newest
    later = NodeState(num_rounds, state.seed, state.swarm_id, state.model, state.total_tokens)
    (policy.parent / "state.json").write_bytes(msgspec.json.encode(later))
    policy.parent.rename(policy.parent.with_name(f"round-{num_rounds:08d}"))
    draw = random.Random(0)
    with closing(open_database(home / "pool.sqlite")) as database:
        history = History(database)
        (made,) = history.rounds(limit=1)
        for number in range(1, num_rounds + 1):
            history.put_round(report(made, number, draw))


def report(made: RoundReport, number: int, draw: random.Random) -> RoundReport:
    foreign = tuple(
        ForeignGroup("12D3KooW" + "x" * 44, draw.randbytes(32), "sums", ForeignFate.USED, 7, 9.5)
        for _ in range(8)
    )
    return msgspec.structs.replace(
        made, round=number, own_reward=draw.random(), foreign=foreign, finished_at=10.0 * number
    )


def measure(node: Node, num_asks: int, num_before: int) -> None:
    """Asks every path in turns."""
    with closing(node.connect()) as connection:
        (newest,) = json.loads(node.ask(connection, "/api/v1/rollouts?limit=1"))
        paths = [path.replace("{hash}", newest["hash"]) for path in PATHS]
        first = node.round(connection)
        began = time.monotonic()
        seconds: dict[str, list[float]] = {path: [] for path in paths}
        sizes: dict[str, int] = {}
        for _ in range(num_asks):
            for path in paths:
                asked = time.perf_counter()
                sizes[path] = len(node.ask(connection, path))
                seconds[path].append(time.perf_counter() - asked)
                time.sleep(0.002)  # no denial of service: one client that looks around
        passed, made = time.monotonic() - began, node.round(connection) - first
    show(f"{num_asks} asks of each path in {passed:.0f} s, while the learner made {made} rounds;")
    show(f"history of {num_before} rounds; load of the machine {os.getloadavg()[0]:.1f}")
    show(f"{'path':34}{'bytes':>10}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for path, kind in zip(paths, PATHS, strict=True):
        cuts = statistics.quantiles(seconds[path], n=100, method="inclusive")
        figures = [1000 * one for one in (cuts[49], cuts[98], max(seconds[path]))]
        show(f"{kind:34}{sizes[path]:>10}" + "".join(f"{one:9.1f}" for one in figures))


def show(line: str) -> None:
    """One line on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
