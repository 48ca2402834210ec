"""What honest nodes deliver to one another while something goes wrong: light nodes as processes.

Printed (pytest -s): announcements heard, rollouts used, seconds from announcement to pool, peak
memory, and all that was dropped, refused or failed. In the end no announcement may be missing, and
no rollout but those that a node gave up and counted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from swarm.catch_up import CatchUpLimits
from tests.integration.fault_swarm import ROUNDS, FaultSwarm, free_port, start_process
from tests.integration.hostile import live_hostile, open_silent, send_garbage
from tests.integration.tcp_proxy import TcpProxy
from tests.integration.two_sides import TwoSides, why_not

pytestmark = pytest.mark.timeout(600 + 300 * ROUNDS)

GOSSIP_MEMORY_S = 6.0
"""What was announced so long ago is not repaired by gossip any more."""
USUAL_S = CatchUpLimits().repair_s
"""Between regular questions for what was missed: too long for a healed network to wait for."""
Hostile = Callable[[str, Sequence[str]], Any]


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[FaultSwarm]:
    swarm = FaultSwarm(tmp_path)
    yield swarm
    swarm.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    """Starts a member that misbehaves; returns where it says how often it did."""
    processes: list[Any] = []

    def start(behaviour: str, bootstrap: Sequence[str]) -> Any:
        home = tmp_path / f"hostile-{len(processes)}"
        process, ours = start_process(live_hostile, behaviour, home, bootstrap)
        processes.append(process)
        return ours

    yield start
    for process in processes:
        process.kill()
        process.join()


def last(orders: Any) -> Any:
    """The last that was said; waits for the first."""
    said = orders.recv()
    while orders.poll():
        said = orders.recv()
    return said


def test_half_of_8_nodes_are_killed_and_come_back(swarm: FaultSwarm) -> None:
    swarm.start_many(8)
    for number in range(ROUNDS):
        half, others = swarm.nodes[number % 2 :: 2], swarm.nodes[(number + 1) % 2 :: 2]
        before = [node.wait_until(bool)["shared"] for node in half]
        for node in swarm.nodes:
            node.share(4, 0.25)
        for node, num in zip(half, before, strict=True):
            node.wait_until(lambda state, num=num: state["shared"] >= num + 2)
            node.kill()
        swarm.share(2, nodes=others)
        for node in half:
            node.start()
        swarm.meet()
        swarm.share(2)
    swarm.settle(f"half of 8 nodes killed, times: {ROUNDS}")


def test_bootstrap_nodes_gone_for_good_while_the_others_restart(swarm: FaultSwarm) -> None:
    first = [swarm.start(is_honest=False) for _ in range(2)]
    for _ in range(5):
        swarm.start(*[node.address for node in first])
    swarm.meet(num_peers=5)
    swarm.share()
    for node in first:
        node.kill()
    for _ in range(ROUNDS):
        for node in swarm.nodes[:3]:
            node.stop()
        swarm.share(nodes=swarm.nodes[3:])
        for node in swarm.nodes[3:]:
            node.stop()
        for node in swarm.nodes:
            node.start()
        swarm.meet()
        swarm.share()
    swarm.settle(f"both bootstrap nodes gone, all 5 others restarted, times: {ROUNDS}")


@pytest.fixture
def network() -> Iterator[TwoSides]:
    if reason := why_not():
        pytest.skip(f"A PARTED NETWORK IS NOT TESTED HERE: {reason}")
    network = TwoSides()
    yield network
    network.close()


def test_a_parted_network_of_2_times_3_nodes_that_heals(
    swarm: FaultSwarm, network: TwoSides
) -> None:
    for side, hosts in enumerate(network.sides):
        for number, host in enumerate(hosts):
            listen = f"/ip4/{network.address(side, number)}/tcp/8421"
            swarm.start(*swarm.bootstrap(), listen=listen, namespace=host, repair_s=USUAL_S)
    swarm.meet()
    swarm.share(2)
    healed_s = []
    for _ in range(min(ROUNDS, 2)):
        network.part()
        for node in swarm.nodes:
            node.wait_until(lambda state: len(state["peers"]) <= 2)  # it has noticed
        swarm.share(12, GOSSIP_MEMORY_S / 10)
        assert swarm.find().missing, "nothing was parted"
        network.join()
        began = time.monotonic()
        swarm.share(2)
        swarm.wait_for_all()
        for node in swarm.nodes:
            node.wait_until(lambda state: state["newcomers"] > 0)
        healed_s.append(f"{time.monotonic() - began:.0f}")
    title = f"2 x 3 nodes parted; all had all {' and '.join(healed_s)} s after the healing"
    assert swarm.settle(title).num_late, "only gossip was tried"


def test_latency_stalls_and_cut_connections(swarm: FaultSwarm, stack: ExitStack) -> None:
    proxies = []
    for _ in range(4):
        port = free_port()
        proxies.append(TcpProxy(port))
        stack.callback(proxies[-1].close)
        # what others are told is the proxy: whoever dials comes through it
        swarm.start(
            *[node.address for node in swarm.nodes[:1]],
            listen=f"/ip4/127.0.0.1/tcp/{port}",
            announce=(f"/ip4/127.0.0.1/tcp/{proxies[-1].port}",),
        )
    for proxy in proxies:
        proxy.weather.delay_s, proxy.weather.jitter_s = 0.05, 0.1
    swarm.meet()
    swarm.share(every_s=0.5)
    for number in range(ROUNDS):
        proxies[number % 4].weather.is_stalled = True
        swarm.share(every_s=0.5)  # meanwhile
        proxies[number % 4].weather.is_stalled = False
        swarm.share(2, 0.5)
        for proxy in proxies:
            proxy.cut()
        swarm.share(2, 0.5)
    swarm.settle(
        "4 nodes behind proxies, 50 to 150 ms late each way, one after the other stalled, "
        f"{sum(proxy.num_cut for proxy in proxies)} connections cut"
    )
    assert all(proxy.num_bytes > 10_000 for proxy in proxies)


def test_a_peer_that_dribbles_its_bytes(swarm: FaultSwarm, stack: ExitStack) -> None:
    port = free_port()
    proxy = TcpProxy(port)
    stack.callback(proxy.close)
    address = f"/ip4/127.0.0.1/tcp/{proxy.port}"
    slow = swarm.start(listen=f"/ip4/127.0.0.1/tcp/{port}", announce=(address,), is_honest=False)
    for _ in range(4):  # all dial it through the proxy
        swarm.start(f"{address}/p2p/{slow.node_id}", *swarm.bootstrap())
    swarm.meet(num_peers=4)
    assert proxy.num_connections >= 4
    slow.share(8, 0.0)
    slow.wait_until(lambda state: state["shared"] >= 8)
    proxy.weather.dribble_s = 0.05
    slow.share(100, 0.2)
    swarm.share(8 * ROUNDS)
    swarm.settle("one peer of 5 dribbles a byte per 50 ms")


def test_peers_that_never_read(swarm: FaultSwarm, hostile: Hostile) -> None:
    for _ in range(4):
        swarm.start(*swarm.bootstrap(), kib=100)
    swarm.meet()
    frozen = swarm.start(*swarm.bootstrap(), is_honest=False)
    frozen.wait_until(lambda state: len(state["peers"]) >= 4)
    orders = hostile("never_reads", [node.address for node in swarm.nodes])
    swarm.share(2)
    frozen.freeze()
    swarm.share(8 * ROUNDS)
    num = last(orders)
    assert num > 0
    swarm.settle(f"one peer fills the windows of {num} streams, one is stopped")


def test_garbage_oversized_frames_and_300_silent_connections(
    swarm: FaultSwarm, hostile: Hostile, stack: ExitStack
) -> None:
    swarm.start_many(4)
    ports = [int(node.address.split("/")[4]) for node in swarm.nodes]
    orders = hostile("oversized", [node.address for node in swarm.nodes])
    num_garbage = 0
    for _ in range(ROUNDS):
        for node in swarm.nodes:
            node.share(4, 0.25)
        num_open = open_silent(300, ports[:1], stack)
        num_garbage += send_garbage(ports)
        began = time.monotonic()
        late = swarm.start(swarm.nodes[0].address)  # which has all the silent ones
        late.wait_until(lambda state: state["peers"])
        joined_s = time.monotonic() - began
        swarm.share(4)
        stack.close()
    num = last(orders)
    assert num > 0
    swarm.settle(
        f"{num_garbage} times garbage, {num} oversized frames, {num_open} silent connections at "
        f"once: a new node has its first peer after {joined_s:.1f} s"
    )
