"""Learning is exactly the hand-written GRPO step, whatever the batch is made of."""

import copy
import gc
import math
import random
import socket
import threading
import traceback
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl.trainer import utils as trl_utils

from bench import grpo_by_hand
from node.batch import advantages
from node.config import ConfigError, LearnConfig
from node.generate import token_logps
from node.groups import Group
from node.learn import Learner, LearnerFailed, NonFiniteGradient, effective_sample_size, figures
from node.status import HeldOutStatus, RoundReport

VOCABULARY = 64
EOS, PAD = 1, 2
RATE = 2e-5
TOLERANCE = 1e-6


@pytest.fixture(scope="module", autouse=True)
def no_search_of_what_is_imported() -> Iterator[None]:
    """Every start of a trainer collects garbage: a third of a second among all those modules."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_model(seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return Qwen2ForCausalLM(config)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="w0", eos_token="w1", pad_token="w2"
    )


def make_group(rewards: Sequence[float], seed: int) -> Group:
    """A group with these rewards; prompts of 3 to 9 tokens, answers of 1 to 12."""
    draw = random.Random(seed)
    prompt = tuple(draw.randrange(3, VOCABULARY) for _ in range(draw.randint(3, 9)))
    answers = tuple(
        (*(draw.randrange(3, VOCABULARY) for _ in range(draw.randint(0, 11))), EOS) for _ in rewards
    )
    return Group(prompt, answers, tuple(grpo_by_hand.normalised(rewards)))


REWARDS = (
    [1, 0, 0, 0, 1, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [0] * 8,
    [1, 0, 0, 1, 0],
    [0, 1, 0],
    [0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1],
)
MIXED = tuple(make_group(rewards, seed) for seed, rewards in enumerate(REWARDS, 1))
OWN, FOREIGN = MIXED[:3], MIXED[3:]
BATCHES = (MIXED, FOREIGN, (OWN[1], FOREIGN[0]), OWN[:1], (FOREIGN[1],), MIXED[::-1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts learners on demand, and closes them."""
    learners: list[Learner] = []

    def build(
        model: Qwen2ForCausalLM,
        resume_from: Path | None = None,
        temperature: float = 1.0,
        bf16: bool = False,
        **kw: Any,
    ) -> Learner:
        learner = Learner(
            model,
            tiny_tokenizer(),
            LearnConfig(**({"learning_rate": RATE, "kl_every": 0} | kw)),
            max_answers=50,
            max_answer_tokens=12,
            temperature=temperature,
            seed=2**40 + 3,
            work_dir=tmp_path / "work",
            bf16=bf16,
            resume_from=resume_from,
        )
        learners.append(learner)
        return learner

    yield build
    for learner in learners:
        learner.close()


def by_hand(
    model: torch.nn.Module,
    batches: Sequence[Sequence[Group]],
    rate: float = RATE,
    rates: Sequence[float] | None = None,
    **step: Any,
) -> torch.nn.Module:
    """The model after hand-written steps on the batches, `rates` with one learning rate each."""
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    for batch, now in zip(batches, rates or [rate] * len(batches), strict=True):
        optimizer.param_groups[0]["lr"] = now
        grpo_by_hand.step(model, optimizer, batch, **step)
    return model


def norm_by_hand(batch: Sequence[Group]) -> float:
    """Of the gradient of the first model on a batch."""
    hand = tiny_model()
    optimizer = torch.optim.AdamW(hand.parameters(), lr=RATE)
    return grpo_by_hand.step(hand, optimizer, batch)[1]


def distance(left: torch.nn.Module, right: torch.nn.Module) -> float:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("micro_batch", [64, 50, 7, 1])
def test_a_mixed_batch_gives_the_hand_written_step_in_any_micro_batches(
    start: Any, micro_batch: int
) -> None:
    model = tiny_model()
    expected = by_hand(copy.deepcopy(model), [MIXED])
    update = start(model, micro_batch_answers=micro_batch).learn(MIXED)
    assert distance(model, expected) < TOLERANCE
    assert update.skipped is None
    assert update.step == 1
    assert update.num_answers == 44
    assert update.num_tokens == sum(len(ids) for group in MIXED for ids in group.answer_ids)


def test_loss_and_gradient_norm_are_those_of_the_hand_written_step(start: Any) -> None:
    model = tiny_model()
    hand = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(hand.parameters(), lr=RATE)
    loss, norm = grpo_by_hand.step(hand, optimizer, MIXED)
    update = start(model, micro_batch_answers=20).learn(MIXED)
    assert update.loss == pytest.approx(loss, abs=1e-5)
    assert update.gradient_norm == pytest.approx(norm, rel=1e-4)


