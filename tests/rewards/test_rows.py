"""Questions from rows: what is asked, what is correct, and mistakes in data told in plain words."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pytest
from pyarrow import parquet

from rewards.digest import digest
from rewards.draw import draw_held_out, draw_training
from rewards.extract import mark_answer
from rewards.program import Program, Ran
from rewards.question import MAX_INDEX, Answer, Example, Judged, Question, is_held_out
from rewards.tasks import Task, TaskRefused, TaskSpec, build_task
from rewards.tasks.rows import NUM_SAMPLES
from rewards.verifier import Verifier
from rewards.worker import Refused

SCHOOL = Path(__file__).parents[2] / "configs" / "swarms" / "school.toml"
SCHEMA = '{"type": "object", "required": ["a"]}'
ADD = {"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "fn_name": "add"}


def sums(number: int) -> dict[str, Any]:
    return {"question": f"What is {number} + 1?", "answer": str(number + 1)}


def write(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def spec_of(path: Path, check: str, answer_format: str = "tags", **params: Any) -> TaskSpec:
    version = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return TaskSpec("rows", "rows", path.name, version, {"check": check, **params}, answer_format)


def make(
    tmp_path: Path, rows: list[dict[str, Any]], check: str, form: str = "tags", **params: Any
) -> Task:
    path = write(tmp_path, rows)
    return build_task(spec_of(path, check, form, **params), path)


def refusal(tmp_path: Path, rows: list[dict[str, Any]], check: str, **params: Any) -> str:
    with pytest.raises(TaskRefused) as error:
        make(tmp_path, rows, check, **params)
    return str(error.value)


def verdict(task: Task, index: int, answer: str) -> bool | Program:
    return task.judge(index, mark_answer(answer, task.spec.answer_format), True)


def test_every_index_leads_to_a_row_under_its_own_number(tmp_path: Path) -> None:
    task = make(tmp_path, [sums(number) for number in range(7)], "number")
    assert task.num_questions == 7
    for index in (0, 3, 6, 7, 10, MAX_INDEX - 1):
        expansion = task.expand(index)
        assert expansion.question == Question("rows", index % 7)
        assert expansion.text.startswith(f"What is {index % 7} + 1?\n\n")
        assert expansion.truth == str(index % 7 + 1)
        assert verdict(task, index, f"{index % 7 + 1}.0") is True
        assert verdict(task, index, f"{index % 7 + 2}") is False
        assert task.judge(index, expansion.truth, True) is False, "it is not marked"
    for index in (-1, MAX_INDEX):
        with pytest.raises(ValueError, match="not in"):
            task.expand(index)


def test_what_the_manifest_shows_comes_with_every_question(tmp_path: Path) -> None:
    path = write(tmp_path, [sums(1)])
    shown = (Example("What is 0 + 1?", "1"),)
    spec = msgspec.structs.replace(spec_of(path, "number"), system="Be brief.", examples=shown)
    expansion = build_task(spec, path).expand(0)
    assert (expansion.system, expansion.examples) == ("Be brief.", shown)
    assert digest(build_task(spec, path)) != digest(build_task(spec_of(path, "number"), path))


def test_each_check_takes_its_kind_of_truth(tmp_path: Path) -> None:
    schema = msgspec.json.decode(SCHEMA)
    for check, columns, params, right, wrong in (
        ("exact", {"answer": " Paris "}, {}, "Paris", "paris"),
        ("number", {"answer": "1,234.5"}, {}, "1234.5", "1234"),
        ("number", {"answer": 3}, {}, "3", "4"),
        ("number", {"answer": 2.5}, {"tolerance": 0.1}, "2.6", "2.61"),
        ("number", {"answer": "so\n#### 1\n#### 7"}, {"truth_after": "####"}, "7", "1"),
        ("choice", {"answer": "b"}, {}, "B", "A"),
        ("math", {"answer": r"\frac12"}, {}, r"\frac{2}{4}", r"\frac13"),
        ("regex", {"answer": "a+b", "shown": "ab"}, {"example": "shown"}, "aaab", "b"),
        ("regex", {"answer": "ab"}, {"pattern": "a+b"}, "aaab", "b"),
        ("json", {"answer": {"a": 1}}, {"schema": SCHEMA}, '{"a": 2}', "[]"),
        ("json", {"answer": schema, "shown": '{"a": 1}'}, {"example": "shown"}, '{"a": 2}', "[]"),
    ):
        task = make(tmp_path, [{"question": "What?", **columns}], check, **params)
        assert verdict(task, 0, task.expand(0).truth) is True
        assert verdict(task, 0, right) is True, check
        assert verdict(task, 0, wrong) is False, check
        assert task.deterministic is (check != "math")
        assert not hasattr(task, "compare")


def test_choices_are_lettered_and_a_number_counts_them_from_0(tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "answer": 2, "options": ["red", " green", "blue"]},
        {"question": "Which?", "answer": "a", "options": ["yes", "no"]},
    ]
    task = make(tmp_path, rows, "choice", choices="options")
    assert task.expand(0).text.startswith("Which?\n\nA. red\nB. green\nC. blue\n\nWrite")
    assert (task.expand(0).truth, task.expand(1).truth) == ("C", "a")
    assert verdict(task, 0, "(c)") is True
    assert verdict(task, 1, "B") is False
    rows[0]["answer"] = 3
    assert "3 is none of 3 choices" in refusal(tmp_path, rows, "choice", choices="options")


@pytest.mark.parametrize("kind", ["rows", "code"])
def test_an_answer_to_tests_is_a_program_and_what_it_did_decides(tmp_path: Path, kind: str) -> None:
    source = "def add(a, b):\n    return a + b"
    path = write(tmp_path, [{"question": "Add.", "tests": ADD, "shown": source}])
    params = {"truth": "tests", "example": "shown", "cpu_s": 2}
    spec = msgspec.structs.replace(spec_of(path, "code", "code_block", **params), kind=kind)
    if kind == "code":
        del spec.params["check"]
    task = build_task(spec, path)
    assert not task.deterministic
    assert task.expand(5).truth == source
    assert verdict(task, 5, "print(1)") == Program("print(1)", ("[1, 2]", "[3, 4]"), "add", cpu_s=2)
    assert task.judge(5, "print(1)", True) is False, "no block"
    compare = task.compare  # type: ignore[attr-defined]
    assert compare(5, Ran(("3", "7"))) is True
    assert compare(5, Ran(("3", None))) is False
    assert len(digest(task)) == 64


def test_parquet_gives_the_same_questions_as_json_lines(tmp_path: Path) -> None:
    rows = [sums(number) for number in range(50)]
    lines = make(tmp_path, rows, "number")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
    table = build_task(spec_of(path, "number"), path)
    assert [table.expand(i) for i in range(60)] == [lines.expand(i) for i in range(60)]
    assert digest(table) == digest(lines)


@pytest.mark.parametrize(
    ("check", "params", "complaint"),
    [
        ("numbr", {}, r"check"),
        ("number", {"colum": "q"}, "no parameter 'colum'; there are check, question, truth"),
        ("number", {"tolerance": "much"}, "tolerance"),
        ("number", {"tolerance": -1.0}, "tolerance"),
        ("number", {"tolerance": float("nan")}, "tolerance"),
        ("exact", {"tolerance": 0.5}, "tolerance is for the check number only"),
        ("number", {"cpu_s": 4}, "cpu_s is for the check code only"),
        ("code", {"cpu_s": 4000}, "cpu_s"),
        ("code", {"truth": "tests"}, "needs `example`"),
        ("regex", {}, "needs `example`"),
        ("number", {"question": ""}, "question"),
        (
            "number",
            {"question": "q"},
            "row 0 of rows.jsonl: column 'q' is missing, .* 'question', 'a",
        ),
        ("number", {"truth": "t"}, "row 0 of rows.jsonl: there is no column 't'; there are"),
        ("number", {"truth_after": "####"}, "row 0 of rows.jsonl: column 'answer' has no '####'"),
        ("choice", {"choices": "question"}, "row 0 of rows.jsonl: column 'question' is not a list"),
        ("choice", {}, "row 0 of rows.jsonl: the truth '1' is no letter"),
    ],
)
def test_a_mistake_of_the_manifest_is_told_before_anything_is_asked(
    tmp_path: Path, check: str, params: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TaskRefused, match=complaint):
        make(tmp_path, [sums(number) for number in range(30)], check, **params)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "", "answer": "1"}, "column 'question': 1 to"),
        ({"question": "x" * 65537, "answer": "1"}, "column 'question': 1 to"),
        ({"question": 7, "answer": "1"}, "column 'question' is int, not a text"),
        ({"question": "What?", "answer": None}, "the truth None is neither a text"),
        ({"question": "What?", "answer": True}, "the truth True is neither a text"),
        ({"question": "What?", "answer": ["1"]}, "the truth ['1'] is neither a text"),
        ({"question": "What?", "answer": "x" * 65537}, "is no number"),
        ({"question": "What?", "answer": "one"}, "the truth 'one' is no number"),
        ({"\x1b[31m": "What?", "answer": "one"}, r"there are '\x1b[31m', 'answer'"),
    ],
)
def test_a_bad_row_is_told_at_once_where_it_is_sampled_and_else_when_it_is_asked_for(
    tmp_path: Path, row: dict[str, Any], complaint: str
) -> None:
    rows = [sums(number) for number in range(10 * NUM_SAMPLES)]
    rows[10] = row
    said = refusal(tmp_path, rows, "number")
    assert said.startswith("task 'rows': row 10 of rows.jsonl: ") and complaint in said
    rows[10], rows[11] = sums(10), row
    task = make(tmp_path, rows, "number")
    assert task.expand(10).truth == "11"
    for ask in (task.expand, lambda index: verdict(task, index, "12")):
        with pytest.raises(ValueError, match="row 11 of rows") as error:
            ask(11)
        assert complaint in str(error.value)


def test_a_truth_that_cannot_be_answered_is_no_question(tmp_path: Path) -> None:
    """In no form that a policy could write: it would be an honest answer judged wrong."""
    for form, answer in (("last_line", "a\nb"), ("tags", "a</answer>"), ("boxed", "a}")):
        path = write(tmp_path, [{"question": "Q", "answer": answer}])
        with pytest.raises(TaskRefused, match=r"row 0 .*is not correct by the check 'exact'"):
            build_task(spec_of(path, "exact", form), path)


def test_another_file_is_refused_with_both_hashes_and_a_missing_one_is_named(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, [sums(1)])
    spec = spec_of(path, "number")
    path.write_bytes(path.read_bytes() + b"\n")
    here = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(TaskRefused) as error:
        build_task(spec, path)
    assert here in str(error.value) and spec.version.removeprefix("sha256:") in str(error.value)
    with pytest.raises(TaskRefused, match=r"rows\.jsonl is not here"):
        build_task(spec)
    with pytest.raises(TaskRefused, match="No such file"):
        build_task(spec, tmp_path / "none.jsonl")


def school() -> list[tuple[TaskSpec, Path]]:
    tasks = tomllib.loads(SCHOOL.read_text())["rules"]["tasks"]
    specs = msgspec.convert(tasks, list[TaskSpec])
    return [(spec, SCHOOL.parent / spec.dataset) for spec in specs]


@pytest.mark.parametrize(("spec", "path"), school(), ids=lambda value: getattr(value, "name", ""))
def test_every_row_of_the_shipped_files_is_a_question_and_no_two_are_the_same(
    spec: TaskSpec, path: Path
) -> None:
    task = build_task(spec, path)
    assert task.num_questions is not None
    expansions = [task.expand(number) for number in range(task.num_questions)]
    assert len({one.text for one in expansions}) == task.num_questions
    assert sum(is_held_out(one.text) for one in expansions) >= 2
    assert digest(task) == spec.digest


def test_programs_shown_in_the_shipped_file_pass_their_own_tests_and_no_others(
    tmp_path: Path,
) -> None:
    """They are ours, so they may run here."""
    [(spec, path)] = [(spec, path) for spec, path in school() if spec.params["check"] == "code"]
    task = build_task(spec, path)
    assert task.num_questions == 40
    results: list[Ran] = []
    for number in range(40):
        found = verdict(task, number, task.expand(number).truth)
        assert isinstance(found, Program)
        results.append(run_own(found))
    compare = task.compare  # type: ignore[attr-defined]
    for number, ran in enumerate(results):
        assert compare(number, ran) is True, task.expand(number).text
        assert compare(number, results[number - 1]) is False


def run_own(program: Program) -> Ran:
    import contextlib
    import io
    import json
    import sys

    outputs: list[str | None] = []
    for given in program.inputs:
        names: dict[str, Any] = {"__name__": "__main__"}
        if program.function:
            exec(program.source, names)
            outputs.append(json.dumps(names[program.function](*json.loads(given))))
        else:
            before, out = sys.stdin, io.StringIO()
            sys.stdin = io.StringIO(given)
            try:
                with contextlib.redirect_stdout(out):
                    exec(program.source, names)
            finally:
                sys.stdin = before
            outputs.append(out.getvalue())
    return Ran(tuple(outputs))


def test_rows_of_both_forms_are_asked_and_judged_in_real_workers(tmp_path: Path) -> None:
    rows = [sums(number) for number in range(200)]
    lines = write(tmp_path, rows)
    table = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), table, row_group_size=50)
    specs = [
        msgspec.structs.replace(spec_of(lines, "number"), name="lines"),
        msgspec.structs.replace(spec_of(table, "number"), name="table"),
        msgspec.structs.replace(spec_of(lines, "number"), name="missing"),
    ]
    with Verifier(specs, data={"lines": lines, "table": table}) as verifier:
        described = verifier.describe()
        assert isinstance(described["missing"], Refused)
        assert described["missing"].message == "task 'missing': rows.jsonl is not here"
        for name, path in (("lines", lines), ("table", table)):
            facts = described[name]
            assert not isinstance(facts, Refused), facts
            spec = next(spec for spec in specs if spec.name == name)
            assert facts.digest == digest(build_task(spec, path))
            assert (facts.num_questions, facts.deterministic, facts.rule) == (200, True, "number")
        question = Question("table", 2**52 + 1)
        number = question.index % 200
        answers = [Answer(f"<answer>{n}</answer>", True) for n in (number + 1, number)]
        assert verifier.judge([(question, answers)]) == [[Judged(True), Judged(False)]]
        exam = draw_held_out(verifier, ["lines"], 1, 50)
        expected = {
            n for n in range(200) if is_held_out(build_task(specs[0], lines).expand(n).text)
        }
        assert {one.question.index for one in exam} == expected
        drawn = draw_training(verifier, ["lines", "table"], 1, 1, 100)
        assert {one.question.index for one in drawn} <= set(range(200)) - expected
        assert len({one.text for one in drawn}) == 100
