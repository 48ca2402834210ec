"""The doctor on the network: ports, the addresses that peers are told, the first peers.

A first peer counts as there when a libp2p node answers at its address within `DIAL_S`.
Not checked: whether it is the peer that the address names (`sapo run` checks it by its key), and
whether strangers get through a firewall or NAT to this node: nobody outside is asked.
"""

import errno
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from multiaddr import Multiaddr  # type: ignore[import-untyped]

from node.ask import NodeUnreachable, fetch_snapshot
from node.config import ConfigError, NodeConfig
from node.escape import printable
from node.finding import Finding, Level
from node.home import HomeError
from node.manifest_check import address_problem
from node.status import Snapshot
from swarm.manifest import ManifestError, load_manifest
from swarm.peer_book import WrongAddress, split_address

DIAL_S = 5.0
MAX_DIALLED = 32
"""Addresses that are dialled, at once."""
HELLO = b"\x13/multistream/1.0.0\n"
"""With which a libp2p node begins."""


def running_node(config: NodeConfig) -> Snapshot | None:
    """What the node in the home says of itself, if it runs and answers."""
    try:
        return fetch_snapshot(config.home)
    except (NodeUnreachable, HomeError):
        return None


def check_ports(config: NodeConfig) -> Iterator[Finding]:
    """Whether those that the node will listen on are free, or its own."""
    running = running_node(config) is not None
    try:
        host, port = _host_and_port(config.swarm.listen)
    except ValueError:
        said = f"swarm.listen = {printable(config.swarm.listen)} is no address of TCP"
        yield Finding("ports", Level.BAD, said, "write it as /ip4/0.0.0.0/tcp/8421")
    else:
        yield _port("swarm.listen", host, port, running)
    yield _port("api.port", config.api.host, config.api.port, running)
    if config.api.insecure_public:
        said = "api.insecure_public: whoever is on the way reads the token and rules this node"
        yield Finding("api", Level.WARN, said, "set api.tls_cert and api.tls_key, or use ssh -L")


def _host_and_port(address: str) -> tuple[str, int]:
    """Raises ValueError: it is no TCP address."""
    try:
        parsed = Multiaddr(address)
        kind = next(iter(parsed.protocols())).name
        return str(parsed.value_for_protocol(kind)), int(parsed.value_for_protocol("tcp"))
    except Exception as error:  # noqa: BLE001 - the library raises whatever it likes
        raise ValueError(str(error)) from None


def _port(setting: str, host: str, port: int, running: bool) -> Finding:
    if port == 0:
        return Finding("ports", Level.OK, f"{setting}: takes a free one")
    place = f"{setting}: port {port} of {printable(host)}"
    if running:
        return Finding("ports", Level.OK, f"{place} is in use; the node of this home runs")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            remedy = f"set {setting} to another one"
            if error.errno == errno.EADDRINUSE:
                remedy = f"another program has it (ss -ltnp says which); stop it, or {remedy}"
            return Finding("ports", Level.BAD, f"{place}: {error.strerror or error}", remedy)
    return Finding("ports", Level.OK, f"{place} is free")


def check_reachability(config: NodeConfig) -> Iterator[Finding]:
    """Whether an address that peers are told could be dialled from elsewhere, if nothing is in the
    way."""
    if (snapshot := running_node(config)) is not None:
        addresses, source = snapshot.addresses, "the running node tells"
        connected = sum(peer.connected for peer in snapshot.peers)
        level = Level.OK if connected else Level.WARN
        remedy = "" if connected else "see the finding 'bootstrap', and sapo status"
        yield Finding("peers", level, f"{connected} connected to the running node", remedy)
    elif config.swarm.announce:
        addresses, source = config.swarm.announce, "swarm.announce tells"
        addresses = tuple(f"{one}/p2p/{_ANYBODY}" for one in addresses)
    else:
        said = "no node runs here and swarm.announce is empty: its addresses are not known yet"
        yield Finding("reachability", Level.OK, f"{said}; not checked")
        return
    public = [one for one in addresses if address_problem(one) is None]
    if public:
        said = f"{source} {len(public)} public addresses; not checked from outside"
        yield Finding("reachability", Level.OK, said)
    else:
        yield Finding(
            "reachability",
            Level.WARN,
            f"{source} no public address: peers elsewhere reach this node through relays only",
            "open the port of swarm.listen, and name the public address in swarm.announce "
            "(docs/network.md)",
        )


_ANYBODY = "12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p"
"""Some peer id, where only the rest of an address is looked at."""


def check_bootstrap(config: NodeConfig) -> Iterator[Finding]:
    """Dials each first address, all at once, for `DIAL_S`."""
    try:
        manifest = load_manifest(config.manifest_file)
    except (ConfigError, ManifestError) as error:
        yield Finding("bootstrap", Level.BAD, printable(str(error), 500), "see what is said there")
        return
    addresses = list(dict.fromkeys((*manifest.bootstrap.peers, *config.swarm.bootstrap)))
    if not addresses:
        yield Finding(
            "bootstrap",
            Level.WARN,
            "neither the swarm file nor swarm.bootstrap names a peer: this node finds only who "
            "dials it, or who is in peers.json from before",
            "ask the swarm's owner for addresses, or set swarm.bootstrap",
        )
        return
    addresses = addresses[:MAX_DIALLED]
    pool = ThreadPoolExecutor(len(addresses))
    try:
        dialled = [(address, pool.submit(dial, address)) for address in addresses]
        until = time.monotonic() + DIAL_S + 1
        problems = {}
        for address, future in dialled:
            try:
                problems[address] = future.result(max(0.0, until - time.monotonic()))
            except TimeoutError:  # a resolver that hangs
                problems[address] = f"no answer within {DIAL_S:.0f} s"
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    there = [address for address, problem in problems.items() if not problem]
    for address, problem in problems.items():
        if problem:
            # One that is down matters little where others are up.
            level = Level.WARN if there else Level.BAD
            remedy = "is this machine online, and may it dial that port? Else it is their turn"
            yield Finding("bootstrap", level, f"{printable(address)}: {problem}", remedy)
    if there:
        said = f"{len(there)} of {len(addresses)} first peers answer"
        yield Finding("bootstrap", Level.OK, said)


def dial(address: str) -> str:
    """Why no libp2p node answers at an address; empty if one does."""
    try:
        host, port = _host_and_port(split_address(address)[0])
    except (WrongAddress, ValueError):
        return "no TCP address of a peer"
    until = time.monotonic() + DIAL_S
    try:
        with socket.create_connection((host, port), timeout=DIAL_S) as connection:
            connection.sendall(HELLO)
            heard = b""
            while len(heard) < len(HELLO):
                connection.settimeout(max(0.01, until - time.monotonic()))
                if not (part := connection.recv(len(HELLO) - len(heard))):
                    break
                heard += part
    except OSError as error:
        return printable(error.strerror or str(error) or type(error).__name__)
    return "" if heard == HELLO else "something else than a node answers there"
