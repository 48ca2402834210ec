"""A kind of task: write a number as a Roman numeral."""

from rewards.extract import final_answer, instruction
from rewards.question import Expansion, Question
from rewards.tasks import TaskRefused

SIGNS = dict(M=1000, CM=900, D=500, CD=400, C=100, XC=90, L=50, XL=40, X=10, IX=9, V=5, IV=4, I=1)


class RomanNumerals:
    deterministic, num_questions, rule = True, 3999, "exact"

    def __init__(self, spec):
        self.spec = spec

    def expand(self, index):
        own, rest, truth = Question(self.spec.name, index % 3999), index % 3999 + 1, ""
        text = f"Write {rest} as a Roman numeral." + instruction(self.spec.answer_format)
        for sign, value in SIGNS.items():
            truth, rest = truth + sign * (rest // value), rest % value
        return Expansion(own, text, truth, self.spec.system, self.spec.examples)

    def judge(self, index, text, finished):
        return final_answer(text, finished, self.spec.answer_format) == self.expand(index).truth


def build(spec, data):
    if spec.params or data:
        raise TaskRefused(f"task {spec.name!r}: roman_numerals takes no params and no data")
    return RomanNumerals(spec)
