"""The table of exit statuses and its document agree, and stay within what a status can be."""

import re
from pathlib import Path

from node.exit_status import FINAL, Exit

TEXT = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()


def test_the_document_has_a_row_and_a_section_for_each() -> None:
    named = [(one.value, one.name) for one in Exit]
    sections = re.findall(r"^## (\d+) (\w+)$", TEXT, re.M)
    rows = re.findall(r"^\| (\d+) \| (\w+) \|(.*)\|$", TEXT, re.M)
    assert [(int(number), name) for number, name in sections] == named
    assert [(int(number), name) for number, name, _ in rows] == named
    final = {int(number) for number, _, again in rows if "ends alike" in again}
    assert final == FINAL
    assert f"RestartPreventExitStatus={' '.join(str(int(one)) for one in sorted(FINAL))}" in TEXT


def test_every_section_says_what_to_do() -> None:
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        assert len(body.split()) >= 15, title


def test_they_are_statuses_and_stay_clear_of_those_of_signals() -> None:
    assert all(0 <= one <= 125 for one in Exit) and len(set(Exit)) == len(Exit)
