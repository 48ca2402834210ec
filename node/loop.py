"""One round of a node, and the life that is made of rounds. Read this first."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.batch import VerifiedRollout, mix
from node.checkpoint import Checkpoints, NodeState
from node.evaluate import HeldOut, evaluate, read_heldout, write_heldout
from node.exchange import Exchange
from node.policy import Policy
from node.reward import NO_TERMS, RewardTerms
from node.status import ForeignFate, ForeignGroup, HeldOutStatus, RoundReport, Stage, Status
from node.update import Update
from rewards.question import Judged

logger = logging.getLogger(__name__)


class StopAsked(Exception):
    """What was under way is abandoned without a trace, because the node is to stop."""


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
        num_foreign: int = 0,
        num_heldout: int = 0,
        checkpoint_every: int,
        status: Status,
        reward: RewardTerms = NO_TERMS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            num_questions: own questions of a round (I).
            num_foreign: peers' rollouts of a round at most (J); with 0 nobody is asked for any.
            num_heldout: held-out questions of an evaluation; 0 makes none. Evaluations are kept in
                `heldout` beside the directory of the checkpoints.
            reward: this node's own terms; what they add is learned from and told to nobody.
            clock: Unix seconds.
        """
        self.state = state
        self.policy = policy
        self.exchange = exchange
        self.checkpoints = checkpoints
        self.num_questions = num_questions
        self.num_foreign = num_foreign
        self.num_heldout = num_heldout
        self.heldout_dir = checkpoints.directory.with_name("heldout")
        self.checkpoint_every = checkpoint_every
        self.status = status
        self.reward = reward
        self.clock = clock
        self.stop_asked = threading.Event()

    def run_round(self) -> RoundReport:
        """SAPO, one round of one node.

        Raises:
            StopAsked: before the update had begun; after that a round is finished.
        """
        number = self.state.round + 1
        with self._unless_stopped(Stage.DRAWING):
            questions = self.exchange.draw_questions(number, self.num_questions)
        with self._unless_stopped(Stage.GENERATING):
            rollouts = self.policy.roll_out(questions, number)
        with self._unless_stopped(Stage.VERIFYING):
            own = self.exchange.verify(rollouts)
        with self._unless_stopped(Stage.SHARING):
            num_shared = self.exchange.share(own)
        with self._unless_stopped(Stage.MIXING):
            own = [self.reward.apply(one) for one in own]
            drawn = self._draw_foreign()
            batch = mix(own, [one for one, fate in drawn if fate is ForeignFate.USED])
        with self._unless_stopped(Stage.UPDATING):
            update = self.policy.learn(batch)
        with self.status.during(Stage.SYNCING):
            self.policy.sync()
        report = report_round(
            number,
            own,
            batch,
            update,
            self.status.take_seconds(),
            foreign_wanted=self.num_foreign,
            foreign=foreign_groups(drawn, update),
            num_shared=num_shared,
            finished_at=self.clock(),
        )
        self._finish(report)
        return report

    def run(self, rounds: int | None = None) -> Path:
        """Rounds until `stop_asked` or the given number of the policy's rounds is reached.

        A stop is answered after the stage under way, or after the round if its update has begun.
        Held-out questions are asked before the first round and after the last of `rounds`, unless
        the answer is on disk. Returns the checkpoint of the last round.
        """
        self.status.heldout = [
            heldout_status(number, found)
            for number, found in read_heldout(self.heldout_dir).items()
        ]
        try:
            if self.state.round == 0:
                self.evaluate()
            while not self.stop_asked.is_set() and (rounds is None or self.state.round < rounds):
                self.run_round()
                if self.state.round % self.checkpoint_every == 0:
                    self.checkpoint()
            self.checkpoint()
            if rounds is not None and self.state.round >= rounds:
                self.evaluate()
        except StopAsked as stop:
            self.status.take_seconds()
            logger.info("round %d is the last: %s", self.state.round, stop)
        return self.checkpoint()

    def checkpoint(self) -> Path:
        """Writes the present state; where it stands on disk already, nothing is written."""
        newest = self.checkpoints.latest()
        if newest is not None and newest[0] == self.state:
            return newest[1].parent
        with self.status.during(Stage.CHECKPOINTING):
            return self.checkpoints.write(self.state, self.policy.save)

    def evaluate(self) -> None:
        """Asks the policy as it is now the held-out questions, and keeps what is found.

        Nothing is done where none are wanted, or where this round's evaluation is on disk.

        Raises:
            StopAsked: between two parts of the questions; nothing is kept.
        """
        number = self.state.round
        if not self.num_heldout or any(one.round == number for one in self.status.heldout):
            return
        with self._unless_stopped(Stage.EVALUATING):
            questions = self.exchange.draw_held_out(self.num_heldout)
        heldout = evaluate(
            self.policy,
            self.exchange,
            questions,
            part=lambda: self._unless_stopped(Stage.EVALUATING),
        )
        write_heldout(self.heldout_dir, number, heldout)
        self.status.take_seconds()
        self.status.heldout.append(heldout_status(number, heldout))
        self.status.on_change()
        logger.info(
            "held-out accuracy after round %d: %.3f +- %.3f on %d questions",
            number,
            heldout.overall.mean,
            heldout.overall.standard_error,
            heldout.overall.num_questions,
        )

    @contextmanager
    def _unless_stopped(self, stage: Stage) -> Iterator[None]:
        if self.stop_asked.is_set():
            raise StopAsked(f"stopped before {stage}; what was under way is abandoned")
        with self.status.during(stage):
            yield

    def _draw_foreign(self) -> list[tuple[VerifiedRollout, ForeignFate]]:
        """Up to J rollouts of peers, each with what becomes of it."""
        offered = self.exchange.offered(self.num_foreign) if self.num_foreign else []
        return [
            (one, self.policy.fate(one) if one.has_advantage else ForeignFate.ZERO_ADVANTAGE)
            for one in map(self.reward.apply, offered)
        ]

    def _finish(self, report: RoundReport) -> None:
        """Counts the round as done and tells of it."""
        total = self.state.total_tokens + report.own_tokens
        self.state = NodeState(
            report.round, self.state.seed, self.state.swarm_id, self.state.model, total
        )
        self.status.reports.append(report)
        self.status.on_change()
        foreign = f"foreign {report.foreign_groups_used} of {report.foreign_wanted}, "
        logger.info(
            "round %d: own_reward %.3f, zero_advantage_share %.2f, %s%d tokens, %.2f s%s",
            report.round,
            report.own_reward,
            report.zero_advantage_share,
            foreign if report.foreign_wanted else "",
            report.own_tokens,
            report.round_s,
            f", UPDATE SKIPPED: {report.update_skipped}" if report.update_skipped else "",
        )


