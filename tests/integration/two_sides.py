"""Two networks of three hosts that can be parted and joined again, as network namespaces.

Each host is a namespace with one address; each side has a bridge, and a cable lies between the two
bridges. Parting pulls the cable out of one: packets vanish, and no host is told.
"""

import os
import shutil
import subprocess

HOSTS = (("a1", "a2", "a3"), ("b1", "b2", "b3"))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def why_not() -> str:
    """Why there can be no namespaces here; empty where there can."""
    if shutil.which("ip") is None:
        return "ip missing: apt-get install iproute2"
    name = f"sapo-{os.getpid()}-probe"
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.decode().strip()}"
    try:
        run("ip", "-n", name, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two")
    except subprocess.CalledProcessError as error:
        return f"no veth or no bridge: {error.stderr.decode().strip()}"
    finally:
        run("ip", "netns", "del", name)
    return ""


class TwoSides:
    """The hosts' namespaces are `sides[0]` and `sides[1]`; `address` of the n-th host of a side."""

    def __init__(self) -> None:
        self._prefix = f"sapo-{os.getpid()}-"
        self._made: list[str] = []
        self.sides = [[self._prefix + host for host in hosts] for hosts in HOSTS]
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for name in ("net", *HOSTS[0], *HOSTS[1]):
            run("ip", "netns", "add", self._prefix + name)
            self._made.append(self._prefix + name)
            self._ip(name, "link set lo up")
        self._ip("net", "link add cable-0 type veth peer name cable-1")
        for side, hosts in enumerate(HOSTS):
            self._ip("net", f"link add br-{side} type bridge")
            self._ip("net", f"link set br-{side} up")
            self._ip("net", f"link set cable-{side} master br-{side} up")
            for number, host in enumerate(hosts):
                peer = self._prefix + host
                self._ip("net", f"link add {host} type veth peer name eth netns {peer}")
                self._ip("net", f"link set {host} master br-{side} up")
                self._ip(host, f"addr add {self.address(side, number)}/24 dev eth")
                self._ip(host, "link set eth up")

    def _ip(self, name: str, command: str) -> None:
        run("ip", "-n", self._prefix + name, *command.split())

    def address(self, side: int, number: int) -> str:
        return f"5.0.0.{10 * (side + 1) + number}"

    def part(self) -> None:
        self._ip("net", "link set cable-1 nomaster")

    def join(self) -> None:
        self._ip("net", "link set cable-1 master br-1")

    def close(self) -> None:
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)
