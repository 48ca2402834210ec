"""What one policy-gradient step did."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForeignWeight:
    """How likely one foreign rollout was to the own policy, before it learned from it."""

    mean_logp: float | None
    """Mean log-probability per token in nats over all its answers, at the sampling temperature;
    None where it was not measured, because no weight depends on it."""
    weight: float
    """What its answers' advantages were multiplied by because of it: the mean over them."""


@dataclass(frozen=True, slots=True)
class Update:
    """The figures of one `learn`. Where a step was skipped, only `step`, `skipped`, `foreign` and
    `kl_to_start` say more than nothing."""

    step: int
    """Optimizer steps made so far."""
    skipped: str | None = None
    """Why no step was made, or None."""
    loss: float = 0.0
    gradient_norm: float = 0.0
    """Before clipping."""
    learning_rate: float = 0.0
    """That was in force: the schedule's, and less where `learn.ess_guard` made it so."""
    clip_share: float = 0.0
    """Share of tokens whose ratio was clipped."""
    num_answers: int = 0
    num_tokens: int = 0
    """Answer tokens that the loss was taken over."""
    foreign: tuple[ForeignWeight, ...] = ()
    """One per foreign rollout of the batch, in their order; also where the step was skipped."""
    effective_sample_size: float = 0.0
    """(sum w)^2 / sum w^2 over the weights of the answers that have a gradient, as a share of their
    number; 0 where none has one."""
    kl_to_start: float | None = None
    """KL divergence from the start in nats per token, of the policy before this update: the mean
    over the tokens of the round's own answers, as sampled, of log p(policy) - log p(start). An
    estimate, which may be below 0; None where it was not measured."""
