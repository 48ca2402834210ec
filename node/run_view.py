"""The terminal while `sapo run` runs there: one calm view of the node; the log goes to a file.

The view's own thread draws; what it shows is set by the control process once a second. Everything a
stranger may have written is escaped and handed to rich as Text.
"""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from node.escape import printable
from node.home import HomeError
from node.live import live_view
from node.status import Snapshot
from node.summary import smooth
from node.view import LINE_EVERY_S, MAX_EVENTS, WIDE, Row, sparkline
from node.why import explain, unusual
from node.words import size, span

LOG_FILE = Path("logs") / "node.log"
"""In the home, while there is a view."""
MAX_LOG_BYTES = 32 * 2**20
"""At a start: of a longer log the last file is kept beside it, as node.log.1."""


@dataclass
class NodeBoard:
    """One node, as `node/live.py` shows it."""

    log: Path
    clock: Callable[[], float] = time.monotonic
    snapshot: Snapshot | None = None
    """The last one; set by the control process."""
    num_events: int = 0
    events: deque[Text] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    """The last warnings of the log, oldest first."""
    began: float = field(init=False)
    shown_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.shown_at = self.clock()
        self._handler = _Warnings(self)

    def listen(self) -> None:
        """Hears what the log warns of; to be called once it is set up."""
        logging.getLogger().addHandler(self._handler)

    def stop_listening(self) -> None:
        """Idempotent."""
        logging.getLogger().removeHandler(self._handler)

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return self.clock() - self.began

    def show(self, snapshot: Snapshot) -> None:
        """From now on this one is shown."""
        self.snapshot, self.shown_at = snapshot, self.clock()

    def tell(self, text: str, style: str = "yellow") -> None:
        """Notes something that happened."""
        at = time.strftime("%H:%M:%S")
        self.events.append(Text(f"{at}  {printable(text, 300)}", style=style))
        self.num_events += 1

    def as_line(self) -> Text:
        """All of it in a line."""
        return Text(explain(self.snapshot) if self.snapshot else "starting")

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """A paragraph, a few figures, the last warnings."""
        if (snapshot := self.snapshot) is None:
            yield Text(f"starting, {self.elapsed_s:.0f} s")
        else:
            yield Text(explain(snapshot, with_stage=False))
            yield self._figures(snapshot, 40 if options.max_width >= WIDE else 20)
            if said := unusual(snapshot):
                yield Text(said, style="bold yellow")
        yield from tuple(self.events)
        yield Text(f"log: {printable(str(self.log))}    Ctrl-C: stop", style="dim")

    def _figures(self, snapshot: Snapshot, num_bars: int) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column(no_wrap=True)
        if snapshot.has_policy:
            row = Row("", snapshot, self.clock() - self.shown_at)
            of = (
                ""
                if snapshot.learner.target_rounds is None
                else (f" of {snapshot.learner.target_rounds:,}")
            )
            grid.add_row("round", f"{row.round:,}{of}, {row.stage}")
        if rewards := smooth(list(snapshot.own_reward)):
            grid.add_row("own reward", f"{rewards[-1]:.3f}  {sparkline(rewards, num_bars)}")
        if means := [one.mean for one in snapshot.heldout]:
            grid.add_row("held out", f"{means[-1]:.3f}  {sparkline(means, num_bars)}")
        if used := [float(num) for num in snapshot.foreign_groups_used]:
            grid.add_row("foreign used", f"{sum(used):5,.0f}  {sparkline(used, num_bars)}")
        if last := snapshot.last_round:
            grid.add_row("last round", f"{span(last.round_s)}, {last.tokens_per_s:,.0f} tokens/s")
        connected = sum(peer.connected for peer in snapshot.peers)
        grid.add_row(
            "peers",
            f"{connected:,} connected, {sum(snapshot.refused.values()):,} refusals, "
            f"{size(snapshot.bytes_sent)} out, {size(snapshot.bytes_received)} in",
        )
        return grid


class _Warnings(logging.Handler):
    """Tells a board what the log warns of."""

    def __init__(self, board: NodeBoard) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        style = "bold red" if record.levelno >= logging.ERROR else "yellow"
        self._board.tell(record.getMessage(), style)


@contextmanager
def node_view(home: Path, console: Console) -> Iterator[NodeBoard]:
    """Shows a board until the block ends; stderr, the learner's too, goes to a file in the home.

    To be called before the log is set up (node/log.py), which then writes to that file.

    Raises:
        HomeError: the file cannot be written.
    """
    file = home / LOG_FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > MAX_LOG_BYTES:
            file.replace(file.with_name(f"{file.name}.1"))
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"{file}: cannot be written: {error.strerror}") from None
    board = NodeBoard(file)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        os.dup2(log, 2)
        with live_view(board, console, LINE_EVERY_S, takes_stderr=False):
            yield board
    finally:
        board.stop_listening()
        sys.stderr.flush()
        os.dup2(kept, 2)
        for one in (kept, log):
            os.close(one)


def shows_view(console: Console) -> bool:
    """Whether a person watches: both stdout and stderr are a terminal that can be drawn upon. Where
    stderr goes elsewhere, its user wants the log there."""
    return console.is_terminal and not console.is_dumb_terminal and os.isatty(2)
