"""mDNS on loopback: nodes of one swarm hear of each other, those of another do not."""

import trio
from trio.testing import trio_test

from swarm.identity import Identity
from swarm.lan import Lan, addresses_in, make_info, service_type
from swarm.peer_book import MAX_ADDRESS_CHARS, MAX_ADDRESSES
from tests.swarm.until import until

LOOPBACK = ["127.0.0.1"]
IDS = [Identity(bytes([number] * 32)).node_id for number in range(3)]
ADDRESSES = [f"/ip4/192.0.2.{number}/tcp/8421/p2p/{one}" for number, one in enumerate(IDS)]
RELAYED = f"/ip4/192.0.2.9/tcp/1/p2p/{IDS[2]}/p2p-circuit/p2p/{IDS[0]}"


@trio_test
async def test_nodes_of_one_swarm_hear_of_each_other_and_of_nobody_else() -> None:
    heard: list[list[str]] = [[], [], []]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number, swarm_id in enumerate(("one", "one", "other")):
                told = [ADDRESSES[number], RELAYED]
                lan = Lan(swarm_id, lambda told=told: told, heard[number].extend, LOOPBACK)
                nursery.start_soon(lan.run)
            await until(lambda: heard[0] and heard[1])
            nursery.cancel_scope.cancel()
    assert set(heard[0]) == {ADDRESSES[1]}
    assert set(heard[1]) == {ADDRESSES[0]}
    assert heard[2] == []


@trio_test
async def test_without_a_network_for_it_the_node_goes_on() -> None:
    with trio.fail_after(60):
        await Lan("one", list, print, ["192.0.2.1"]).run()


def test_the_name_of_a_service_is_short_enough_and_the_swarms_own() -> None:
    assert len(service_type("5" * 64).partition(".")[0]) <= 16  # the underscore does not count
    assert service_type("5" * 64) != service_type("6" * 64)


class Named:
    """What zeroconf makes of a service's texts, whatever they are."""

    def __init__(self, **texts: bytes | None) -> None:
        self.properties = {key.encode(): value for key, value in texts.items()}


def test_what_a_service_names_is_bounded() -> None:
    kind = service_type("one")
    assert addresses_in(make_info(kind, f"a.{kind}", ADDRESSES)) == ADDRESSES
    many = Named(**{f"dnsaddr{number}": b"\xff" * 10 for number in range(40)})
    assert len(addresses_in(many)) == MAX_ADDRESSES  # type: ignore[arg-type]
    long = Named(dnsaddr=b"a" * (MAX_ADDRESS_CHARS + 1), id=IDS[0].encode(), dnsaddr2=None)
    assert addresses_in(long) == []  # type: ignore[arg-type]
