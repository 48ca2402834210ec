"""What a node remembers of its own rounds: how well it does at each task, what it could replay,
which common questions it failed, and how its reward went. Kept in every checkpoint."""

from collections.abc import Sequence

import msgspec

from node.groups import VerifiedRollout
from rewards.question import Question

ACCURACY_GROUPS = 32
"""A task's running accuracy is about the mean over so many of its last groups."""
MAX_REPLAYABLE = 4096
"""Rollouts kept at most."""
MAX_FAILED = 256
REWARD_ROUNDS = 256
"""Rounds whose own reward is remembered."""


class TaskAccuracy(msgspec.Struct):
    """Running share of correct own answers to one task."""

    mean: float = 0.0
    num_groups: int = 0

    def add(self, share: float) -> None:
        """Counts one group: a plain mean at first, then an exponential one."""
        self.num_groups += 1
        self.mean += (share - self.mean) / min(self.num_groups, ACCURACY_GROUPS)


class Experience(msgspec.Struct):
    """See the top of this file. Changed once a round: `note`, `note_failed`, the brake."""

    accuracies: dict[str, TaskAccuracy] = {}
    replayable: list[VerifiedRollout] = []
    """Own informative rollouts of earlier rounds, oldest first; never of the present round."""
    failed: list[Question] = []
    """Questions that are common to the swarm and whose own group failed entirely, oldest first."""
    rewards: list[float] = []
    """Own reward of the last rounds, oldest first."""
    brake_from: int = 0
    """The round in which the brake was last applied."""
    brake_until: int = 0
    """Foreign groups are switched off in rounds up to this one."""
    brake_reason: str = ""
    """Why, as a sentence; empty while they are on."""

    def accuracy(self, task: str) -> float:
        """Running share of correct own answers; 0 for a task not met yet."""
        known = self.accuracies.get(task)
        return known.mean if known else 0.0

    def note(self, own: Sequence[VerifiedRollout], round_number: int, replay_rounds: int) -> None:
        """Takes in a round's own rollouts, and forgets what is older than `replay_rounds`."""
        for one in own:
            accuracy = self.accuracies.setdefault(one.expansion.question.task, TaskAccuracy())
            accuracy.add(sum(one.correct) / len(one.correct))
        answers = [correct for one in own for correct in one.correct]
        self.rewards.append(sum(answers) / max(len(answers), 1))
        del self.rewards[:-REWARD_ROUNDS]
        oldest = round_number + 1 - replay_rounds
        kept = [one for one in self.replayable if one.policy_round + 1 >= oldest]
        if replay_rounds:
            kept += [one for one in own if one.has_advantage]
        self.replayable = kept[-MAX_REPLAYABLE:]

    def note_failed(self, questions: Sequence[Question]) -> None:
        """Remembers common questions whose own group failed entirely."""
        self.failed += [one for one in questions if one not in self.failed]
        del self.failed[:-MAX_FAILED]


encode_experience = msgspec.msgpack.Encoder().encode
decode_experience = msgspec.msgpack.Decoder(Experience).decode
