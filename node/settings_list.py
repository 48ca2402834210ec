"""Every setting with its value, and where that comes from."""

from collections.abc import Iterator

import msgspec

from node.config import NodeConfig, known_keys

DEFAULT = "default"


class Setting(msgspec.Struct, frozen=True):
    """One value, and where it comes from."""

    key: str
    value: object
    origin: str
    """default, a file's path, "environment variable NAME", or a flag."""


def list_settings(config: NodeConfig) -> Iterator[Setting]:
    """Every setting, in the order of the tree."""
    tree = config.model_dump(mode="json")
    origins = config.origins
    for key in known_keys():
        value = tree
        for part in key.split("."):
            value = value[part]
        yield Setting(key, value, origins.get(key, DEFAULT))
