"""A board in the terminal while work is under way: live, or line by line where there is none."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text


class Board(Protocol):
    """What there is to see; itself something that rich can render."""

    num_events: int
    events: deque[Text]
    """The last things that happened, oldest first."""

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        ...

    def as_line(self) -> Text:
        """All of it for outputs that are no terminal."""
        ...


@contextmanager
def live_view(
    board: Board, console: Console, line_every_s: float, *, takes_stderr: bool = True
) -> Iterator[Callable[[], None]]:
    """Shows a board until the block ends. Yields what has to be called again and again: where the
    output is no terminal, it prints what happened and, every `line_every_s`, a line.

    Args:
        takes_stderr: what is printed to stderr meanwhile stands above the board, else it goes where
            it went.
    """
    if console.is_terminal:
        shown = cast(RenderableType, board)
        with Live(shown, console=console, refresh_per_second=4, redirect_stderr=takes_stderr):
            yield lambda: None
        return
    lines = _Lines(board, console, line_every_s)
    yield lines.refresh
    lines.print_events()


class _Lines:
    """Prints a board line by line."""

    def __init__(self, board: Board, console: Console, line_every_s: float) -> None:
        self._board = board
        self._console = console
        self._line_every_s = line_every_s
        self._next_at = 0.0
        self._num_printed = 0

    def refresh(self) -> None:
        """Prints what is due."""
        self.print_events()
        if self._board.elapsed_s >= self._next_at:
            self._next_at = self._board.elapsed_s + self._line_every_s
            self._console.print(self._board.as_line(), soft_wrap=True)

    def print_events(self) -> None:
        """Prints the events that are new; of a flood the last ones."""
        new = self._board.num_events - self._num_printed
        self._num_printed = self._board.num_events
        for event in list(self._board.events)[-new:] if new else []:
            self._console.print(event, soft_wrap=True)
