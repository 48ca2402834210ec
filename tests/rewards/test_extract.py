"""Final answers out of text: which line, tags, box or block, and nothing that may be cut off."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.extract import ASCII_SPACE, AnswerFormat, final_answer, instruction, mark_answer


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


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{7}", "7"),
        ("so\n\\boxed{\n 7 \n} done", "7"),
        (r"\boxed{6} no, \boxed{7}", "7"),
        (r"\boxed{7} and \boxed{8", "7"),
        (r"\boxed{6 \boxed{7}", "7"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),
        (r"\boxed{a\\}", r"a\\"),
        (r"{ } } \boxed{7} } {", "7"),
        (r"{\boxed{7", None),
        (r"\\boxed{7}", None),  # TeX reads a line break and the word boxed
        (r"\\\boxed{7}", "7"),
        (r"\boxed{\boxed{7}}", None),
        (r"\boxed{6 or \boxed{7}}", None),
        (r"\boxed{7\}", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        (r"\boxed{6}\boxed{}", None),
        (r"\boxed 7", None),
        (r"\boxed {7}", None),
        (r"\fbox{7}", None),
        (r"\Boxed{7}", None),
        (r"\boxed{", None),
        ("}", None),
        ("7", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_the_box_that_closes_last_holds_the_answer(
    text: str, answer: str | None, finished: bool
) -> None:
    assert final_answer(text, finished, "boxed") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("```\n7\n```", "7"),
        ("```python\nprint(7)\n```", "print(7)"),
        ("so:\n```py \n\n  x\n\ty\r\n\n``` \nthat is it", "\n  x\n\ty\r\n"),
        ("```json\n{}\n```", "{}"),
        ("```\n6\n```\n```\n7\n```", "7"),
        ("```python\n7\n```\nIt prints\n```text\n8\n```", "7"),
        ("```python\n7\n```\n```python\n8", "7"),
        ("```bash\n```python\n7\n```", None),  # the second fence is a line of the first block
        ("```\n```python\n7\n```", "```python\n7"),
        ("```\n````\n ```\n```", "````\n ```"),
        ("````\n7\n````", None),
        (" ```\n7\n```", None),
        ("```7```", None),
        ("```Python\n7\n```", None),
        ("```python 3\n7\n```", None),
        ("```\n6\n```\n```\n \n```", None),
        ("```\n```", None),
        ("```\n7", None),
        ("```", None),
        ("7", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_the_last_closed_block_is_the_answer_as_it_stands(
    text: str, answer: str | None, finished: bool
) -> None:
    assert final_answer(text, finished, "code_block") == answer


@pytest.mark.parametrize("answer_format", AnswerFormat)
def test_a_long_run_of_marks_is_read_in_linear_time(answer_format: str) -> None:
    for part in (
        *("<answer>", "</answer>", "<answer></answer>", "<", "\n", " ", "\\"),
        *(
            "\\boxed{",
            "{",
            "\\boxed{}",
            "{}",
            "\\boxed{" * 3 + "}",
            "```\n",
            "```",
            "```py\n\n```\n",
        ),
    ):
        text = part * (1_000_000 // len(part))  # quadratic time would take hours
        final_answer(text, True, answer_format)
        final_answer(text, False, answer_format)


@settings(deadline=None, derandomize=True)
@given(st.text(st.sampled_from("7 {}\\`\n\ud800<")) | st.text(), st.sampled_from(AnswerFormat))
def test_any_text_has_an_answer_or_none(text: str, answer_format: str) -> None:
    answer = final_answer(text, True, answer_format)
    assert answer is None or (answer in text and answer.strip(ASCII_SPACE))


@pytest.mark.parametrize("answer_format", AnswerFormat)
def test_a_marked_answer_is_found_again(answer_format: str) -> None:
    assert final_answer(mark_answer("7", answer_format), True, answer_format) == "7"


def test_all_marks_but_the_last_line_need_an_instruction() -> None:
    assert "<answer>" in instruction("tags")
    assert r"\boxed{}" in instruction("boxed")
    assert "```python" in instruction("code_block")
    assert instruction("last_line") == ""


def test_an_unknown_format_is_an_error() -> None:
    for call in (
        lambda: final_answer("7", True, "xml"),
        lambda: instruction("xml"),
        lambda: mark_answer("7", "xml"),
    ):
        with pytest.raises(ValueError, match="xml"):
            call()
