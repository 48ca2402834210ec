"""A node put together from settings: engines, fallbacks, models of other kinds, wrong digests."""

import gc
import math
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace as changed
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

import node.build
from bench import grpo_by_hand
from node.build import open_examinee, open_node
from node.config import ConfigError, NodeConfig, find_manifest, load_config
from node.exam import find_target
from node.fixed_policy import FixedPolicy
from node.generate import GenerationFailed, token_logps
from node.groups import Group, Lesson, OwnRollout, Source
from node.model import load_model
from node.policy import LanguagePolicy, encode
from node.status import Status
from swarm.manifest import load_manifest

TINY = Path(str(files("node") / "tiny"))
SIZES = {
    "vocab_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


def settings(home: Path, **flags: object) -> NodeConfig:
    quick = {"rollout.engine": "transformers", "rollout.questions": 2, "rollout.answers": 4}
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return load_config(flags={"home": home, "seed": 1} | quick | dotted, environment={})


def write_random_policy(directory: Path, config: PretrainedConfig) -> Path:
    """A random model with the embedded policy's tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, directory)
    return directory


def test_a_model_of_another_architecture_learns(tmp_path: Path) -> None:
    model = write_random_policy(tmp_path / "llama", LlamaConfig(hidden_size=64, **SIZES))
    config = settings(tmp_path / "home", policy__model=str(model))
    with open_node(config, Status()) as node:
        assert node.run_round().num_answers == 8


def test_an_adapter_learns_and_resumes(tmp_path: Path) -> None:
    config = settings(tmp_path, learn__lora_rank=4, learn__learning_rate=1e-3, rollout__questions=8)
    with open_node(config, Status()) as node:
        node.run(2)
        before = node.exchange.draw_questions(3, 8)
        expected = node.policy.roll_out(before, 3)
        answers = [one.answers for one in expected]
        greedy = node.policy.roll_out(before, 3, greedy=True)
        manifest = load_manifest(config.manifest_file)
        target = find_target(str(tmp_path), Path("elsewhere"))
        assert (target.model, target.home) == ("tiny", tmp_path)
        with open_examinee(config, manifest, target.adapter, status := Status()) as examinee:
            assert status.engine == "transformers"
            assert [one.answers for one in examinee.roll_out(before, 3)] == answers
            assert examinee.roll_out(before, 3, greedy=True) == [
                replace(one, policy_round=0) for one in greedy
            ]
        with open_examinee(config, manifest, None, Status()) as start:
            assert [one.answers for one in start.roll_out(before, 3)] != answers
    with open_node(config, Status()) as node:
        assert node.state.round == 2
        assert node.policy.roll_out(before, 3) == expected


def test_bfloat16_is_the_arithmetic_while_weights_stay_float32(tmp_path: Path) -> None:
    config = settings(
        tmp_path, policy__dtype="bfloat16", learn__learning_rate=1e-6, rollout__questions=8
    )
    with open_node(config, Status()) as node:
        assert isinstance(node.policy, LanguagePolicy)
        weight = node.policy.learner.model.model.norm.weight
        before = weight.detach().clone()
        report = node.run_round()
        assert report.update_skipped is None
        assert weight.dtype == torch.float32
        assert 0 < (weight - before).abs().max() < 1e-5, "bfloat16 would round such a step away"


def test_a_fixed_model_goes_on_with_the_next_questions_and_leaves_what_was_trained_alone(
    tmp_path: Path,
) -> None:
    exam = {"evaluate__questions": 4, "learn__learning_rate": 1e-3}
    with open_node(settings(tmp_path, **exam), Status()) as node:
        node.run(1)
        trained = node.policy.roll_out(node.exchange.draw_questions(9, 2), 9)
    kept = sorted(path for path in tmp_path.rglob("*") if "generated" not in path.parts)
    generate = settings(tmp_path, mode="generate", checkpoint__every=10, **exam)
    with open_node(generate, Status()) as node:
        assert isinstance(node.policy, FixedPolicy)
        report = node.run_round()
        assert node.state.round == 1, "what was trained is not counted"
        assert (report.num_groups, report.update_skipped, report.foreign_wanted) == (0, None, 0)
        node.run(3)
        assert [one.round for one in node.status.heldout] == [3], "an exam of its own"
        assert all(one.policy_round == 0 for one in node.policy.roll_out([], 9))
        again = node.policy.roll_out(node.exchange.draw_questions(9, 2), 9)
        assert [one.answers for one in again] != [one.answers for one in trained]
        node.run_round()  # and then a crash
        asked = [one.question for one in node.exchange.draw_questions(5, 2)]
    with open_node(generate, Status()) as node:
        assert node.state.round == 3, "that round was not kept by `run`"
        node.run(4)
        node.stop_asked.set()
    with open_node(generate, Status()) as node:
        assert node.state.round == 4
        next_asked = node.exchange.draw_questions(node.state.round + 1, 2)
        assert [one.question for one in next_asked] == asked
    assert kept == sorted(path for path in tmp_path.rglob("*") if "generated" not in path.parts)
    with open_node(settings(tmp_path, **exam), Status()) as node:
        assert node.state.round == 1
        assert node.policy.roll_out(node.exchange.draw_questions(9, 2), 9) == trained


def test_a_fixed_model_may_be_what_a_node_has_trained(tmp_path: Path) -> None:
    for rank in (0, 4):
        home = tmp_path / f"rank-{rank}"
        learned = settings(home, learn__lora_rank=rank, learn__learning_rate=1e-2)
        with open_node(learned, Status()) as node:
            policy_dir = node.run(1) / "policy"
            questions = node.exchange.draw_questions(2, 2)
            expected = texts(node.policy.roll_out(questions, 2))
        flags = {"mode": "generate", "policy__model": str(policy_dir)}
        with open_node(settings(tmp_path / f"other-{rank}", **flags), Status()) as node:
            assert texts(node.policy.roll_out(questions, 2)) == expected
        with open_node(settings(tmp_path / f"tiny-{rank}"), Status()) as node:
            assert texts(node.policy.roll_out(questions, 2)) != expected


def texts(rollouts: Sequence[OwnRollout]) -> list[str]:
    return [answer.text for one in rollouts for answer in one.answers]


def test_an_engine_of_its_own_memory_leaves_no_second_copy_of_a_fixed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OwnMemory:
        name = "fake"

        def close(self) -> None:
            """Nothing."""

    read: list[weakref.ref[torch.nn.Module]] = []

    def load(*wanted: Any) -> torch.nn.Module:
        model = load_model(*wanted)
        read.append(weakref.ref(model))
        return model

    monkeypatch.setattr(node.build, "load_model", load)
    monkeypatch.setattr(node.build, "_start_engine", lambda *_: OwnMemory())
    config = settings(tmp_path, mode="generate")
    manifest = load_manifest(config.manifest_file)
    policy = node.build.build_fixed_policy(config, manifest, None, 1, Status())
    gc.collect()
    assert [model() for model in read] == [None]
    policy.close()


def test_a_fixed_model_needs_no_trainer(tmp_path: Path) -> None:
    script = f"""
import sys
from node.build import open_node
from node.config import load_config
from node.status import Status
flags = {{"home": {str(tmp_path)!r}, "rollout.engine": "transformers", "mode": "generate"}}
with open_node(load_config(flags=flags, environment={{}}), Status()) as node:
    pass
print({{"trl", "vllm", "node.learn"}} & set(sys.modules))
"""
    found = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes such heads")
@pytest.mark.vllm
def test_a_fallback_from_vllm_is_loud_and_an_engine_by_name_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_random_policy(tmp_path / "model", Qwen2Config(hidden_size=32, **SIZES))
    status = Status()
    config = settings(tmp_path / "home", policy__model=str(model), rollout__engine="auto")
    with open_node(config, status) as node:
        node.run_round()
    assert status.engine == "transformers"
    assert "vLLM is not in use" in status.engine_warning
    assert "not 16" in status.engine_warning
    assert status.engine_warning in caplog.text
    by_name = settings(tmp_path / "home", policy__model=str(model), rollout__engine="vllm")
    with pytest.raises(GenerationFailed, match="not 16"), open_node(by_name, Status()):
        pass


def test_a_task_with_another_digest_is_left_out_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = find_manifest("easy").read_text()
    first, *others = [line for line in text.splitlines() if line.startswith("digest")]
    manifest = tmp_path / "changed.toml"
    manifest.write_text(text.replace(first, f'digest = "{"0" * 64}"'))
    with open_node(settings(tmp_path / "home", manifest=str(manifest)), Status()) as node:
        assert len(node.exchange.task_names) == len(others)
    assert "is left out: its digest here is" in caplog.text


def test_a_manifest_of_wrong_digests_only_is_refused(tmp_path: Path) -> None:
    text = find_manifest("easy").read_text()
    for line in [line for line in text.splitlines() if line.startswith("digest")]:
        text = text.replace(line, f'digest = "{"0" * 64}"')
    manifest = tmp_path / "changed.toml"
    manifest.write_text(text)
    config = settings(tmp_path / "home", manifest=str(manifest))
    with pytest.raises(ConfigError, match="no task can be used here"), open_node(config, Status()):
        pass


def test_answers_that_leave_no_room_for_a_question_are_refused(tmp_path: Path) -> None:
    config = settings(tmp_path, rollout__max_new_tokens=32768)
    with pytest.raises(ConfigError, match="leaves no room"), open_node(config, Status()):
        pass


def logps_by_hand(model: torch.nn.Module, group: Group) -> list[float]:
    """Mean log-probability per token of each answer."""
    prompt = group.prompt_ids
    scored = [token_logps(model, prompt + ids)[len(prompt) - 1 :] for ids in group.answer_ids]
    return [sum(one) / len(one) for one in scored]


def test_all_options_together_move_the_weights_as_the_hand_written_steps_do(
    tmp_path: Path,
) -> None:
    """Importance ratio, likelihood weight with a claim, guard, and the KL divergence, measured."""
    rate, cap = 1e-4, 1.02
    options = {
        "batch.importance_ratio": cap,
        "batch.likelihood_weight": True,
        "learn.ess_guard": True,
        "learn.kl_every": 2,
        "learn.learning_rate": rate,
    }
    config = settings(tmp_path, **{key.replace(".", "__"): one for key, one in options.items()})
    hand, start = (load_model(TINY, config.policy) for _ in range(2))
    optimizer = torch.optim.AdamW(hand.parameters(), lr=rate, weight_decay=0.0)
    with open_node(config, Status()) as node:
        policy = node.policy
        assert isinstance(policy, LanguagePolicy)
        old, *_ = node.exchange.verify(policy.roll_out(node.exchange.draw_questions(1, 2), 1))
        first = Lesson(old, Source.OWN, (1.5, -0.5, -0.5, -0.5))
        assert policy.learn([first]).kl_to_start == pytest.approx(0, abs=1e-5), "it is the start"
        grpo_by_hand.step(hand, optimizer, [encode(policy.tokenizer, first)])

        fresh = policy.roll_out(node.exchange.draw_questions(2, 2), 2)
        own, other = node.exchange.verify(fresh)
        claims = [changed(one, mean_logp=-0.01) for one in other.answers]
        peer = replace(other, answers=tuple(claims), token_ids=None)
        batch = [
            Lesson(own, Source.OWN, (0.9, -0.9, 0.9, -0.9)),
            Lesson(old, Source.REPLAY, (1.5, 0.0, 0.7, 0.0), weight=0.8),
            Lesson(peer, Source.FOREIGN, (0.0, 1.5, 0.0, 0.0)),
        ]
        groups = [encode(policy.tokenizer, one) for one in batch]
        now, then = logps_by_hand(hand, groups[1]), [one.mean_logp for one in old.answers]
        ratios = [min(cap, math.exp(a - (b or 0))) for a, b in zip(now, then, strict=True)]
        assert len(set(ratios[::2])) == 2 and ratios[0] != 1
        likes = logps_by_hand(hand, groups[2])
        sampled = [(one.mean_logp or 0, one.num_tokens) for r in fresh for one in r.answers]
        own_logp = sum(mean * num for mean, num in sampled) / sum(num for _, num in sampled)
        likeness = [min(1, math.exp(one - own_logp), math.exp(one + 0.01)) for one in likes]
        assert 0.05 < likeness[1] < 0.95 and len(set(likeness)) > 1
        groups[1] = replace(groups[1], weights=tuple(0.8 * one for one in ratios))
        groups[2] = replace(groups[2], weights=tuple(likeness))
        weights = [1.0] * 4 + [0.8 * one for one in ratios[::2]] + [likeness[1]]
        share = sum(weights) ** 2 / sum(one * one for one in weights) / 7

        update = policy.learn(batch)
        optimizer.param_groups[0]["lr"] = rate * math.sqrt(share)
        loss, norm = grpo_by_hand.step(hand, optimizer, groups)
        assert update.gradient_norm == pytest.approx(norm, rel=1e-3)
        assert update.loss == pytest.approx(loss, abs=1e-5)
        assert update.learning_rate == pytest.approx(rate * math.sqrt(share), rel=1e-4)
        assert update.foreign[0].weight == pytest.approx(sum(likeness) / 4, rel=1e-3)
        pairs = zip(policy.learner.model.parameters(), hand.parameters(), strict=True)
        assert max(float((a - b).detach().abs().max()) for a, b in pairs) < 3e-6

        own_groups = [groups[0], encode(policy.tokenizer, Lesson(other, Source.OWN, (0.0,) * 4))]
        lengths = [len(ids) for group in own_groups for ids in group.answer_ids]
        under_start = [one for group in own_groups for one in logps_by_hand(start, group)]
        total = sum(mean * num for mean, num in zip(under_start, lengths, strict=True))
        assert update.kl_to_start == pytest.approx(own_logp - total / sum(lengths), abs=1e-5)
        assert update.kl_to_start != pytest.approx(0, abs=1e-4)
