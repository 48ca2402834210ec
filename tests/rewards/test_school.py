"""The shipped swarm of data rows: its files are the pinned ones, and its answers are correct."""

from pathlib import Path

from rewards.extract import mark_answer
from rewards.question import Answer, Expansion, Judged, Question
from rewards.tasks import TaskFacts
from rewards.verifier import Verifier
from swarm.manifest import load_manifest

SWARMS = Path(__file__).parents[2] / "configs" / "swarms"
SCHOOL = load_manifest(SWARMS / "school.toml").rules
DATA = {task.name: SWARMS / task.dataset for task in SCHOOL.tasks}


def test_every_row_of_the_school_is_answered_correctly_by_its_own_answer_and_by_no_other() -> None:
    with Verifier(SCHOOL.tasks, data=DATA) as verifier:
        described = verifier.describe()
        for task in SCHOOL.tasks:
            facts = described[task.name]
            assert isinstance(facts, TaskFacts), facts
            assert facts.digest == task.digest, "put these digests into the manifest"
            assert facts.num_questions is not None
            found = verifier.expand(
                [Question(task.name, row) for row in range(facts.num_questions)]
            )
            questions = [one for one in found if isinstance(one, Expansion)]
            assert len({one.text for one in questions}) == len(found)
            marked = [mark_answer(one.truth, task.answer_format) for one in questions]
            others = [marked[-1], *marked[:-1]]
            requests = [
                (one.question, [Answer(right, True), Answer(other, True)])
                for one, right, other in zip(questions, marked, others, strict=True)
            ]
            for (question, answers), verdicts in zip(
                requests, verifier.judge(requests), strict=True
            ):
                is_same = answers[0].text == answers[1].text
                assert verdicts == [Judged(True), Judged(is_same)], question