def report_round(
    number: int,
    own: Sequence[VerifiedRollout],
    batch: Sequence[VerifiedRollout],
    update: Update,
    seconds: dict[str, float],
    *,
    foreign_wanted: int = 0,
    foreign: tuple[ForeignGroup, ...] = (),
    num_shared: int = 0,
    finished_at: float = 0.0,
) -> RoundReport:
    """The figures of a round from what went through it."""
    answers = [answer for rollout in own for answer in rollout.answers]
    verdicts = [verdict for rollout in own for verdict in rollout.verdicts]
    num_tokens = sum(answer.num_tokens for answer in answers)
    logp = sum((answer.mean_logp or 0.0) * answer.num_tokens for answer in answers)
    return RoundReport(
        round=number,
        own_reward=_mean([correct for rollout in own for correct in rollout.correct]),
        batch_reward=_mean([correct for rollout in batch for correct in rollout.correct]),
        zero_advantage_share=_mean([not rollout.has_advantage for rollout in own]),
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
        foreign_wanted=foreign_wanted,
        foreign=foreign,
        num_shared=num_shared,
        finished_at=finished_at,
        shaped_reward=_mean([reward for rollout in own for reward in rollout.rewards])
        if any(rollout.terms for rollout in own)
        else None,
    )


def foreign_groups(
    drawn: Sequence[tuple[VerifiedRollout, ForeignFate]], update: Update
) -> tuple[ForeignGroup, ...]:
    """What became of every foreign rollout that was drawn; those used have figures in `update`."""
    figures = iter(update.foreign)
    groups = []
    for one, fate in drawn:
        assert one.origin is not None, "a foreign rollout without an origin"
        used = next(figures) if fate is ForeignFate.USED else None
        groups.append(
            ForeignGroup(
                author=one.origin.author,
                hash=one.origin.hash,
                task=one.expansion.question.task,
                fate=fate,
                policy_round=one.origin.policy_round,
                age_s=one.origin.age_s,
                mean_logp=used.mean_logp if used else None,
                weight=used.weight if used else 0.0,
            )
        )
    return tuple(groups)


def heldout_status(number: int, heldout: HeldOut) -> HeldOutStatus:
    """One evaluation as the status shows it."""
    found = heldout.overall
    return HeldOutStatus(number, found.mean, found.standard_error, found.num_questions)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