def test_the_comparison_would_see_a_foreign_answer_masked_doubled_or_judged_by_another_mean(
    start: Any,
) -> None:
    model = tiny_model()
    before = copy.deepcopy(model)
    start(model).learn(MIXED)
    foreign_answer = 24  # the first answer of the first foreign group
    for weight in (0.0, 2.0):
        mask = torch.ones(44)
        mask[foreign_answer] = weight
        wrong = by_hand(copy.deepcopy(before), [MIXED], mask=mask)
        assert distance(model, wrong) > 10 * TOLERANCE
    pooled = grpo_by_hand.normalised(REWARDS[3] + REWARDS[1])
    merged = [*MIXED[:3], replace(MIXED[3], advantages=tuple(pooled[:5])), *MIXED[4:]]
    wrong = by_hand(copy.deepcopy(before), [merged])
    assert distance(model, wrong) > 10 * TOLERANCE
    assert distance(model, by_hand(before, [MIXED])) < TOLERANCE


def positives_only(group: Group) -> Group:
    return replace(group, advantages=tuple(max(0.0, one) for one in group.advantages))


@pytest.mark.parametrize("micro_batch", [64, 7])
def test_positives_only_of_peers_and_of_earlier_rounds_give_the_hand_written_step(
    start: Any, micro_batch: int
) -> None:
    """As the strategy `fill` composes a batch: signed fresh groups, the rest without negatives."""
    model = tiny_model()
    before = copy.deepcopy(model)
    replayed = make_group([0, 1, 1, 0, 0, 0, 0, 1], 7)
    batch = (*OWN[:2], *map(positives_only, (*FOREIGN, replayed)))
    update = start(model, micro_batch_answers=micro_batch).learn(batch)
    assert distance(model, by_hand(copy.deepcopy(before), [batch])) < TOLERANCE
    assert update.num_answers == 44
    assert update.num_tokens == sum(len(ids) for group in batch for ids in group.answer_ids)
    signed = by_hand(copy.deepcopy(before), [(*OWN[:2], *FOREIGN, replayed)])
    assert distance(model, signed) > 10 * TOLERANCE
    assert update.gradient_norm == pytest.approx(norm_by_hand(batch), rel=1e-4)
    dropped = [group.taught for group in batch]
    assert update.gradient_norm != pytest.approx(norm_by_hand(dropped), rel=0.1), "fewer tokens"


def test_steps_on_batches_of_changing_size_stay_with_the_hand_written_ones(start: Any) -> None:
    model = tiny_model()
    expected = by_hand(copy.deepcopy(model), BATCHES)
    learner = start(model, micro_batch_answers=20)
    updates = [learner.learn(batch) for batch in BATCHES]
    assert [update.step for update in updates] == [1, 2, 3, 4, 5, 6]
    assert {update.learning_rate for update in updates} == {RATE}
    assert distance(model, expected) < 3 * TOLERANCE


def weighed(group: Group, *weights: float) -> Group:
    """With one weight for all answers, or with one for each."""
    size = len(group.answer_ids)
    return replace(group, weights=weights if len(weights) > 1 else weights * size)


PER_ANSWER = (1.0, 0.3, 2.0, 0.0, 1.5, 0.1, 1.0, 1.0)
WEIGHTED = (
    OWN[0],
    weighed(OWN[1], *PER_ANSWER),
    OWN[2],
    weighed(FOREIGN[0], 0.25),
    weighed(FOREIGN[1], 0.0),
    weighed(FOREIGN[2], 0.7),
)


@pytest.mark.parametrize("micro_batch", [64, 7])
def test_weights_multiply_the_advantages_of_groups_of_any_size_and_of_single_answers(
    start: Any, micro_batch: int
) -> None:
    model = tiny_model()
    before = copy.deepcopy(model)
    update = start(model, micro_batch_answers=micro_batch).learn(WEIGHTED)
    expected = by_hand(copy.deepcopy(before), [WEIGHTED])
    assert distance(model, expected) < TOLERANCE
    per_group = (*WEIGHTED[:1], weighed(OWN[1], sum(PER_ANSWER) / 8), *WEIGHTED[2:])
    for wrong in (MIXED, per_group):
        assert distance(model, by_hand(copy.deepcopy(before), [wrong])) > 10 * TOLERANCE
    assert update.num_tokens == sum(len(ids) for group in MIXED for ids in group.answer_ids)


def test_a_group_of_weight_zero_counts_in_the_mean_over_tokens_as_one_of_a_small_weight(
    start: Any,
) -> None:
    norm = start(tiny_model()).learn(WEIGHTED).gradient_norm
    small = weighed(WEIGHTED[4], 1e-6)
    nearly = start(tiny_model()).learn((*WEIGHTED[:4], small, WEIGHTED[5])).gradient_norm
    assert norm == pytest.approx(nearly, rel=1e-4)
    assert norm == pytest.approx(norm_by_hand(WEIGHTED), rel=1e-4)
    without = norm_by_hand(WEIGHTED[:4] + WEIGHTED[5:])
    assert norm != pytest.approx(without, rel=1e-2), "a smaller denominator"


