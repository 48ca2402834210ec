import logging
from collections.abc import Iterator

import pytest

from node.log_lines import (
    MAX_LINE_CHARS,
    MAX_TRACEBACK_LINES,
    LogLine,
    LogLines,
    Process,
    TellLines,
    keeping_lines,
)

logger = logging.getLogger("node.test_log_lines")


@pytest.fixture
def lines() -> Iterator[LogLines]:
    kept = LogLines(max_lines=3)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    with keeping_lines(kept):
        yield kept
    logger.setLevel(level)


def test_the_newest_lines_are_kept_oldest_first(lines: LogLines) -> None:
    for number in range(5):
        logger.info("line %d", number)
    assert [one.message for one in lines.newest(10)] == ["line 2", "line 3", "line 4"]
    assert [one.message for one in lines.newest(1)] == ["line 4"]
    assert [one.number for one in lines.newest(10)] == [3, 4, 5]


def test_nothing_below_info_is_kept(lines: LogLines) -> None:
    logger.debug("detail")
    assert lines.newest(9) == []


def test_a_line_is_cut_and_escaped(lines: LogLines) -> None:
    logger.error("\x1b[31m\u2028" + "x" * 10_000)
    (line,) = lines.newest(1)
    assert line.message.startswith("\\x1b[31m\\u2028x")
    assert len(line.message) == MAX_LINE_CHARS


def test_a_traceback_comes_line_by_line(lines: LogLines) -> None:
    def deep(number: int) -> None:
        if number:
            deep(number - 1)
        else:
            raise ValueError("bad \x07 text")

    try:
        deep(200)
    except ValueError:
        logger.exception("it failed")
    (line,) = lines.newest(1)
    assert line.traceback[-1] == "ValueError: bad \\x07 text"
    assert len(line.traceback) <= MAX_TRACEBACK_LINES


def test_a_wrong_call_of_a_logger_is_kept_as_it_is(lines: LogLines) -> None:
    wrong = logging.LogRecord("node", logging.INFO, "file", 1, "%d rounds", ("many",), None)
    lines.handle(wrong)  # alone: pytest's own handler would raise
    assert "'%d rounds' with ('many',)" in lines.newest(1)[0].message


def test_after_the_block_nothing_is_heard() -> None:
    kept = LogLines()
    with keeping_lines(kept):
        pass
    logger.error("later")
    assert kept.newest(1) == []


def test_lines_of_the_learner_stand_among_the_others(lines: LogLines) -> None:
    told: list[LogLine] = []
    handler = TellLines(told.append)
    handler.handle(logging.LogRecord("node.loop", logging.INFO, "f", 1, "round %d", (3,), None))
    logger.info("here")
    lines.add(told[0])
    assert [(one.number, one.process, one.message) for one in lines.newest(2)] == [
        (1, Process.CONTROL, "here"),
        (2, Process.LEARNER, "round 3"),
    ]


def test_a_child_that_was_forked_off_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[LogLine] = []
    handler = TellLines(told.append)
    monkeypatch.setattr("os.getpid", lambda: -1)
    handler.handle(logging.LogRecord("node.loop", logging.INFO, "f", 1, "hello", (), None))
    assert told == []
