"""Every setting of connections reaches the network, and none twice."""

import dataclasses

import pytest

from node.config import ConfigError, NodeConfig, load_config
from node.network_settings import network_options
from swarm.network_options import NetworkOptions


def test_the_defaults_of_settings_and_network_are_the_same() -> None:
    assert network_options(NodeConfig()) == NetworkOptions()


def test_every_setting_is_handed_on() -> None:
    settings = {
        "swarm.max_per_address": 3,
        "swarm.max_per_subnet": 4,
        "swarm.announce": "/ip4/203.0.113.7/tcp/1,/dns4/box.example.org/tcp/2",
        "swarm.hear_kib_per_s": 7,
        "swarm.dht": False,
        "swarm.mdns": True,
        "swarm.relay": "use",
        "quota.relayed_mib_per_s": 5,
    }
    options, defaults = network_options(load_config(None, settings, {})), NetworkOptions()
    same = {
        field.name
        for field in dataclasses.fields(options)
        if getattr(options, field.name) == getattr(defaults, field.name)
    }
    assert same == {"is_exempt"}
    assert options.announce == ("/ip4/203.0.113.7/tcp/1", "/dns4/box.example.org/tcp/2")


@pytest.mark.parametrize(("mode", "relay"), [("relay", "serve"), ("observe", "auto")])
def test_a_relay_serves(mode: str, relay: str) -> None:
    assert network_options(load_config(None, {"mode": mode}, {})).relay == relay


@pytest.mark.parametrize("use", ["use", "off"])
def test_a_relay_that_does_not_serve_is_refused(use: str) -> None:
    config = load_config(None, {"mode": "relay", "swarm.relay": use}, {})
    with pytest.raises(ConfigError, match="contradicts mode 'relay'"):
        network_options(config)
