import hashlib

import msgspec
import pytest

from rewards.question import (
    Example,
    Expansion,
    Judged,
    Question,
    Reason,
    Unscorable,
    Verdict,
    is_correct,
    is_held_out,
    is_shown,
    normalise,
)


def test_one_in_sixteen_texts_is_held_out() -> None:
    num_held_out = sum(is_held_out(f"What is {i} + {i % 7}?") for i in range(16_000))
    assert 900 < num_held_out < 1100


def test_held_out_is_the_top_sixteenth_of_sha256_of_the_normalised_text() -> None:
    for i in range(100):
        first_byte = hashlib.sha256(f"what is {i}?".encode()).digest()[0]
        assert is_held_out(f"What is {i}?") == (first_byte >= 240)


@pytest.mark.parametrize(
    "variant", ["what is\t7?", "  What  is 7?\n", "WHAT IS 7?", "What is\u00a07?"]
)
def test_case_and_white_space_do_not_make_another_text(variant: str) -> None:
    assert normalise(variant) == normalise("What is 7?") == "what is 7?"


def test_only_an_answer_judged_correct_is_correct() -> None:
    assert is_correct(Judged(True))
    assert not is_correct(Judged(False))
    assert not any(is_correct(Unscorable(reason)) for reason in Reason)


@pytest.mark.parametrize(
    "verdict", [Judged(True), Judged(False), Unscorable(Reason.DEADLINE, "5 s")]
)
def test_a_verdict_survives_encoding(verdict: Verdict) -> None:
    encoded = msgspec.msgpack.encode(verdict)
    assert msgspec.msgpack.decode(encoded, type=Judged | Unscorable) == verdict


def test_questions_have_an_order_and_can_be_keys() -> None:
    questions = {Question("b", 1), Question("a", 2), Question("a", 1), Question("a", 1)}
    assert sorted(questions) == [Question("a", 1), Question("a", 2), Question("b", 1)]


@pytest.mark.parametrize(
    ("shown", "is_so"),
    [
        ("What is 3 + 4?", True),
        (" what is  3 + 4?\n", True),
        ("What is 3 + 4?\n\nWrite it.", True),
        ("What is 3", True),  # one too many: harmless
        ("What is 3 + 4? No", False),
        ("Wha", False),
        ("3 + 4?", False),
    ],
)
def test_a_question_is_shown_where_an_example_asks_it(shown: str, is_so: bool) -> None:
    text = "What is 3 + 4?\n\nWrite it."
    examples = (Example("Other", "1"), Example(shown, "7"))
    assert is_shown(Expansion(Question("sums", 1), text, "7", "", examples)) is is_so
