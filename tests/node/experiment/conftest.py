"""What tests of nodes in one process share: workers for the easy manifest."""

from collections.abc import Iterator

import pytest

from node.config import NodeConfig
from node.experiment.verdicts import Judging, open_judging


@pytest.fixture(scope="session")
def judging() -> Iterator[Judging]:
    """Real workers, for one run after another."""
    with open_judging(NodeConfig()) as made:
        yield made
