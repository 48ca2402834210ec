import socket
import tomllib
from pathlib import Path

import pytest

from node.config import load_config
from node.data import find_data
from node.demo_home import Place, free_ports, lay_out
from node.settings_file import as_toml
from swarm.identity import Identity
from swarm.manifest import load_manifest, parse_manifest

EASY = Path(__file__).parents[2] / "configs" / "swarms" / "easy.toml"


def laid_out(directory: Path, manifest: Path = EASY, foreign: int = 4) -> list[Place]:
    config = load_config(
        flags={"seed": 7, "home": directory, "learn.learning_rate": 3e-5}, environment={}
    )
    return lay_out(
        config, directory, manifest, num_nodes=3, rounds=40, num_heldout=256, foreign=foreign
    )


def test_every_node_has_its_own_home_seed_address_and_key(tmp_path: Path) -> None:
    places = laid_out(tmp_path)
    settings = [load_config(place.config_file, environment={}) for place in places]
    assert [one.home for one in settings] == [tmp_path / f"node-{number}" for number in range(3)]
    assert [one.seed for one in settings] == [7000, 7001, 7002]
    assert len({one.swarm.listen for one in settings}) == 3
    assert len({place.node_id for place in places}) == 3
    for one in settings:
        assert one.learn.learning_rate == 3e-5
        assert (one.rounds, one.evaluate.questions, one.api.port) == (40, 256, 0)
        assert (one.swarm.foreign, one.swarm.stay) == (4, True)


def test_the_nodes_find_each_other_in_a_swarm_of_the_same_id(tmp_path: Path) -> None:
    places = laid_out(tmp_path)
    manifest = load_manifest(tmp_path / "swarm.toml")
    assert manifest.swarm_id == load_manifest(EASY).swarm_id
    settings = [load_config(place.config_file, environment={}) for place in places]
    assert [one.manifest for one in settings] == [str(tmp_path / "swarm.toml")] * 3
    assert manifest.bootstrap.peers == tuple(
        f"{one.swarm.listen}/p2p/{place.node_id}"
        for one, place in zip(settings, places, strict=True)
    )


def test_every_node_has_the_files_of_the_swarm(tmp_path: Path) -> None:
    places = laid_out(tmp_path, EASY.with_name("school.toml"))
    for place in places:
        config = load_config(place.config_file, environment={})
        manifest = load_manifest(config.manifest_file)
        found = find_data(manifest, config.home, config.manifest_file.parent)
        assert len(set(found.values())) == 3
        assert all(path.parent == place.home / "data" for path in found.values())


def test_peers_of_the_original_swarm_are_not_dialled(tmp_path: Path) -> None:
    public = "/ip4/203.0.113.7/tcp/8421/p2p/12D3KooWGRUVh6jzHTWbDGzyTQVkDYmmsfu3SAxE7HZbBN5iXXXX"
    source = tmp_path / "public.toml"
    source.write_text(f'[bootstrap]\npeers = [\n  "{public}",\n]\n\n{EASY.read_text()}')
    laid_out(tmp_path / "demo", source)
    manifest = load_manifest(tmp_path / "demo" / "swarm.toml")
    assert len(manifest.bootstrap.peers) == 3
    assert public not in manifest.bootstrap.peers


def test_a_swarm_file_that_cannot_be_changed_safely_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "public.toml"
    source.write_text(f"bootstrap = {{}}\n{EASY.read_text()}")
    with pytest.raises(ValueError, match=r"swarm\.toml"):
        laid_out(tmp_path / "demo", source)


def test_without_foreign_rollouts_nothing_is_shared_either(tmp_path: Path) -> None:
    settings = load_config(laid_out(tmp_path, foreign=0)[0].config_file, environment={})
    assert (settings.swarm.foreign, settings.swarm.share) == (0, "none")


def test_settings_are_written_so_that_they_read_the_same(tmp_path: Path) -> None:
    odd = 'a "quoted" \\ path\n\x7f\x01ü'
    config = load_config(
        flags={
            "home": odd,
            "policy.model": odd,
            "policy.trust_remote_code": True,
            "learn.weight_decay": 1e-22,
            "swarm.bootstrap": ("/ip4/127.0.0.1/tcp/1", odd),
        },
        environment={},
    )
    file = tmp_path / "node.toml"
    file.write_text(as_toml(config))
    assert load_config(file, environment={}) == config
    assert tomllib.loads(as_toml(load_config(environment={}))) == {}


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    with socket.socket() as one:
        one.bind(("127.0.0.1", ports[0]))


def test_the_swarm_of_an_owner_is_tried_without_the_signature(tmp_path: Path) -> None:
    owner = Identity(bytes(range(32)))
    text = EASY.read_text().replace("[rules]", f'[rules]\nowner = "{owner.node_id}"')
    value = owner.sign(parse_manifest(text.encode(), "test").signed_bytes(1)).hex()
    source = tmp_path / "given.toml"
    source.write_text(f'{text}\n[signature]\nversion = 1\nvalue = "{value}"\n')
    laid_out(tmp_path / "demo", source)
    made = load_manifest(tmp_path / "demo" / "swarm.toml")
    assert made.swarm_id == load_manifest(source).swarm_id
    assert made.signature is None and len(made.bootstrap.peers) == 3