def test_a_kl_weight_acts_on_a_group_of_weight_zero(start: Any) -> None:
    model = tiny_model()
    kl: dict[str, Any] = {"kl_weight": 0.5, "reference": copy.deepcopy(model), "rate": 1e-3}
    expected = by_hand(copy.deepcopy(model), [WEIGHTED, WEIGHTED], **kl)
    learner = start(model, kl_weight=0.5, learning_rate=1e-3)
    learner.learn(WEIGHTED)
    learner.learn(WEIGHTED)
    assert distance(model, expected) < 3e-5


def test_the_effective_sample_size_is_a_share_of_the_answers_that_have_a_gradient() -> None:
    assert effective_sample_size([]) == 0
    assert effective_sample_size([OWN[2]]) == 0
    assert effective_sample_size(OWN) == 1
    assert effective_sample_size([weighed(FOREIGN[1], 0.0)]) == 0
    assert effective_sample_size([weighed(FOREIGN[1], 0.2)]) == pytest.approx(1), "all alike"
    # Two groups of 8 and of 3 answers, weighing 1 and 1/2: (9.5)^2 / 8.75 of 11.
    pair = (OWN[0], weighed(FOREIGN[1], 0.5))
    assert effective_sample_size(pair) == pytest.approx(9.5**2 / 8.75 / 11)
    one = positives_only(OWN[1])
    assert effective_sample_size([weighed(one, *(9.0,) * 7, 0.1)]) == pytest.approx(1)


def test_the_guard_scales_the_rate_of_this_step_by_the_root_of_the_sample_size(start: Any) -> None:
    model = tiny_model()
    before = copy.deepcopy(model)
    share = effective_sample_size(WEIGHTED)
    assert 0.3 < share < 0.9
    low = RATE * math.sqrt(share)
    learner = start(model, ess_guard=True)
    first = learner.learn(WEIGHTED)
    assert first.effective_sample_size == share
    assert first.learning_rate == pytest.approx(low)
    expected = by_hand(copy.deepcopy(before), [WEIGHTED], rates=[low])
    assert distance(model, expected) < TOLERANCE
    assert distance(model, by_hand(copy.deepcopy(before), [WEIGHTED])) > 2 * TOLERANCE
    second = learner.learn(MIXED)
    assert second.learning_rate == RATE, "the schedule's own is back"
    expected = by_hand(copy.deepcopy(before), [WEIGHTED, MIXED], rates=[low, RATE])
    assert distance(model, expected) < TOLERANCE


def test_the_guard_acts_in_every_iteration_on_top_of_the_schedule_and_over_a_restart(
    start: Any, tmp_path: Path
) -> None:
    settings = {
        "ess_guard": True,
        "num_iterations": 2,
        "schedule": "constant_with_warmup",
        "warmup_steps": 8,
        "learning_rate": 8e-4,
    }
    low = math.sqrt(effective_sample_size(WEIGHTED))
    learner = start(tiny_model(), **settings)
    rates = [learner.learn(batch).learning_rate for batch in (WEIGHTED, MIXED, WEIGHTED)]
    learner.save(tmp_path)
    learner.close()
    learner = start(tiny_model(), resume_from=tmp_path, **settings)
    rates += [learner.learn(batch).learning_rate for batch in (MIXED, WEIGHTED, MIXED)]
    assert rates == pytest.approx([1e-4 * low, 3e-4, 5e-4 * low, 7e-4, 8e-4 * low, 8e-4])


def test_where_no_answer_has_a_weight_the_kl_term_moves_at_the_full_rate(start: Any) -> None:
    learner = start(tiny_model(), ess_guard=True, kl_weight=0.5)
    assert learner.learn(OWN[2:]).learning_rate == RATE


def test_a_batch_whose_lessons_all_have_weight_zero_is_skipped(start: Any) -> None:
    model = tiny_model()
    before = copy.deepcopy(model)
    update = start(model).learn((OWN[2], weighed(FOREIGN[0], 0.0)))
    assert update.skipped == "no informative group"
    assert update.num_answers == 13
    assert distance(model, before) == 0


def logps_one_by_one(
    model: torch.nn.Module, groups: Sequence[Group], temperature: float = 1.0
) -> list[float]:
    """Mean log-probability per token of each answer: one at a time, no padding."""
    means = []
    for group in groups:
        for ids in group.answer_ids:
            tokens = torch.tensor([group.prompt_ids + ids])
            with torch.no_grad():
                logits = model(input_ids=tokens).logits[0, :-1] / temperature
            scored = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
            means.append(float(scored[len(group.prompt_ids) - 1 :].mean()))
    return means


