"""What the learner asks of the rest of the node: questions, verdicts, and (from step 2) peers.

In step 1 everything lives in one process. Step 2 puts a pipe to the control process behind the
same verbs and adds two: share(own) and offered().
"""

from collections.abc import Sequence

from node.batch import OwnRollout, VerifiedRollout
from rewards.draw import draw_held_out, draw_training
from rewards.question import Expansion
from rewards.verifier import Verifier


class Exchange:
    """Questions from the node's own stream, verdicts from the node's own verifier."""

    def __init__(self, verifier: Verifier, task_names: Sequence[str], seed: int) -> None:
        self.verifier = verifier
        self.task_names = tuple(task_names)
        self.seed = seed

    def draw_questions(self, round_number: int, num_questions: int) -> list[Expansion]:
        """The node's training questions of a round: the same whenever the round is repeated."""
        return draw_training(self.verifier, self.task_names, self.seed, round_number, num_questions)

    def draw_held_out(self, num_questions: int, seed: int = 0) -> list[Expansion]:
        """Questions that no node trains on; the same on every node for one seed."""
        return draw_held_out(self.verifier, self.task_names, seed, num_questions)

    def verify(self, own: Sequence[OwnRollout]) -> list[VerifiedRollout]:
        """Every answer judged from the exact text that would be shared."""
        requests = [(one.rollout.question, one.rollout.answers) for one in own]
        return [
            VerifiedRollout(one.rollout, one.expansion, tuple(verdicts), one.token_ids)
            for one, verdicts in zip(own, self.verifier.judge(requests), strict=True)
        ]
