"""A worker whose tasks each have one fault that `sapo tasks check` must find; the kind names it."""

import hashlib
import os
import sys
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from rewards.extract import final_answer
from rewards.question import Expansion, Question
from rewards.tasks import TaskRefused, TaskSpec
from rewards.worker import serve


@lru_cache(maxsize=256)
def sides(name: str, index: int) -> tuple[int, int]:
    hashed = hashlib.sha256(f"{name} {index}".encode()).digest()
    return int.from_bytes(hashed[:2]), int.from_bytes(hashed[2:4])


class Sound:
    """Sums of two numbers that the address gives. No fault."""

    deterministic = True
    num_questions: int | None = None
    rule = "number"

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def expand(self, index: int) -> Expansion:
        one, other = sides(self.spec.name, index)
        return Expansion(Question(self.spec.name, index), f"{one} + {other}", str(one + other))

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        answer = final_answer(answer_text, finished, self.spec.answer_format)
        return answer == str(sum(sides(self.spec.name, index)))


class Gaps(Sound):
    def expand(self, index: int) -> Expansion:
        if sides(self.spec.name, index)[0] % 100 == 0:
            raise LookupError("no \x1b[31msuch row")
        return super().expand(index)


class NotCanonical(Sound):
    def expand(self, index: int) -> Expansion:
        one = super().expand(index)
        return Expansion(Question(self.spec.name, index // 2), one.text, one.truth)


class Refusing(Sound):
    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return False


class Containing(Sound):
    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return str(sum(sides(self.spec.name, index))) in answer_text


class TakesNan(Sound):
    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return answer_text == "nan" or super().judge(index, answer_text, finished)


class Raising(Sound):
    """Unscorable is not correct: a note."""

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        if answer_text == "∞":
            raise OverflowError
        return super().judge(index, answer_text, finished)


class Hashed(Sound):
    def expand(self, index: int) -> Expansion:
        return Expansion(Question(self.spec.name, index), f"{index} {hash(str(index))}", "1234")

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return answer_text == "1234"


class Moody(Sound):
    """Judges one answer otherwise under another hash seed; the digest does not see it."""

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        if answer_text == "∞":
            return os.environ["PYTHONHASHSEED"] != "0"
        return super().judge(index, answer_text, finished)


class Remembering(Sound):
    """A question depends on what was asked before."""

    asked = 0

    def expand(self, index: int) -> Expansion:
        self.asked += index % 2
        one = super().expand(index)
        return Expansion(one.question, f"{self.asked} {one.text}", one.truth)


class OneText(Sound):
    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return answer_text == "42"

    def expand(self, index: int) -> Expansion:
        return Expansion(Question(self.spec.name, index), "What is six times seven?", "42")


class Leaning(Sound):
    """Questions whose texts are chosen so that a half of them is held out."""

    def expand(self, index: int) -> Expansion:
        text = next(
            text
            for i in range(1_000)
            if (hashlib.sha256((text := f"{index} {i}").encode()).digest()[0] >= 0xF0) == index % 2
        )
        return Expansion(Question(self.spec.name, index), text, f"text {index}")

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return answer_text == f"text {index}"


class AlwaysYes(Sound):
    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return answer_text == "yes"

    def expand(self, index: int) -> Expansion:
        return Expansion(Question(self.spec.name, index), f"Is {index} a number?", "yes")


class Rows(Sound):
    """Few, and the last one asks what the first one asks, with another truth."""

    num_questions = 300

    def expand(self, index: int) -> Expansion:
        row = index % 300
        return Expansion(Question(self.spec.name, row), f"row {row % 299}", f"value {row}")

    def judge(self, index: int, answer_text: str, finished: bool) -> bool:
        return answer_text == f"value {index % 300}"


class TooManyRows(Rows):
    num_questions = 200


class Uncertain(Sound):
    deterministic = False


KINDS = {
    "sound": Sound,
    "gaps": Gaps,
    "not_canonical": NotCanonical,
    "refusing": Refusing,
    "containing": Containing,
    "takes_nan": TakesNan,
    "raising": Raising,
    "hashed": Hashed,
    "moody": Moody,
    "remembering": Remembering,
    "one_text": OneText,
    "leaning": Leaning,
    "always_yes": AlwaysYes,
    "rows": Rows,
    "too_many_rows": TooManyRows,
    "uncertain": Uncertain,
}


def build(spec: TaskSpec, data: Path | None) -> Sound:
    if spec.kind == "crashing":
        os._exit(7)
    if spec.kind == "refused":
        raise TaskRefused(f"task {spec.name!r}: needs \x1b[31mversion 2")
    return KINDS[spec.kind](spec)


if __name__ == "__main__":
    serve(build, load=lambda spec: None)
