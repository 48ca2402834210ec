import math
from pathlib import Path

import pytest
from trio.testing import trio_test

from node.config import (
    ConfigError,
    NodeConfig,
    QuotaConfig,
    SwarmConfig,
    find_manifest,
    known_keys,
    load_config,
)
from node.network_settings import network_options, peer_limits
from node.store import open_store
from swarm.limits import Kind, make_rates
from swarm.manifest import load_manifest
from swarm.network_options import NetworkOptions
from swarm.quota import FADE_S
from swarm.relay import RelayLimits

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "nodes").glob("*.toml"))


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return file


def test_defaults_need_no_file_flag_or_environment() -> None:
    assert load_config(environment={}) == NodeConfig()


def test_each_setting_says_where_it_comes_from_and_is_equal_wherever_that_is(
    tmp_path: Path,
) -> None:
    file = write(tmp_path, "rounds = 3\n[learn]\nlearning_rate = 1e-5\nepsilon = 0.1\n")
    environment = {"SAPO_LEARN__EPSILON": "0.3", "PATH": "x"}
    config = load_config(file, {"home": tmp_path, "seed": None}, environment)
    assert config.origins == {
        "rounds": str(file),
        "learn.learning_rate": str(file),
        "learn.epsilon": "environment variable SAPO_LEARN__EPSILON",
        "home": "--home",
    }
    given = {"home": tmp_path, "rounds": 3, "learn": {"learning_rate": 1e-5, "epsilon": 0.3}}
    assert config == NodeConfig.model_validate(given)
    assert config != NodeConfig.model_validate(given | {"rounds": 4})
    assert "origins" not in config.model_dump_json()
    assert dict(config.model_copy(update={"rounds": 9}).origins) == dict(config.origins)


def test_what_a_peer_may_do_is_as_the_settings_say() -> None:
    assert peer_limits(NodeConfig()).rates == make_rates()
    swarm = SwarmConfig(
        announcements_per_s=7,
        author_announcements_per_s=6,
        fetches_per_s=5,
        catalogue_per_s=4,
        peer_questions_per_s=3,
        served_mib_per_s=2,
    )
    config = NodeConfig(swarm=swarm)
    per_s = {kind.value: rate.per_s for kind, rate in peer_limits(config).rates.items()}
    kinds = ("announcements", "author", "fetches", "catalogue", "peers")
    assert per_s == dict(zip(kinds, (7, 6, 5, 4, 3), strict=True)) | {"bytes": 2 * 2**20}
    assert set(per_s) == set(Kind) - {Kind.ALL_BYTES}


def test_what_all_peers_may_have_is_as_the_settings_say() -> None:
    quota = peer_limits(NodeConfig()).quota
    assert quota is not None and quota._most == FADE_S * 4 * 2**20
    quota = peer_limits(NodeConfig(quota=QuotaConfig(served_mib_per_s=0.5))).quota
    assert quota is not None and quota._most == FADE_S * 2**19
    assert peer_limits(NodeConfig(quota=QuotaConfig(served_mib_per_s=0))).quota is None


@trio_test
async def test_what_grows_on_disk_with_what_peers_do_is_bounded_by_settings(
    tmp_path: Path,
) -> None:
    config = NodeConfig(
        swarm=SwarmConfig(pool_mib=5, announcements_mib=6),
        quota=QuotaConfig(seen_hashes=7000, proofs_mib=8),
    )
    rules = load_manifest(find_manifest("easy")).rules
    async with open_store(config, rules, tmp_path, "me") as store:
        assert store.pool._max_bytes == 5 * 2**20 and store.pool._max_seen == 7000
        assert store.announcements._max_bytes == 6 * 2**20
        assert store.ledger._max_proof_bytes == 8 * 2**20


