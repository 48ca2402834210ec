"""Text of strangers made safe to show: in the terminal, in the log, in a warning.

Covered: control characters and escape sequences, line breaks, characters that change the direction
of writing, invisible and unassigned ones, lone surrogates, length.
Not covered: letters that look alike, stacked accents, and markup of rich: hand rich a Text.
"""

SHORT_CHARS = 200


def printable(text: str, max_chars: int = SHORT_CHARS) -> str:
    """One line of at most `max_chars` characters in which nothing acts on a terminal.

    What is not printable stands there escaped, as in a Python literal: `\\x1b`, `\\n`, `\\u202e`. A
    longer text ends in "…".
    """
    if len(text) > max_chars:
        text = text[: max_chars - 1] + "…"
    shown = "".join(char if char.isprintable() else _escaped(char) for char in text)
    return shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
