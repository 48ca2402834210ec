"""A kind of task from an installed package: as its author would write it, through real workers."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rewards.question import Answer, Judged, Question
from rewards.tasks import TaskFacts, TaskSpec
from rewards.verifier import Verifier
from rewards.worker import Refused

ROOT = Path(__file__).parents[2]
ROMAN = TaskSpec("roman", "roman_numerals", "", "1.0")


def described(command: Sequence[str], *specs: TaskSpec) -> dict[str, TaskFacts | Refused]:
    with Verifier(specs, command=command) as verifier:
        return verifier.describe()


def test_a_package_defines_a_kind(example_worker: tuple[str, ...]) -> None:
    with Verifier([ROMAN], command=example_worker) as verifier:
        facts = verifier.describe()["roman"]
        questions = [Question("roman", index) for index in (0, 3, 8, 1993, 3998, 3999 * 10**9)]
        expansions = verifier.expand(questions)
        answers = [Answer("MCMXCIV", True), Answer("mcmxciv", True), Answer("MCMXCIV", False)]
        verdicts = verifier.judge([(questions[3], answers)])
    assert isinstance(facts, TaskFacts)
    assert (facts.deterministic, facts.num_questions, facts.rule) == (True, 3999, "exact")
    truths = [getattr(expansion, "truth", "") for expansion in expansions]
    assert truths == ["I", "IV", "IX", "MCMXCIV", "MMMCMXCIX", "I"]
    assert expansions[-1] == expansions[0], "the address is the canonical one"
    assert verdicts == [[Judged(True), Judged(False), Judged(False)]]


def test_what_a_package_or_its_version_is_not_is_refused(example_worker: tuple[str, ...]) -> None:
    specs = {
        "another": TaskSpec("another", "roman_numerals", "", "1.1"),
        "missing": TaskSpec("missing", "greek_numerals", "", "1.0"),
        "wrong": TaskSpec("wrong", "roman_numerals", "", "1.0", params={"max": 10}),
    }
    found = described(example_worker, *specs.values(), ROMAN)
    assert isinstance(found.pop("roman"), TaskFacts)
    assert found == {
        "another": Refused("task 'another': needs version '1.1', has roman-tasks 1.0"),
        "missing": Refused(
            "task 'missing': unknown kind 'greek_numerals'; there are code, reasoning_gym, "
            "roman_numerals, rows. Other kinds come with packages: install the one that the "
            "swarm's description names"
        ),
        "wrong": Refused("task 'wrong': roman_numerals takes no params and no data"),
    }


def test_a_kind_that_two_packages_define_is_refused(
    example_packages: Path, example_worker: tuple[str, ...], tmp_path: Path
) -> None:
    both = tmp_path / "site-packages"
    shutil.copytree(example_packages, both)
    (first,) = both.glob("*.dist-info")
    second = both / "other_tasks-1.0.dist-info"
    shutil.copytree(first, second)
    (second / "METADATA").write_text("Metadata-Version: 2.4\nName: other-tasks\nVersion: 1.0\n")
    command = (*example_worker[:-1], str(both))
    assert described(command, ROMAN) == {
        "roman": Refused(
            "task 'roman': kind 'roman_numerals' is defined by other-tasks and roman-tasks: "
            "uninstall all but one"
        )
    }


def test_the_module_is_in_the_documentation_and_has_thirty_lines() -> None:
    module = (Path(__file__).parent / "example_package" / "roman_tasks.py").read_text()
    project = (Path(__file__).parent / "example_package" / "pyproject.toml").read_text()
    document = (ROOT / "docs" / "tasks.md").read_text()
    assert f"```python\n{module}```\n" in document
    assert f"```toml\n{project}```\n" in document
    assert len(module.splitlines()) <= 30
