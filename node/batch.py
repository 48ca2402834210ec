"""What an update learns from: the strategies, each with what it wants of peers.

A round gives a strategy its own rollouts; the strategy says which foreign ones it wants (`Want`,
which also filters announcements before a body is fetched), and composes the batch of both and of
what the node remembers. `may_share` is the other end: which own rollouts peers may have.

The paper's rule is SAPO, step 4 (arXiv 2509.08721): T = I own rollouts and up to J foreign ones,
drawn uniformly from those whose rewards differ.
"""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from node.config import BatchConfig, NodeConfig, Share
from node.experience import Experience
from node.groups import Lesson, Source, VerifiedRollout, differ
from rewards.question import Question

STD_EPSILON = 1e-4
"""Added to the standard deviation of a group's rewards, as in TRL."""
MIN_WEAKNESS = 0.05
"""A mastered task is still asked now and then: else its accuracy would never be noticed to fall."""
MAX_ASKED = 16
"""own-dynamic: times its first questions that a round may ask, whatever the answers' lengths."""


def advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """(r - mean) / (std + 1e-4) within one group (GRPO; SAPO, step 5); zeros if all are equal.

    As TRL does it: the standard deviation of a sample (divided by n - 1), plus `STD_EPSILON`.
    """
    if not differ(rewards):
        return (0.0,) * len(rewards)
    mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
    return tuple((reward - mean) / (std + STD_EPSILON) for reward in rewards)


def positives(values: Sequence[float]) -> tuple[float, ...]:
    """The values, those below 0 as 0."""
    return tuple(max(value, 0.0) for value in values)


class Want(msgspec.Struct, frozen=True):
    """Which foreign groups a strategy could use; the control process fetches and draws by it."""

    num_groups: int = 0
    """In this round."""
    most: int = 0
    """In any round (J): how many are kept ready depends on it. 0 wants none, ever."""
    peer_share: float = 1.0
    """Of a round's groups that one peer may have."""
    masters: bool = False
    """All-correct groups, too; else only informative ones."""
    task_weights: Mapping[str, float] = {}
    """Relative chance of a task's groups to be drawn; 1 for those that are not named."""
    questions: frozenset[Question] | None = None
    """Only groups on these; None: on any."""
    max_age_s: float | None = None
    """Since this node first heard of them."""

    @property
    def max_from_one_peer(self) -> int:
        """Of `num_groups`: the share rounded up, at least 1."""
        return max_from_one_peer(self.num_groups, self.peer_share)

    def could_use(self, correct: Sequence[bool]) -> bool:
        """Whether groups with these verdicts, claimed or own, may ever be wanted."""
        is_informative = len(set(correct)) > 1
        return bool(self.most) and (is_informative or (self.masters and all(correct)))

    def weight(self, question: Question, correct: Sequence[bool], age_s: float) -> float:
        """Relative chance of a group to be fetched and drawn now; 0: it is not wanted."""
        if (
            not self.could_use(correct)
            or (self.max_age_s is not None and age_s > self.max_age_s)
            or (self.questions is not None and question not in self.questions)
        ):
            return 0.0
        return self.task_weights.get(question.task, 1.0)


@dataclass(frozen=True, slots=True)
class AtHand:
    """What a round's batch can be composed of."""

    own: Sequence[VerifiedRollout]
    """All of this round."""
    foreign: Sequence[VerifiedRollout]
    """As wanted, and of use."""
    experience: Experience
    rng: random.Random
    """For what is drawn: the same in the same round of the same node."""


