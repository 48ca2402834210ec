"""What one policy-gradient step did."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Update:
    """The figures of one `learn`. Where a step was skipped, only `step` and `skipped` say more
    than nothing."""

    step: int
    """Optimizer steps made so far."""
    skipped: str | None = None
    """Why no step was made, or None."""
    loss: float = 0.0
    gradient_norm: float = 0.0
    """Before clipping."""
    learning_rate: float = 0.0
    clip_share: float = 0.0
    """Share of tokens whose ratio was clipped."""
    num_answers: int = 0
    num_tokens: int = 0
    """Answer tokens that the loss was taken over."""
