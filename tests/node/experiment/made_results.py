"""Runs whose figures are chosen, for what is computed from them."""

from collections.abc import Sequence

from node.experiment.results import Exam, Role, Rounds, RunKey, RunResult

RATE = 3e-4
TOKENS = 100.0
"""Of a node in each round."""


def made_role(
    reward: float = 1.0,
    accuracies: Sequence[float] = (0.0, 0.5),
    *,
    name: str = "node",
    num_nodes: int = 2,
    own_reward: Sequence[float] = (0.25, 0.5),
    unable: float | None = None,
    poison_share: Sequence[float] = (),
    answer_bytes: Sequence[float] = (),
) -> Role:
    """Its exams are a round apart, the first before the first; `reward` is cumulative."""
    nothing = tuple(0.0 for _ in own_reward)
    rounds = Rounds(
        own_reward=tuple(own_reward),
        batch_reward=tuple(2 * one for one in own_reward),
        zero_advantage_share=tuple(0.75 for _ in own_reward),
        own_tokens=tuple(TOKENS for _ in own_reward),
        foreign_used=tuple(float(number) for number in range(len(own_reward))),
        foreign_age=nothing,
        replayed=nothing,
        effective_sample_size=nothing,
        entropy=nothing,
        kl_to_start=nothing,
        clip_share=nothing,
        gradient_norm=nothing,
        poison_share=tuple(poison_share),
        answer_bytes=tuple(answer_bytes),
    )
    exams = tuple(
        Exam(number, TOKENS * number, 8, one, one + 0.25, one + 0.125, 1.5, {}, unable)
        for number, one in enumerate(accuracies)
    )
    return Role(
        name=name,
        num_nodes=num_nodes,
        rounds=rounds,
        exams=exams,
        node_reward=(reward - 0.5, reward + 0.5),
        node_pass_1=(accuracies[-1],) * num_nodes,
        admitted_honest=9,
        refused_honest=1,
        used_hostile=6,
    )


def made_run(
    arm: str, seed: int, *roles: Role, rate: float = RATE, is_tuning: bool = False
) -> RunResult:
    """One of nothing but its roles."""
    return RunResult(
        experiment="",
        digest="",
        key=RunKey(arm, seed, rate),
        is_tuning=is_tuning,
        roles=roles,
        wall_s=1.0,
        cpu_s=1.0,
        stage_s={},
        node_rounds=1,
        started="",
        versions={},
    )


def made_arm(arm: str, *rewards: float, accuracy: float = 0.5) -> list[RunResult]:
    """Measuring runs of the seeds 0, 1, ..., by their cumulative reward."""
    return [
        made_run(arm, seed, made_role(reward, (0.0, accuracy)))
        for seed, reward in enumerate(rewards)
    ]