@dataclass(frozen=True, slots=True)
class Own:
    """own: this round's own groups, J = 0. The other strategies differ from it in what they say."""

    config: BatchConfig
    num_questions: int
    """Own questions of a round (I)."""
    num_foreign: int
    """Foreign groups of a round at most (J)."""

    takes_foreign: ClassVar[bool] = False

    @property
    def asks_common(self) -> bool:
        """Whether part of the own questions is common to the swarm."""
        return False

    @property
    def most_foreign(self) -> int:
        """J, or 0 where the strategy takes nothing of peers."""
        return self.num_foreign if self.takes_foreign else 0

    @property
    def replay_rounds(self) -> int:
        """Rounds for which own informative groups are kept."""
        return 0

    def num_more(self, own: Sequence[VerifiedRollout], num_asked: int) -> int:
        """How many own questions to ask (further) in this round; 0: enough."""
        return 0 if num_asked else self.num_questions

    def question_weights(self, experience: Experience) -> dict[str, float]:
        """Relative chance of each task to be asked; empty: all alike. Others than named have 1."""
        return weaknesses(experience) if self.config.weakness else {}

    def want(self, own: Sequence[VerifiedRollout], experience: Experience) -> Want:
        """What of peers is wanted in this round. Before the first one, called with nothing."""
        return self._want(self.num_foreign) if self.takes_foreign else Want()

    def worth(self, foreign: VerifiedRollout, experience: Experience) -> tuple[float, ...]:
        """The advantages of a foreign group's answers; all 0: it is of no use."""
        return advantages(foreign.rewards)

    def compose(self, at_hand: AtHand) -> list[Lesson]:
        """The batch: own groups, then foreign ones, then replayed ones."""
        return [of_own(one) for one in at_hand.own]

    def max_answers(self, num_answers: int, max_foreign_answers: int) -> int:
        """The most answers that a batch can have."""
        num_own = max(self.num_questions, self.config.groups)
        return num_own * num_answers + self.most_foreign * max_foreign_answers

    def _want(self, num_groups: int) -> Want:
        return Want(
            num_groups=num_groups,
            most=self.num_foreign,
            peer_share=self.config.peer_share,
            max_age_s=self.config.max_age_s,
        )

    def _of_foreign(self, at_hand: AtHand) -> list[Lesson]:
        return [
            Lesson(one, Source.FOREIGN, self.worth(one, at_hand.experience), self._discount(one))
            for one in at_hand.foreign
        ]

    def _discount(self, foreign: VerifiedRollout) -> float:
        assert foreign.origin is not None, "a foreign rollout without an origin"
        half_life_s = self.config.half_life_s
        return 0.5 ** (foreign.origin.age_s / half_life_s) if half_life_s else 1.0


class OwnDynamic(Own):
    """own-dynamic: groups without advantage are replaced by fresh ones until there are I with one,
    or the budget of tokens is spent (dynamic sampling of DAPO, arXiv 2503.14476)."""

    def num_more(self, own: Sequence[VerifiedRollout], num_asked: int) -> int:
        """As many as informative ones are missing."""
        if not num_asked:
            return self.num_questions
        tokens = [sum(answer.num_tokens for answer in one.answers) for one in own]
        budget = self.config.token_budget * sum(tokens[: self.num_questions])
        missing = self.num_questions - sum(one.has_advantage for one in own)
        is_spent = sum(tokens) >= budget or num_asked >= MAX_ASKED * self.num_questions
        return 0 if is_spent else max(0, missing)

    def compose(self, at_hand: AtHand) -> list[Lesson]:
        """The informative ones of all that were asked."""
        return [of_own(one) for one in at_hand.own if one.has_advantage]


class OwnReplay(Own):
    """own-replay: own informative groups, then such of the last K rounds up to a full batch."""

    @property
    def replay_rounds(self) -> int:
        """K."""
        return self.config.replay_rounds

    def compose(self, at_hand: AtHand) -> list[Lesson]:
        """Fresh first. Of what is replayed, wrong answers count only where that is asked for."""
        batch = [of_own(one) for one in at_hand.own if one.has_advantage]
        batch += self._of_foreign(at_hand)
        missing = max(0, self.config.groups - len(batch))
        old = at_hand.experience.replayable
        replayed = at_hand.rng.sample(old, min(missing, len(old)))
        return batch + [self._of_replay(one) for one in replayed]

    def _of_replay(self, one: VerifiedRollout) -> Lesson:
        values = advantages(one.rewards)
        signed = self.config.replay_negatives
        return Lesson(one, Source.REPLAY, values if signed else positives(values))


class OwnWeakness(Own):
    """own-weakness: own questions are drawn by own weakness."""

    def question_weights(self, experience: Experience) -> dict[str, float]:
        """Whatever `batch.weakness` says."""
        return weaknesses(experience)


class Paper(Own):
    """paper: all own groups, and J foreign ones that have an advantage, drawn uniformly."""

    takes_foreign = True

    def compose(self, at_hand: AtHand) -> list[Lesson]:
        """T = I + J."""
        return [of_own(one) for one in at_hand.own] + self._of_foreign(at_hand)


class Fill(OwnReplay):
    """fill: own informative groups, then foreign ones, then own replay, up to a full batch: J
    follows the need. Wrong answers count in fresh own groups only."""

    takes_foreign = True

    def want(self, own: Sequence[VerifiedRollout], experience: Experience) -> Want:
        """As many as own informative groups are missing."""
        missing = self.config.groups - sum(one.has_advantage for one in own)
        return self._want(max(0, min(self.num_foreign, missing)))

    def worth(self, foreign: VerifiedRollout, experience: Experience) -> tuple[float, ...]:
        """Positives only."""
        return positives(advantages(foreign.rewards))


