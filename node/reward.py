"""What a node adds to correctness when it learns: its own terms for format and length.

    reward = correct + format * [a final answer is marked as the task asks] - length * overlong

`overlong` rises from 0 at `free_bytes` to 1 at the swarm's `max_answer_bytes`: the soft overlong
punishment of DAPO (arXiv 2503.14476, eq. 13), but in UTF-8 bytes, since the tokens of peers differ.

Made from the text, for own and foreign answers alike, at the moment of learning. Never shared and
never compared: what is claimed, verified, shared and wanted among peers is correctness alone. What
a node learns from is decided by its own rewards: all own rollouts, and those foreign ones that have
an advantage under them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from node.config import ConfigError, RewardConfig
from node.groups import VerifiedRollout
from rewards.extract import final_answer
from rewards.question import Answer
from swarm.manifest import Rules

FREE_SHARE = 0.8
"""Of the longest answer that is free by default: DAPO's 16,384 of 20,480 tokens."""


@dataclass(frozen=True, slots=True)
class RewardTerms:
    """A node's own terms. The default is none."""

    format: float = 0.0
    length: float = 0.0
    free_bytes: int = 0
    max_bytes: int = 1
    answer_formats: Mapping[str, str] = field(default_factory=dict)
    """Task -> how its final answer is marked (rewards/extract.py)."""

    @property
    def is_none(self) -> bool:
        """Whether rewards are correctness alone."""
        return not self.format and not self.length

    def apply(self, rollout: VerifiedRollout) -> VerifiedRollout:
        """The rollout with this node's terms in its rewards."""
        if self.is_none:
            return rollout
        task = rollout.expansion.question.task
        return replace(rollout, terms=tuple(self._term(task, one) for one in rollout.answers))

    def _term(self, task: str, answer: Answer) -> float:
        marked = final_answer(answer.text, answer.finished, self.answer_formats[task]) is not None
        # Own text may hold lone surrogates, which UTF-8 has not.
        num_bytes = len(answer.text.encode(errors="surrogatepass"))
        overlong = (num_bytes - self.free_bytes) / (self.max_bytes - self.free_bytes)
        return self.format * marked - self.length * min(1.0, max(0.0, overlong))


NO_TERMS = RewardTerms()


def make_terms(config: RewardConfig, rules: Rules) -> RewardTerms:
    """The terms that the settings name.

    Raises:
        ConfigError: no answer of this swarm is longer than what is free.
    """
    most = rules.max_answer_bytes
    free = int(FREE_SHARE * most) if config.free_bytes is None else config.free_bytes
    if config.length and free >= most:
        raise ConfigError(
            f"reward.free_bytes = {free}: answers of this swarm have at most {most} bytes; "
            "set it lower, or reward.length to 0"
        )
    formats = {task.name: task.answer_format for task in rules.tasks}
    return RewardTerms(config.format, config.length, min(free, most - 1), most, formats)
