"""Settings as the text of a TOML file."""

import json

from node.config import NodeConfig


def as_toml(config: NodeConfig) -> str:
    """The settings that differ from the defaults, as `load_config` reads them."""
    tree = config.model_dump(mode="json", exclude_defaults=True)
    lines = [
        f"{key} = {toml_value(value)}" for key, value in tree.items() if type(value) is not dict
    ]
    for name, section in tree.items():
        if type(section) is dict and section:
            lines += ["", f"[{name}]", *(f"{key} = {toml_value(section[key])}" for key in section)]
    return "\n".join(lines) + "\n"


def toml_value(value: object) -> str:
    """One TOML value of a setting. JSON's notation is TOML's for booleans, numbers, texts and
    lists, but for the delete character, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
