"""Starts are made once, are the same again, and are able where they should be and nowhere else."""

import json
import logging
import random
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from msgspec.structs import replace as changed

from node.config import ConfigError, PolicyConfig
from node.experiment.starts import REPORT_FILE, STARTS, Making, Tuning, find_start, spoil
from node.make_tiny import Recipe
from node.model import load_model, load_tokenizer
from node.tiny_exam import draw_to_train
from node.tiny_tokenizer import Pieces, train_tokenizer
from rewards.tasks import build_task
from swarm.manifest import Manifest, load_manifest

EASY = load_manifest(Path(str(files("node") / "configs" / "swarms" / "easy.toml")))
SHORT = Tuning(
    able=(0, 1),
    able_share=0.75,
    steps=2,
    batch_questions=8,
    able_questions=20,
    other_questions=20,
    exam_questions=4,
)


def manifest_of(*names: str) -> Manifest:
    tasks = {task.name: task for task in EASY.rules.tasks}
    return changed(EASY, rules=changed(EASY.rules, tasks=tuple(tasks[one] for one in names)))


WORDS_AND_SUMS = manifest_of("spell_backward", "chain_sum")


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_tiny_is_the_embedded_policy_and_leaves_no_trace(tmp_path):
    assert find_start("tiny", 0, EASY, tmp_path) == Path(str(files("node") / "tiny"))
    assert not list(tmp_path.iterdir())


def test_a_start_that_nobody_has_heard_of_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"specialist-8.*specialist-7"):
        find_start("specialist-8", 0, EASY, tmp_path)


def test_a_specialist_without_a_task_of_its_own_or_of_others_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="only 2 tasks"):
        find_start("specialist-0", 0, WORDS_AND_SUMS, tmp_path)
    with pytest.raises(ConfigError, match="only 3 tasks"):
        three = manifest_of("spell_backward", "chain_sum", "leg_counting")
        find_start("specialist-3", 0, three, tmp_path)


def test_each_of_eight_tasks_has_two_masters():
    num_tasks = len(EASY.rules.tasks)
    recipes = [recipe for recipe in STARTS.values() if isinstance(recipe, Tuning)]
    masters = Counter(place % num_tasks for recipe in recipes for place in recipe.able)
    assert masters == dict.fromkeys(range(8), 2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STARTS, "short", replace(SHORT, able=(0,)))


@pytest.mark.usefixtures("short")
def test_a_start_is_made_once_and_is_the_same_wherever_it_is_made(tmp_path, caplog):
    caplog.set_level(logging.INFO, "node.experiment.starts")
    first = find_start("short", 0, WORDS_AND_SUMS, tmp_path / "first")
    assert find_start("short", 0, WORDS_AND_SUMS, tmp_path / "first") == first
    assert caplog.text.count("making the start") == 1
    again = find_start("short", 0, WORDS_AND_SUMS, tmp_path / "again")
    other = find_start("short", 1, WORDS_AND_SUMS, tmp_path / "first")
    assert contents(first) == contents(again)
    assert contents(first)["model.safetensors"] != contents(other)["model.safetensors"]
    assert {one.parent for one in (first, other)} == {tmp_path / "first"} != {again.parent}
    assert len(list((tmp_path / "first").iterdir())) == 2


@pytest.mark.usefixtures("short")
def test_another_recipe_or_another_swarm_is_another_start(tmp_path, monkeypatch):
    made = find_start("short", 0, WORDS_AND_SUMS, tmp_path)
    monkeypatch.setitem(STARTS, "short", replace(SHORT, able=(0,), steps=1))
    assert find_start("short", 0, WORDS_AND_SUMS, tmp_path) != made
    turned = manifest_of("chain_sum", "spell_backward")
    assert len({made, find_start("short", 0, turned, tmp_path)}) == 2


def test_a_start_that_could_not_be_finished_leaves_nothing(tmp_path, monkeypatch):
    # no question to draw from
    monkeypatch.setitem(STARTS, "short", replace(SHORT, able=(0,), other_questions=0))
    with pytest.raises(IndexError):
        find_start("short", 0, WORDS_AND_SUMS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_specialist_gets_able_in_its_own_task_and_unable_in_the_other(tmp_path, monkeypatch):
    """The embedded policy is right in 8 % and 7 % of its answers."""
    recipe = replace(SHORT, able=(0,), steps=25, batch_questions=32, exam_questions=25)
    recipe = replace(recipe, able_questions=400, other_questions=150)
    monkeypatch.setitem(STARTS, "short", recipe)
    start = find_start("short", 0, WORDS_AND_SUMS, tmp_path)
    own, other = json.loads((start / REPORT_FILE).read_text())["tasks"]
    assert own["sampled"] > 0.3
    assert other["sampled"] < 0.04
    assert own["finished"] > 0.9 and other["finished"] > 0.9


@pytest.mark.parametrize("pieces", ["bytes", "words"])
def test_other_sizes_have_tokenizers_of_their_own(tmp_path, monkeypatch, pieces: Pieces):
    recipe = Recipe(
        max_steps=2,
        slip_steps=1,
        batch_questions=4,
        probe_every=2,
        probe_questions=2,
        train_questions=60,
        exam_questions=2,
        hidden_size=64,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
    )
    monkeypatch.setitem(STARTS, "short", Making(recipe, pieces, max_new_tokens=24))
    start = find_start("short", 0, WORDS_AND_SUMS, tmp_path)
    config = PolicyConfig(model=str(start))
    tokenizer = load_tokenizer(start, config)
    assert load_model(start, config).num_parameters() < 60_000
    embedded = load_tokenizer(find_start("tiny", 0, EASY, tmp_path), config)
    text = "Spell this word backward (example: sun -> nus): catsup"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) > 2 * len(embedded.encode(text))
    assert len(tokenizer) < len(embedded)


@pytest.mark.parametrize("name", ["small", "large"])
def test_every_answer_of_the_easy_swarm_fits_what_a_start_says_it_needs(name):
    making = STARTS[name]
    assert isinstance(making, Making)
    rng = random.Random(0)
    drawn = [draw_to_train(build_task(spec), 150, rng) for spec in EASY.rules.tasks]
    texts = [([one.text for one in of_task], [one.truth for one in of_task]) for of_task in drawn]
    tokenizer = train_tokenizer(texts, making.pieces)
    answers = [spoil(one.truth, rng) for of_task in drawn for one in of_task]
    longest = max(len(tokenizer.encode(answer)) for answer in answers) + 1
    assert longest <= making.max_new_tokens


def test_a_spoilt_answer_is_never_correct():
    rng = random.Random(0)
    for spec in EASY.rules.tasks:
        task = build_task(spec)
        for one in draw_to_train(task, 60, rng):
            assert task.judge(one.question.index, one.truth, True) is True
            spoilt = spoil(one.truth, rng)
            assert task.judge(one.question.index, spoilt, True) is not True, (one, spoilt)