def flat(logps: Sequence[Sequence[float]]) -> list[float]:
    return [one for group in logps for one in group]


@pytest.mark.parametrize("micro_batch", [64, 7, 1])
def test_likelihoods_are_those_of_each_answer_alone_whatever_it_is_padded_to(
    start: Any, micro_batch: int
) -> None:
    model = tiny_model()
    learner = start(model, micro_batch_answers=micro_batch)
    found = learner.answer_logps(MIXED)
    assert [len(one) for one in found] == [len(group.answer_ids) for group in MIXED]
    assert flat(found) == pytest.approx(logps_one_by_one(model, MIXED), abs=1e-5)
    [first] = learner.answer_logps(MIXED[:1])
    prompt, ids = MIXED[0].prompt_ids, MIXED[0].answer_ids[0]
    tokens = token_logps(model, prompt + ids)[len(prompt) - 1 :]
    assert first[0] == pytest.approx(sum(tokens) / len(ids), abs=1e-5)
    assert learner.answer_logps([]) == []
    assert learner.answer_logps([OWN[2].taught]) == [()]
    many = learner.answer_logps(MIXED * 2)
    assert flat(many) == pytest.approx(flat(found) * 2, abs=1e-5), "more than a batch may have"


@pytest.mark.parametrize("settings", [{"lora_rank": 4}, {"gradient_checkpointing": True}])
def test_likelihoods_are_of_the_model_as_it_is_now_at_the_sampling_temperature(
    start: Any, settings: dict[str, Any]
) -> None:
    learner = start(tiny_model(), temperature=0.7, learning_rate=1e-2, **settings)
    first = flat(learner.answer_logps(FOREIGN))
    assert first == pytest.approx(logps_one_by_one(learner.model, FOREIGN, 0.7), abs=1e-5)
    learner.learn(MIXED)
    learner.learn(MIXED)
    now = flat(learner.answer_logps(FOREIGN))
    assert now == pytest.approx(logps_one_by_one(learner.model, FOREIGN, 0.7), abs=1e-5)
    assert now != pytest.approx(first, abs=1e-3)


STARTS: tuple[dict[str, Any], ...] = ({"kl_every": 1}, {"kl_weight": 0.5}, {"lora_rank": 4})


