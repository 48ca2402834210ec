"""Tells systemd that the node is ready, what it does, that it is alive, and that it ends.

The messages of sd_notify(3), sent from the trio loop of the control process: a loop that is held up
for longer than the unit's WatchdogSec says nothing, and systemd then kills and restarts the node.
The learner is not watched by this, but by its supervisor.

A library of thirty lines exists (sdnotify, last changed in 2017); it knows nothing of the watchdog,
and blocks.

Not covered: sockets that are no Unix ones, keeping file descriptors, asking for more time to start
(a node is ready in seconds: it does not wait for its learner).
"""

import logging
import os
import socket
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import trio

from node.status import WHAT_IT_DOES, Snapshot

logger = logging.getLogger(__name__)

STATUS_EVERY_S = 10.0
"""Between looks at what the node does, at most; a watchdog may ask for more."""


@dataclass(frozen=True, slots=True)
class Systemd:
    """Where the service manager listens."""

    address: str
    """Of a datagram socket, as `socket` takes it."""
    watchdog_s: float | None = None
    """Seconds without a sign of life after which the node is killed; None: it is not watched."""

    def tell(self, *lines: str) -> None:
        """Sends one message; where nobody takes it, that is logged and nothing else happens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(lines).encode(), self.address)
            except OSError as error:
                logger.warning("systemd does not listen: %s", error.strerror)


def find_systemd(environment: MutableMapping[str, str] | None = None) -> Systemd | None:
    """Who started this process with Type=notify, or None.

    Takes its variables out of the environment, so that no child speaks in the node's name.
    """
    variables = os.environ if environment is None else environment
    address = variables.pop("NOTIFY_SOCKET", "")
    usec = variables.pop("WATCHDOG_USEC", "")
    watched = variables.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
    if address[:1] not in ("/", "@"):
        return None
    if address.startswith("@"):  # a name without a file
        address = "\0" + address[1:]
    is_number = usec.isascii() and usec.isdigit() and int(usec) > 0
    return Systemd(address, int(usec) / 1e6 if watched and is_number else None)


async def keep_informed(systemd: Systemd, snapshot: Callable[[], Snapshot]) -> None:
    """Says at once that the node is ready, then what it does and that it is alive, until it is
    cancelled; then that it ends. To be started when the node answers peers and API."""
    every_s = STATUS_EVERY_S
    if systemd.watchdog_s is not None:
        every_s = min(every_s, systemd.watchdog_s / 3)
    systemd.tell("READY=1")
    try:
        while True:
            systemd.tell(f"STATUS={one_line(snapshot())}", "WATCHDOG=1")
            await trio.sleep(every_s)
    finally:
        systemd.tell("STOPPING=1", "STATUS=leaving the swarm")


def one_line(snapshot: Snapshot) -> str:
    """What the node does, for `systemctl status`. Holds no text of a stranger."""
    peers = sum(peer.connected for peer in snapshot.peers)
    learner = snapshot.learner
    if not snapshot.has_policy:
        does = WHAT_IT_DOES[snapshot.mode].split(";")[0]
    elif learner.is_done:
        does = f"all {learner.round} rounds are made"
    else:
        of = "" if learner.target_rounds is None else f" of {learner.target_rounds}"
        does = f"round {learner.round}{of}, {learner.stage}"
    parts = [does, f"{peers} {'peer' if peers == 1 else 'peers'}"]
    if num := len(snapshot.warnings):
        parts.append(f"{num} {'warning' if num == 1 else 'warnings'}: see sapo status")
    return "; ".join(parts)
