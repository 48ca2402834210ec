"""A digest is the same in every process, and changes with everything that nodes must share."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from rewards.digest import digest
from rewards.tasks import Task, TaskSpec, build_task
from rewards.tasks.audit import ALLOWED

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "configs" / "swarms").glob("*.toml"))

IN_ANOTHER_PROCESS = """
import json, sys
import msgspec
from rewards.digest import digest
from rewards.tasks import TaskSpec, build_task
specs = msgspec.json.decode(sys.stdin.read(), type=list[TaskSpec])
found = []
for spec in reversed(specs):
    task = build_task(spec)
    expansions = [[task.expand(i).text, task.expand(i).truth] for i in range(6)]
    found.append(digest(task) if spec.digest else expansions)
found.reverse()
heavy = {"torch", "transformers", "trl", "vllm"} & set(sys.modules)
print(json.dumps([found, sorted(heavy)]))
"""


def default(dataset: str, answer_format: str = "tags") -> TaskSpec:
    return TaskSpec(dataset, "reasoning_gym", dataset, "0.1.25", {}, answer_format)


def tasks_of(manifest: Path) -> list[TaskSpec]:
    rules = tomllib.loads(manifest.read_text())["rules"]
    return msgspec.convert(rules["tasks"], list[TaskSpec])


def test_digests_agree_between_processes_and_with_the_manifests() -> None:
    """The other process has another hash seed and asks in another order: no task may care.

    Of data sets that no manifest has, only six questions are compared: some are slow to make.
    """
    shipped = [
        (path.name, spec)
        for path in MANIFESTS
        for spec in tasks_of(path)
        if spec.kind == "reasoning_gym"  # others need a file of data
    ]
    specs = [default(dataset) for dataset in sorted(ALLOWED)] + [spec for _, spec in shipped]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=msgspec.json.encode(specs),
        env=environment,
        capture_output=True,
        check=True,
    )
    theirs, heavy = json.loads(result.stdout)
    assert heavy == [], "rewards must not import these"
    ours: list[object] = []
    for spec in specs:
        task = build_task(spec)
        expansions = [[task.expand(i).text, task.expand(i).truth] for i in range(6)]
        ours.append(digest(task) if spec.digest else expansions)
    names = [f"{spec.name} {spec.params}" for spec in specs]
    assert dict(zip(names, theirs, strict=True)) == dict(zip(names, ours, strict=True))
    written = {(path, spec.name): spec.digest for path, spec in shipped}
    current = dict(zip(written, ours[len(ALLOWED) :], strict=True))
    assert written == current, "put these digests into the manifests"


def test_the_paper_manifest_has_the_nine_tasks() -> None:
    names = [spec.dataset for spec in tasks_of(ROOT / "configs" / "swarms" / "paper.toml")]
    assert sorted(names) == [
        *["arc_1d", "base_conversion", "basic_arithmetic", "bf", "binary_matrix"],
        *["calendar_arithmetic", "decimal_arithmetic", "fraction_simplification"],
        "propositional_logic",
    ]


class Altered:
    """A task whose expansions or verdicts differ a little from another's."""

    def __init__(self, task: Task, change: str) -> None:
        self.spec, self._task, self._change = task.spec, task, change
        self.deterministic = True

    def expand(self, index: int) -> object:
        expansion = self._task.expand(index)
        if self._change in ("text", "truth"):
            value = getattr(expansion, self._change)
            expansion = msgspec.structs.replace(expansion, **{self._change: value + " "})
        return expansion

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        if self._change == "unfinished" and not finished:
            return self._task.judge(index, answer_text, True)
        if self._change == "containing" and self._task.expand(index).truth in answer_text:
            return True
        return self._task.judge(index, answer_text, finished)


@pytest.mark.parametrize("change", ["text", "truth", "unfinished", "containing"])
def test_a_different_task_or_checker_has_a_different_digest(change: str) -> None:
    task = build_task(default("chain_sum", "last_line"))
    assert digest(Altered(task, change)) != digest(task)  # type: ignore[arg-type]
    assert digest(Altered(task, "nothing")) == digest(task)  # type: ignore[arg-type]


def test_name_parameters_and_format_change_the_digest() -> None:
    spec = default("chain_sum")
    changed = [
        msgspec.structs.replace(spec, name="sums"),
        msgspec.structs.replace(spec, params={"max_terms": 2}),
        msgspec.structs.replace(spec, answer_format="last_line"),
    ]
    assert len({digest(build_task(each)) for each in [spec, *changed]}) == 4


def test_the_digest_written_in_the_spec_does_not_enter_it() -> None:
    spec = default("chain_sum")
    written = msgspec.structs.replace(spec, digest="0" * 64)
    assert digest(build_task(spec)) == digest(build_task(written))