@pytest.mark.parametrize("settings", STARTS)
def test_likelihoods_of_the_start_stay_what_they_were_also_after_a_restart(
    start: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = tiny_model()
    expected = logps_one_by_one(copy.deepcopy(model), MIXED, 0.7)
    settings = {"temperature": 0.7, "learning_rate": 1e-2, "micro_batch_answers": 20} | settings
    learner = start(model, **settings)
    for _ in range(2):
        learner.learn(MIXED)
        logps = learner.answer_logps(MIXED, of_start=True)
        assert flat(logps) == pytest.approx(expected, abs=1e-5)
    now = flat(learner.answer_logps(MIXED))
    assert now != pytest.approx(expected, abs=1e-3)
    learner.save(tmp_path)
    learner.close()
    resumed = start(tiny_model(), resume_from=tmp_path, **settings)
    logps = resumed.answer_logps(MIXED, of_start=True)
    assert flat(logps) == pytest.approx(expected, abs=1e-5)
    assert flat(resumed.answer_logps(MIXED)) == pytest.approx(now, abs=1e-5)


@pytest.mark.parametrize("settings", STARTS)
def test_asking_for_likelihoods_does_not_disturb_learning(
    start: Any, settings: dict[str, Any]
) -> None:
    def learn(asks: bool) -> torch.nn.Module:
        learner = start(tiny_model(), micro_batch_answers=20, learning_rate=1e-3, **settings)
        for batch in (MIXED, FOREIGN):
            if asks:
                learner.answer_logps(FOREIGN)
                learner.answer_logps(FOREIGN, of_start=True)
            learner.learn(batch)
        assert all(parameter.grad is None for parameter in learner.model.parameters())
        model: torch.nn.Module = learner.model
        return model

    assert distance(learn(asks=True), learn(asks=False)) == 0


def test_the_start_is_kept_in_the_dtype_of_generation_and_only_where_it_is_needed(
    start: Any,
) -> None:
    def kept(**settings: Any) -> Any:
        start_model = start(tiny_model(), **settings)._trainer.ref_model
        return start_model and {one.dtype for one in start_model.parameters()}

    assert kept(kl_every=0) is None
    assert kept(kl_every=5, lora_rank=4) is None
    assert kept(kl_every=5) == {torch.float32}
    assert kept(kl_every=5, bf16=True) == {torch.bfloat16}
    assert kept(kl_every=5, kl_weight=0.1, bf16=True) == {torch.float32}
    half = start(tiny_model(), kl_every=5, bf16=True)
    logps = flat(half.answer_logps(MIXED, of_start=True))
    assert logps == pytest.approx(flat(half.answer_logps(MIXED)), abs=0.1)


def test_a_malformed_group_has_no_likelihood(start: Any) -> None:
    bad = Group(FOREIGN[1].prompt_ids, ((5,), (VOCABULARY,)), (1, 0))
    with pytest.raises(ValueError, match=r"group 1 of the batch: answer 1 .* outside"):
        start(tiny_model()).answer_logps((FOREIGN[1], bad))


def test_several_iterations_clip_as_the_hand_written_steps_do(start: Any) -> None:
    model = tiny_model()
    expected = by_hand(copy.deepcopy(model), [MIXED, FOREIGN], rate=3e-3, num_iterations=3)
    unclipped = by_hand(
        copy.deepcopy(model), [MIXED, FOREIGN], 3e-3, num_iterations=3, epsilon=0.9, epsilon_high=9
    )
    learner = start(model, learning_rate=3e-3, num_iterations=3, micro_batch_answers=20)
    first, second = learner.learn(MIXED), learner.learn(FOREIGN)
    assert (first.step, second.step) == (3, 6)
    assert 0 < first.clip_share < 1
    assert distance(model, expected) < 1e-4
    assert distance(model, unclipped) > 1e-3


def test_the_sampling_temperature_is_that_of_the_log_probabilities(start: Any) -> None:
    model = tiny_model()
    before = copy.deepcopy(model)
    start(model, temperature=0.7).learn(MIXED)
    assert distance(model, by_hand(copy.deepcopy(before), [MIXED], temperature=0.7)) < TOLERANCE
    assert distance(model, by_hand(before, [MIXED])) > 10 * TOLERANCE


def test_a_kl_weight_pulls_towards_the_start(start: Any) -> None:
    model = tiny_model()
    reference = copy.deepcopy(model)
    kl: dict[str, Any] = {"kl_weight": 0.5, "reference": reference, "rate": 1e-3}
    expected = by_hand(copy.deepcopy(model), [MIXED, MIXED, OWN[2:]], **kl)
    without = by_hand(copy.deepcopy(model), [MIXED, MIXED], rate=1e-3)
    learner = start(model, kl_weight=0.5, learning_rate=1e-3, micro_batch_answers=20)
    learner.learn(MIXED)
    learner.learn(MIXED)
    assert learner.learn(OWN[2:]).skipped is None, "it has the gradient of the KL term"
    assert distance(model, expected) < 3e-5
    assert distance(model, without) > 1e-4


def test_gradient_checkpointing_changes_nothing_but_memory(start: Any) -> None:
    model = tiny_model()
    expected = by_hand(copy.deepcopy(model), [MIXED])
    start(model, gradient_checkpointing=True).learn(MIXED)
    assert distance(model, expected) < TOLERANCE


def test_advantages_are_those_of_trl() -> None:
    assert advantages([1, 0, 0, 0]) == pytest.approx([0.75 / 0.5001] + [-0.25 / 0.5001] * 3)
    assert advantages([1, 1, 1]) == (0, 0, 0)
    rewards = [0.3, 1.0, 0.0, 0.25, 0.3]
    tensor = torch.tensor([rewards])
    std = trl_utils.nanstd(tensor, dim=1)
    expected = (tensor - tensor.mean()) / (std + 1e-4)
    assert advantages(rewards) == pytest.approx(expected[0].tolist(), abs=1e-6)


@pytest.mark.parametrize(("batch", "reason"), [(OWN[2:], "no informative group"), ((), "empty")])
def test_a_batch_without_a_lesson_moves_neither_weights_nor_momentum(
    start: Any, batch: Sequence[Group], reason: str
) -> None:
    model = tiny_model()
    learner = start(model, learning_rate=1e-3)
    learner.learn(MIXED)
    before = copy.deepcopy(model.state_dict())
    update = learner.learn(batch)
    assert reason in (update.skipped or "")
    assert update.step == 1
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    expected = by_hand(tiny_model(), [MIXED, FOREIGN], 1e-3)
    learner.learn(FOREIGN)
    assert distance(model, expected) < 1e-4


def test_only_answers_with_an_advantage_are_computed_and_padded_to_the_longest(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    shapes: list[tuple[int, ...]] = []
    scored: list[int] = []
    model.model.embed_tokens.register_forward_pre_hook(
        lambda _, inputs: shapes.append(tuple(inputs[0].shape))
    )
    score = trl_utils._ChunkedLogProbFunction.apply

    def record(hidden: torch.Tensor, *rest: Any) -> Any:
        scored.append(len(hidden))
        return score(hidden, *rest)

    monkeypatch.setattr(trl_utils._ChunkedLogProbFunction, "apply", record)
    batch = (OWN[0], OWN[2], FOREIGN[1])
    start(model).learn(batch)
    kept = (OWN[0], FOREIGN[1])
    longest_prompt = max(len(group.prompt_ids) for group in kept)
    lengths = [len(ids) for group in kept for ids in group.answer_ids]
    assert shapes == [(11, longest_prompt + max(lengths))]
    assert scored == [sum(lengths)]


def test_a_small_batch_costs_no_more_passes_than_it_needs(start: Any) -> None:
    model = tiny_model()
    expected = by_hand(copy.deepcopy(model), [FOREIGN[:2], FOREIGN[1:2], MIXED])
    rows: list[int] = []
    model.model.embed_tokens.register_forward_pre_hook(
        lambda _, inputs: rows.append(len(inputs[0]))
    )
    learner = start(model, micro_batch_answers=7)
    updates = [learner.learn(batch) for batch in (FOREIGN[:2], FOREIGN[1:2], MIXED)]
    assert rows == [4, 4, 3, 6, 6, 6, 6, 6, 6], "8 rows, 3 rows, and 36 of 44 with an advantage"
    assert [update.step for update in updates] == [1, 2, 3]
    assert distance(model, expected) < 3 * TOLERANCE


GOOD = FOREIGN[1]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (Group(GOOD.prompt_ids, ((5, 1), (), (6,)), (1, 0, 0)), "answer 1 is empty"),
        (Group((), GOOD.answer_ids, GOOD.advantages), "the prompt is empty"),
        (Group(GOOD.prompt_ids, ((5,), (VOCABULARY,)), (1, 0)), "answer 1 .* outside"),
        (Group((5, -1), ((5,), (6,)), (1, 0)), "the prompt .* outside"),
        (Group(GOOD.prompt_ids, ((5,) * 13, (6,)), (1, 0)), "13 tokens, at most 12"),
        (Group((5,) * 60, ((5,) * 5, (6,)), (1, 0)), "64 positions"),
        (Group(GOOD.prompt_ids, ((5,), (6,)), (1,)), "2 answers, but 1 advantages"),
        (Group(GOOD.prompt_ids, ((5,), (6,)), (1, 0), (1.0,)), "2 answers, but 1 weights"),
        (Group(GOOD.prompt_ids, ((5,), (6,)), (1, 0), (1.0, -0.5)), "weight -0.5"),
        (Group(GOOD.prompt_ids, ((5,), (6,)), (1, 0), (float("inf"), 1.0)), "weight inf"),
        (Group(GOOD.prompt_ids, ((5,), (6,)), (1, float("nan"))), "not finite"),
    ],
)
def test_a_malformed_group_is_refused_by_name_and_learning_goes_on(
    start: Any, bad: Group, problem: str
) -> None:
    model = tiny_model()
    before = copy.deepcopy(model)
    learner = start(model)
    with pytest.raises(ValueError, match=f"group 1 of the batch: .*{problem}"):
        learner.learn((GOOD, bad))
    assert distance(model, before) == 0
    assert learner.learn((GOOD,)).step == 1


