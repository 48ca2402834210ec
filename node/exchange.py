"""What the learner asks of the rest of the node: questions, verdicts, and peers.

The seam has two sides that are real: `LocalExchange` below (everything in one process, no peers:
experiments, benchmarks, a policy's own tools), and `PipeExchange` (node/pipe.py), behind which the
control process answers.
"""

from collections.abc import Sequence
from typing import Protocol

from node.batch import OwnRollout, VerifiedRollout
from rewards.draw import draw_held_out, draw_training
from rewards.question import Expansion
from rewards.verifier import Verifier


class Exchange(Protocol):
    """Blocking; called from one thread. Raises VerifierBroken where nothing can be judged."""

    def draw_questions(self, round_number: int, num_questions: int) -> list[Expansion]:
        """The node's training questions of a round: the same whenever the round is repeated."""
        ...

    def draw_held_out(self, num_questions: int, seed: int = 0) -> list[Expansion]:
        """Questions that no node trains on; the same on every node for one seed."""
        ...

    def verify(self, own: Sequence[OwnRollout]) -> list[VerifiedRollout]:
        """Every answer judged from the exact text that would be shared."""
        ...

    def share(self, own: Sequence[VerifiedRollout]) -> int:
        """Offers peers those of the rollouts that the settings allow; returns how many."""
        ...

    def offered(self, num_groups: int) -> list[VerifiedRollout]:
        """Up to so many of the peers' rollouts, judged here, drawn by the mixing rule.

        Each is handed out once. Fewer, or none, where peers have not offered enough.
        """
        ...


class LocalExchange:
    """Questions from the node's own stream, verdicts from the node's own verifier, no peers."""

    def __init__(self, verifier: Verifier, task_names: Sequence[str], seed: int) -> None:
        self.verifier = verifier
        self.task_names = tuple(task_names)
        self.seed = seed

    def draw_questions(self, round_number: int, num_questions: int) -> list[Expansion]:
        """See `Exchange`."""
        return draw_training(self.verifier, self.task_names, self.seed, round_number, num_questions)

    def draw_held_out(self, num_questions: int, seed: int = 0) -> list[Expansion]:
        """See `Exchange`."""
        return draw_held_out(self.verifier, self.task_names, seed, num_questions)

    def verify(self, own: Sequence[OwnRollout]) -> list[VerifiedRollout]:
        """See `Exchange`."""
        requests = [(one.expansion.question, one.answers) for one in own]
        return [
            VerifiedRollout(
                one.expansion, one.answers, tuple(verdicts), one.token_ids, one.policy_round
            )
            for one, verdicts in zip(own, self.verifier.judge(requests), strict=True)
        ]

    def share(self, own: Sequence[VerifiedRollout]) -> int:
        """Nobody is there."""
        return 0

    def offered(self, num_groups: int) -> list[VerifiedRollout]:
        """Nobody is there."""
        return []
