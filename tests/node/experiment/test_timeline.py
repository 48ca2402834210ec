"""The clock of a run: what happens, happens in the order of its instants."""

import trio

from node.experiment.timeline import QUIET_S, START, Spread, Timeline
from swarm.memory_gossip import MemoryNetwork
from swarm.wire import rollout_hash


def test_events_happen_in_their_order_and_not_before_their_time() -> None:
    timeline = Timeline()
    happened: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await trio.sleep(seconds)
        happened.append((name, timeline.now() - START))

    async def play() -> list[tuple[str, float]]:
        async with trio.open_nursery() as nursery:
            for name, seconds in (("last", 3.0), ("first", 1.0), ("second", 2.0)):
                nursery.start_soon(sleeper, name, seconds)
            await timeline.go_to(2.5)
            seen = list(happened)
            await timeline.go_to(1.0)  # is over
            assert timeline.now() == START + 2.5
            nursery.cancel_scope.cancel()
        return seen

    assert trio.run(play, clock=timeline.clock) == [("first", 1.0), ("second", 2.0)]


def test_settling_follows_what_comes_soon_and_leaves_what_comes_late() -> None:
    timeline = Timeline()
    num_steps = 0

    async def chain() -> None:
        nonlocal num_steps
        for seconds in (QUIET_S / 2, QUIET_S / 2, QUIET_S / 2, 10 * QUIET_S):
            await trio.sleep(seconds)
            num_steps += 1

    async def play() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain)
            await timeline.settle()
            nursery.cancel_scope.cancel()

    trio.run(play, clock=timeline.clock)
    assert num_steps == 3


def test_fetches_of_one_node_from_two_peers_never_end_together() -> None:
    timeline = Timeline()
    ended: list[tuple[str, float]] = []

    async def find(hashes: object) -> dict[bytes, bytes]:
        return {rollout_hash(b"rollout"): b"rollout"}

    async def play() -> None:
        network = MemoryNetwork(delay_s=5.0, clock=timeline.now)
        order = {name: number for number, name in enumerate(("reader", "near", "far"))}
        gossips = {name: Spread(network.join(name, find), order) for name in order}

        async def fetch(source: str) -> None:
            hashes = [rollout_hash(b"rollout")]
            assert await gossips["reader"].fetch(source, hashes, 1000)
            ended.append((source, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, "far")
            nursery.start_soon(fetch, "near")
            await timeline.go_to(6.0)

    for _ in range(8):  # trio's own order is drawn anew each time
        ended.clear()
        timeline = Timeline()
        trio.run(play, clock=timeline.clock)
        assert [name for name, _ in ended] == ["near", "far"]
        assert ended[0][1] < ended[1][1]
