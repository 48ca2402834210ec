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
    BOXED = "boxed"
    """Within \\boxed{...}, as mathematics is usually asked for."""
    CODE_BLOCK = "code_block"
    """A fenced block, for programs and for JSON."""


_OPEN, _CLOSE = "<answer>", "</answer>"
_BOX = "\\boxed{"
_FENCE = "```"
_BLOCK_WORDS = {"", "python", "py", "json"}
"""What may follow the fence that opens a block."""

_INSTRUCTIONS = {
    AnswerFormat.LAST_LINE: "",  # none: a tiny policy would spend most of its prompt on it
    AnswerFormat.TAGS: f"\n\nWrite your final answer between {_OPEN} and {_CLOSE}.",
    AnswerFormat.BOXED: f"\n\nPut your final answer within {_BOX}}}.",
    AnswerFormat.CODE_BLOCK: (
        f"\n\nPut your final answer within one block that starts with a line {_FENCE}python (for a "
        f"program) or {_FENCE}json (for JSON) and ends with a line {_FENCE}."
    ),
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
    match AnswerFormat(answer_format):
        case AnswerFormat.LAST_LINE:
            return answer
        case AnswerFormat.TAGS:
            return f"{_OPEN}{answer}{_CLOSE}"
        case AnswerFormat.BOXED:
            return f"{_BOX}{answer}}}"
        case AnswerFormat.CODE_BLOCK:
            return f"{_FENCE}\n{answer}\n{_FENCE}"


def final_answer(text: str, finished: bool, answer_format: str) -> str | None:
    r"""The final answer with ASCII white space stripped, or None if none is marked.

    "last_line": the last line (lines end with a line feed, nothing else) that is not empty; None
    for an unfinished text, because it may be cut inside of that line.

    "tags": between the last </answer> and the nearest <answer> before it, finished or not, over
    lines. Of several pairs the last counts, so that hedging does not pay; what follows it is
    ignored, an unclosed <answer> included. A second </answer> without its own <answer>, as in
    nested pairs, marks nothing. Tags are case-sensitive.

    "boxed": in the \boxed{...} that closes last, finished or not. Braces count as in TeX: after a
    backslash they are plain signs. A box within a box marks nothing. \fbox is no mark: data sets
    have it in reference solutions, and no policy is asked for it.

    "code_block": the lines of the last closed block, finished or not, as they are: nothing is
    stripped but a block of white space only is none. A block starts with a line of ``` and
    nothing, python, py or json; only a line of ``` ends it. Blocks of other languages are passed
    over; fences that are indented or longer are plain lines.

    Raises:
        ValueError: there is no such format.
    """
    match AnswerFormat(answer_format):
        case AnswerFormat.LAST_LINE:
            return _last_line(text) if finished else None
        case AnswerFormat.TAGS:
            return _last_tagged(text)
        case AnswerFormat.BOXED:
            return _last_boxed(text)
        case AnswerFormat.CODE_BLOCK:
            return _last_block(text)


def _last_line(text: str) -> str | None:
    return text.strip(ASCII_SPACE).rpartition("\n")[2].strip(ASCII_SPACE) or None


def _last_tagged(text: str) -> str | None:
    end = text.rfind(_CLOSE)
    start = text.rfind(_OPEN, 0, max(end, 0))
    if end < 0 or start < 0:
        return None
    content = text[start + len(_OPEN) : end]
    return None if _CLOSE in content else content.strip(ASCII_SPACE) or None


def _last_boxed(text: str) -> str | None:
    at, end = max(text.find(_BOX), 0), text.rfind("}") + 1
    while at > 0 and text[at - 1] == "\\":  # braces before the first box close no box
        at -= 1
    last = slice(0)  # not the text itself: of boxes in boxes that would copy it again and again
    starts = []  # of what is within each open brace; -1 where the brace is no box's
    while at < end:
        if text.startswith(_BOX, at):
            at += len(_BOX)
            starts.append(at)
            continue
        match text[at]:
            case "\\":
                at += 1  # what it stands before is no brace
            case "{":
                starts.append(-1)
            case "}" if starts and (start := starts.pop()) >= 0:
                last = slice(start, at)
        at += 1
    box = text[last]
    return None if _BOX in box else box.strip(ASCII_SPACE) or None


def _last_block(text: str) -> str | None:
    last: list[str] = []
    lines: list[str] | None = None  # of the open block
    is_ours = False
    for line in text.split("\n"):
        mark = line.rstrip(ASCII_SPACE)
        if lines is None:
            if mark.startswith(_FENCE) and _FENCE[0] not in (word := mark[len(_FENCE) :]):
                lines, is_ours = [], word in _BLOCK_WORDS
        elif mark != _FENCE:
            lines.append(line)
        else:
            last, lines = (lines if is_ours else last), None
    block = "\n".join(last)
    return block if block.strip(ASCII_SPACE) else None
