"""What the node does now and what its rounds did: one name per number, everywhere."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """What a node is busy with; the parts of a round in their order."""

    STARTING = "starting"
    DRAWING = "drawing"
    GENERATING = "generating"
    VERIFYING = "verifying"
    UPDATING = "updating"
    SYNCING = "syncing"
    CHECKPOINTING = "checkpointing"
    EVALUATING = "evaluating"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What one round did."""

    round: int
    """Counts from 1; equals the policy's number of rounds after it."""
    own_reward: float
    """Mean reward of this node's own answers of the round."""
    batch_reward: float
    """Mean reward over the training set T (the paper's number; equal to own_reward alone)."""
    zero_advantage_share: float
    """Share of own groups whose rewards are all equal: they teach nothing."""
    num_questions: int
    num_answers: int
    num_unscorable: int
    """Own answers that the verifier could not decide; they trained as wrong."""
    own_tokens: int
    """Tokens generated, end-of-sequence tokens included."""
    finished_share: float
    """Share of own answers that ended by themselves."""
    entropy: float
    """Mean entropy per token of the own answers in nats, estimated as -mean log-probability."""
    update_skipped: str | None
    """Why no optimizer step was made, or None."""
    loss: float
    gradient_norm: float
    learning_rate: float
    clip_share: float
    """Share of tokens whose ratio was clipped; 0 with one step per batch."""
    seconds: dict[str, float]
    """Per stage."""

    @property
    def round_s(self) -> float:
        """Seconds of the whole round."""
        return sum(self.seconds.values())

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second of generation."""
        return self.own_tokens / max(self.seconds.get(Stage.GENERATING, 0.0), 1e-9)


@dataclass
class Status:
    """The one snapshot that log, live view and (from step 2 on) API show."""

    stage: Stage = Stage.STARTING
    stage_since: float = field(default_factory=time.monotonic)
    engine: str = ""
    """The engine in use."""
    engine_warning: str = ""
    """Why the engine is not the one that `auto` would have liked; shown loudly."""
    reports: deque[RoundReport] = field(default_factory=lambda: deque(maxlen=100_000))
    clock: Callable[[], float] = time.monotonic
    _seconds: dict[str, float] = field(default_factory=dict)

    @property
    def stage_age_s(self) -> float:
        """How long the present stage has lasted."""
        return self.clock() - self.stage_since

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Names what happens inside, and adds its duration to the round."""
        self.stage, self.stage_since = stage, self.clock()
        try:
            yield
        finally:
            passed = self.clock() - self.stage_since
            self._seconds[stage] = self._seconds.get(stage, 0.0) + passed

    def take_seconds(self) -> dict[str, float]:
        """Seconds per stage since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds
