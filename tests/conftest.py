"""What several tests share: a verifier with a cheap task, a clock that nobody waits for, and a
package that defines a kind."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

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


@pytest.fixture
def autojump_clock() -> MockClock:
    """Time that passes only while every task waits, and then at once."""
    return MockClock(autojump_threshold=0)


ROOT = Path(__file__).parents[1]

BUILD_WHEEL = "from setuptools import build_meta; build_meta.build_wheel('dist')"
WITH_PACKAGES = "import sys; sys.path[:0] = sys.argv[1:]; from rewards.worker import main; main()"


@pytest.fixture(scope="session")
def example_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of installed packages in which only the example package is: built as pip builds
    it, and unpacked."""
    place = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "tests" / "rewards" / "example_package", place / "source")
    subprocess.run(
        [sys.executable, "-c", BUILD_WHEEL], cwd=place / "source", check=True, capture_output=True
    )
    (wheel,) = (place / "source" / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(place / "site-packages")
    return place / "site-packages"


@pytest.fixture(scope="session")
def example_worker(example_packages: Path) -> tuple[str, ...]:
    """Starts a real worker for which the example package is installed, too."""
    return (sys.executable, "-P", "-c", WITH_PACKAGES, str(ROOT), str(example_packages))
