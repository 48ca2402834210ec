"""One round of a node, and the life that is made of rounds. Read this first."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from node.batch import VerifiedRollout, mix
from node.checkpoint import Checkpoints, NodeState
from node.exchange import Exchange
from node.policy import Policy
from node.status import RoundReport, Stage, Status
from node.update import Update
from rewards.question import Judged

logger = logging.getLogger(__name__)


class Node:
    """A policy, its questions, and the rounds in which it learns."""

    def __init__(
        self,
        state: NodeState,
        policy: Policy,
        exchange: Exchange,
        checkpoints: Checkpoints,
        *,
        num_questions: int,
        checkpoint_every: int,
        status: Status,
    ) -> None:
        self.state = state
        self.policy = policy
        self.exchange = exchange
        self.checkpoints = checkpoints
        self.num_questions = num_questions
        self.checkpoint_every = checkpoint_every
        self.status = status
        self.stop_asked = threading.Event()

    def run_round(self) -> RoundReport:
        """SAPO, one round of one node (J = 0 until step 2 brings peers)."""
        number = self.state.round + 1
        with self.status.during(Stage.DRAWING):
            questions = self.exchange.draw_questions(number, self.num_questions)
        with self.status.during(Stage.GENERATING):
            rollouts = self.policy.roll_out(questions, number)
        with self.status.during(Stage.VERIFYING):
            own = self.exchange.verify(rollouts)
        batch = mix(own)
        with self.status.during(Stage.UPDATING):
            update = self.policy.learn(batch)
        with self.status.during(Stage.SYNCING):
            self.policy.sync()
        return self._finish(number, own, batch, update)

    def run(self, rounds: int | None = None) -> Path:
        """Rounds until `stop_asked` or the given number of the policy's rounds is reached.

        A stop is answered after the round under way. Returns the checkpoint of the last round.
        """
        while not self.stop_asked.is_set() and (rounds is None or self.state.round < rounds):
            self.run_round()
            if self.state.round % self.checkpoint_every == 0:
                self.checkpoint()
        return self.checkpoint()

    def checkpoint(self) -> Path:
        """Writes the present state; where it stands on disk already, nothing is written."""
        newest = self.checkpoints.latest()
        if newest is not None and newest[0] == self.state:
            return newest[1].parent
        with self.status.during(Stage.CHECKPOINTING):
            return self.checkpoints.write(self.state, self.policy.save)

    def _finish(
        self,
        number: int,
        own: Sequence[VerifiedRollout],
        batch: Sequence[VerifiedRollout],
        update: Update,
    ) -> RoundReport:
        """Counts the round as done and reports it."""
        report = report_round(number, own, batch, update, self.status.take_seconds())
        total = self.state.total_tokens + report.own_tokens
        self.state = NodeState(
            number, self.state.seed, self.state.swarm_id, self.state.model, total
        )
        self.status.reports.append(report)
        logger.info(
            "round %d: own_reward %.3f, zero_advantage_share %.2f, %d tokens, %.2f s%s",
            number,
            report.own_reward,
            report.zero_advantage_share,
            report.own_tokens,
            report.round_s,
            f", UPDATE SKIPPED: {update.skipped}" if update.skipped else "",
        )
        return report


def report_round(
    number: int,
    own: Sequence[VerifiedRollout],
    batch: Sequence[VerifiedRollout],
    update: Update,
    seconds: dict[str, float],
) -> RoundReport:
    """The figures of a round from what went through it."""
    answers = [answer for rollout in own for answer in rollout.rollout.answers]
    verdicts = [verdict for rollout in own for verdict in rollout.verdicts]
    num_tokens = sum(answer.num_tokens for answer in answers)
    logp = sum((answer.mean_logp or 0.0) * answer.num_tokens for answer in answers)
    return RoundReport(
        round=number,
        own_reward=_mean([reward for rollout in own for reward in rollout.rewards]),
        batch_reward=_mean([reward for rollout in batch for reward in rollout.rewards]),
        zero_advantage_share=_mean([float(not rollout.is_informative) for rollout in own]),
        num_questions=len(own),
        num_answers=len(answers),
        num_unscorable=sum(not isinstance(verdict, Judged) for verdict in verdicts),
        own_tokens=num_tokens,
        finished_share=_mean([float(answer.finished) for answer in answers]),
        entropy=-logp / max(num_tokens, 1),
        update_skipped=update.skipped,
        loss=update.loss,
        gradient_norm=update.gradient_norm,
        learning_rate=update.learning_rate,
        clip_share=update.clip_share,
        seconds=seconds,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
