"""The embedded policy as shipped, its tokenizer, and the command that makes one."""

import json
import random
import statistics
import unicodedata
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from node.config import ConfigError
from node.make_tiny import REPORT_FILE, Recipe, make_tiny, slip
from node.policy import prompt_ids
from node.tiny_exam import Student, draw_held_out, draw_to_train, examine
from node.tiny_tokenizer import SPECIAL_TOKENS
from rewards.question import is_held_out
from rewards.tasks import build_task
from swarm.manifest import Manifest, load_manifest

SHIPPED = Path(str(files("node") / "tiny"))
EASY = Path(str(files("node") / "configs" / "swarms" / "easy.toml"))

SHORT = Recipe(
    max_steps=4,
    slip_steps=2,
    batch_questions=8,
    probe_every=2,
    probe_questions=4,
    train_questions=120,
    exam_questions=4,
)


@pytest.fixture(scope="module")
def easy() -> Manifest:
    return load_manifest(EASY)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SHIPPED)


def test_the_shipped_files_are_small_and_complete():
    names = {file.name for file in SHIPPED.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        REPORT_FILE,
    }
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 4_000_000


def test_the_weights_are_bfloat16_and_the_embeddings_tied():
    with safe_open(SHIPPED / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert {weights.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert "lm_head.weight" not in names
    assert AutoConfig.from_pretrained(SHIPPED).tie_word_embeddings


def test_its_heads_have_a_size_that_vllm_takes_on_a_cpu():
    config = AutoConfig.from_pretrained(SHIPPED)
    assert config.model_type == "qwen2"
    assert config.hidden_size % config.num_attention_heads == 0
    assert config.hidden_size // config.num_attention_heads in (32, 64)


def test_tokenizer_and_embeddings_have_the_same_size(tokenizer):
    config = AutoConfig.from_pretrained(SHIPPED)
    assert config.vocab_size == len(tokenizer)
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1
    assert config.eos_token_id == tokenizer.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a  b\n\n\tc \r\n",
        "\x00\x7f\u200b\ufeff",
        "Zoë Ōsaka 数字１２３ שלום 🦙👩‍👩‍👧",
        "<|im_end|> <|im_start|>assistant\n<|endoftext|>",
        "user\nassistant\n",
        "Spell this word backward (example: sun -> nus): catsup",
        "['1', '23'] 00:07 -5/6",
    ],
)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_random_unicode_comes_back_in_normal_form_c(tokenizer):
    rng = random.Random(0)
    for _ in range(300):
        points = [rng.randrange(0x110000) for _ in range(20)]
        text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_special_tokens_in_foreign_text_are_split(tokenizer):
    special = set(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    text = "7<|im_end|><|im_start|><|endoftext|>"
    split = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert not set(split) & special
    whole = tokenizer.encode(text, add_special_tokens=False)
    assert len(whole) == 4 and special <= set(whole)
    assert tokenizer.decode(whole, skip_special_tokens=True) == "7"


def test_every_digit_and_every_letter_of_a_rare_word_is_a_token_of_its_own(tokenizer):
    for text in ("0123456789", "1234:5678", "zyxwvut"):
        pieces = [tokenizer.decode([one]) for one in tokenizer.encode(text)]
        assert pieces == list(text)


def test_questions_are_short_and_end_with_the_assistants_header(tokenizer, easy):
    rng = random.Random(0)
    lengths = []
    for spec in easy.rules.tasks:
        for question in draw_to_train(build_task(spec), 20, rng):
            ids = prompt_ids(tokenizer, question.text)
            assert tokenizer.decode(list(ids)).endswith(
                f"{question.text}<|im_end|>\n<|im_start|>assistant\n"
            )
            lengths.append(len(ids))
            answer = tokenizer.encode(question.truth, add_special_tokens=False)
            assert len(answer) < easy.rules.max_new_tokens
    assert statistics.fmean(lengths) < 20
    assert max(lengths) < 60


def test_the_shipped_report_is_of_the_shipped_manifest(easy):
    report = json.loads((SHIPPED / REPORT_FILE).read_text())
    assert report["swarm_id"] == easy.swarm_id, "make the policy anew: the easy manifest changed"
    assert report["recipe"] == {
        name: getattr(Recipe(), name) for name in Recipe.__dataclass_fields__
    }


def test_the_shipped_policy_half_knows_its_tasks(tokenizer, easy):
    """About 300 answers per task: the standard error of the mean over tasks is below 1 %."""
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32)
    student = Student(model, tokenizer, easy.rules.max_new_tokens)
    tasks = [build_task(spec) for spec in easy.rules.tasks]
    figures = [
        examine(student, task, draw_held_out(task, 40, random.Random(5)), seed=5) for task in tasks
    ]
    assert 0.02 <= statistics.fmean(one.sampled for one in figures) <= 0.20
    for one in figures:
        assert 0.0 < one.sampled < 0.35, one
        assert one.finished > 0.9, one
    assert statistics.fmean(one.mixed for one in figures) > 0.2


def test_a_short_run_writes_a_policy_that_loads_and_the_same_one_again(tmp_path, easy):
    messages: list[str] = []
    first = make_tiny(tmp_path / "first", 3, easy, SHORT, messages.append)
    again = make_tiny(tmp_path / "again", 3, easy, SHORT)
    other = make_tiny(tmp_path / "other", 4, easy, SHORT)
    assert first == again != replace(other, seed=3)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
    assert any("step 4" in message for message in messages)
    assert "mean" in str(first)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first", dtype=torch.float32)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "first")
    assert model.config.vocab_size == len(loaded) == first.vocabulary


def test_make_tiny_refuses_a_directory_with_something_in_it(tmp_path, easy):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(ConfigError, match="choose a directory"):
        make_tiny(tmp_path, 0, easy, SHORT)
    assert (tmp_path / "precious").read_text() == "data"


def test_training_questions_are_never_held_out_and_exams_always(easy):
    rng = random.Random(1)
    for spec in easy.rules.tasks:
        task = build_task(spec)
        assert not any(is_held_out(one.text) for one in draw_to_train(task, 200, rng))
        exam = draw_held_out(task, 30, rng)
        assert all(is_held_out(one.text) for one in exam)
        assert len({one.text for one in exam}) == 30


@pytest.mark.parametrize("answer", ["7", "-12", "00:07", "5/12", "hello", "['1', '23']", "[]"])
def test_a_slip_is_small_and_always_changes_the_answer(answer):
    rng = random.Random(0)
    slips = [slip(answer, rng) for _ in range(200)]
    assert answer not in slips
    assert all(abs(len(one) - len(answer)) <= 1 for one in slips)
    assert len(set(slips)) > 1
