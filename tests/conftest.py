"""What several tests share: one verifier with one cheap task."""

from collections.abc import Iterator

import pytest

from rewards.tasks import TaskSpec
from rewards.verifier import Verifier

SUMS = TaskSpec(
    name="sums",
    kind="reasoning_gym",
    dataset="chain_sum",
    version="0.1.25",
    params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 3},
)


@pytest.fixture(scope="session")
def verifier() -> Iterator[Verifier]:
    """Real workers that know the task "sums"."""
    with Verifier([SUMS]) as made:
        yield made
