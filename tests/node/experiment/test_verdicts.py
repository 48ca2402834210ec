"""What a run's verifier remembers is what it found."""

from collections.abc import Sequence

import trio

from node.experiment.verdicts import Found, InlineJudge, Judging
from rewards.draw import draw_training
from rewards.question import (
    Answer,
    Expansion,
    Judged,
    Question,
    Reason,
    Unscorable,
    Verdict,
)
from rewards.verifier import Verifier


def test_everything_is_asked_for_once_until_it_is_forgotten() -> None:
    asked: list[int] = []

    def square(numbers: list[int]) -> list[int]:
        asked.extend(numbers)
        return [number**2 for number in numbers]

    found = Found[int, int](3)
    assert found.look_up([1, 2, 1, 3], square) == [1, 4, 1, 9]
    assert found.look_up([1, 4], square) == [1, 16]
    assert asked == [1, 2, 3, 4]
    assert found.look_up([2, 1], square) == [4, 1]  # 2 was used least lately
    assert asked == [1, 2, 3, 4, 2]


def test_more_at_once_than_are_remembered_are_all_found() -> None:
    found = Found[int, int](2)
    assert found.look_up(list(range(5)), lambda numbers: numbers) == list(range(5))


def test_an_answer_is_judged_by_a_worker_once(judging: Judging) -> None:
    verifier = judging.verifier
    (question,) = draw_training(verifier, ("chain_sum",), 1, 1, 1)
    right, wrong = Answer(question.truth, True), Answer("no idea", True)
    before = verifier.stats.judged
    first = verifier.judge([(question.question, [right, wrong])])
    assert first == [[Judged(True), Judged(False)]]
    same_text = Answer(question.truth, True, num_tokens=7, mean_logp=-1.0)
    assert verifier.judge([(question.question, [wrong, same_text])]) == [first[0][::-1]]
    assert verifier.stats.judged == before + 2
    cut_off = Answer(question.truth, False)  # another verdict: it did not finish
    assert verifier.judge([(question.question, [cut_off])]) == [[Judged(False)]]


class Slow(Verifier):
    """Meets a limit with every answer."""

    def __init__(self) -> None:
        pass

    def expand(self, questions: Sequence[Question]) -> list[Expansion | Unscorable]:
        return [Expansion(question, "", "") for question in questions]

    def judge(
        self, requests: Sequence[tuple[Question, Sequence[Answer]]], afresh: bool = False
    ) -> list[list[Verdict]]:
        return [[Unscorable(Reason.DEADLINE) for _ in answers] for _, answers in requests]


def test_what_meets_the_deadline_costs_its_author_the_deadline_every_time() -> None:
    judge = InlineJudge(Slow(), deadline_s=5.0)
    question = Question("chain_sum", 1)

    async def costs() -> list[float]:
        _, expanded_s = await judge.expand(question)
        return [expanded_s] + [(await judge.judge(question, Answer("1", True)))[1] for _ in "ab"]

    assert trio.run(costs) == [0.0, 5.0, 5.0]
