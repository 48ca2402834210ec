"""When foreign groups are switched off."""

import math
import random

import pytest

from node.brake import BRAKE_ROUNDS, WINDOW, apply_brake
from node.experience import Experience
from node.status import HeldOutStatus


def noisy(mean: float, num: int, rng: random.Random, spread: float = 0.05) -> list[float]:
    return [min(1.0, max(0.0, rng.gauss(mean, spread))) for _ in range(num)]


def exam(number: int, mean: float, error: float = 0.02) -> HeldOutStatus:
    return HeldOutStatus(number, mean, error, 256)


def test_a_clear_fall_of_own_reward_brakes_for_a_while_and_then_counts_anew() -> None:
    rng = random.Random(1)
    experience = Experience(rewards=noisy(0.4, 40, rng) + noisy(0.2, WINDOW, rng))
    assert apply_brake(experience, [], 100)
    assert "own reward fell from 0.4" in experience.brake_reason
    for number in range(101, 100 + BRAKE_ROUNDS):
        experience.rewards += noisy(0.2, 1, rng)
        assert apply_brake(experience, [], number)
    assert not apply_brake(experience, [], 100 + BRAKE_ROUNDS)
    assert experience.brake_reason == ""


@pytest.mark.parametrize("seed", range(20))
def test_noise_and_progress_do_not_brake(seed: int) -> None:
    rng = random.Random(seed)
    rewards = noisy(0.1, 80, rng) + [one for k in range(40) for one in noisy(0.1 + k / 100, 1, rng)]
    experience = Experience()
    for number, reward in enumerate(rewards, start=1):
        experience.rewards.append(reward)
        assert not apply_brake(experience, [], number), number


def test_a_fall_of_held_out_accuracy_brakes_and_the_same_one_never_again() -> None:
    experience = Experience()
    exams = [exam(0, 0.1), exam(10, 0.4), exam(20, 0.2)]
    assert not apply_brake(experience, exams[:2], 11)
    assert apply_brake(experience, exams, 21)
    assert "held-out accuracy fell from 0.400 to 0.200" in experience.brake_reason
    assert not apply_brake(experience, exams, 21 + BRAKE_ROUNDS)
    assert not apply_brake(experience, [*exams, exam(60, 0.21)], 61)


def test_what_chance_explains_does_not_brake() -> None:
    assert not apply_brake(Experience(), [exam(0, 0.4, 0.1), exam(10, 0.2, 0.1)], 11)
    assert not apply_brake(Experience(), [exam(0, 0.4, math.nan), exam(10, 0.0, math.nan)], 11)
    assert not apply_brake(Experience(), [exam(0, 0.40, 0.001), exam(10, 0.35, 0.001)], 11)
    assert not apply_brake(Experience(rewards=[0.9] * WINDOW + [0.0] * (WINDOW - 1)), [], 31)
