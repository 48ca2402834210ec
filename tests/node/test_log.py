"""Lines of the log: nothing that a stranger wrote acts on a terminal or begins a line."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.log import MAX_MESSAGE_CHARS, log_to

HOSTILE = "\x1b[2J\u202e\n2026-01-01 00:00:00,000 ERROR node.x: forged"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What `log_to` changes for the whole process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def logged(file: Path, log_format: str) -> str:
    log_to(file, also_stderr=False, format=log_format)
    logger = logging.getLogger("node.test")
    logger.warning("a peer says %s", HOSTILE)
    logger.info("x" * 10_000)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("it failed")
    return file.read_text()


def test_lines_for_people_begin_with_a_date_or_are_indented(tmp_path: Path) -> None:
    text = logged(tmp_path / "log", "human")
    assert all(char.isprintable() or char == "\n" for char in text)
    begin = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ (WARNING|INFO|ERROR) node\.test: |    ")
    lines = text.splitlines()
    assert all(begin.match(line) for line in lines)
    assert lines[0].endswith(
        r"a peer says \x1b[2J\u202e\n2026-01-01 00:00:00,000 ERROR node.x: forged"
    )
    assert sum("node.test: " in line for line in lines) == 3
    assert "    ValueError: \\x1b[2J\\u202e" in lines


def test_lines_for_machines_are_one_object_each(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in logged(tmp_path / "log", "json").splitlines()]
    assert [line["level"] for line in lines] == ["warning", "info", "error"]
    assert {line["logger"] for line in lines} == {"node.test"}
    assert lines[0].keys() == {"time", "level", "logger", "message"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])
    assert len(lines[1]["message"]) == MAX_MESSAGE_CHARS
    assert lines[2]["message"] == "it failed" and lines[2]["traceback"][0].startswith("Traceback")
    assert all(line.isprintable() for line in lines[2]["traceback"])
