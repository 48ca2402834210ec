"""95 % intervals of means over questions.

Answers to one question are not independent, so an interval may not count answers. All of these
start from the standard error over questions, which are.
"""

import math

Z = 1.959964
"""97.5 % quantile of the normal distribution."""


def share_interval(mean: float, standard_error: float, num_questions: int) -> tuple[float, float]:
    """Of a mean of shares, such as pass@k: Wilson's interval for as many independent answers as
    would have the same standard error (the effective sample size of survey statistics, corrected
    for few questions as in Korn and Graubard, Survey Methodology 24, 1998).

    It stays within [0, 1] and has a width even where all answers are right, or wrong: there it is
    Wilson's for one answer per question. docs/evaluation.md has its measured coverage.

    Args:
        mean: 0 <= mean <= 1.
        standard_error: over questions; nan for a single one.
    """
    size = float(num_questions)
    if standard_error > 0:  # not so for nan
        size = mean * (1 - mean) / standard_error**2
        size *= (Z / student(num_questions - 1)) ** 2
    middle = (mean + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z * math.sqrt(mean * (1 - mean) / size + (Z / (2 * size)) ** 2) / (1 + Z**2 / size)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def mean_interval(
    mean: float, standard_error: float, num_questions: int, least: float, most: float
) -> tuple[float, float]:
    """Student's interval of any mean over questions, cut to what is possible: of differences
    (-1 to 1), of a diversity (1 to the number of answers).

    Without width where the questions all give the same; everything possible for one question.
    """
    if num_questions < 2:
        return least, most
    half = student(num_questions - 1) * standard_error
    return max(mean - half, least), min(mean + half, most)


def student(degrees: int) -> float:
    """97.5 % quantile of Student's distribution, within 4 % (25 % below two degrees of freedom).

    Four terms of its expansion at the normal quantile (Abramowitz and Stegun, 26.7.5).
    """
    z, d = Z, degrees
    return (
        z
        + (z**3 + z) / (4 * d)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3)
    )
