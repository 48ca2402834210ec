"""Answers what the learner asks: questions, verdicts, sharing, peers' rollouts."""

import logging
import random
from collections.abc import Callable

import trio

from node.batch import Want
from node.config import SwarmConfig
from node.foreign import wanted_by
from node.groups import Origin
from node.pipe import (
    Broken,
    DrawCommon,
    DrawHeldOut,
    DrawQuestions,
    ForeignRollout,
    ForeignRollouts,
    Questions,
    Reply,
    Request,
    Shared,
    ShareOwn,
    TakeForeign,
    Verdicts,
    Verify,
)
from node.rollout_log import OwnRollouts
from node.threads import in_thread
from rewards.draw import draw_common, draw_held_out, draw_training, epoch_of
from rewards.question import Expansion
from rewards.verifier import Verifier, VerifierBroken
from swarm.database import Offload
from swarm.intake import Intake
from swarm.manifest import Rules
from swarm.pool import Pool, Pooled
from swarm.share import Publisher

logger = logging.getLogger(__name__)


class Answerer:
    """One reply per request. Called from the trio thread."""

    def __init__(
        self,
        config: SwarmConfig,
        verifier: Verifier,
        pool: Pool,
        publisher: Publisher,
        intake: Intake,
        offload: Offload,
        *,
        seed: int,
        rules: Rules,
        model: str,
        clock: Callable[[], float],
        rng: random.Random | None = None,
        own: OwnRollouts | None = None,
    ) -> None:
        """
        Args:
            seed: the node's, from which its questions are drawn.
            rules: of the swarm: which questions are common to its nodes, and for how long.
            model: name that peers see; a claim.
            clock: Unix seconds.
            own: is told of what the learner answers, for people to read.
        """
        self._config = config
        self._verifier = verifier
        self._pool = pool
        self._publisher = publisher
        self._intake = intake
        self._offload = offload
        self._seed = seed
        self._rules = rules
        self._model = model
        self._clock = clock
        self._random = rng or random.Random()
        self._own = own or OwnRollouts("", model, clock)
        self.task_names: tuple[str, ...] = ()
        self.has_tasks = trio.Event()
        """Set when it is known which tasks this machine judges as the manifest says."""
        self._waiting = trio.CancelScope()
        self._may_wait = True

    def stop_waiting(self) -> None:
        """From now on no learner waits for peers' rollouts: it has been told to stop."""
        self._may_wait = False
        self._waiting.cancel()

    async def answer(self, request: Request) -> Reply:
        """The reply. A verifier that is broken is one, too: the learner then ends by it."""
        await self.has_tasks.wait()
        try:
            match request:
                case DrawQuestions():
                    drawn = await in_thread(self._draw_training, request)
                    self._own.asked(request.round, drawn)
                    return Questions(tuple(drawn))
                case DrawCommon():
                    drawn = await in_thread(self._draw_common, request)
                    self._own.asked(request.round, drawn)
                    return Questions(tuple(drawn))
                case DrawHeldOut():
                    return Questions(tuple(await in_thread(self._draw_held_out, request)))
                case Verify(rollouts=rollouts):
                    verdicts = await in_thread(self._verifier.judge, rollouts)
                    self._own.judged(rollouts, verdicts)
                    return Verdicts(tuple(tuple(one) for one in verdicts))
                case ShareOwn(groups=groups):
                    offered = [
                        (one.question, one.answers, one.correct, one.policy_round) for one in groups
                    ]
                    return Shared(await self._publisher.share(offered, self._model))
                case TakeForeign(want=want):
                    return ForeignRollouts(tuple(await self._take(want)))
        except VerifierBroken as error:
            return Broken(str(error))

    def _draw_training(self, asked: DrawQuestions) -> list[Expansion]:
        return draw_training(
            self._verifier,
            self.task_names,
            self._seed,
            asked.round,
            asked.num_questions,
            first=asked.first,
            task_weights=asked.task_weights,
        )

    def _draw_common(self, asked: DrawCommon) -> list[Expansion]:
        return draw_common(
            self._verifier,
            self.task_names,
            epoch_of(self._clock(), self._rules.epoch_s),
            self._seed,
            asked.round,
            asked.num_questions,
            tasks_of_swarm=[task.name for task in self._rules.tasks],
        )

    def _draw_held_out(self, asked: DrawHeldOut) -> list[Expansion]:
        return draw_held_out(self._verifier, self.task_names, asked.seed, asked.num_questions)

    async def _take(self, want: Want) -> list[ForeignRollout]:
        """Draws from the pool what is wanted; while less is there, waits up to `wait_s` for more.
        Such is fetched from now on."""
        self._intake.want(wanted_by(want))
        if self._config.wait_s and self._may_wait:
            with trio.move_on_after(self._config.wait_s) as self._waiting:
                while await self._num_drawable(want) < want.num_groups:
                    await self._intake.wait_for_more()
        drawn: list[Pooled] = await self._offload(
            self._pool.draw,
            want.num_groups,
            want.max_from_one_peer,
            self._random,
            want.weight,
        )
        self._intake.wake()
        now = self._clock()
        return [
            ForeignRollout(
                one.expansion,
                one.rollout.answers,
                one.correct,
                Origin(
                    one.rollout.author,
                    one.hash,
                    one.rollout.policy_round,
                    max(0.0, now - one.first_seen),
                ),
            )
            for one in drawn
        ]

    async def _num_drawable(self, want: Want) -> int:
        return await self._offload(
            self._pool.count_drawable, want.num_groups, want.max_from_one_peer, want.weight
        )
