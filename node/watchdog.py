"""Which stage of the learner lasts too long, long before its supervisor kills it.

"Too long" is five times what the stage took in a usual round lately, and a minute at least; or half
of what the supervisor allows, where that is less or nothing is known yet.

Not covered: a stage that is slow in every round (`sapo rounds` shows it), and a control process
that hangs itself: a service manager's watchdog is for that.
"""

import statistics
from collections.abc import Sequence

from node.status import LearnerStatus, RoundReport, Stage
from node.words import span

TIMES = 5.0
LEAST_S = 60.0
AT_REST = frozenset({Stage.STOPPED.value, Stage.PAUSED.value})


def slow_stage(
    learner: LearnerStatus, lately: Sequence[RoundReport], hang_s: float, start_s: float
) -> str:
    """What lasts too long, as a sentence; empty if nothing does.

    Args:
        lately: reports of the last rounds.
        hang_s: after which a stage's learner is killed; `start_s` the same for loading.
    """
    if learner.is_done or learner.stage in AT_REST:
        return ""
    limit_s = start_s if learner.stage == Stage.STARTING else hang_s
    known = [report.seconds[learner.stage] for report in lately if learner.stage in report.seconds]
    usual_s = statistics.median(known) if known else None
    allowed_s = limit_s / 2
    if usual_s is not None:
        allowed_s = min(allowed_s, max(LEAST_S, TIMES * usual_s))
    if learner.stage_age_s <= allowed_s:
        return ""
    usually = "" if usual_s is None else f", usually {span(usual_s)} a round"
    return (
        f"{learner.stage} takes long: {span(learner.stage_age_s)} so far{usually}; after "
        f"{span(limit_s)} the learner is killed and started again from its checkpoint"
    )


class Watchdog:
    """Says once of each stage that it lasts too long."""

    def __init__(self, hang_s: float, start_s: float) -> None:
        self._hang_s, self._start_s = hang_s, start_s
        self._barked: tuple[str, int, int] | None = None

    def look(self, learner: LearnerStatus, lately: Sequence[RoundReport]) -> str:
        """The sentence where it is news, else nothing. To be called every second or so."""
        found = slow_stage(learner, lately, self._hang_s, self._start_s)
        at = (learner.stage, learner.round, learner.restarts)
        if not found or at == self._barked:
            return ""
        self._barked = at
        return found
