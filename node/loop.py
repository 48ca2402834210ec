"""One round of a node, and the life that is made of rounds. Read this first."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.batch import AtHand, Own, Want
from node.brake import apply_brake
from node.checkpoint import Checkpoints, NodeState
from node.evaluate import HeldOut, evaluate, read_heldout, write_heldout
from node.exchange import Exchange
from node.experience import Experience
from node.groups import VerifiedRollout
from node.orders import Orders
from node.policy import Policy
from node.reward import NO_TERMS, RewardTerms
from node.round_report import foreign_groups, report_round
from node.status import ForeignFate, HeldOutStatus, RoundReport, Stage, Status, TaskHeldOut
from rewards.question import Expansion, Question

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
        strategy: Own,
        *,
        experience: Experience | None = None,
        num_heldout: int = 0,
        evaluate_every: int = 0,
        checkpoint_every: int,
        status: Status,
        reward: RewardTerms = NO_TERMS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            strategy: what the updates learn from.
            experience: what is known of earlier rounds; None at a first start.
            num_heldout: held-out questions of an evaluation; 0 makes none. Evaluations are kept in
                `heldout` beside the directory of the checkpoints.
            evaluate_every: rounds between evaluations; 0 makes only a first and a last.
            reward: this node's own terms; what they add is learned from and told to nobody.
            clock: Unix seconds.
        """
        self.state = state
        self.policy = policy
        self.exchange = exchange
        self.checkpoints = checkpoints
        self.strategy = strategy
        self.experience = experience or Experience()
        self.num_heldout = num_heldout
        self.evaluate_every = evaluate_every
        self.heldout_dir = checkpoints.directory.with_name("heldout")
        self.checkpoint_every = checkpoint_every
        self.status = status
        self.reward = reward
        self.clock = clock
        self.orders = Orders()
        self.hear_checkpoint: Callable[[int], None] = lambda number: None
        """Is told the round of a checkpoint that was ordered, once it is written."""

    @property
    def stop_asked(self) -> threading.Event:
        """Of the orders."""
        return self.orders.stop_asked

    def run_round(self) -> RoundReport:
        """SAPO, one round of one node.

        Raises:
            StopAsked: before the update had begun; after that a round is finished.
        """
        number = self.state.round + 1
        verified, common = self._roll_out(number)
        with self._unless_stopped(Stage.SHARING):
            num_shared = self.exchange.share(verified)
        with self._unless_stopped(Stage.MIXING):
            own = [self.reward.apply(one) for one in verified]
            want = self._want(own, number)
            drawn = self._draw_foreign(want)
            used = [one for one, fate in drawn if fate is ForeignFate.USED]
            rng = random.Random(f"sapo-batch-1 {self.state.seed} {number}")
            batch = self.strategy.compose(AtHand(own, used, self.experience, rng))
        with self._unless_stopped(Stage.UPDATING):
            update = self.policy.learn(batch)
        with self.status.during(Stage.SYNCING):
            self.policy.sync()
        self.experience.note(own, number, self.strategy.replay_rounds)
        self.experience.note_failed(
            [q for one in own if (q := one.expansion.question) in common and not any(one.correct)]
        )
        report = report_round(
            number,
            own,
            batch,
            update,
            self.status.take_seconds(),
            foreign_wanted=want.num_groups,
            foreign=foreign_groups(drawn, update),
            num_shared=num_shared,
            finished_at=self.clock(),
            brake=self.experience.brake_reason,
        )
        self._finish(report)
        return report

    def run(self, rounds: int | None = None) -> Path:
        """Rounds until `stop_asked` or the given number of the policy's rounds is reached.

        A stop is answered after the stage under way, or after the round if its update has begun.
        Held-out questions are asked before the first round, after every `evaluate_every` and after
        the last of `rounds`, unless the answer is on disk. Returns the last round's checkpoint.
        Other orders are heeded between rounds.
        """
        self.status.heldout = [
            heldout_status(number, found)
            for number, found in read_heldout(self.heldout_dir).items()
            if number <= self.state.round  # later ones are of rounds that a crash undid
        ]
        try:
            self._heed_orders()
            if self._is_exam_due:
                self.evaluate()
            while not self.stop_asked.is_set() and (rounds is None or self.state.round < rounds):
                self._heed_orders()
                self.run_round()
                if self.state.round % self.checkpoint_every == 0:
                    self.checkpoint()
                if self._is_exam_due:
                    self.evaluate()
            self.checkpoint()
            if rounds is not None and self.state.round >= rounds:
                self.evaluate()
        except StopAsked as stop:
            self.status.take_seconds()
            logger.info("round %d is the last: %s", self.state.round, stop)
        return self.checkpoint()

    @property
    def _is_exam_due(self) -> bool:
        """Before the first round, and every `evaluate_every`."""
        number, every = self.state.round, self.evaluate_every
        return number == 0 or (every > 0 and number % every == 0)

    def _heed_orders(self) -> None:
        """Between two rounds: writes a checkpoint that was ordered, and waits out a pause."""
        while True:
            if self.orders.take_checkpoint():
                self.checkpoint()
                self.hear_checkpoint(self.state.round)
            if self.stop_asked.is_set() or not self.orders.is_paused:
                return
            self.status.enter(Stage.PAUSED)
            self.orders.wait_in_pause()

    def checkpoint(self) -> Path:
        """Writes the present state; where it stands on disk already, nothing is written."""
        newest = self.checkpoints.latest()
        if newest is not None and newest[0] == self.state:
            return newest[1].parent
        with self.status.during(Stage.CHECKPOINTING):
            return self.checkpoints.write(self.state, self.policy.save, self.experience)

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
        self.status.on_report(self.status.heldout[-1])
        logger.info(
            "held-out accuracy after round %d: %.3f +- %.3f on %d questions, pass@%d %.3f",
            number,
            heldout.overall.mean,
            heldout.overall.standard_error,
            heldout.overall.num_questions,
            heldout.answers_per_question,
            heldout.pass_at(heldout.answers_per_question).mean,
        )

    @contextmanager
    def _unless_stopped(self, stage: Stage) -> Iterator[None]:
        if self.stop_asked.is_set():
            raise StopAsked(f"stopped before {stage}; what was under way is abandoned")
        with self.status.during(stage):
            yield

    def _roll_out(self, number: int) -> tuple[list[VerifiedRollout], set[Question]]:
        """The round's own rollouts, judged, as many as the strategy asks for; and which of the
        questions are common to the swarm."""
        verified: list[VerifiedRollout] = []
        common: set[Question] = set()
        num_asked = 0
        while num := self.strategy.num_more(list(map(self.reward.apply, verified)), num_asked):
            with self._unless_stopped(Stage.DRAWING):
                questions: list[Expansion] = []
                if self.strategy.asks_common:
                    share = math.ceil(self.strategy.config.common_share * num)
                    questions = self.exchange.draw_common(number, share)
                    common.update(one.question for one in questions)
                questions += self.exchange.draw_questions(
                    number,
                    num - len(questions),
                    first=num_asked,
                    task_weights=self.strategy.question_weights(self.experience),
                )
            num_asked += num
            with self._unless_stopped(Stage.GENERATING):
                rollouts = self.policy.roll_out(questions, number)
            with self._unless_stopped(Stage.VERIFYING):
                verified += self.exchange.verify(rollouts)
        return verified, common

    def _want(self, own: Sequence[VerifiedRollout], number: int) -> Want:
        """What the strategy wants of peers; nothing while the brake is on."""
        was_on = bool(self.experience.brake_reason)
        want = self.strategy.want(own, self.experience)
        if not (want.most and self.strategy.config.brake) or not apply_brake(
            self.experience, self.status.heldout, number
        ):
            return want
        if not was_on:
            logger.warning("round %d: %s", number, self.experience.brake_reason)
        return Want()

    def _draw_foreign(self, want: Want) -> list[tuple[VerifiedRollout, ForeignFate]]:
        """Rollouts of peers as wanted, each with what becomes of it."""
        offered = self.exchange.offered(want) if self.strategy.most_foreign else []
        return [
            (
                one,
                self.policy.fate(one)
                if any(self.strategy.worth(one, self.experience))
                else ForeignFate.ZERO_ADVANTAGE,
            )
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
        self.status.on_report(report)
        foreign = f"foreign {report.foreign_groups_used} of {report.foreign_wanted}, "
        logger.info(
            "round %d: own_reward %.3f, zero_advantage_share %.2f, num_shared %d, %s%d tokens, "
            "%.2f s%s",
            report.round,
            report.own_reward,
            report.zero_advantage_share,
            report.num_shared,
            foreign if report.foreign_wanted else "",
            report.own_tokens,
            report.round_s,
            f", UPDATE SKIPPED: {report.update_skipped}" if report.update_skipped else "",
        )


def heldout_status(number: int, heldout: HeldOut) -> HeldOutStatus:
    """One evaluation as the status shows it."""
    found, k, diversity = heldout.overall, heldout.answers_per_question, heldout.diversity
    return HeldOutStatus(
        number,
        found.mean,
        found.standard_error,
        found.num_questions,
        pass_k=heldout.pass_at(k).mean,
        k=k,
        greedy=heldout.greedy.mean,
        diversity=None if diversity is None else diversity.mean,
        tasks={
            task: TaskHeldOut(one.mean, one.standard_error, one.num_questions)
            for task, one in heldout.per_task.items()
        },
    )
