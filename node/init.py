"""`sapo init`: a home for a node, with its settings to be looked at before it runs.

Nothing that is there is touched. Not made: the swarm file (`sapo join`; without it the shipped
swarm "easy" is taken) and the seed, which the first start draws.
"""

import os
from pathlib import Path

from node.access import TOKEN_FILE, open_token
from node.config import NODE_FILE, NodeConfig
from node.home import HomeError, open_home
from node.settings_file import toml_value
from swarm.disk import fsync_directory
from swarm.identity import KEY_FILE, open_identity

INTRODUCTION = """\
# Settings of this node. What stands behind a # is the default: remove the # and change the value.
# Every setting there is: sapo config show --origin --home HOME
# Whether this file is right: sapo config validate FILE
# A flag beats the environment (SAPO_LEARN__LEARNING_RATE=1e-5), which beats this file.
"""

OFFERED: tuple[tuple[str, str], ...] = (
    ("mode", "train, generate, observe or relay: what this node does"),
    ("manifest", "a swarm file, or a shipped one's name; else the one that was joined, else easy"),
    ("policy.model", "'tiny', a directory, or a hub id such as Qwen/Qwen2.5-0.5B-Instruct"),
    ("policy.dtype", "bfloat16 on a GPU; weights are trained in float32 all the same"),
    ("rollout.engine", "auto, vllm, vllm-process or transformers"),
    ("rollout.questions", "own questions per round"),
    ("rollout.answers", "to each of them"),
    ("rollout.gpu_memory", "share of the GPU's memory for vLLM; training needs the rest"),
    ("learn.learning_rate", "1e-6 to 1e-5 for models of half a billion weights and more"),
    ("learn.lora_rank", "above 0 a LoRA adapter is trained, which needs much less memory"),
    ("learn.micro_batch_answers", "smaller needs less memory; the result is the same"),
    ("learn.gradient_checkpointing", "true needs less memory and more time"),
    ("batch.strategy", "what an update learns from: fill, own, paper, ... (README.md)"),
    ("checkpoint.every", "rounds; what a kill costs at most"),
    ("checkpoint.keep", "of them; each is some 12 bytes per weight"),
    ("verify.workers", "processes that judge answers"),
    ("verify.isolation", "required: do not start where workers cannot be closed in"),
    ("swarm.foreign", "peers' rollouts per round at most; 0 learns alone"),
    ("swarm.share", "none, informative, lessons or all: which own rollouts become public"),
    ("swarm.listen", "where peers dial this node; open this port in the firewall"),
    ("swarm.announce", "addresses that peers are told, behind a port forwarding or in a container"),
    ("swarm.relay", "auto, use, serve or off: relays for nodes that nobody can dial"),
    ("swarm.max_peers", "connections; else 64, and 256 of a relay"),
    ("swarm.pool_mib", "of signed rollouts on disk"),
    ("api.port", "of page, API and metrics, on this machine only; 0 takes a free one"),
    ("evaluate.every", "rounds between evaluations on held-out questions; 0 makes none"),
    ("evaluate.questions", "of each; also before the first round"),
    ("log.format", "human, or json for machines"),
)
"""Key and meaning, in the order of the file: what one may want to change."""


def make_home(home: Path, chosen: NodeConfig) -> tuple[str, list[str]]:
    """Makes what is missing of a home: its layout, its key, its API's token, its settings.

    Args:
        chosen: its values that differ from the defaults stand in the new file.

    Returns:
        The node's id, and the names of the files that were made; empty where all were there.

    Raises:
        HomeError: a node runs there, or it cannot be written.
        IdentityError: its key is none, or others may read it.
    """
    made = [name for name in (KEY_FILE, TOKEN_FILE, NODE_FILE) if not (home / name).exists()]
    with open_home(home), open_identity(home) as identity:
        open_token(home)
        if NODE_FILE in made:
            _write_new(home / NODE_FILE, settings_text(chosen))
    return identity.node_id, made


def settings_text(chosen: NodeConfig) -> str:
    """A file of settings with comments; what differs from the defaults is in force."""
    defaults, tree = NodeConfig().model_dump(mode="json"), chosen.model_dump(mode="json")
    lines, section = [INTRODUCTION], ""
    for key, meaning in OFFERED:
        before, _, name = key.rpartition(".")
        if before != section:
            section = before
            lines.append(f"\n[{section}]")
        default = defaults[section][name] if section else defaults[name]
        value = tree[section][name] if section else tree[name]
        lines.append(f"# {meaning}")
        if value != default:
            lines.append(f"{name} = {toml_value(value)}")
        elif default is None:
            lines.append(f"# {name} =")
        else:
            lines.append(f"# {name} = {toml_value(default)}")
    return "\n".join(lines) + "\n"


def _write_new(file: Path, text: str) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        fsync_directory(file.parent)
    except OSError as error:
        raise HomeError(f"{file}: cannot be written: {error.strerror}") from None
