"""What a fuzzer or a person once found, by every run of the tests; it needs no fuzzer."""

from pathlib import Path

import pytest
from targets import RULES, TARGETS
from words import WORDS

from rewards.hostile import hostile_answers
from rewards.tasks.audit import ALLOWED
from rewards.tasks.rules import is_correct

CORPUS = Path(__file__).with_name("corpus")
SLOW = {"latex"}
"""A text takes 10 ms; tests/rewards/test_hostile.py sends it the hostile ones."""


@pytest.mark.parametrize("target", TARGETS)
def test_no_text_that_was_kept_breaks_anything(target: str) -> None:
    texts = [path.read_bytes().decode(errors="ignore") for path in (CORPUS / target).iterdir()]
    assert texts
    for text in texts:
        TARGETS[target](text)


@pytest.mark.parametrize("target", sorted(TARGETS.keys() - SLOW))
@pytest.mark.parametrize("num_bytes", [396, 3500])  # of formulas, of rules: just short enough
def test_no_hostile_answer_breaks_anything(target: str, num_bytes: int) -> None:
    for texts in hostile_answers(num_bytes=num_bytes).values():
        for text in texts:
            TARGETS[target](text)


def test_the_corpus_is_small_and_every_part_has_one() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {*TARGETS} == {*WORDS}
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) < 100_000


def test_every_rule_of_an_allowed_data_set_has_a_second_reading() -> None:
    assert {audited.rule for audited in ALLOWED.values()} <= {rule for rule, _, _ in RULES}


def test_something_is_correct_under_every_rule() -> None:
    texts = [path.read_bytes().decode(errors="ignore") for path in (CORPUS / "rules").iterdir()]
    for rule, _, item in RULES:
        assert any(is_correct(rule, text.strip(), item) for text in [item.truth, *texts]), rule
