"""How different several answers to one question are: the Vendi score of their texts.

Friedman and Dieng, arXiv 2210.02410: the exponential of the entropy of the eigenvalues of K / n, K
the n x n matrix of similarities. It reads as a number of answers: 1 if all are equal, n if no two
have anything in common.

Similarity is by spelling: the cosine between the square roots of how often each 1, 2 and 3
characters in a row occur (both ends of a text count as characters where there are 2 or 3). The
roots give the three lengths equal weight; by plain counts, long texts would be compared by their
most frequent letters. Not seen: meaning. Two ways of saying the same are different, "+1" and "-1"
are nearly the same.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CHARS = 1024
"""Of each text that are read, from its end, where the final answer stands."""

MAX_TEXTS = 16
"""More texts share the characters that so many may have."""

MAX_AT_ONCE = 2**15
"""Characters: bounds memory. Many short texts at once are ten times as fast as one by one."""

MAX_ALPHABET = 2**16
"""Different characters; further ones are taken for the last."""


def vendi_scores(groups: Sequence[Sequence[str]]) -> list[float]:
    """One score per group of at least one text, from 1 to the number of its texts."""
    return [_score(matrix) for part in _parts(groups) for matrix in _similarities(part)]


def _score(similarity: NDArray[np.float64]) -> float:
    num = len(similarity)
    eigenvalues = np.linalg.eigvalsh(similarity / num)
    shares = eigenvalues[eigenvalues > 1e-12]
    return min(max(float(np.exp(-(shares * np.log(shares)).sum())), 1.0), float(num))


def _parts(groups: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """The groups, texts cut to what is read, as many at once as memory allows."""
    part: list[list[str]] = []
    num_chars = 0
    for texts in groups:
        length = MAX_CHARS * MAX_TEXTS // max(len(texts), MAX_TEXTS) or 1
        cut = [text[-length:] for text in texts]
        size = sum(map(len, cut))
        if part and num_chars + size > MAX_AT_ONCE:
            yield part
            part, num_chars = [], 0
        part.append(cut)
        num_chars += size
    if part:
        yield part


def _similarities(groups: Sequence[Sequence[str]]) -> Iterator[NDArray[np.float64]]:
    """Per group the matrix K: symmetric, positive semidefinite, ones on the diagonal."""
    sizes = np.array([len(texts) for texts in groups])
    texts = [text for group in groups for text in group]
    group_of = np.repeat(np.arange(len(groups)), sizes)
    text_of, grams, radix = _grams(texts)
    # Sorted by group, so that the different ones of a group are its columns.
    known, columns = np.unique(group_of[text_of] * radix + grams, return_inverse=True)
    first = np.searchsorted(known, np.arange(len(groups) + 1) * radix)
    widths = np.diff(first)
    ends = np.cumsum(sizes * widths)
    row = np.arange(len(texts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    start_of_row = (ends - sizes * widths - first[:-1])[group_of] + row * widths[group_of]
    counts = np.bincount(start_of_row[text_of] + columns, minlength=ends[-1])
    for size, width, end in zip(sizes, widths, ends, strict=True):
        table = counts[end - size * width : end].reshape(size, width)
        rows = np.sqrt(table / table.sum(1, keepdims=True))
        yield rows @ rows.T


def _grams(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """All 1, 2 and 3 characters in a row: the text that each is of, each as a number, and what is
    above all of these numbers. An empty text has one: its two ends in a row."""
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    alphabet, letters = np.unique(np.frombuffer(joined, "<u4"), return_inverse=True)
    radix = min(len(alphabet), MAX_ALPHABET) + 2
    lengths = np.array([len(text) for text in texts])
    text_of = np.repeat(np.arange(len(texts)), lengths + 2)
    one = np.ones(len(text_of), np.int64)  # 1 is an end, 0 is never first
    is_letter = np.ones(len(text_of), bool)
    is_letter[np.cumsum(lengths + 2) - 1] = False
    is_letter[np.cumsum(lengths + 2) - lengths - 2] = False
    one[is_letter] = np.minimum(letters, MAX_ALPHABET - 1) + 2
    two = one[:-1] * radix + one[1:]
    three = two[:-1] * radix + one[2:]
    in_two, in_three = text_of[:-1] == text_of[1:], text_of[:-2] == text_of[2:]
    where = (text_of[is_letter], text_of[:-1][in_two], text_of[:-2][in_three])
    grams = (one[is_letter], two[in_two], three[in_three])
    return np.concatenate(where), np.concatenate(grams), radix**3
