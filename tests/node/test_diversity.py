import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.diversity import MAX_AT_ONCE, MAX_CHARS, MAX_TEXTS, vendi_scores

END = "\U0010ffff"
TEXTS = st.lists(st.text("ab é1\n\0\ud800\U0001f600", max_size=12), min_size=1, max_size=9)


def counted(text: str) -> Counter[str]:
    """All 1, 2 and 3 characters in a row."""
    marked = END + text + END
    places = range(len(marked))
    return Counter(text) + Counter(
        marked[i : i + n] for n in (2, 3) for i in places if i + n <= len(marked)
    )


def by_definition(texts: list[str]) -> float:
    """The Vendi score of a few short texts, as its paper writes it."""
    counts = [counted(text) for text in texts]
    similarity = [
        [
            sum(math.sqrt(one[gram] * other[gram]) for gram in one)
            / math.sqrt(one.total() * other.total())
            for other in counts
        ]
        for one in counts
    ]
    eigenvalues = np.linalg.eigvalsh(np.array(similarity) / len(texts))
    return math.exp(-sum(one * math.log(one) for one in eigenvalues if one > 1e-12))


@given(groups=st.lists(TEXTS, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_score_is_that_of_the_definition_whatever_is_scored_beside_it(
    groups: list[list[str]],
) -> None:
    assert vendi_scores(groups) == pytest.approx([by_definition(one) for one in groups])


def test_equal_answers_count_as_one_and_wholly_unlike_ones_each() -> None:
    scores = vendi_scores([["the answer is 7"] * 8, list("abcdefgh"), ["", ""], ["", "a"], ["b"]])
    assert scores == pytest.approx([1, 8, 1, 2, 1])


def test_a_slip_is_less_than_another_answer() -> None:
    slip, other = vendi_scores([["12 apples", "13 apples"], ["12 apples", "seven"]])
    assert 1 < slip < other < 2


def test_one_odd_answer_of_eight_is_nearly_none() -> None:
    [score] = vendi_scores([["a"] * 7 + ["b"]])
    assert score == pytest.approx(math.exp(-(7 / 8) * math.log(7 / 8) - math.log(1 / 8) / 8))


def test_of_long_texts_the_ends_are_compared() -> None:
    start, end = "x" * 5 * MAX_CHARS, "y" * MAX_CHARS
    assert vendi_scores([[start + end, end], [end + start, start]]) == [1, 1]
    many = ["z" * number + "w" * 64 for number in range(16 * MAX_TEXTS)]
    assert vendi_scores([many]) == [1], "many texts share what may be read"


def test_more_than_fits_at_once_is_scored_in_parts() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    groups = [[letters[shift:] * 30, letters[: shift + 9] * 30] for shift in range(17)] * (
        MAX_AT_ONCE // 8000
    )
    assert sum(len(text) for group in groups for text in group) > MAX_AT_ONCE
    assert vendi_scores(groups) == pytest.approx([vendi_scores([one])[0] for one in groups])


def test_texts_of_very_many_characters_have_scores() -> None:
    codes = [code for code in range(33, 0x110000) if not 0xD800 <= code < 0xE000]
    letters = iter(codes)
    groups = [
        ["".join(chr(next(letters)) for _ in range(MAX_CHARS)) for _ in range(8)] for _ in range(9)
    ]
    assert vendi_scores(groups) == pytest.approx([8] * 9)


def test_of_nothing_there_is_no_score() -> None:
    assert vendi_scores([]) == []
