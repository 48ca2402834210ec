"""The final answer out of free text, and the instruction that asks a policy to mark it.

All functions take time linear in the text and use no regular expression: what they read was
written by strangers.
"""

from enum import StrEnum

ASCII_SPACE = " \t\n\r\f\v"
"""What is stripped around an answer. Unicode's other spaces are part of the answer, so that every
Python version agrees."""


class AnswerFormat(StrEnum):
    """How a policy marks its final answer."""

    LAST_LINE = "last_line"
    """The last line that is not empty, of a finished answer."""
    TAGS = "tags"
    """Between <answer> and </answer>."""


_OPEN, _CLOSE = "<answer>", "</answer>"

_INSTRUCTIONS = {
    AnswerFormat.LAST_LINE: "",  # none: a tiny policy would spend most of its prompt on it
    AnswerFormat.TAGS: f"\n\nWrite your final answer between {_OPEN} and {_CLOSE}.",
}


def instruction(answer_format: str) -> str:
    """What to append to the question's text; empty for "last_line".

    Raises:
        ValueError: there is no such format.
    """
    return _INSTRUCTIONS[AnswerFormat(answer_format)]


def mark_answer(answer: str, answer_format: str) -> str:
    """The shortest text out of which `final_answer` takes `answer`, if it holds no mark itself.

    Raises:
        ValueError: there is no such format.
    """
    if AnswerFormat(answer_format) is AnswerFormat.TAGS:
        return f"{_OPEN}{answer}{_CLOSE}"
    return answer


def final_answer(text: str, finished: bool, answer_format: str) -> str | None:
    """The final answer with ASCII white space stripped, or None if none is marked.

    "last_line": the last line (lines end with a line feed, nothing else) that is not empty; None
    for an unfinished text, because it may be cut inside of that line.

    "tags": between the last </answer> and the nearest <answer> before it, finished or not, over
    lines. Of several pairs the last counts, so that hedging does not pay; what follows it is
    ignored, an unclosed <answer> included. A second </answer> without its own <answer>, as in
    nested pairs, marks nothing. Tags are case-sensitive.

    Raises:
        ValueError: there is no such format.
    """
    if AnswerFormat(answer_format) is AnswerFormat.TAGS:
        return _last_tagged(text)
    if not finished:
        return None
    return text.strip(ASCII_SPACE).rpartition("\n")[2].strip(ASCII_SPACE) or None


def _last_tagged(text: str) -> str | None:
    end = text.rfind(_CLOSE)
    start = text.rfind(_OPEN, 0, max(end, 0))
    if end < 0 or start < 0:
        return None
    content = text[start + len(_OPEN) : end]
    return None if _CLOSE in content else content.strip(ASCII_SPACE) or None
