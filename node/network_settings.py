"""What the settings say about the network, as swarm/ takes it."""

from node.config import ConfigError, NodeConfig, SwarmConfig
from swarm.limits import PeerLimits, make_rates
from swarm.network_options import NetworkOptions


def peer_limits(config: SwarmConfig) -> PeerLimits:
    """What the settings say about how much a peer may do."""
    return PeerLimits(
        make_rates(
            config.announcements_per_s,
            config.author_announcements_per_s,
            config.fetches_per_s,
            config.catalogue_per_s,
            config.peer_questions_per_s,
            config.served_mib_per_s,
        )
    )


def network_options(config: NodeConfig) -> NetworkOptions:
    """What the settings say about connections.

    Raises:
        ConfigError: two of them contradict one another.
    """
    swarm = config.swarm
    if config.mode == "relay" and swarm.relay in ("use", "off"):
        raise ConfigError(f"swarm.relay = '{swarm.relay}' contradicts mode 'relay'; leave it out")
    return NetworkOptions(
        max_per_address=swarm.max_per_address,
        max_per_subnet=swarm.max_per_subnet,
        announce=swarm.announce,
        hear_bytes_per_s=1024 * swarm.hear_kib_per_s,
        dht=swarm.dht,
        mdns=swarm.mdns,
        relay="serve" if config.mode == "relay" else swarm.relay,
    )
