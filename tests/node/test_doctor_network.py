"""The doctor on ports, addresses and first peers: on sockets of this machine."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest

import node.doctor_network
from node.config import NodeConfig, find_manifest, load_config
from node.doctor_network import (
    HELLO,
    check_bootstrap,
    check_ports,
    check_reachability,
    dial,
)
from node.finding import Level
from node.status import Snapshot
from node.status_json import from_json, to_json

PEER = "12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p"
SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
FakeNode = Callable[..., AbstractContextManager[list[tuple[str, object]]]]


def settings(home: Path, **flags: object) -> NodeConfig:
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return load_config(flags={"home": home} | dotted, environment={})


@contextmanager
def answering(*says: bytes) -> Iterator[str]:
    """The address of a server that says these to whoever comes, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for text in says:
                there, _ = server.accept()
                with there:
                    there.recv(1024)
                    there.sendall(text)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/{PEER}"


def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/{PEER}"


def test_a_node_of_libp2p_answers_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(HELLO) as address:
        assert dial(address) == ""
    with answering(b"HTTP/1.1 400 Bad Request\r\n") as address:
        assert dial(address) == "something else than a node answers there"
    with answering(b"") as address:
        assert dial(address) == "something else than a node answers there"
    assert "refused" in dial(closed())
    assert dial("/ip4/127.0.0.1/udp/1/quic-v1") == "no TCP address of a peer"
    monkeypatch.setattr(node.doctor_network, "DIAL_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert dial(f"/ip4/127.0.0.1/tcp/{port}/p2p/{PEER}") == "timed out"


def test_every_first_peer_is_dialled_and_one_that_is_up_is_enough(tmp_path: Path) -> None:
    gone = closed()
    with answering(HELLO) as address:
        found = list(check_bootstrap(settings(tmp_path, swarm__bootstrap=f"{gone},{address}")))
    assert [one.level for one in found] == [Level.WARN, Level.OK]
    assert found[0].found.startswith(gone) and found[1].found == "1 of 2 first peers answer"
    (alone,) = check_bootstrap(settings(tmp_path, swarm__bootstrap=gone))
    assert alone.level is Level.BAD and alone.remedy


def test_the_swarm_files_first_peers_are_dialled(tmp_path: Path) -> None:
    text = find_manifest("easy").read_text().partition("[bootstrap]")[0]
    with answering(HELLO) as address:
        (tmp_path / "swarm.toml").write_text(f'{text}\n[bootstrap]\npeers = ["{address}"]\n')
        (found,) = check_bootstrap(settings(tmp_path))
    assert (found.level, found.found) == (Level.OK, "1 of 1 first peers answer")


def test_no_first_peer_at_all_is_a_warning(tmp_path: Path) -> None:
    (found,) = check_bootstrap(settings(tmp_path))
    assert found.level is Level.WARN and "swarm.bootstrap" in found.remedy
    (found,) = check_bootstrap(settings(tmp_path, manifest="no-such"))
    assert found.level is Level.BAD and "no-such" in found.found


def test_ports_are_free_taken_or_the_nodes_own(tmp_path: Path, fake_node: FakeNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = settings(tmp_path, swarm__listen=f"/ip4/127.0.0.1/tcp/{port}", api__port=port)
        taken = list(check_ports(config))
        with fake_node(tmp_path, {"/api/v1/status": (200, to_json(SNAPSHOT))}):
            own = list(check_ports(config))
    assert [one.level for one in taken] == [Level.BAD, Level.BAD]
    assert "another program has it" in taken[0].remedy
    assert all("the node of this home runs" in one.found for one in own)
    assert [one.level for one in check_ports(config)] == [Level.OK, Level.OK]
    any_port = settings(tmp_path, swarm__listen="/ip4/0.0.0.0/tcp/0", api__port=0)
    assert all("takes a free one" in one.found for one in check_ports(any_port))
    (wrong, _) = check_ports(settings(tmp_path, swarm__listen="/ip4/x\x1b/tcp", api__port=0))
    assert wrong.level is Level.BAD and "\\x1b" in wrong.found


def test_an_api_that_the_network_reads_along_is_a_warning(tmp_path: Path) -> None:
    ports = {"swarm__listen": "/ip4/127.0.0.1/tcp/0", "api__port": 0}
    *_, found = check_ports(settings(tmp_path, api__insecure_public=True, **ports))
    assert found.level is Level.WARN and "api.tls_cert" in found.remedy


def test_addresses_that_nobody_outside_can_dial_are_a_warning(
    tmp_path: Path, fake_node: FakeNode
) -> None:
    (unknown,) = check_reachability(settings(tmp_path))
    assert unknown.level is Level.OK and "not checked" in unknown.found
    (private,) = check_reachability(settings(tmp_path, swarm__announce="/ip4/10.0.0.1/tcp/8421"))
    assert private.level is Level.WARN and "swarm.announce" in private.remedy
    (public,) = check_reachability(settings(tmp_path, swarm__announce="/ip4/1.1.1.1/tcp/8421"))
    assert public.level is Level.OK and "not checked from outside" in public.found
    running = msgspec.structs.replace(SNAPSHOT, addresses=(f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}",))
    with fake_node(tmp_path, {"/api/v1/status": (200, to_json(running))}):
        peers, told = check_reachability(settings(tmp_path))
    assert "connected to the running node" in peers.found and told.level is Level.WARN
    alone = msgspec.structs.replace(running, peers=())
    with fake_node(tmp_path, {"/api/v1/status": (200, to_json(alone))}):
        assert next(iter(check_reachability(settings(tmp_path)))).level is Level.WARN
