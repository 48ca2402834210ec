"""The commands of README and docs, run as they stand there, one document after the other.

What begins with `sapo run` goes on in the background until a command needs the home for itself.
Nodes take free ports, a quick engine and few questions from the environment; nothing else differs,
but for what SAYS lists.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.ask import NodeUnreachable, fetch_snapshot
from node.exit_status import Exit
from tests.documented_commands import DOCUMENTS, NOT_RUN, commands_of
from tests.integration.sapo_node import ENVIRONMENT, SAPO

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240
SETTINGS = {
    "SAPO_API__PORT": "0",
    "SAPO_SWARM__LISTEN": "/ip4/127.0.0.1/tcp/0",
    "SAPO_ROLLOUT__ENGINE": "transformers",
    "SAPO_ROLLOUT__QUESTIONS": "2",
    "SAPO_CHECKPOINT__EVERY": "1",
    "SAPO_CHECKPOINT__KEEP": "1000",
    "SAPO_EVALUATE__QUESTIONS": "2",
    "OMP_NUM_THREADS": "1",
}
SAYS = {"rollback 40": "rollback 1", "/ip4/0.0.0.0/tcp/0": "/ip4/127.0.0.1/tcp/0"}
"""What a document says, and what is run in its place."""
BEGINS_WITH = {"backup.md": "sapo run --home my-node", "api.md": "sapo run --observe"}
"""Documents about a node that is there."""
NEEDS_THE_HOME = ("rollback", "tar ", "sapo join", "key import")
MAY_END_WITH = {"doctor": {Exit.DONE, Exit.BAD_MACHINE}}
"""The doctor's finding is about the machine, not about the guide."""


class Shell:
    """One directory, in which the commands of one document are run."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._variables: dict[str, str] = {}
        (place / ".venv/bin").mkdir(parents=True)
        (place / ".venv/bin/sapo").symlink_to(SAPO)
        shutil.copy(ROOT / "configs/swarms/easy.toml", place / "swarm.toml")
        path = f"{Path(SAPO).parent}:{os.environ['PATH']}"
        self._environment = ENVIRONMENT | SETTINGS | {"PATH": path, "HOME": str(place)}

    def run(self, command: str) -> None:
        for said, meant in SAYS.items():
            command = command.replace(said, meant)
        if any(word in command for word in NEEDS_THE_HOME):
            self.stop_nodes()
        if "manifest new swarm.toml" in command:
            (self.place / "swarm.toml").unlink()
        if re.match(r"\S*sapo run", command):
            self._start(command)
        elif assigned := re.fullmatch(r"([A-Z_]+)=(\$\(.*\)|\S+)", command):
            self._variables[assigned[1]] = self._finish(f"echo {assigned[2]}").strip()
            assert self._variables[assigned[1]], command
        else:
            self._finish(command)

    def _finish(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.place,
            env=self._environment | self._variables,
            input="yes\n",
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        fine = next((codes for word, codes in MAY_END_WITH.items() if word in command), {0})
        assert done.returncode in fine, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _start(self, command: str) -> None:
        """A node, until it answers and, where it has a policy, has made a round."""
        found = re.search(r"--home (\S+)", command)
        home = self.place / (found[1] if found else "sapo-home")
        with (self.place / "nodes.log").open("ab") as log:
            node = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.place,
                env=self._environment | self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._nodes.append(node)
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            assert node.poll() is None, (command, self.log())
            try:
                snapshot = fetch_snapshot(home)
                if snapshot.last_round is not None or not snapshot.has_policy:
                    return
            except NodeUnreachable:
                pass
            time.sleep(0.2)  # between looks at another process
        raise AssertionError((command, self.log()))

    def log(self) -> str:
        return (self.place / "nodes.log").read_text(errors="replace")[-3000:]

    def stop_nodes(self) -> None:
        """As documented: SIGTERM, and an end in order."""
        for node in self._nodes:
            node.send_signal(signal.SIGTERM)
        for node in self._nodes:
            assert node.wait(timeout=DEADLINE_S) == 0, self.log()
        self._nodes.clear()

    def end(self) -> None:
        for node in self._nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.end()


def to_run(document: str) -> list[str]:
    return [command for command in commands_of(document) if command not in NOT_RUN]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", [name for name in sorted(DOCUMENTS) if to_run(name)])
def test_the_commands_of_a_document_do_what_they_are_there_for(document: str, shell: Shell) -> None:
    if document in BEGINS_WITH:
        shell.run(BEGINS_WITH[document])
    for command in to_run(document):
        shell.run(command)
    if document == "quickstart.md":
        assert shell.place.joinpath("second/peers.json").exists()
    shell.stop_nodes()
