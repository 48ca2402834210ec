"""Final answers out of text: which line, which tags, and nothing from unfinished last lines."""

import pytest

from rewards.extract import AnswerFormat, final_answer, instruction, mark_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7", "7"),
        ("  7 \t\r\n\n", "7"),
        ("let me see\n6 + 1 is\n7", "7"),
        ("7\nor 8", "or 8"),
        ("", None),
        (" \n\t\n", None),
        ("\u00a07", "\u00a07"),  # a no-break space is part of the answer
        ("6\u20287", "6\u20287"),  # only a line feed ends a line
        ("6\r7", "6\r7"),
        ("6\x0b7", "6\x0b7"),
    ],
)
def test_the_last_line_that_is_not_empty_is_the_answer(text: str, answer: str | None) -> None:
    assert final_answer(text, True, "last_line") == answer


def test_an_unfinished_last_line_may_be_cut_and_is_no_answer() -> None:
    assert final_answer("so it is\n12", False, "last_line") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>7</answer>", "7"),
        ("think\n<answer>\n 7 \n</answer> done", "7"),
        ("<answer>1 2\n3 4</answer>", "1 2\n3 4"),
        ("<answer>6</answer><answer>7</answer>", "7"),
        ("<answer>7</answer> and <answer>8", "7"),
        ("<answer><answer>7</answer>", "7"),
        ("<answer>7</answer></answer>", None),
        ("<answer>6<answer>7</answer></answer>", None),
        ("</answer>7<answer>", None),
        ("</answer><answer>7</answer>", "7"),
        ("<answer></answer>", None),
        ("<answer> </answer>", None),
        ("<ANSWER>7</ANSWER>", None),
        ("<answer >7</answer>", None),
        ("7", None),
        ("", None),
        ("</answer>", None),
        ("<answer>", None),
        ("<answer>7", None),
        ("<answer</answer>", None),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_the_last_closed_tags_hold_the_answer(
    text: str, answer: str | None, finished: bool
) -> None:
    assert final_answer(text, finished, "tags") == answer


def test_a_long_run_of_tags_is_read_in_linear_time() -> None:
    for part in ("<answer>", "</answer>", "<answer></answer>", "<", "\n", " "):
        text = part * (2_000_000 // len(part))  # quadratic time would take hours
        assert final_answer(text, True, "tags") is None
        final_answer(text, True, "last_line")


@pytest.mark.parametrize("answer_format", AnswerFormat)
def test_a_marked_answer_is_found_again(answer_format: str) -> None:
    assert final_answer(mark_answer("7", answer_format), True, answer_format) == "7"


def test_only_tags_need_an_instruction() -> None:
    assert "<answer>" in instruction("tags")
    assert instruction("last_line") == ""


def test_an_unknown_format_is_an_error() -> None:
    for call in (
        lambda: final_answer("7", True, "boxed"),
        lambda: instruction("boxed"),
        lambda: mark_answer("7", "boxed"),
    ):
        with pytest.raises(ValueError, match="boxed"):
            call()
