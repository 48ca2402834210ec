"""What the learner asks of the rest of the node: questions, verdicts, and peers.

The seam has two sides that are real: `LocalExchange` below (everything in one process, no peers:
experiments, benchmarks, a policy's own tools), and `PipeExchange` (node/pipe.py), behind which the
control process answers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from node.batch import Want
from node.groups import OwnRollout, VerifiedRollout
from rewards.draw import draw_common, draw_held_out, draw_training, epoch_of
from rewards.question import Expansion
from rewards.verifier import Verifier
from swarm.manifest import DEFAULT_EPOCH_S


class Exchange(Protocol):
    """Blocking; called from one thread. Raises VerifierBroken where nothing can be judged."""

    def draw_questions(
        self,
        round_number: int,
        num_questions: int,
        *,
        first: int = 0,
        task_weights: Mapping[str, float] = {},
    ) -> list[Expansion]:
        """The node's training questions of a round: the same whenever the round is repeated.

        Args:
            first: how many of the round were drawn before: these are further ones.
            task_weights: relative chance of each task; 1 for those that are not named.
        """
        ...

    def draw_common(self, round_number: int, num_questions: int) -> list[Expansion]:
        """Training questions that the swarm's other nodes are asked in these hours, too."""
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

    def offered(self, want: Want) -> list[VerifiedRollout]:
        """Peers' rollouts, judged here, as many as are wanted and there.

        Each is handed out once. From now on such rollouts are fetched, also where `want` asks for
        none in this round.
        """
        ...


class LocalExchange:
    """Questions from the node's own stream, verdicts from the node's own verifier, no peers."""

    def __init__(
        self,
        verifier: Verifier,
        task_names: Sequence[str],
        seed: int,
        epoch_s: int = DEFAULT_EPOCH_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            epoch_s: of the swarm's rules.
            clock: Unix seconds.
        """
        self.verifier = verifier
        self.task_names = tuple(task_names)
        self.seed = seed
        self.epoch_s = epoch_s
        self.clock = clock

    def draw_questions(
        self,
        round_number: int,
        num_questions: int,
        *,
        first: int = 0,
        task_weights: Mapping[str, float] = {},
    ) -> list[Expansion]:
        """See `Exchange`."""
        return draw_training(
            self.verifier,
            self.task_names,
            self.seed,
            round_number,
            num_questions,
            first=first,
            task_weights=task_weights,
        )

    def draw_common(self, round_number: int, num_questions: int) -> list[Expansion]:
        """See `Exchange`."""
        epoch = epoch_of(self.clock(), self.epoch_s)
        return draw_common(
            self.verifier, self.task_names, epoch, self.seed, round_number, num_questions
        )

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

    def offered(self, want: Want) -> list[VerifiedRollout]:
        """Nobody is there."""
        return []
