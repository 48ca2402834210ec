import re
from pathlib import Path
from typing import Any

import pytest
from fake_swarm import BEST_RATE, made

from node.config import ConfigError, find_manifest, known_keys
from node.experiment.plan import AttackPlan, RunPlan
from node.experiment.results import RunKey, RunResult
from node.experiment.spec import (
    ADDED,
    ATTACKER,
    ELSEWHERE,
    Materials,
    Run,
    Spec,
    node_seed,
)
from node.experiment.spec_file import check_arms, load_spec, shipped_specs

START = """
question = "Does it pay?"
nodes = 2
rounds = 10
seeds = [1, 2]
learning_rates = [1e-4]
"""
ARMS = """
[arms]
own.settings.batch.strategy = "own"
fill.settings.batch.strategy = "fill"
"""
MATERIALS = Materials("swarm", {"tiny": "as shipped", "late": "made later"})
STARTS = {"tiny": Path("/starts/tiny"), "late": Path("/starts/late")}


def load(tmp_path: Path, text: str) -> Spec:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return load_spec(str(file))


def plan(spec: Spec, arm: str, seed: int = 1, rate: float = 1e-4) -> RunPlan:
    return spec.plan(RunKey(arm, seed, rate), STARTS)


def digest(spec: Spec, arm: str = "own", seed: int = 1, rate: float = 1e-4, **new: Any) -> str:
    return spec.digest(RunKey(arm, seed, rate), Materials(**(_fields(MATERIALS) | new)))


def _fields(materials: Materials) -> dict[str, Any]:
    return {"swarm_id": materials.swarm_id, "recipes": materials.recipes}


