"""A worker with tasks whose answers are programs; an answer's whole text is the program.

    python program_worker.py ROOT

ROOT is what holds the package `rewards`. A task's parameter `tests` is JSON as of a row.
"""

import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from rewards.program import Program, Ran
from rewards.question import Expansion, Question
from rewards.tasks import TaskSpec
from rewards.tasks.code import code_limits, parse_tests, passed, program
from rewards.worker import serve


class Programs:
    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.deterministic = False
        self.num_questions = 1
        self._tests = parse_tests(spec.params["tests"])
        self._limits = code_limits(spec.params)

    def expand(self, index: int) -> Expansion:
        return Expansion(Question(self.spec.name, 0), "write a program", "pass")

    def judge(self, index: int, answer_text: str, finished: bool) -> bool | Program:
        if answer_text == "end":
            sys.exit(3)
        return program(answer_text, self._tests, self._limits) if answer_text else False

    def compare(self, index: int, ran: Ran) -> bool:
        if ran.outputs == ("end",):
            sys.exit(4)
        return passed(self._tests, ran)


def build(spec: TaskSpec, data: Path | None) -> Programs:
    return Programs(spec)


if __name__ == "__main__":
    serve(build, load=lambda spec: None)
