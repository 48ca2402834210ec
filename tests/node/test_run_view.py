"""What `sapo run` shows in a terminal: a view, calm and harmless; the log goes to a file."""

import io
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from node.run_view import LOG_FILE, MAX_LOG_BYTES, NodeBoard, node_view, shows_view
from node.status import Snapshot
from node.status_json import from_json

SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
SAPO = str(Path(sys.executable).with_name("sapo"))
DEADLINE_S = 120


def shown(board: NodeBoard, width: int = 100, colors: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colors, no_color=not colors).print(board)
    return out.getvalue()


def test_the_view_has_the_node_in_a_few_lines() -> None:
    board = NodeBoard(Path("home/logs/node.log"), clock=lambda: 5.0)
    assert "starting, 0 s" in shown(board)
    board.show(SNAPSHOT)
    text = shown(board, width=200)
    for part in (
        "in the swarm easy runs since",
        "124 of 700, generating",
        "own reward",
        "held out",
        "foreign used",
        "tokens/s",
        "Unusual: vLLM does not work here",
        "log: home/logs/node.log    Ctrl-C: stop",
    ):
        assert part in text
    assert len(text.splitlines()) < 24
    relay = msgspec.structs.replace(SNAPSHOT, mode="relay", own_reward=(), last_round=None)
    board.show(relay)
    assert "round" not in shown(board).replace("foreign groups", "").split("peers")[0].split("(")[0]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_strangers_text_cannot_act_on_the_terminal(width: int) -> None:
    board = NodeBoard(Path("x\x1b[2J"), clock=lambda: 5.0)
    board.show(SNAPSHOT)
    board.tell("a peer says \x1b[31m[red]\u202e\nnext")
    text = shown(board, width)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "[red]" in text.replace("\n", "")


def test_warnings_of_the_log_are_shown_the_last_ones_only() -> None:
    board = NodeBoard(Path("log"))
    board.listen()
    try:
        logger = logging.getLogger("node.test_run_view")
        logger.info("not this")
        for number in range(9):
            logger.warning("warning %d", number)
    finally:
        board.stop_listening()
    logger.warning("nobody listens")
    events = [event.plain.partition("  ")[2] for event in board.events]
    assert events == [f"warning {number}" for number in range(4, 9)] and board.num_events == 9


def test_what_is_written_to_stderr_meanwhile_goes_to_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LOG_FILE).parent.mkdir()
    with (tmp_path / LOG_FILE).open("wb") as old:
        old.truncate(MAX_LOG_BYTES + 1)
    with node_view(tmp_path, Console(file=io.StringIO())):
        subprocess.run(
            [sys.executable, "-c", "import sys; print('x', file=sys.stderr)"], check=True
        )
    os.write(2, b"back\n")
    assert (tmp_path / LOG_FILE).read_text() == "x\n"
    assert (tmp_path / f"{LOG_FILE}.1").stat().st_size == MAX_LOG_BYTES + 1
    assert capfd.readouterr().err == "back\n"
    assert (tmp_path / LOG_FILE).stat().st_mode & 0o777 == 0o600


def test_without_a_terminal_there_is_no_view() -> None:
    assert not shows_view(Console(file=io.StringIO()))
    assert not shows_view(Console(file=io.StringIO(), force_terminal=True)), "stderr is no terminal"


class Terminal:
    """`sapo` in a pseudo-terminal."""

    def __init__(self, *words: str) -> None:
        self._fd, theirs = pty.openpty()
        clean = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}
        self.process = subprocess.Popen(
            [SAPO, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=clean | {"TERM": "xterm", "COLUMNS": "120"},
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, *parts: str) -> None:
        """Reads until all were seen, or it ended."""
        give_up = time.monotonic() + DEADLINE_S
        while not all(part in self.text for part in parts):
            assert time.monotonic() < give_up, self.text
            if select.select([self._fd], [], [], 1.0)[0]:
                try:
                    data = os.read(self._fd, 65536)
                except OSError:  # the other end is closed
                    break
                self.text += data.decode(errors="replace")
        assert all(part in self.text for part in parts), self.text

    def end(self) -> int:
        """Ends it as Ctrl-C does; its status."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=DEADLINE_S)
        finally:
            self.process.kill()
            os.close(self._fd)


def test_a_node_in_a_terminal_shows_the_view_and_logs_to_its_file(tmp_path: Path) -> None:
    words = ("run", "--observe", "--home", str(tmp_path / "home"), "--set", "api.port=0")
    terminal = Terminal(*words, "--set", "swarm.listen=/ip4/127.0.0.1/tcp/0")
    terminal.read_until("runs since", "Ctrl-C: stop")
    assert terminal.end() == 0
    log = (tmp_path / "home" / LOG_FILE).read_text()
    assert "serving the API at" in log and "serving the API at" not in terminal.text


def test_in_a_terminal_the_log_may_be_wanted_instead(tmp_path: Path) -> None:
    words = ("run", "--observe", "--home", str(tmp_path / "home"), "--set", "api.port=0")
    words += ("--set", "swarm.listen=/ip4/127.0.0.1/tcp/0")
    terminal = Terminal(*words, "--log-format", "json")
    terminal.read_until('"message": "Running on')  # it heeds signals by then
    assert terminal.end() == 0 and not (tmp_path / "home" / LOG_FILE).exists()
