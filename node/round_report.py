"""The figures of a round from what went through it."""

from collections import defaultdict
from collections.abc import Sequence

from node.groups import Lesson, Source, VerifiedRollout
from node.status import ForeignFate, ForeignGroup, RoundReport, TaskAnswers
from node.update import Update
from rewards.question import Judged


def report_round(
    number: int,
    own: Sequence[VerifiedRollout],
    batch: Sequence[Lesson],
    update: Update,
    seconds: dict[str, float],
    *,
    foreign_wanted: int = 0,
    foreign: tuple[ForeignGroup, ...] = (),
    num_shared: int = 0,
    finished_at: float = 0.0,
    brake: str = "",
) -> RoundReport:
    """The figures of a round from what went through it."""
    answers = [answer for rollout in own for answer in rollout.answers]
    verdicts = [verdict for rollout in own for verdict in rollout.verdicts]
    num_tokens = sum(answer.num_tokens for answer in answers)
    logp = sum((answer.mean_logp or 0.0) * answer.num_tokens for answer in answers)
    return RoundReport(
        round=number,
        own_reward=_mean([correct for rollout in own for correct in rollout.correct]),
        batch_reward=_mean([correct for lesson in batch for correct in lesson.rollout.correct]),
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
        num_groups=len(batch),
        num_replayed=sum(lesson.source is Source.REPLAY for lesson in batch),
        effective_sample_size=update.effective_sample_size,
        kl_to_start=update.kl_to_start,
        brake=brake,
        seconds=seconds,
        foreign_wanted=foreign_wanted,
        foreign=foreign,
        num_shared=num_shared,
        finished_at=finished_at,
        own_tasks=_by_task(own),
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


def _by_task(own: Sequence[VerifiedRollout]) -> dict[str, TaskAnswers]:
    correct: defaultdict[str, list[bool]] = defaultdict(list)
    for rollout in own:
        correct[rollout.expansion.question.task] += rollout.correct
    return {task: TaskAnswers(len(found), sum(found)) for task, found in sorted(correct.items())}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
