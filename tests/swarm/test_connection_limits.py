"""A limit slows whom it meets, and nobody else."""

import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from swarm import connection_limits, libp2p_host
from swarm.connection_limits import ConnectionLimits, find_origin, is_loopback
from swarm.identity import Identity
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.network_options import NetworkOptions
from swarm.peer_book import split_address
from tests.swarm.until import until


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(
    max_total: int = 100, max_per_address: int = 8, max_per_subnet: int = 16
) -> tuple[ConnectionLimits, Clock]:
    clock = Clock()
    return ConnectionLimits(max_total, max_per_address, max_per_subnet, clock), clock


def num_let_in(limits: ConnectionLimits, hosts: Sequence[str], is_inbound: bool = False) -> int:
    return sum(limits.enter(host, is_inbound) is not None for host in hosts)


@pytest.mark.parametrize(
    ("host", "address", "subnet"),
    [
        ("192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
        ("2001:db8:0:12ff:1::1", "2001:db8:0:12ff::/64", "2001:db8:0:1200::/56"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/56"),
        ("nonsense", "nonsense", "nonsense"),
    ],
)
def test_an_address_has_an_origin(host: str, address: str, subnet: str) -> None:
    origin = find_origin(host)
    assert (origin.address, origin.subnet) == (address, subnet)


def test_one_address_has_so_many_connections_and_others_still_come() -> None:
    limits, _ = make()
    assert num_let_in(limits, ["192.0.2.1"] * 20) == 8
    assert num_let_in(limits, ["192.0.2.2"] * 3) == 3
    assert limits.num_refused == 12


def test_one_subnet_has_so_many_connections_and_others_still_come() -> None:
    limits, _ = make()
    assert num_let_in(limits, [f"192.0.2.{number}" for number in range(50)]) == 16
    assert num_let_in(limits, ["198.51.100.1"]) == 1
    assert num_let_in(limits, [f"2001:db8:0:{number:x}::1" for number in range(0x100)]) == 16


def test_there_are_so_many_connections_in_total_and_loopback_counts() -> None:
    limits, _ = make(max_total=10)
    assert num_let_in(limits, ["127.0.0.1"] * 9, is_inbound=True) == 9
    assert num_let_in(limits, ["192.0.2.1", "192.0.2.2"]) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_exempt_from_all_but_the_total(host: str) -> None:
    limits, _ = make()
    assert is_loopback(host)
    assert num_let_in(limits, [host] * 50, is_inbound=True) == 50


def test_who_is_refused_may_come_again_at_once_when_there_is_room() -> None:
    limits, _ = make()
    places = [limits.enter("192.0.2.1", False) for _ in range(8)]
    assert limits.enter("192.0.2.1", False) is None
    for place in places:
        assert place is not None
        place.leave()
        place.leave()
    assert num_let_in(limits, ["192.0.2.1"] * 9) == 8


def test_an_address_starts_so_many_connections_a_second() -> None:
    limits, clock = make(max_per_address=1000, max_per_subnet=1000)
    assert num_let_in(limits, ["192.0.2.1"] * 20, is_inbound=True) == 8
    assert num_let_in(limits, ["192.0.2.2"] * 20, is_inbound=True) == 8
    clock.now = 1.0
    assert num_let_in(limits, ["192.0.2.1"] * 20, is_inbound=True) == 2
    clock.now = 1000.0
    assert num_let_in(limits, ["192.0.2.1"] * 20, is_inbound=True) == 8
    assert num_let_in(limits, ["192.0.2.1"] * 20) == 20  # what we dial ourselves has no rate


def test_what_is_remembered_is_bounded() -> None:
    limits, _ = make(max_total=10**6, max_per_subnet=10**6)
    for number in range(3 * connection_limits.MAX_REMEMBERED):
        place = limits.enter(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", True)
        assert place is not None
        place.leave()
    assert len(limits._starts) == connection_limits.MAX_REMEMBERED
    assert not limits._addresses
    assert not limits._subnets
    assert limits.num_open == 0


async def find_nothing(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {}


def open_node(
    directory: Path, bootstrap: Sequence[str] = (), options: NetworkOptions | None = None
) -> AbstractAsyncContextManager[Libp2pGossip]:
    return open_libp2p(
        Identity(secrets.token_bytes(32)),
        "a swarm",
        "/ip4/127.0.0.1/tcp/0",
        find_nothing,
        bootstrap,
        directory / f"{secrets.token_hex(4)}.json",
        max_peers=8,
        options=options or NetworkOptions(),
    )


NOBODY_EXEMPT = NetworkOptions(max_per_address=4, is_exempt=lambda host: False)


@trio_test
async def test_300_silent_connections_of_one_address_keep_no_honest_peer_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libp2p_host, "HANDSHAKE_S", 600.0)  # they stay for as long as they like
    with trio.fail_after(60):
        async with open_node(tmp_path, options=NOBODY_EXEMPT) as server:
            port = int(split_address(server.addresses()[0])[0].rpartition("/")[2])
            silent = [
                await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.1.2")
                for _ in range(300)
            ]
            await until(lambda: server.traffic().connections_refused >= 296)
            assert server._limits.num_open == 4
            async with open_node(tmp_path, server.addresses()) as honest:
                await until(lambda: bool(honest.connections() and server.connections()))
            for stream in silent:
                await stream.aclose()
            await until(lambda: server._limits.num_open == 0)


@trio_test
async def test_connections_that_ended_hold_no_place(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with open_node(tmp_path, options=NOBODY_EXEMPT) as stays:
            for _ in range(3):
                async with open_node(tmp_path, stays.addresses(), NOBODY_EXEMPT) as dials:
                    await until(lambda one=dials: bool(stays.connections() and one.connections()))
                    assert stays._limits.num_open == dials._limits.num_open == 1
                await until(lambda: stays._limits.num_open == 0)
                assert dials._limits.num_open == 0
            dead = "/ip4/127.0.0.1/tcp/1/p2p/" + Identity(bytes(32)).node_id
            async with open_node(tmp_path, [dead], NOBODY_EXEMPT) as fails:
                await until(
                    lambda: fails._dialer._book._known != {} and fails._dialer._dialling == {}
                )
                await until(lambda: fails._limits.num_open == 0)


@trio_test
async def test_what_a_node_dials_itself_is_limited_too(tmp_path: Path) -> None:
    options = NetworkOptions(max_per_address=2, is_exempt=lambda host: False)
    with trio.fail_after(60):
        async with (
            open_node(tmp_path) as one,
            open_node(tmp_path) as two,
            open_node(tmp_path) as three,
        ):
            addresses = [*one.addresses(), *two.addresses(), *three.addresses()]
            async with open_node(tmp_path, addresses, options) as dials:
                await until(lambda: dials.traffic().connections_refused > 0)
                await until(lambda: len(dials.connections()) == 2)
