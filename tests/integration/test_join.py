"""A swarm of strangers as its people type it (docs/joining.md): an owner makes and signs the file,
somebody runs a relay, two others do `sapo join FILE` and `sapo run` in directories of their own.
They know nobody but the relay, find each other through it, and go on sharing when it is gone, over
a restart, too.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from node.ask import fetch_rounds
from node.status import ForeignFate, Snapshot
from swarm.manifest import load_manifest
from tests.integration.sapo_node import ENVIRONMENT, SAPO, SapoNode

SETTINGS = {
    "SAPO_API__PORT": "0",
    "SAPO_SWARM__LISTEN": "/ip4/127.0.0.1/tcp/0",
    "SAPO_ROLLOUT__ENGINE": "transformers",
    "SAPO_ROLLOUT__QUESTIONS": "4",
}
"""For several nodes on one machine, in a hurry. The port is another one after each start: nobody
finds a restarted node where it was."""


def sapo(directory: Path, *words: str, typed: str = "") -> str:
    """What a command prints that ends by itself and well."""
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        [SAPO, *words],
        cwd=directory,
        env=ENVIRONMENT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Member(SapoNode):
    """Somebody's directory: `sapo join FILE` and `sapo run` there, no word about the home."""

    environment = SETTINGS

    def __init__(self, directory: Path, file: Path, *words: str) -> None:
        """
        Args:
            words: of `sapo run`.
        """
        shown = sapo(directory, "join", str(file), typed="y\n")
        assert load_manifest(file).swarm_id in shown and "Join?" in shown
        self.directory, self.home = directory, directory / "sapo-home"
        self._command = [SAPO, "run", *words]
        self.start()

    def power_off(self) -> None:
        """SIGKILL, and nothing of it is left."""
        children = self.descendants()
        self.kill()
        assert not psutil.wait_procs(children, timeout=self.deadline_s)[1]


Join = Callable[..., Member]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    members: list[Member] = []

    def join_and_run(name: str, file: Path, *words: str) -> Member:
        members.append(Member(tmp_path / name, file, *words))
        members[-1].node_id = members[-1].wait_until(lambda _: True).node_id
        return members[-1]

    yield join_and_run
    for member in members:
        member.kill()


@pytest.mark.timeout(900)
def test_strangers_meet_through_one_node_and_outlive_it_and_a_restart(
    tmp_path: Path, join: Join
) -> None:
    owner = tmp_path / "owner"
    sapo(owner, "manifest", "new", "swarm.toml", "--name", "Strangers", "--owner", "owner.key")
    sapo(owner, "manifest", "sign", "swarm.toml", "--key", "owner.key")
    file = owner / "swarm.toml"
    relay = join("relay", file, "--relay")
    publish(file, relay)

    a, b = join("a", file), join("b", file)
    meet(relay, a, b)
    share(a, b)

    relay.power_off()
    meet(a, b)
    share(a, b)

    b.power_off()
    meet(a)
    b.start()
    meet(a, b)
    share(a, b)


def publish(file: Path, first: Member) -> None:
    """The owner writes the address of the first node into the file, and signs again."""
    assert first.directory is not None
    dial = re.search("^dial: (.*)$", sapo(first.directory, "status"), re.MULTILINE)
    assert dial is not None
    before, place, after = file.read_text().partition("peers = [\n")
    file.write_text(f'{before}{place}    "{dial[1]}",\n{after}')
    sapo(file.parent, "manifest", "sign", file.name, "--key", "owner.key")
    sapo(file.parent, "manifest", "check", file.name)
    (address,) = load_manifest(file).bootstrap.peers
    assert address.endswith(f"/p2p/{first.node_id}")


def meet(*nodes: Member) -> None:
    """Waits until each is connected with all the others, and with nobody else."""
    everybody = {node.node_id for node in nodes}
    for node in nodes:
        node.wait_until(lambda found, node=node: connected(found) == everybody - {node.node_id})


def connected(found: Snapshot) -> set[str]:
    return {peer.node_id for peer in found.peers if peer.connected}


def share(*nodes: Member) -> None:
    """Waits until each has learned from what others make from now on."""
    made = {node.node_id: rounds_of(node.wait_until(lambda _: True)) for node in nodes}
    for node in nodes:
        node.wait_until(lambda found, node=node: uses_newer(node, rounds_of(found), made))


def rounds_of(found: Snapshot) -> int:
    """Rounds that it has made, those before a kill included that it has to make again."""
    return found.last_round.round if found.last_round else 0


def uses_newer(node: Member, num_rounds: int, made: dict[str, int]) -> bool:
    """Whether a batch has a foreign group from two rounds or more after those `made` by its author:
    the next one may have been in the making. Of its `num_rounds` the last hundred are looked at."""
    return any(
        group.fate is ForeignFate.USED and group.policy_round > made[group.author] + 1
        for report in fetch_rounds(node.home, max(0, num_rounds - 100))
        for group in report.foreign
    )
