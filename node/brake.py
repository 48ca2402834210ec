"""The brake: foreign groups are switched off for a while when the node clearly gets worse.

A fall is one of the own reward (the mean of the last WINDOW rounds against the best earlier window)
or of held-out accuracy (the last evaluation against the best earlier one), by at least MIN_FALL of
the best, and beyond what chance explains. What came before the last brake counts no more.

Not noticed: a slow fall that stays within chance, and one before 2 * WINDOW rounds. With questions
drawn by weakness the own reward may fall because harder ones are asked.
"""

import math
import statistics
from collections.abc import Sequence

from node.experience import Experience
from node.status import HeldOutStatus

WINDOW = 16
"""Rounds."""
MIN_FALL = 0.25
"""Of the best."""
NUM_ERRORS = 4
"""Standard errors of the difference; the best window is the best of many by chance, too."""
BRAKE_ROUNDS = 32
"""Rounds without foreign groups."""


def apply_brake(
    experience: Experience, heldout: Sequence[HeldOutStatus], round_number: int
) -> bool:
    """Whether foreign groups are off in this round; notes in `experience` why and until when."""
    if round_number <= experience.brake_until:
        return True
    experience.brake_reason = ""
    if reason := _reward_fall(experience.rewards) or _heldout_fall(
        [one for one in heldout if one.round >= experience.brake_from]
    ):
        experience.brake_from, experience.brake_until = (
            round_number,
            round_number + BRAKE_ROUNDS - 1,
        )
        experience.brake_reason = reason
        experience.rewards.clear()
    return bool(experience.brake_reason)


def _reward_fall(rewards: Sequence[float]) -> str:
    if len(rewards) < 2 * WINDOW:
        return ""
    windows = [rewards[end - WINDOW : end] for end in range(WINDOW, len(rewards) - WINDOW + 1)]
    best, last = max(windows, key=statistics.fmean), rewards[-WINDOW:]
    error = math.hypot(*(statistics.stdev(one) / math.sqrt(WINDOW) for one in (best, last)))
    return _fall("own reward", statistics.fmean(best), statistics.fmean(last), error)


def _heldout_fall(heldout: Sequence[HeldOutStatus]) -> str:
    if len(heldout) < 2:
        return ""
    best, last = max(heldout[:-1], key=lambda one: one.mean), heldout[-1]
    error = math.hypot(best.standard_error, last.standard_error)
    return _fall("held-out accuracy", best.mean, last.mean, error)


def _fall(what: str, best: float, last: float, error: float) -> str:
    """A sentence where it fell; an error that is not a number explains everything."""
    fall = best - last
    if fall >= MIN_FALL * best and fall > NUM_ERRORS * error:
        return f"{what} fell from {best:.3f} to {last:.3f}: peers' groups are off for a while"
    return ""
