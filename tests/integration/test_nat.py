"""Two nodes behind two NATs and a public relay, in network namespaces made here.

A NAT is Linux masquerading: it keeps a connection's port where it can. What is new from outside
is dropped; or answered with a reset, as by a router without a firewall; or every connection gets a
port at random, which no peer can foresee ("symmetric"). The kernel has no netem here, so a packet
takes no time: behind resetting NATs, packets that would cross on a real way never do.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.circuit import is_circuit
from swarm.identity import Identity

NODE = Path(__file__).with_name("nat_node.py")
ROOT = NODE.parents[2]
DEADLINE_S = 150
NET, RELAY, LEFT, RIGHT = "net", "relay", "left", "right"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def why_not() -> str:
    """Why there can be no namespaces here; empty where there can."""
    if missing := [name for name in ("ip", "iptables") if shutil.which(name) is None]:
        return f"{' and '.join(missing)} missing: apt-get install iproute2 iptables"
    name = f"sapo-{os.getpid()}-probe"
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.decode().strip()}"
    try:
        run("ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two")
        run("ip", "netns", "exec", name, "iptables", "-t", "nat", "-A", "POSTROUTING",
            "-j", "MASQUERADE")  # fmt: skip
    except subprocess.CalledProcessError as error:
        return f"no veth or no NAT: {error.stderr.decode().strip()}"
    finally:
        run("ip", "netns", "del", name)
    return ""


class Lab:
    """An internet with 5.0.0.1, and two networks behind 5.0.0.2 and 5.0.0.3."""

    def __init__(self, directory: Path, nat: str) -> None:
        self._prefix = f"sapo-{os.getpid()}-"
        self._directory = directory
        self._made: list[str] = []
        self.nodes: list[Node] = []
        try:
            self._build(nat)
        except BaseException:
            self.close()
            raise

    def _build(self, nat: str) -> None:
        for name in (NET, RELAY, "nat-left", "nat-right", LEFT, RIGHT):
            run("ip", "netns", "add", self._prefix + name)
            self._made.append(self._prefix + name)
            self._ip(name, "link set lo up")
        self._ip(NET, "link add br0 type bridge")
        self._ip(NET, "link set br0 up")
        for number, name in enumerate((RELAY, "nat-left", "nat-right"), 1):
            peer = self._prefix + name
            self._ip(NET, f"link add v{number} type veth peer name wan netns {peer}")
            self._ip(NET, f"link set v{number} master br0 up")
            self._ip(name, f"addr add 5.0.0.{number}/24 dev wan")
            self._ip(name, "link set wan up")
            self._ip(name, "route add default dev wan")
        for number, name in enumerate((LEFT, RIGHT), 1):
            self._add_nat(f"nat-{name}", name, f"10.{number}.0", nat)

    def _add_nat(self, router: str, name: str, net: str, nat: str) -> None:
        self._ip(router, f"link add lan type veth peer name eth netns {self._prefix + name}")
        self._ip(router, f"addr add {net}.1/24 dev lan")
        self._ip(router, "link set lan up")
        self._ip(name, f"addr add {net}.2/24 dev eth")
        self._ip(name, "link set eth up")
        self._ip(name, f"route add default via {net}.1")
        inside = ("ip", "netns", "exec", self._prefix + router)
        run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        rules = [
            "-t nat -A POSTROUTING -o wan -j MASQUERADE" + (" --random" * (nat == "symmetric")),
            "-A FORWARD -i wan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A FORWARD -i wan -j DROP",
        ]
        if nat != "resetting":
            rules.append("-A INPUT -i wan -j DROP")
        for rule in rules:
            run(*inside, "iptables", "-w", *rule.split())

    def _ip(self, name: str, command: str) -> None:
        run("ip", "-n", self._prefix + name, *command.split())

    def start(self, name: str, number: int, use: str, *bootstrap: str) -> "Node":
        node = Node(self._prefix + name, number, use, self._directory, bootstrap)
        self.nodes.append(node)
        return node

    def close(self) -> None:
        for node in self.nodes:
            node.stop()
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


class Node:
    """A process of nat_node.py in a namespace."""

    def __init__(
        self, namespace: str, number: int, use: str, directory: Path, bootstrap: tuple[str, ...]
    ) -> None:
        self.node_id = Identity(number.to_bytes(32)).node_id
        self._log = directory / f"{number}.log"
        self._lines: queue.Queue[str] = queue.Queue()
        self.last: dict[str, Any] = {}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, sys.executable, str(NODE), str(number),
                 "/ip4/0.0.0.0/tcp/8421", use, str(directory / f"{number}.json"), *bootstrap],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                text=True,
            )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # it ended

    def wait_until(self, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first state of which it is so."""
        give_up = time.monotonic() + DEADLINE_S
        while not (self.last and is_so(self.last)):
            try:
                left_s = give_up - time.monotonic()
                self.last = json.loads(self._lines.get(timeout=max(0.0, left_s)))
            except (queue.Empty, json.JSONDecodeError):
                raise AssertionError(f"{self.last}\n{self._log.read_text()[-4000:]}") from None
        return self.last

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[[str], Lab]]:
    if reason := why_not():
        pytest.skip(f"NAT, RELAYS AND HOLE PUNCHING ARE NOT TESTED HERE: {reason}")
    labs: list[Lab] = []

    def make(nat: str) -> Lab:
        labs.append(Lab(tmp_path, nat))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


def got_from(*others: Node) -> Callable[[dict[str, Any]], bool]:
    return lambda state: all(state["got"].get(one.node_id, 0) >= 3 for one in others)


@pytest.mark.parametrize(
    ("nat", "is_direct"), [("dropping", True), ("resetting", False), ("symmetric", False)]
)
def test_two_nodes_behind_nats_exchange_rollouts(
    make_lab: Callable[[str], Lab], nat: str, is_direct: bool, record_property: Any
) -> None:
    lab = make_lab(nat)
    relay = lab.start(RELAY, 1, "serve")
    bootstrap = relay.wait_until(lambda state: state["addresses"])["addresses"][0]
    assert bootstrap.startswith("/ip4/5.0.0.1/tcp/8421/")
    use = "auto" if is_direct else "use"  # which is quicker
    left = lab.start(LEFT, 2, use, bootstrap)
    right = lab.start(RIGHT, 3, use, bootstrap)
    for node in (left, right):
        node.wait_until(lambda state: any(map(is_circuit, state["addresses"])))
    left.wait_until(got_from(relay, right))
    right.wait_until(got_from(relay, left))
    if is_direct:
        for node, other in ((left, right), (right, left)):
            node.wait_until(lambda state: state["punched"])
            node.wait_until(lambda state, far=other: not is_circuit(state["peers"][far.node_id]))
    path = left.last["peers"][right.node_id]
    record_property("path", path)
    print(f"\n{nat} NATs: left and right are connected at {path}")  # noqa: T201  the report
    assert is_circuit(path) is not is_direct