def test_what_a_relay_carries_is_as_the_settings_say() -> None:
    def carried(quota: QuotaConfig) -> float:
        return network_options(NodeConfig(quota=quota)).relayed_bytes_per_s

    usual = NetworkOptions().relayed_bytes_per_s
    assert carried(QuotaConfig()) == usual == RelayLimits().bytes_per_s
    assert carried(QuotaConfig(relayed_mib_per_s=0.5)) == 2**19
    assert carried(QuotaConfig(relayed_mib_per_s=0)) == math.inf


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, "[rollout]\nquestions = 2\nanswers = 2\nmax_new_tokens = 2\n")
    environment = {"SAPO_ROLLOUT__QUESTIONS": "3", "SAPO_ROLLOUT__ANSWERS": "3", "HOME": "/"}
    config = load_config(file, {"rollout.questions": 4, "seed": None}, environment)
    assert config.rollout.questions == 4
    assert config.rollout.answers == 3
    assert config.rollout.max_new_tokens == 2
    assert config.rollout.temperature == NodeConfig().rollout.temperature
    assert config.seed is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[learn]\nlearning_rat = 1e-4\n", "did you mean 'learn.learning_rate'"),
        ("learning_rate = 1e-4\n", "did you mean 'learn.learning_rate'"),
        ("[learn]\nlearning_rate = -1\n", "learn.learning_rate = -1"),
        ("[learn]\nlearning_rate = 'quick'\n", "learn.learning_rate = 'quick'"),
        ("[rollout]\nengine = 'vllmm'\n", "rollout.engine = 'vllmm'"),
        ("[learn\n", "not valid TOML"),
    ],
)
def test_bad_files_are_refused_with_the_key_and_what_to_change(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config(file, environment={})
    assert complaint in str(error.value)
    assert str(file) in str(error.value)


def test_unknown_names_in_the_environment_are_errors_too() -> None:
    with pytest.raises(ConfigError, match=r"SAPO_ROLLOUT__ANSWER.*rollout\.answers"):
        load_config(environment={"SAPO_ROLLOUT__ANSWER": "4"})


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/does/not/exist\.toml: cannot be read"):
        load_config(Path("/does/not/exist.toml"), environment={})


def test_every_known_key_reaches_its_field() -> None:
    tree = NodeConfig().model_dump()
    for key in known_keys():
        *sections, name = key.split(".")
        section = tree
        for part in sections:
            section = section[part]
        assert name in section


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_node_files_load(file: Path) -> None:
    assert load_config(file, environment={}) != NodeConfig()


def test_there_are_shipped_node_files() -> None:
    assert CONFIGS


def test_a_manifest_is_a_path_or_a_shipped_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    assert find_manifest(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
    assert find_manifest("easy").is_file()
    with pytest.raises(ConfigError, match="shipped are only: easy, paper"):
        find_manifest("eesy")


def test_the_installers_names_in_the_environment_are_not_settings() -> None:
    environment = {"SAPO_PYTHON": "/usr/bin/python3", "SAPO_EXTRA": "cpu"}
    assert load_config(environment=environment) == NodeConfig()


def test_a_relay_has_more_peers_unless_it_is_told_otherwise() -> None:
    modes = ("train", "generate", "observe", "relay")
    found = [load_config(flags={"mode": mode}, environment={}) for mode in modes]
    assert [one.max_peers for one in found] == [64, 64, 64, 256]
    assert [one.has_policy for one in found] == [True, True, False, False]
    chosen = {"mode": "relay", "swarm.max_peers": "12"}
    assert load_config(flags=chosen, environment={}).max_peers == 12
    assert network_options(found[-1]).relay == "serve"
    assert [network_options(one).relay for one in found[:-1]] == ["auto"] * 3
    with pytest.raises(ConfigError, match="contradicts mode 'relay'"):
        network_options(load_config(flags={"mode": "relay", "swarm.relay": "off"}, environment={}))
    with pytest.raises(ConfigError, match="mode = 'learn'"):
        load_config(environment={"SAPO_MODE": "learn"})