def test_a_file_is_an_experiment_of_its_name(tmp_path: Path) -> None:
    spec = load(tmp_path, START + ARMS)
    assert spec.name == "mine"
    assert list(spec.arms) == ["own", "fill"]
    assert spec.manifest_file == find_manifest("easy")
    assert (spec.num_nodes, spec.num_node_rounds) == (2, 20)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'question' is missing"),
        (START, "'arms' is missing"),
        (START + "question_ = 1" + ARMS, "there is no key 'question_'; did you mean 'question'?"),
        (START + "learning_rate = 1e-4" + ARMS, "no key 'learning_rate'; did you mean"),
        (START + "name = 'x'" + ARMS, "leave out 'name'"),
        (START + "target = 2" + ARMS, "target = 2: Input should be less than 1"),
        (START + "exams = { evry = 1 }" + ARMS, "no key 'exams.evry'; did you mean 'every'?"),
        (START + "network = { loss = 1 }" + ARMS, "network.loss = 1"),
        (START + "controls = ['onw']" + ARMS, "there is no arm 'onw'; did you mean 'own'?"),
        (START + "tuning_seeds = [2]" + ARMS, "[2] are seeds and tuning_seeds"),
        (START.replace("[1, 2]", "[1, 1]") + ARMS, "seeds: one stands there twice"),
        (START.replace("[1e-4]", "[1e-4, 1e-3]") + ARMS, "arm own: several learning_rates, but no"),
        (START.replace("nodes = 2", "") + ARMS, "say either nodes = N"),
        (START + "roles = [{ count = 1 }]" + ARMS, "say either nodes = N"),
        (START + "manifest = 'eazy'" + ARMS, "there is no file 'eazy'"),
        (START + ARMS + "fill.strategy = 'fill'", "did you mean 'settings.batch.strategy'?"),
        (START + ARMS + "own.settings.batch.stratgy = 'own'", "did you mean 'batch.strategy'?"),
        (START + ARMS + "x.settings.batch = 'own'", "x.settings: there is no setting 'batch'"),
        (START + ARMS + "x.settings.batch.strategy = 'fil'", "role node: batch.strategy = 'fil'"),
        (START + ARMS + "x.settings.learn.learning_rate = 1", "say learning_rates"),
        (START + ARMS + "x.settings.policy.model = 'gpt2'", "say [[roles]] start"),
        (START + ARMS + "x.settings.swarm.listen = ''", "swarm.listen plays no part"),
        (START + ARMS + "x.settings.api.port = 1", "api.port plays no part"),
        (START + ARMS + "'a b' = {}", "arm 'a b': a name has"),
        (START + ARMS + "x.attack = { kind = 'inject', nodes = 2 }", "2 of 2 nodes attack"),
        (START + ARMS + "x.attack = { kind = 'ijnect', nodes = 1 }", "did you mean 'inject'?"),
        (START + "against = { x = 'y' }\n" + ARMS + "x = {}", "against: ['y'] are no arms"),
        ("[arms", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_what_to_change(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert complaint in str(error.value)
    assert "mine.toml" in str(error.value) or "eazy" in text


@pytest.mark.parametrize(
    ("role", "complaint"),
    [
        ("count = 1\njoins_at = 10", "joins_at = 10, of 10 rounds"),
        ("count = 1\ntasks = ['chain_sm']", "no task 'chain_sm'; did you mean 'chain_sum'?"),
        ("count = 1\ntasks = []", "tasks is empty"),
        ("count = 1\nstart = []", "role node: start is empty"),
        ("count = 0", "roles.0.count = 0"),
        ("count = 1\nname = 'attacker'", "a role may not be named 'attacker'"),
        ("count = 1\nsettings.rollout.question = 2", "did you mean 'rollout.questions'?"),
    ],
)
def test_a_wrong_role_is_refused_with_what_to_change(
    tmp_path: Path, role: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, START.replace("nodes = 2", "") + ARMS + f"[[roles]]\n{role}\n")
    assert complaint in str(error.value)


def test_an_unknown_name_lists_what_is_shipped() -> None:
    with pytest.raises(ConfigError, match=r"shipped are only: .*controls.*smoke"):
        load_spec("smok")


def test_an_arm_that_does_not_exist_is_named(tmp_path: Path) -> None:
    spec = load(tmp_path, START + ARMS)
    check_arms(spec, ["own"])
    with pytest.raises(ConfigError, match="there is no arm 'fil'; did you mean 'fill'"):
        check_arms(spec, ["own", "fil"])


def test_every_run_is_listed_tuning_first_then_seed_by_seed(tmp_path: Path) -> None:
    text = START.replace("[1e-4]", f"[1e-4, {BEST_RATE}]\ntuning_seeds = [7]") + ARMS
    spec = load(tmp_path, text + "fixed.learning_rate = 1e-3\n")
    tuning = [
        Run(arm, 7, rate, is_tuning=True) for arm in ("own", "fill") for rate in (1e-4, BEST_RATE)
    ]
    rates = {"own": None, "fill": None, "fixed": 1e-3}
    assert spec.runs() == tuning + [
        Run(arm, seed, rate, is_tuning=False) for seed in (1, 2) for arm, rate in rates.items()
    ]


def test_an_arm_is_measured_at_the_best_rate_once_all_its_tuning_runs_are_there(
    tmp_path: Path,
) -> None:
    text = START.replace("[1e-4]", f"[1e-4, {BEST_RATE}]\ntuning_seeds = [7]") + ARMS
    spec = load(tmp_path, text)
    tuning = [made(run.key, is_tuning=True) for run in spec.runs() if run.is_tuning]
    rates = {run.arm: run.learning_rate for run in spec.runs(tuning[:3]) if not run.is_tuning}
    assert rates == {"own": BEST_RATE, "fill": None}


def test_settings_of_an_arm_beat_those_of_a_role_beat_those_of_the_experiment(
    tmp_path: Path,
) -> None:
    text = START.replace("nodes = 2", "") + "settings.rollout = { questions = 2, answers = 2 }\n"
    text += "settings.batch.groups = 2\n" + ARMS + "own.settings.batch.groups = 4\n"
    text += "[[roles]]\ncount = 1\nsettings = { rollout.answers = 3, batch.groups = 3 }\n"
    (node,) = plan(load(tmp_path, text), "own").nodes
    rollout, batch = node.config.rollout, node.config.batch
    assert (rollout.questions, rollout.answers, batch.groups) == (2, 3, 4)
    assert batch.strategy == "own"
    assert node.config.learn.learning_rate == 1e-4


def test_nodes_are_planned_role_by_role_and_the_last_ones_attack(tmp_path: Path) -> None:
    text = START.replace("nodes = 2", "") + ARMS
    text += "x.attack = { kind = 'inject', nodes = 1 }\n"
    text += "[[roles]]\nname = 'early'\ncount = 2\ntasks = ['chain_sum']\n"
    text += "[[roles]]\nname = 'late'\ncount = 2\nstart = ['late', 'tiny']\njoins_at = 5\n"
    made_plan = plan(load(tmp_path, text), "x")
    assert [node.role for node in made_plan.nodes] == ["early", "early", "late", ATTACKER]
    assert [node.start for node in made_plan.nodes] == [
        STARTS[name] for name in ("tiny", "tiny", "late", "tiny")
    ]
    assert [node.tasks for node in made_plan.nodes] == [("chain_sum",)] * 2 + [None] * 2
    assert [node.joins_at for node in made_plan.nodes] == [0, 0, 5, 5]
    assert [node.attack for node in made_plan.nodes] == [None] * 3 + [AttackPlan("inject")]


def test_what_the_file_says_of_a_run_reaches_its_plan(tmp_path: Path) -> None:
    text = START + "exams = { every = 5, questions = 16 }\nnetwork = { round_s = 2, loss = 0.1 }\n"
    spec = load(tmp_path, text + ARMS + "far.network = { delay_s = 30 }\n")
    ours = plan(spec, "own")
    assert (ours.rounds, ours.exam_every, ours.exam_questions) == (10, 5, 16)
    assert (ours.round_s, ours.delay_s, ours.loss) == (2, 0, 0.1)
    assert (plan(spec, "far").delay_s, plan(spec, "far").loss) == (30, 0)
    assert ours.manifest == find_manifest("easy")


def test_arms_are_paired_and_nodes_and_seeds_are_not(tmp_path: Path) -> None:
    spec = load(tmp_path, START + ARMS)
    seeds = {
        (arm, seed): [node.config.seed for node in plan(spec, arm, seed).nodes]
        for arm in ("own", "fill")
        for seed in (1, 2)
    }
    assert seeds["own", 1] == seeds["fill", 1] == [node_seed(1, 0), node_seed(1, 1)]
    assert len({*seeds["own", 1], *seeds["own", 2]}) == 4


def test_a_digest_covers_what_a_result_depends_on(tmp_path: Path) -> None:
    text = START + ARMS
    ours = digest(load(tmp_path, text))
    others = [
        digest(load(tmp_path, text.replace("rounds = 10", "rounds = 11"))),
        digest(load(tmp_path, text.replace("nodes = 2", "nodes = 3"))),
        digest(load(tmp_path, "exams.every = 5\n" + text)),
        digest(load(tmp_path, "network.delay_s = 1\n" + text)),
        digest(load(tmp_path, text + "own.settings.batch.groups = 7\n")),
        digest(load(tmp_path, text + "own.network.loss = 0.5\n")),
        digest(load(tmp_path, text + "own.attack = { kind = 'inject', nodes = 1 }\n")),
        digest(load(tmp_path, text + "[settings.swarm]\nshare = 'all'\n")),
        digest(load(tmp_path, text), arm="fill"),
        digest(load(tmp_path, text), seed=2),
        digest(load(tmp_path, text), rate=1e-3),
        digest(load(tmp_path, text), swarm_id="another"),
        digest(load(tmp_path, text), recipes={"tiny": "made otherwise"}),
    ]
    assert len({ours, *others}) == 1 + len(others)


def test_a_digest_covers_nothing_else(tmp_path: Path) -> None:
    text = START + ARMS
    ours = digest(load(tmp_path, text))
    for same in (
        text.replace("pay", "really pay"),
        "target = 0.5\n" + text,
        "controls = ['own']\n" + text,
        text.replace("[1, 2]", "[1, 2, 3]"),
        text.replace("[1e-4]", "[1e-4, 1e-3]\ntuning_seeds = [7]"),
        text + "more.settings.batch.strategy = 'teach'\n",
        text + "own.settings.batch.groups = 8\n",  # the default
    ):
        assert digest(load(tmp_path, same)) == ours
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert digest(load(moved, text)) == ours


def test_a_setting_added_later_leaves_digests_as_they_were_at_its_neutral_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(tmp_path, START + ARMS)
    changed = load(tmp_path, START + ARMS + "own.settings.batch.groups = 7\n")
    before, other = digest(spec), digest(changed)
    monkeypatch.setitem(ADDED, "batch.groups", 8)
    assert digest(spec) != before
    assert digest(changed) == other


def result(spec: Spec, run: Run, **changes: Any) -> RunResult:
    found = digest(spec, run.arm, run.seed, run.key.learning_rate)
    return made(run.key, is_tuning=run.is_tuning, **({"digest": found} | changes))


def test_results_of_other_arms_seeds_rates_and_digests_are_not_declared(tmp_path: Path) -> None:
    spec = load(tmp_path, START + ARMS)
    run = spec.runs()[0]
    assert spec.declares(result(spec, run), MATERIALS)
    assert not spec.declares(result(spec, run, digest="another"), MATERIALS)
    assert not spec.declares(result(spec, Run("own", 3, 1e-4, is_tuning=False)), MATERIALS)
    assert not spec.declares(result(spec, Run("own", 1, 1e-3, is_tuning=False)), MATERIALS)
    assert not spec.declares(result(spec, Run("own", 1, 1e-4, is_tuning=True)), MATERIALS)
    gone = load(tmp_path, START + "[arms.fill]\n")
    assert not gone.declares(result(spec, run), MATERIALS)


def test_settings_that_play_no_part_exist() -> None:
    assert set(known_keys()) >= ELSEWHERE


def test_the_examples_of_the_guide_load(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
    example, roles = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    spec = load(tmp_path, example)
    assert (spec.num_nodes, len(spec.arms)) == (8, 7)
    spec = load(tmp_path, re.sub(r"nodes = 8 .*", "", example, count=1) + roles)
    assert [role.name for role in spec.roles] == ["small", "late"]


RUNS = {
    "smoke": (8, 3, 3),
    "paper": (4 * (2 + 5), 8, 48),
    "controls": (10 * (2 * 3 + 5), 8, 48),
    "weak-boxes-half": (6 * (2 + 5), 8, 48),
    "weak-boxes-quarter": (6 * (2 + 5), 8, 48),
    "unlike-skills": (6 * (2 + 5), 8, 48),
    "unlike-sizes": (6 * (2 + 5), 8, 48),
    "unlike-late": (6 * (2 + 5), 8, 64),
    "options": (11 * 3, 8, 48),
    "attack": (16 * 3, 8, 50),
    "attack-fill": (9 * 3, 8, 50),
    "attack-dose": (8 * 2, 16, 50),
    "weight": (3 * 5, 8, 48),
}
"""Shipped experiment -> runs, nodes, rounds."""


def test_every_shipped_experiment_is_counted_here_and_stands_in_the_guide() -> None:
    assert {file.stem for file in shipped_specs()} == set(RUNS)
    guide = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
    table = guide.split("| shipped |")[1].split("## ")[0]
    assert set(re.findall(r"`([a-z-]+)`", table)) == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_shipped_experiments_expand_to_the_runs_that_they_promise(name: str) -> None:
    spec = load_spec(name)
    assert (len(spec.runs()), spec.num_nodes, spec.rounds) == RUNS[name]
    starts = dict.fromkeys(spec.starts, Path("/start"))
    for arm in spec.arms:
        assert len(plan_of(spec, arm, starts).nodes) == spec.num_nodes
    if name not in ("smoke", "options", "attack", "attack-fill", "attack-dose"):
        assert len(spec.seeds) >= 5


def plan_of(spec: Spec, arm: str, starts: dict[str, Path]) -> RunPlan:
    return spec.plan(RunKey(arm, spec.seeds[0], spec.learning_rates[0]), starts)
