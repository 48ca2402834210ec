"""Answers of strangers through the node's real path: a Verifier with its workers, sandbox and
deadlines judges hostile texts on every allowed task, as a foreign rollout would bring them.

An isolated worker could not create the canary. So some of the code among the texts ends its
process, and some calculates the truth: an answer that was run would be seen all the same.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import msgspec
import pytest

from rewards.extract import mark_answer
from rewards.hostile import around, hostile_answers, resource
from rewards.question import Answer, Expansion, Judged, Question
from rewards.tasks import TaskSpec
from rewards.tasks.audit import ALLOWED
from rewards.tasks.rules import MAX_ANSWER_CHARS
from rewards.verifier import Limits, Verifier

FORMATS = cycle([*["last_line", "tags"] * 4, "boxed"])

SETS = [
    TaskSpec(
        *(name, "reasoning_gym", name, "0.1.25"),
        answer_format="tags" if audited.has_lines else next(FORMATS),
    )
    for name, audited in ALLOWED.items()
]

ADD = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
SCHEMA = {"type": "object", "required": ["sum"], "properties": {"sum": {"const": 7}}}
ROWS: Mapping[str, tuple[str, Mapping[str, object], Mapping[str, str | int]]] = {
    # check -> answer format, columns, parameters
    "exact": ("last_line", {"answer": "Paris"}, {}),
    "number": ("boxed", {"answer": "1,234.5"}, {}),
    "choice": ("last_line", {"answer": "C"}, {}),
    "math": ("boxed", {"answer": r"\frac{7 x^{2}}{3}"}, {}),
    "regex": ("tags", {"answer": "(ab|c)+d", "shown": "abcd"}, {"example": "shown"}),
    "json": ("code_block", {"answer": SCHEMA, "shown": '{"sum": 7}'}, {"example": "shown"}),
    "code": (
        "code_block",
        {"answer": ADD, "shown": "print(sum(map(int, input().split())))"},
        {"example": "shown", "cpu_s": 1, "memory_mib": 128},
    ),
}

NUM_BYTES = MAX_ANSWER_CHARS - 200
"""Of long texts: the most that reaches every rule."""

LATEX = str(ROWS["math"][1]["answer"])
ENTAILED = {
    # P is a premise of its question 0, and a premise that is repeated follows
    "propositional_logic": [text for text in resource(250) if text.startswith("P ∧ P")],
    # the library reads past quotes, braces and a second time the same
    "math": [
        f"{LATEX!r}",
        f'"{LATEX}"',
        f"{{{LATEX}}}",
        f"{LATEX}; {LATEX}",
        f"{{{{ {LATEX!r} }}}}",
    ],
}
"""Task -> texts that are correct answers to its question 0. All others are wrong."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Workers that know all tasks, and what nobody may touch."""

    verifier: Verifier
    specs: Mapping[str, TaskSpec]
    canary: Path

    def texts(self, task: str, truth: str) -> list[str]:
        """What is sent to a task."""
        if task == "code":  # each costs a process, and what surrounds a program is one
            kinds = hostile_answers(self.canary, num_bytes=250)
            return [*kinds["code"], *kinds["resource"], *kinds["format"]]
        kinds = hostile_answers(self.canary, NUM_BYTES)
        texts = [text for kind in kinds.values() for text in kind]
        texts += [*around(truth), *resource(250)]
        return texts if task in ROWS else [*texts, *resource(15_000)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    home = tmp_path_factory.mktemp("home")
    specs, files = [*SETS], {}
    for check, (answer_format, columns, params) in ROWS.items():
        files[check] = home / f"{check}.jsonl"
        files[check].write_bytes(msgspec.json.encode({"question": "What?", **columns}))
        version = f"sha256:{hashlib.sha256(files[check].read_bytes()).hexdigest()}"
        spec = TaskSpec(check, "rows", files[check].name, version, {"check": check, **params})
        specs.append(msgspec.structs.replace(spec, answer_format=answer_format))
    limits = Limits(deadline_s=60)  # CPU time decides, at its default: this machine may be busy
    with Verifier(specs, limits, data=files) as verifier:
        yield Workplace(verifier, {spec.name: spec for spec in specs}, home / "canary")


@pytest.mark.parametrize("task", [*(spec.name for spec in SETS), *ROWS])
def test_no_hostile_answer_is_correct_run_or_too_much(task: str, work: Workplace) -> None:
    answer_format = work.specs[task].answer_format
    (expansion,) = work.verifier.expand([Question(task, 0)])
    assert isinstance(expansion, Expansion)
    raw = work.texts(task, expansion.truth)
    texts = [*dict.fromkeys([*raw, *(mark_answer(text, answer_format) for text in raw)])]
    right = mark_answer(expansion.truth, answer_format)
    answers = [Answer(text, finished=True) for text in (*texts, right)]

    *verdicts, last = work.verifier.judge([(expansion.question, answers)])[0]

    assert last == Judged(True), "the truth, by the same workers"
    entailed = [mark_answer(text, answer_format) for text in ENTAILED.get(task, ())]
    found = {text: one for text, one in zip(texts, verdicts, strict=True) if one != Judged(False)}
    assert found == dict.fromkeys(entailed, Judged(True))
    assert work.verifier.stats.workers_lost == 0
    assert not work.canary.exists()
