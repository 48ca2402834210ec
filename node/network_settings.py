"""What the settings say about the network, as swarm/ takes it."""

import math

from node.config import ConfigError, NodeConfig
from swarm.limits import PeerLimits, make_rates
from swarm.network_options import NetworkOptions
from swarm.quota import Quota


def peer_limits(config: NodeConfig) -> PeerLimits:
    """What the settings say about how much a peer may do, and what all together may have."""
    swarm, served = config.swarm, 2**20 * config.quota.served_mib_per_s
    return PeerLimits(
        make_rates(
            swarm.announcements_per_s,
            swarm.author_announcements_per_s,
            swarm.fetches_per_s,
            swarm.catalogue_per_s,
            swarm.peer_questions_per_s,
            swarm.served_mib_per_s,
        ),
        quota=Quota(served) if served else None,
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
        relayed_bytes_per_s=2**20 * config.quota.relayed_mib_per_s or math.inf,
    )
