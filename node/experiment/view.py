"""An experiment in the terminal while its runs are made: how far each is, how long it takes."""

from collections import deque
from dataclasses import dataclass, field

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from node.words import span

MAX_EVENTS = 8
LINE_EVERY_S = 30.0
"""Between the lines that stand for the table where the output is no terminal."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run that is being made."""

    what: str
    round: int
    rounds: int
    elapsed_s: float


@dataclass
class Board:
    """What there is to see. The runner writes it, the view's thread reads it."""

    title: str
    num_runs: int
    num_done: int = 0
    elapsed_s: float = 0.0
    left_s: float | None = None
    """None: nothing to judge it by yet."""
    rows: tuple[Row, ...] = ()
    num_events: int = 0
    events: deque[Text] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    """The last things that happened, oldest first."""

    def tell(self, text: str, style: str = "") -> None:
        """Notes something that happened."""
        self.events.append(Text(f"{span(self.elapsed_s)}  {text}", style=style))
        self.num_events += 1

    def __rich__(self) -> RenderableType:
        """The table, and below it the events."""
        grid = Table.grid()
        grid.add_row(Text(self._heading(), style="bold"))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("run")
        table.add_column("round", justify="right")
        table.add_column("since", justify="right")
        for row in self.rows:
            table.add_row(row.what, f"{row.round} of {row.rounds}", span(row.elapsed_s))
        grid.add_row(table)
        for event in list(self.events):
            grid.add_row(event)
        return grid

    def as_line(self) -> Text:
        """The same for outputs that are no terminal."""
        running = "; ".join(f"{row.what}: {row.round} of {row.rounds}" for row in self.rows)
        return Text(f"{self._heading()}  {running}".rstrip())

    def _heading(self) -> str:
        left = f"about {span(self.left_s)} left" if self.left_s is not None else "time left unknown"
        done = f"{self.num_done} of {self.num_runs} runs"
        return f"{self.title}: {done}  {span(self.elapsed_s)}  {left}"
