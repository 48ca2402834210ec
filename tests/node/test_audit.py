import json
from pathlib import Path

import pytest

from node.audit import AUDIT_FILE, Audit


def test_a_line_says_who_what_when_and_what_came_of_it(tmp_path: Path) -> None:
    audit = Audit(tmp_path, clock=lambda: 1_800_000_000.5)
    audit.note("192.0.2.7 port 1", "pause", "done")
    audit.note("192.0.2.7 port 2", "resume", "refused: no")
    first, second = map(json.loads, (tmp_path / AUDIT_FILE).read_text().splitlines())
    assert first == {
        "time": "2027-01-15T08:00:00.500+00:00",
        "who": "192.0.2.7 port 1",
        "what": "pause",
        "result": "done",
    }
    assert second["result"] == "refused: no"
    assert (tmp_path / AUDIT_FILE).stat().st_mode & 0o777 == 0o600


def test_the_files_are_bounded_and_the_newest_lines_stay(tmp_path: Path) -> None:
    audit = Audit(tmp_path, max_bytes=2000)
    for number in range(100):
        Audit(tmp_path, max_bytes=2000).note("somebody", f"change {number}", "x" * 5000)
    audit.note("somebody", "the last", "done")
    files = sorted(tmp_path.iterdir())
    assert [one.name for one in files] == [AUDIT_FILE, f"{AUDIT_FILE}.1"]
    assert all(one.stat().st_size <= 2000 for one in files)
    lines = [json.loads(line) for one in reversed(files) for line in one.read_text().splitlines()]
    assert [one["what"] for one in lines][-3:] == ["change 98", "change 99", "the last"]


def test_a_file_that_cannot_be_written_is_an_error_in_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / AUDIT_FILE).symlink_to(tmp_path / "elsewhere")
    with caplog.at_level("INFO"):
        Audit(tmp_path).note("somebody", "shutdown", "done")
    assert [one.levelname for one in caplog.records] == ["INFO", "ERROR"]
    assert (tmp_path / "elsewhere").read_text() == ""