def test_a_batch_beyond_the_limit_is_refused(start: Any) -> None:
    with pytest.raises(ValueError, match="52 answers, at most 50"):
        start(tiny_model()).learn((*MIXED, OWN[0]))


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_three_steps_saved_and_three_more_equal_six(
    start: Any, tmp_path: Path, lora_rank: int
) -> None:
    settings = {"lora_rank": lora_rank, "learning_rate": 1e-3, "micro_batch_answers": 20}
    through = start(tiny_model(), **settings)
    for batch in BATCHES:
        through.learn(batch)
    first = start(tiny_model(), **settings)
    for batch in BATCHES[:3]:
        first.learn(batch)
    saved = tmp_path / "saved"
    saved.mkdir()
    first.save(saved)
    first.close()
    # A full checkpoint replaces the weights; an adapter needs the start's.
    second = start(tiny_model(seed=0 if lora_rank else 9), resume_from=saved, **settings)
    assert second.step == 3
    for batch in BATCHES[3:]:
        second.learn(batch)
    assert second.step == 6
    assert distance(second.model, through.model) == 0


def test_saving_does_not_disturb_what_follows(start: Any, tmp_path: Path) -> None:
    model = tiny_model()
    expected = by_hand(copy.deepcopy(model), [MIXED, FOREIGN])
    learner = start(model)
    learner.learn(MIXED)
    learner.save(tmp_path)
    learner.learn(FOREIGN)
    assert distance(model, expected) < 3 * TOLERANCE


