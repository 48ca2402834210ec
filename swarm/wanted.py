"""What a node has a use for now, as the node says it, and in which order that is drawn."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rewards.question import Question
from swarm.rollout import Entry

T = TypeVar("T")

Weigh = Callable[[Question, Sequence[bool], float], float]
"""Question, a bit per answer (claimed, or found here), seconds since first sight -> relative chance
to be fetched and drawn now; 0: not now."""


def alike(question: Question, correct: Sequence[bool], age_s: float) -> float:
    """Everything has the same chance."""
    return 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched; by default nothing ever."""

    num_fresh: int = 0
    """Fetched is only while fewer unused foreign rollouts are at hand that have a weight now."""
    max_from_one_author: int = 0
    """Of these."""
    could_use: Callable[[Entry], bool] = lambda entry: False
    """Asked once, when an entry is heard: without a use for it it is refused and forgotten."""
    weigh: Weigh = alike
    """Asked whenever something is missing: what has no weight waits, until it expires."""


def draw_order(items: Sequence[tuple[T, float]], rng: random.Random) -> list[T]:
    """The items in the order in which they are drawn without replacement, each time with chances in
    proportion to the weights of those that are left; without those whose weight is 0.

    Efraimidis and Spirakis (2006), algorithm A: by -log(u) / weight, ascending.
    """
    keyed = [(rng.expovariate(weight), item) for item, weight in items if weight > 0]
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]
