"""A whole node as its user runs it: `sapo run` in a home of its own, started, watched and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from node.ask import NodeUnreachable, fetch_snapshot
from node.status import Snapshot
from swarm.identity import open_identity

SAPO = str(Path(sys.executable).with_name("sapo"))
DEADLINE_S = 240
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SapoNode:
    """Running from the start; `start` starts it again with the same words."""

    deadline_s = DEADLINE_S
    """For whatever is waited for."""
    directory: Path | None = None
    """In which it is started; None: in this one."""
    environment: Mapping[str, str] = {}
    """Settings besides those of the command line."""

    def __init__(self, home: Path, *words: str) -> None:
        """
        Args:
            words: of the command line, behind home and ports.
        """
        home.mkdir(exist_ok=True)
        self.home = home
        with open_identity(home) as identity:
            self.node_id = identity.node_id
        listen = f"/ip4/127.0.0.1/tcp/{free_port()}"
        self.address = f"{listen}/p2p/{self.node_id}"
        self._command = [
            SAPO, "run", "--home", str(home),
            "--set", "api.port=0", "--set", f"swarm.listen={listen}", *words,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        with (self.home / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"} | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        return (self.home / "node.log").read_text(errors="replace")

    def wait_until(self, is_so: Callable[[Snapshot], object]) -> Snapshot:
        """The first snapshot for which it is so."""
        give_up = time.monotonic() + self.deadline_s
        while time.monotonic() < give_up:
            assert self.process.poll() is None, self.log()[-3000:]
            try:
                if is_so(found := fetch_snapshot(self.home)):
                    return found
            except NodeUnreachable:
                pass
            time.sleep(0.2)  # between looks at another process, not for it
        raise AssertionError(f"it never came to that; the log ends:\n{self.log()[-3000:]}")

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """The whole process group, where it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
