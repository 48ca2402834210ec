"""Claimed verdicts against own ones: when a difference is a lie, and when it may be our own fault.

Charged only if the task is declared deterministic, a second, fresh worker finds what the first
found, and this node does not suspect itself. Otherwise it is a disagreement, which is free. The
second opinion is on the first answer that differs: one wrong bit is a lie, and one deadline enough.

A node that disagrees with more than half of at least five authors suspects itself. Five keys that
lie together can make it so; then it charges nobody, but admits none of their rollouts either.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

from rewards.question import Judged
from swarm.budget import Budget
from swarm.judge import Judge
from swarm.refusal import Refusal
from swarm.rollout import Rollout

logger = logging.getLogger(__name__)

MIN_AUTHORS = 5
WINDOW_S = 3600.0
"""How long the last comparison with an author counts."""
MAX_AUTHORS = 512
FRESH_CHECK_S = 60.0
"""A fresh worker costs seconds of CPU: one author gets one in this time, all together the next."""
MAX_FRESH_CHECKS = 12


class Claims:
    """Decides what a difference means, and remembers with whom this node agrees."""

    def __init__(
        self,
        judge: Judge,
        budget: Budget,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            budget: is told what second opinions cost.
            clock: Unix seconds.
        """
        self.deterministic: Collection[str] = frozenset()
        """Names of the tasks whose verdicts depend on nothing but the answer."""
        self._judge = judge
        self._budget = budget
        self._clock = clock
        self._outcomes: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        """Author -> when it was last compared, and whether it differed; the latest last."""
        self._checked: OrderedDict[str, float] = OrderedDict()
        """Author -> when a fresh worker was last spent on it, within FRESH_CHECK_S."""
        self.suspicion = ""
        """Why this node suspects itself, as a sentence; empty while it does not."""

    async def compare(
        self, rollout: Rollout, claimed: Sequence[bool], own: Sequence[Judged]
    ) -> Refusal | None:
        """None where the bits are equal, else DISAGREEMENT or WRONG_CLAIM."""
        found = [verdict.correct for verdict in own]
        wrong = [place for place, bit in enumerate(found) if claimed[place] != bit]
        self._note(rollout.author, bool(wrong))
        if not wrong:
            return None
        if (
            rollout.question.task not in self.deterministic
            or self.suspicion
            or not self._may_check(rollout.author)
        ):
            return Refusal.DISAGREEMENT
        place = wrong[0]
        second, held_s = await self._judge.judge_afresh(rollout.question, rollout.answers[place])
        self._budget.spend(rollout.author, held_s)
        if second != own[place] or self.suspicion:
            return Refusal.DISAGREEMENT
        return Refusal.WRONG_CLAIM

    def _note(self, author: str, differs: bool) -> None:
        now = self._clock()
        self._outcomes[author] = (now, differs)
        self._outcomes.move_to_end(author)
        while len(self._outcomes) > MAX_AUTHORS or _oldest(self._outcomes)[0] < now - WINDOW_S:
            self._outcomes.popitem(last=False)
        num, num_different = len(self._outcomes), sum(bad for _, bad in self._outcomes.values())
        if num < MIN_AUTHORS or 2 * num_different <= num:
            self.suspicion = ""
            return
        if not self.suspicion:
            logger.warning(
                "own verdicts differ from the claims of %d of %d authors: this node suspects "
                "itself and charges nobody",
                num_different,
                num,
            )
        self.suspicion = (
            f"own verdicts differ from the claims of {num_different} of {num} authors: this node "
            "may judge wrongly; it charges nobody until that ends"
        )

    def _may_check(self, author: str) -> bool:
        now = self._clock()
        while self._checked and next(iter(self._checked.values())) <= now - FRESH_CHECK_S:
            self._checked.popitem(last=False)
        if author in self._checked or len(self._checked) >= MAX_FRESH_CHECKS:
            return False
        self._checked[author] = now
        return True


def _oldest(outcomes: OrderedDict[str, tuple[float, bool]]) -> tuple[float, bool]:
    return next(iter(outcomes.values()))
