"""Both engines behind the seam: what they promise together, and what each does alone."""

import math
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from node.generate import (
    GenerationFailed,
    Generator,
    ProbeMismatch,
    Sampling,
    check_probe,
    stream_seed,
    token_logps,
)
from node.generate_transformers import TransformersGenerator
from node.generate_vllm import VllmGenerator, vllm_problem

EOS, PAD, VOCABULARY = 1, 0, 304  # of the models in conftest.py
PROMPTS = [[5, 6, 7], list(range(10, 50)), [9] * 20]
SEEDS = [11, 12, 13]
SAMPLING = Sampling(num_answers=6, max_new_tokens=12)
PROBE = [(7 * i) % 290 + 2 for i in range(40)]


def load(model_dir: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
    return model


def ends_sometimes(model: torch.nn.Module) -> torch.nn.Module:
    """The model with flatter distributions, so that its answers end at different lengths."""
    with torch.no_grad():
        model.model.norm.weight.mul_(0.2)
    return model


StartVllm = Callable[..., VllmGenerator]


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def engine(
    request: pytest.FixtureRequest, tied_model_dir: Path
) -> tuple[Generator, torch.nn.Module]:
    """Each engine with one model whose answers end at different lengths."""
    model = ends_sometimes(load(tied_model_dir))
    if request.param == "transformers":
        return TransformersGenerator(model, [EOS], PAD, max_len=128), model
    generator: VllmGenerator = request.getfixturevalue("vllm_engine")(tied_model_dir)
    generator.sync(model)
    return generator, model


def test_every_prompt_gets_its_number_of_answers_with_a_logp_per_token(engine) -> None:
    generator, _ = engine
    answers = generator.generate(PROMPTS, SEEDS, SAMPLING)
    assert [len(group) for group in answers] == [SAMPLING.num_answers] * len(PROMPTS)
    for completion in (one for group in answers for one in group):
        assert 1 <= len(completion.token_ids) <= SAMPLING.max_new_tokens
        assert len(completion.logps) == len(completion.token_ids)
        assert all(math.isfinite(logp) and logp <= 0 for logp in completion.logps)


def test_an_answer_is_finished_exactly_if_its_last_token_ends_it(engine) -> None:
    generator, _ = engine
    prompts = [[i, i + 1] for i in range(2, 42)]
    answers = generator.generate(prompts, list(range(40)), Sampling(8, 24))
    every = [one for group in answers for one in group]
    for completion in every:
        assert completion.finished == (completion.token_ids[-1] == EOS)
        assert EOS not in completion.token_ids[:-1]
        assert completion.finished or len(completion.token_ids) == 24
    assert {one.finished for one in every} == {True, False}


def test_logps_are_the_models_under_the_sampling_distribution(engine) -> None:
    generator, model = engine
    sampling = Sampling(4, 12, temperature=0.7)
    for prompt, group in zip(PROMPTS, generator.generate(PROMPTS, SEEDS, sampling), strict=True):
        for completion in group:
            ids = torch.tensor([[*prompt, *completion.token_ids]])
            with torch.no_grad():
                logits = model.eval()(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            logps = (logits / 0.7).log_softmax(-1)
            expected = logps.gather(-1, ids[0, len(prompt) :, None])[:, 0].tolist()
            assert completion.logps == pytest.approx(expected, abs=1e-4)


def test_the_same_seeds_give_the_same_answers_and_other_seeds_others(engine) -> None:
    generator, _ = engine
    first = generator.generate(PROMPTS, SEEDS, SAMPLING)
    assert generator.generate(PROMPTS, SEEDS, SAMPLING) == first
    assert generator.generate(PROMPTS, [21, 22, 23], SAMPLING) != first
    assert all(len({one.token_ids for one in group}) > 1 for group in first)


def test_order_and_company_of_a_prompt_do_not_change_its_tokens(engine) -> None:
    generator, _ = engine
    together = generator.generate(PROMPTS, SEEDS, SAMPLING)
    backwards = generator.generate(PROMPTS[::-1], SEEDS[::-1], SAMPLING)[::-1]
    alone = generator.generate(PROMPTS[1:2], SEEDS[1:2], SAMPLING)
    assert _tokens(backwards) == _tokens(together)
    assert _tokens(alone) == _tokens(together[1:2])


def test_more_prompts_than_fit_one_step_of_the_engine_are_answered(engine) -> None:
    # With chunked prefill the prompt at the border was cut, and vLLM died: it rewinds the random
    # stream of such a request, which a CPU generator cannot.
    prompts = [[2 + (number + place) % 300 for place in range(37)] for number in range(130)]
    generator, _ = engine
    answers = generator.generate(prompts, list(range(130)), Sampling(1, 1))
    assert [len(one) for one in answers] == [1] * 130


def test_neighbouring_seeds_do_not_share_answers(engine) -> None:
    generator, _ = engine
    [five, six] = generator.generate([PROMPTS[0]] * 2, [5, 6], SAMPLING)
    assert not {one.token_ids for one in five} & {one.token_ids for one in six}


def test_tokens_are_drawn_as_often_as_the_model_says(engine) -> None:
    generator, model = engine
    groups = generator.generate([PROMPTS[0]] * 10, list(range(100, 110)), Sampling(200, 1))
    counts = Counter(one.token_ids[0] for group in groups for one in group)
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    probabilities = logits.softmax(-1).double()
    likely = [token for token in range(VOCABULARY) if probabilities[token] > 0.004]
    assert len(likely) > 10
    chi_squared = sum(
        (counts[token] - 2000 * float(probabilities[token])) ** 2
        / (2000 * float(probabilities[token]))
        for token in likely
    )
    # Mean n, standard deviation sqrt(2 n): six of them away only if the distribution is wrong.
    assert chi_squared < len(likely) + 6 * math.sqrt(2 * len(likely))


def test_the_probe_agrees_after_a_sync(engine) -> None:
    generator, model = engine
    assert check_probe(generator, model, PROBE) < 1e-4


def test_requests_that_cannot_be_answered_are_refused(engine) -> None:
    generator, _ = engine
    with pytest.raises(ValueError, match="a prompt of 117 tokens"):
        generator.generate([[5] * 117], [1], SAMPLING)
    with pytest.raises(ValueError, match="a prompt of 0 tokens"):
        generator.generate([[]], [1], SAMPLING)
    with pytest.raises(ValueError, match="2 seeds"):
        generator.generate([[5]], [1, 2], SAMPLING)
    with pytest.raises(ValueError, match="temperature"):
        generator.generate([[5]], [1], Sampling(2, 4, temperature=0.0))
    assert generator.generate([[5] * 116], [1], SAMPLING)[0][0].token_ids


def test_no_prompts_give_no_answers(engine) -> None:
    generator, _ = engine
    assert generator.generate([], [], SAMPLING) == []


# -- the probe


class _StaleGenerator(TransformersGenerator):
    """An engine that forgets to take the weights."""

    def sync(self, model: torch.nn.Module) -> None:
        pass


class _NanGenerator(TransformersGenerator):
    """An engine whose arithmetic has broken."""

    def score(self, token_ids: Sequence[int]) -> list[float]:
        return [math.nan] * (len(token_ids) - 1)


def test_a_stale_engine_fails_the_probe_with_the_numbers(tied_model_dir: Path) -> None:
    model, old = load(tied_model_dir), load(tied_model_dir)
    change(model)
    generator = _StaleGenerator(old, [EOS])
    generator.sync(model)
    with pytest.raises(ProbeMismatch, match=r"log-probability -\d+\.\d{4}, the trainer -\d+"):
        check_probe(generator, model, PROBE)
    assert issubclass(ProbeMismatch, GenerationFailed)


def test_an_engine_that_scores_nan_fails_the_probe(tied_model_dir: Path) -> None:
    model = load(tied_model_dir)
    with pytest.raises(ProbeMismatch, match="nan"):
        check_probe(_NanGenerator(model, [EOS]), model, PROBE)


# -- transformers alone


def test_answers_do_not_depend_on_how_many_rows_are_sampled_at_once(tied_model_dir: Path) -> None:
    model = ends_sometimes(load(tied_model_dir))
    wide = TransformersGenerator(model, [EOS], PAD, max_rows=64)
    narrow = TransformersGenerator(model, [EOS], PAD, max_rows=4)
    expected = _tokens(wide.generate(PROMPTS, SEEDS, SAMPLING))
    assert _tokens(narrow.generate(PROMPTS, SEEDS, SAMPLING)) == expected


def test_sampling_leaves_the_trainer_as_it_was(tied_model_dir: Path) -> None:
    model = load(tied_model_dir)
    model.train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    generator = TransformersGenerator(model, [EOS], PAD)
    generator.generate(PROMPTS, SEEDS, SAMPLING)
    generator.score(PROBE)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    loss = model(input_ids=torch.tensor([PROBE]), labels=torch.tensor([PROBE])).loss
    loss.backward()  # fails on tensors that inference mode has touched


def test_streams_are_stable_and_apart() -> None:
    assert stream_seed(5, 1) != stream_seed(6, 0)
    assert stream_seed(11) == 1529454778167216056  # sha256 of "11 0"
    assert all(0 <= stream_seed(seed, 3) < 2**62 for seed in range(1000))


# -- vLLM alone


def change(model: torch.nn.Module, seed: int = 1) -> None:
    """New weights, far from the old ones."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


@pytest.mark.vllm
def test_starting_an_engine_leaves_the_trainers_random_numbers_alone(
    vllm_engine: StartVllm, untied_model_dir: Path
) -> None:
    torch.manual_seed(42)
    random.seed(42)
    states = torch.get_rng_state(), random.getstate()
    vllm_engine(untied_model_dir)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.vllm
def test_a_head_size_that_vllm_cannot_take_is_named(
    tmp_path: Path, tied_model_dir: Path, write_model: Callable[..., Path]
) -> None:
    assert vllm_problem() is None
    assert vllm_problem(tied_model_dir) is None
    small = write_model(tmp_path / "small", tied=True, head_size=16)
    problem = vllm_problem(small)
    if torch.cuda.is_available():
        pytest.skip("a GPU takes such heads")
    assert problem is not None and "32, 64, 80" in problem and problem.endswith("not 16")


@pytest.mark.vllm
def test_an_engine_that_cannot_start_fails_with_its_reason(
    vllm_engine: StartVllm, tied_model_dir: Path, tmp_path: Path
) -> None:
    running = vllm_engine(tied_model_dir)
    with pytest.raises(GenerationFailed, match="close that one first"):
        VllmGenerator(tied_model_dir, eos_token_ids=[EOS], dtype="float32", max_len=128)
    assert running.score(PROBE)
    running.close()
    with pytest.raises(GenerationFailed, match="vLLM does not start"):
        VllmGenerator(tmp_path / "missing", eos_token_ids=[EOS], dtype="float32", max_len=128)
    running.sync(load(tied_model_dir))


@pytest.mark.vllm
def test_a_closed_engine_refuses_and_starts_again_at_a_sync(
    vllm_engine: StartVllm, tied_model_dir: Path
) -> None:
    model = load(tied_model_dir)
    generator = vllm_engine(tied_model_dir)
    generator.close()
    generator.close()
    with pytest.raises(GenerationFailed, match="sync starts a new one"):
        generator.generate(PROMPTS, SEEDS, SAMPLING)
    change(model)
    generator.sync(model)
    assert check_probe(generator, model, PROBE) < 1e-4


@pytest.mark.vllm
def test_an_engine_in_its_own_process_answers_syncs_and_ends(untied_model_dir: Path) -> None:
    model = ends_sometimes(load(untied_model_dir))
    others = set(psutil.Process().children(recursive=True))
    generator = VllmGenerator(
        untied_model_dir,
        eos_token_ids=[EOS],
        dtype="float32",
        max_len=128,
        own_process=True,
        kv_cache_gib=0.05,
    )
    try:
        assert generator.name == "vllm-process"
        generator.sync(model)
        assert check_probe(generator, model, PROBE) < 1e-4
        first = generator.generate(PROMPTS, SEEDS, SAMPLING)
        assert generator.generate(PROMPTS, SEEDS, SAMPLING) == first
        change(model)
        generator.sync(model)
        assert check_probe(generator, model, PROBE) < 1e-4
        assert not list(Path("/dev/shm").glob(f"sapo-weights-{os.getpid()}-*"))
        started = [
            process
            for process in set(psutil.Process().children(recursive=True)) - others
            if "multiprocessing.resource_tracker" not in " ".join(process.cmdline())
        ]
        assert started
    finally:
        generator.close()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


def _tokens(answers: Sequence[Sequence[object]]) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in group] for group in answers]  # type: ignore[attr-defined]


def test_scores_are_those_of_the_model(tied_model_dir: Path) -> None:
    model = load(tied_model_dir)
    expected = token_logps(model, PROBE)
    assert len(expected) == len(PROBE) - 1
    assert TransformersGenerator(model, [EOS]).score(PROBE) == expected
