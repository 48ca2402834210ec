"""What stands in an experiment's directory for people to read."""

from collections.abc import Sequence
from pathlib import Path

from node.experiment.figures import Declared
from node.experiment.picture import draw_curves
from node.experiment.results import RunResult
from node.experiment.table import as_table
from swarm.disk import write_durably

TABLE_FILE = "table.md"
CURVES_FILE = "curves.png"


def report(results: Sequence[RunResult], declared: Declared, directory: Path) -> None:
    """Writes table.md and, once a measuring run is there, curves.png: of the runs that are there,
    whichever they are. Readers find the old files or the new ones.

    Raises:
        ValueError: see `measured_runs`.
        OSError: e.g. a full disk.
    """
    write_durably(directory / TABLE_FILE, as_table(results, declared))
    draw_curves(results, declared, directory / CURVES_FILE)
