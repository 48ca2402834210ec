"""A policy that stays as it is: what it answers, what it does not do, and an engine that dies."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from node.config import PolicyConfig
from node.fixed_policy import FixedPolicy
from node.generate import Completion, GenerationFailed, Sampling
from node.model import load_tokenizer
from node.update import Update
from rewards.question import Expansion, Question

QUESTION = Expansion(Question("sums", 7), "3 + 4 =", "7")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(Path(str(files("node") / "tiny")), PolicyConfig())


class FakeEngine:
    """Answers with one token; dies once if it is told to; notes whose weights it was given."""

    name = "fake"

    def __init__(self, token: int, deaths: int = 0) -> None:
        self.token = token
        self.deaths = deaths
        self.weights: list[torch.nn.Module] = []
        self.is_closed = False

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Completion]]:
        if self.deaths:
            self.deaths -= 1
            raise GenerationFailed("out of memory")
        return [[Completion((self.token,), (-0.5,), True)] * sampling.num_answers for _ in prompts]

    def score(self, token_ids: Sequence[int]) -> list[float]:
        return [0.0] * (len(token_ids) - 1)

    def sync(self, model: torch.nn.Module) -> None:
        self.weights.append(model)

    def close(self) -> None:
        self.is_closed = True


def make(
    tokenizer: PreTrainedTokenizerBase, deaths: int = 0
) -> tuple[FixedPolicy, FakeEngine, list[torch.nn.Module]]:
    """A policy, its engine, and the models that it has read again."""
    engine, read = FakeEngine(tokenizer.encode("7")[0], deaths), []

    def read_weights() -> torch.nn.Module:
        read.append(torch.nn.Identity())
        return read[-1]

    sampling = Sampling(num_answers=2, max_new_tokens=8)
    policy = FixedPolicy(tokenizer, engine, sampling, read_weights, max_prompt_tokens=100, seed=1)
    return policy, engine, read


def test_it_answers_as_a_policy_that_has_never_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    policy, engine, read = make(tokenizer)
    for number in (1, 40):
        [rollout] = policy.roll_out([QUESTION], number)
        assert [one.text for one in rollout.answers] == ["7", "7"]
        assert rollout.policy_round == 0
        assert policy.learn([]) == Update(step=0), "and no update was skipped"
        policy.sync()
    assert (engine.weights, read) == ([], []), "nobody has touched the weights"


def test_it_keeps_nothing_of_its_rounds(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    policy, engine, _ = make(tokenizer)
    for number in range(1, 4):
        policy.roll_out([QUESTION], number)
    assert policy._fresh == []
    policy.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    policy.close()
    assert engine.is_closed


def test_an_engine_that_dies_is_started_anew_with_the_weights_read_again(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    policy, engine, read = make(tokenizer, deaths=1)
    assert len(policy.roll_out([QUESTION], 1)) == 1
    assert len(read) == 1 and engine.weights == read
    policy, _, _ = make(tokenizer, deaths=2)
    with pytest.raises(GenerationFailed):
        policy.roll_out([QUESTION], 1)
