"""What nodes exchange: all answers of one node to one question, as plain text."""

import msgspec

from rewards.question import Answer, Question


class Rollout(msgspec.Struct, frozen=True):
    """All answers of one node to one question (a rollout group of the paper)."""

    question: Question
    answers: tuple[Answer, ...]
    model: str
    """Name of the author's model; a claim when foreign."""
    policy_round: int
    """Updates that the author's policy had made when it answered; a claim when foreign."""