class Teach(Fill):
    """teach: as fill, but a foreign success is worth 1 - the own running accuracy on its task, in
    all-correct groups, too: those who master a task have no others. Drawn by own weakness."""

    def want(self, own: Sequence[VerifiedRollout], experience: Experience) -> Want:
        """Masters' groups, too, and by weakness."""
        want = Fill.want(self, own, experience)
        return msgspec.structs.replace(want, masters=True, task_weights=weaknesses(experience))

    def worth(self, foreign: VerifiedRollout, experience: Experience) -> tuple[float, ...]:
        """1 - accuracy for what is correct, else 0."""
        value = 1 - experience.accuracy(foreign.expansion.question.task)
        return tuple(value if correct else 0.0 for correct in foreign.correct)


class Rescue(Paper):
    """rescue: all own groups, part of them on questions that are common to the swarm, and for those
    that failed entirely a peer's mixed group on the same question: whole, a group of its own, last
    in the step (after GRAFT)."""

    @property
    def asks_common(self) -> bool:
        """It does."""
        return True

    def want(self, own: Sequence[VerifiedRollout], experience: Experience) -> Want:
        """Groups on questions that failed here, in this round or lately."""
        failed = [one.expansion.question for one in own if not any(one.correct)]
        questions = frozenset([*failed, *experience.failed])
        want = self._want(min(self.num_foreign, len(questions)))
        return msgspec.structs.replace(want, questions=questions)


class Contribute(Own):
    """What a node with a fixed model does (mode "generate"): it asks what the strategy of the
    settings asks, wants nothing of peers, and learns from nothing."""

    @property
    def asks_common(self) -> bool:
        """As the strategy that the settings name."""
        return self._asked_by.asks_common

    def num_more(self, own: Sequence[VerifiedRollout], num_asked: int) -> int:
        """As the strategy that the settings name."""
        return self._asked_by.num_more(own, num_asked)

    def question_weights(self, experience: Experience) -> dict[str, float]:
        """As the strategy that the settings name."""
        return self._asked_by.question_weights(experience)

    def compose(self, at_hand: AtHand) -> list[Lesson]:
        """Empty."""
        return []

    @property
    def _asked_by(self) -> Own:
        return STRATEGIES[self.config.strategy](self.config, self.num_questions, 0)


STRATEGIES: dict[str, type[Own]] = {
    "own": Own,
    "own-dynamic": OwnDynamic,
    "own-replay": OwnReplay,
    "own-weakness": OwnWeakness,
    "paper": Paper,
    "fill": Fill,
    "teach": Teach,
    "rescue": Rescue,
}


def make_strategy(config: NodeConfig) -> Own:
    """The strategy that the settings name: the same in both processes of a node."""
    learns = config.mode == "train"
    kind = STRATEGIES[config.batch.strategy] if learns else Contribute
    return kind(config.batch, config.rollout.questions, config.swarm.foreign)


def of_own(one: VerifiedRollout) -> Lesson:
    """A fresh own group, signed."""
    return Lesson(one, Source.OWN, advantages(one.rewards))


def weaknesses(experience: Experience) -> dict[str, float]:
    """1 - own running accuracy of each task met so far, at least MIN_WEAKNESS."""
    return {
        task: max(MIN_WEAKNESS, 1 - accuracy.mean)
        for task, accuracy in sorted(experience.accuracies.items())
    }


def max_from_one_peer(num_groups: int, peer_share: float) -> int:
    """Foreign groups of one round that one peer may have written: share rounded up, >= 1."""
    # Rounded first: 100 * 0.07 is 7.000000000000001.
    return max(1, math.ceil(round(num_groups * peer_share, 9)))


def may_share(own: Sequence[VerifiedRollout], share: Share) -> list[VerifiedRollout]:
    """Those of a round's own rollouts that are offered to peers, in order.

    Never one with an answer that was not judged. `none`: none. `informative`: those whose verdicts
    differ. `lessons`: these, and the first all-correct one of each task: it has no advantage, but
    without it a master of a task would have nothing to teach. `all`: all.
    """
    judged = [] if share == "none" else [one for one in own if one.is_shareable]
    if share == "all":
        return judged
    lessons: dict[str, VerifiedRollout] = {}
    if share == "lessons":
        for one in judged:
            if all(one.correct):
                lessons.setdefault(one.expansion.question.task, one)
    return [
        one
        for one in judged
        if one.is_informative or lessons.get(one.expansion.question.task) is one
    ]