def test_settings_of_today_win_over_those_of_the_checkpoint(start: Any, tmp_path: Path) -> None:
    learner = start(tiny_model(), learning_rate=1e-3)
    learner.learn(MIXED)
    learner.save(tmp_path)
    learner.close()
    resumed = start(tiny_model(), resume_from=tmp_path, learning_rate=3e-4, weight_decay=0.1)
    assert [resumed.learn(MIXED).learning_rate for _ in range(2)] == [3e-4, 3e-4]
    groups = resumed._trainer.optimizer.param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.1]


def test_warmup_raises_the_rate_and_goes_on_after_a_restart(start: Any, tmp_path: Path) -> None:
    settings = {"schedule": "constant_with_warmup", "warmup_steps": 4, "learning_rate": 1e-3}
    learner = start(tiny_model(), **settings)
    rates = [learner.learn(MIXED).learning_rate for _ in range(3)]
    learner.save(tmp_path)
    learner.close()
    resumed = start(tiny_model(), resume_from=tmp_path, **settings)
    rates += [resumed.learn(MIXED).learning_rate for _ in range(3)]
    assert rates == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_an_adapter_step_is_the_hand_written_one_and_leaves_the_base_alone(
    start: Any, tmp_path: Path
) -> None:
    model = tiny_model()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hand = get_peft_model(
        copy.deepcopy(model), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    )
    learner = start(model, lora_rank=4)
    hand.load_state_dict(learner.model.state_dict())
    learner.learn(MIXED)
    learner.learn(FOREIGN)
    by_hand(hand, [MIXED, FOREIGN])
    assert distance(learner.model, hand) < TOLERANCE
    now = learner.model.state_dict()
    for name, before in base.items():
        wrapped = f"base_model.model.{name}"
        if wrapped not in now:
            stem, _, kind = wrapped.rpartition(".")
            wrapped = f"{stem}.base_layer.{kind}"
        assert torch.equal(now[wrapped], before), name
    moved = {name for name, tensor in now.items() if "lora_B" in name and tensor.any()}
    assert len(moved) == 2 * 7, "attention (4) and MLP (3) projections of both layers"
    learner.save(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 7
    assert not any("lm_head" in name or "embed" in name for name in tensors)


@pytest.mark.parametrize(
    ("lora_rank", "weights"),
    [
        (0, {"config.json", "generation_config.json", "model.safetensors"}),
        (4, {"adapter_config.json", "adapter_model.safetensors"}),
    ],
)
def test_nothing_is_printed_sent_or_written_besides_the_checkpoint(
    start: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lora_rank: int,
    weights: set[str],
) -> None:
    asked: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    learner = start(tiny_model(), lora_rank=lora_rank)
    learner.learn(MIXED)
    learner.save(directory)
    learner.close()
    start(tiny_model(), resume_from=directory, lora_rank=lora_rank).learn(MIXED)
    assert asked == []
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    assert list((tmp_path / "work").iterdir()) == []
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    trainer = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    assert {path.name for path in directory.iterdir()} == weights | tokenizer | trainer


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_learners_of_one_process_are_as_each_alone(start: Any, lora_rank: int) -> None:
    """Other batches, rates, micro-batches and arithmetic beside it change nothing."""
    settings = {"lora_rank": lora_rank, "learning_rate": 1e-3, "micro_batch_answers": 20}
    alone = start(tiny_model(), **settings)
    for batch in (MIXED, FOREIGN):
        alone.learn(batch)
    before = start(tiny_model(1), micro_batch_answers=7, kl_every=1)
    among = start(tiny_model(), **settings)
    after = start(tiny_model(2), num_iterations=2, ess_guard=True, temperature=0.5)
    for batch in (MIXED, FOREIGN):
        for other in (before, after):
            other.learn(WEIGHTED[3:])
        among.learn(batch)
    assert distance(among.model, alone.model) == 0
    before.close()
    after.close()
    assert among.learn(FOREIGN[1:2]).step == 3, "the end of others is not its end"


def test_what_is_closed_and_forgotten_frees_its_memory(tmp_path: Path) -> None:
    model = tiny_model()
    learner = Learner(
        model,
        tiny_tokenizer(),
        LearnConfig(kl_every=1),
        max_answers=50,
        max_answer_tokens=12,
        temperature=1.0,
        seed=1,
        work_dir=tmp_path,
    )
    learner.learn(MIXED)
    trainer = learner._trainer
    kept = [trainer, trainer.model, trainer.ref_model, trainer.optimizer.optimizer]
    alive = [weakref.ref(one) for one in kept]
    thread = learner._thread
    learner.close()
    assert not thread.is_alive()
    del model, learner, trainer, kept
    gc.collect()
    assert [one() for one in alive] == [None] * 4


def test_no_history_is_kept(start: Any) -> None:
    learner = start(tiny_model())
    for _ in range(3):
        learner.learn(OWN[:1])
    trainer = learner._trainer
    assert trainer.state.log_history == []
    assert trainer.steps == []
    assert not trainer._metrics["train"]


def test_a_gradient_that_is_not_finite_fails_loudly_and_leaves_the_weights(start: Any) -> None:
    model = tiny_model()
    learner = start(model)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(LearnerFailed, match="norm of the gradient is nan") as failure:
        learner.learn(MIXED)
    assert isinstance(failure.value.__cause__, NonFiniteGradient)
    assert "_get_grad_norm" in "".join(traceback.format_exception(failure.value))
    now = model.state_dict()
    assert all(before[name].equal(now[name]) for name in now if not now[name].isnan().any())
    for again in (lambda: learner.learn(MIXED), lambda: learner.save(Path("nowhere"))):
        with pytest.raises(LearnerFailed):
            again()
    learner.close()


def test_a_trainer_that_cannot_resume_says_so_at_once(start: Any, tmp_path: Path) -> None:
    with pytest.raises(LearnerFailed, match="valid checkpoint"):
        start(tiny_model(), resume_from=tmp_path)


def test_a_checkpoint_of_another_kind_is_refused(start: Any, tmp_path: Path) -> None:
    learner = start(tiny_model())
    learner.save(tmp_path)
    learner.close()
    with pytest.raises(LearnerFailed, match="of another model"):
        start(tiny_model(), resume_from=tmp_path, lora_rank=4)


def test_a_save_that_fails_does_not_end_learning(start: Any, tmp_path: Path) -> None:
    learner = start(tiny_model())
    learner.learn(MIXED)
    with pytest.raises(NotADirectoryError, match="nowhere"):
        learner.save(tmp_path / "nowhere")
    assert learner.learn(MIXED).step == 2


def test_closing_ends_the_thread_and_may_be_repeated(start: Any) -> None:
    before = set(threading.enumerate())
    learner = start(tiny_model())
    assert set(threading.enumerate()) - before
    learner.learn(MIXED)
    learner.close()
    learner.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(LearnerFailed):
        learner.learn(MIXED)


REPORT = RoundReport(
    3, 0.25, 0.5, 0.0, 1, 2, 0, 10, 1.0, 1.0, None, math.nan, 1.0, 1e-4, 0.0, {"generating": 2.0}
)


def test_what_is_reported_are_the_plain_numbers() -> None:
    found = figures(REPORT)
    assert (found["own_reward"], found["tokens_per_s"], found["round"]) == (0.25, 5.0, 3)
    assert "loss" not in found, "it is not a number"
    assert set(figures(HeldOutStatus(3, 0.5, math.nan, 1))) == {"round", "mean", "num_questions"}


def test_tensorboard_is_sent_the_figures_of_steps_rounds_and_evaluations(
    start: Any, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learner = start(tiny_model(), report_to="tensorboard")
    updates = [learner.learn(batch) for batch in BATCHES[:2]]
    learner.report(REPORT)
    learner.report(HeldOutStatus(3, 0.5, 0.125, 8))
    learner.close()
    (directory,) = (tmp_path / "work" / "runs").iterdir()
    events = EventAccumulator(str(directory))
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [one.step for one in losses] == [1, 2]
    for one, update in zip(losses, updates, strict=True):
        assert one.value == pytest.approx(update.loss, rel=1e-5)
    (reward,) = events.Scalars("train/round/own_reward")
    assert (reward.step, reward.value) == (2, 0.25)
    (heldout,) = events.Scalars("train/heldout/mean")
    assert (heldout.step, heldout.value) == (2, 0.5)
    tags = events.Tags()["scalars"]
    assert "train/clip_ratio/region_mean" in tags
    assert not [tag for tag in tags if tag.startswith("train/reward")], "TRL does not know them"


def test_reporting_changes_no_step(start: Any) -> None:
    plain, reporting = tiny_model(), tiny_model()
    start(plain).learn(MIXED)
    start(reporting, report_to="tensorboard").learn(MIXED)
    assert distance(plain, reporting) == 0


def test_wandb_is_sent_them_too(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline: what it would send stands in a file. Its servers were never tried."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    learner = start(tiny_model(), report_to="wandb")
    learner.learn(MIXED)
    learner.report(REPORT)
    learner.close()
    import wandb

    wandb.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"train/loss" in content
    assert b"train/round/own_reward" in content


def test_a_reporter_that_is_not_installed_is_named(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="report_to = wandb: it is not installed here; run: pip"):
        start(tiny_model(), report_to="wandb")
