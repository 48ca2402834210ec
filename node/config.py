"""One settings tree: flag > environment > file > default. Unknown keys are errors.

Values that all nodes must share are not here: they come from the swarm manifest.
This is the only file that reads the environment: SAPO_LEARN__LEARNING_RATE=1e-5 sets
`learn.learning_rate`.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

Engine = Literal["auto", "vllm", "vllm-process", "transformers"]
Mode = Literal["train", "generate", "observe", "relay"]
ReportTo = Literal["tensorboard", "wandb"]
LogFormat = Literal["human", "json"]

SWARM_FILE = "swarm.toml"
"""In a home: the file of the swarm that it joined."""
NODE_FILE = "node.toml"
"""In a home: its settings."""
MAX_CONFIG_BYTES = 2**20
"""Of a file of settings."""
NODE_PEERS, RELAY_PEERS = 64, 256
ENVIRONMENT_PREFIX = "SAPO_"
INSTALLERS = {"SAPO_PYTHON", "SAPO_EXTRA"}
"""Names in the environment that are deploy/install.sh's, not settings."""


class ConfigError(ValueError):
    """The user's settings are wrong; the message says which, where from, and what to change."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PolicyConfig(_Section):
    model: str = "tiny"
    """"tiny" (shipped with the package), a directory, or a hub id. Safetensors only."""
    revision: str | None = None
    """Commit or tag of a hub model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of generation and of the arithmetic of updates. Trained weights are always float32: in
    bfloat16 small steps would be rounded away."""
    trust_remote_code: bool = False
    """Runs Python from the model's repository on this machine. Leave it off."""


class RolloutConfig(_Section):
    engine: Engine = "auto"
    """"auto" takes vLLM where it is installed and works, and says so loudly where not."""
    questions: int = Field(default=8, ge=1, le=4096)
    """Own questions per round (I)."""
    answers: int = Field(default=8, ge=2, le=256)
    """Answers per question (L)."""
    max_new_tokens: int | None = Field(default=None, ge=1, le=32768)
    """Tokens of one answer at most; None takes the manifest's limit."""
    max_prompt_tokens: int = Field(default=512, ge=8)
    """Questions with more are left out."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    gpu_memory: float = Field(default=0.45, gt=0, lt=1)
    """Share of the GPU's memory for vLLM; the trainer needs the rest."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """vLLM's cache on a CPU."""


class LearnConfig(_Section):
    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "constant_with_warmup"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """Lower clip range of the ratio."""
    epsilon_high: float = Field(default=0.28, gt=0)
    """Upper clip range of the ratio."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Weight of the KL term to the start; 0 as in the paper (no reference model is loaded)."""
    num_iterations: int = Field(default=1, ge=1, le=16)
    """Optimizer steps on each batch; clipping acts only above 1."""
    kl_every: int = Field(default=10, ge=0)
    """Rounds between measurements of how far the policy has moved from its start (KL divergence, on
    the round's own answers). Keeps a copy of the start, but for LoRA; 0 measures never."""
    ess_guard: bool = False
    """Multiplies the learning rate of an update by the square root of its effective sample size, as
    a share of the answers that have a gradient (VCPO): smaller steps where weights differ."""
    micro_batch_answers: int = Field(default=64, ge=1)
    """Answers per forward and backward pass; smaller needs less memory, the result is the same."""
    gradient_checkpointing: bool = False
    lora_rank: int = Field(default=0, ge=0)
    """0 trains all weights; above, a LoRA adapter on the attention and MLP projections."""
    report_to: tuple[ReportTo, ...] = ()
    """Also sends figures of each step and round there by TRL's own reporting: tensorboard
    (to `learner/runs` in the home) or wandb (to its servers, as its own settings in the environment
    say). A list, or one text with commas."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


StrategyName = Literal[
    "own",
    "own-dynamic",
    "own-replay",
    "own-weakness",
    "paper",
    "fill",
    "teach",
    "rescue",
]


class BatchConfig(_Section):
    """What an update learns from (node/batch.py)."""

    strategy: StrategyName = "fill"
    """own: this round's own groups. own-dynamic: those without advantage replaced by fresh ones.
    own-replay: own informative groups, then such of earlier rounds. own-weakness: own, questions
    drawn by weakness. paper: own groups and peers' informative ones. fill: own informative groups,
    then peers', then replay. teach: fill, with peers' all-correct groups. rescue: own groups, and a
    peer's where the own one to the same question failed."""
    groups: int = Field(default=8, ge=1, le=4096)
    """Informative groups of an update that replay, fill and teach aim at."""
    replay_rounds: int = Field(default=30, ge=0)
    """Rounds for which an own informative group may be replayed; 0 replays none."""
    replay_negatives: bool = False
    """Replays wrong answers of own groups, too."""
    token_budget: float = Field(default=3.0, ge=1)
    """own-dynamic: tokens generated in a round at most, as a multiple of what its first questions
    took."""
    weakness: bool = False
    """Own questions, and with `teach` peers' groups, are drawn in proportion to 1 - the running own
    accuracy on their task."""
    common_share: float = Field(default=0.5, gt=0, le=1)
    """rescue: share of the own questions that is common to the swarm."""
    max_age_s: float | None = Field(default=None, gt=0)
    """Foreign groups that this node has known for longer are not used; None: for the lifetime that
    the swarm's rules give them."""
    half_life_s: float | None = Field(default=None, gt=0)
    """Halves the advantages of a foreign group for every such time that this node has known it."""
    peer_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a round's foreign groups that one peer may have at most, rounded up."""
    likelihood_weight: bool = True
    """Multiplies each foreign answer's advantage by min(1, exp(l - o), exp(l - c)): l its mean
    log-probability per token under the own policy, o that of the round's own answers, c what its
    author claims. So a claim can lower the weight and never raise it. A group's failures weigh
    no more than what this leaves of its successes."""
    importance_ratio: float | None = Field(default=None, ge=1)
    """Multiplies the advantage of a replayed answer by exp(now - then) of its mean log-probability
    per token, at most this: the truncated, length-normalised importance ratio; None: by 1."""
    brake: bool = False
    """Switches foreign groups off for a while, loudly, when own reward or held-out accuracy has
    fallen clearly."""


class RewardConfig(_Section):
    """Terms of this node's own, added to 1 for a correct answer and 0 for any other when it
    learns; never shared (node/reward.py)."""

    format: float = Field(default=0.0, ge=0, le=1)
    """Added where a final answer is marked as the task asks."""
    length: float = Field(default=0.0, ge=0, le=1)
    """Taken off at the swarm's `max_answer_bytes`; less, in proportion, between that and
    `free_bytes`."""
    free_bytes: int | None = Field(default=None, ge=0)
    """UTF-8 bytes of an answer that cost nothing; None takes 4/5 of `max_answer_bytes`."""


class CheckpointConfig(_Section):
    every: int = Field(default=10, ge=1)
    """Rounds between checkpoints; one more is written on SIGTERM."""
    keep: int = Field(default=3, ge=1)


Demand = Literal["required", "programs", "optional"]


class VerifyConfig(_Section):
    workers: int = Field(default=1, ge=1, le=64)
    deadline_s: float = Field(default=5.0, gt=0)
    """Wall-clock seconds for one answer."""
    memory_mib: int = Field(default=2048, ge=256)
    """Address space of a worker."""
    isolation: Demand = "programs"
    """Who may do without the isolation of rewards/sandbox.py where this machine lacks it: nobody,
    the node does not start (required); tasks whose answers are not programs, the others are left
    out (programs); everybody (optional): programs of strangers then read what the node may read.
    Only on a machine with nothing to lose."""
    author_burst_s: float = Field(default=30.0, gt=0)
    """Seconds of verification that one peer's rollouts may use at once: 37 of programs, at 8
    answers of 0.1 s."""
    author_share: float = Field(default=0.1, gt=0, le=1)
    """Share of one worker's time that they may use in the long run: 7 such rollouts a minute."""
    foreign_share: float = Field(default=0.5, gt=0, le=1)
    """Share of all workers' time that the rollouts of all peers together may use."""


Share = Literal["none", "informative", "lessons", "all"]


RelayUse = Literal["auto", "use", "serve", "off"]


class SwarmConfig(_Section):
    foreign: int = Field(default=8, ge=0, le=4096)
    """Peers' rollouts per round at most (J). 0 learns from nobody: ordinary RL fine-tuning."""
    share: Share = "lessons"
    """Own rollouts that peers may have: none; those whose rewards differ (informative); these and
    one all-correct one per task and round (lessons); all that were judged."""
    wait_s: float = Field(default=0.0, ge=0, le=600)
    """Seconds per round to wait for peers' rollouts while fewer than J are there."""
    listen: str = "/ip4/0.0.0.0/tcp/8421"
    """Multiaddr to listen on; port 0 takes a free one."""
    bootstrap: tuple[str, ...] = ()
    """Addresses of peers to dial, besides those of the manifest and those known from before. A
    list; commas between them where it is given as one text."""
    announce: tuple[str, ...] = ()
    """Addresses that peers are told instead of those that this machine sees, for a node behind a
    port forwarding or in a container, e.g. /ip4/203.0.113.7/tcp/8421 or
    /dns4/box.example.org/tcp/8421. A list, or one text with commas."""
    relay: RelayUse = "auto"
    """auto: where it seems that nobody can dial this node, peers reach it through relays that serve
    its swarm. use: always so. serve: this node is such a relay, for nodes that nobody can dial.
    off: no relays (docs/network.md)."""
    hear_kib_per_s: float = Field(default=64.0, gt=0)
    """Of announcements, in a swarm of several shards: the node hears as many as fit, and always its
    own."""
    mdns: bool = False
    """Looks for peers in the local network by mDNS, and tells everybody there that this machine is
    a node of its swarm."""
    dht: bool = True
    """Lookups by Kademlia, so that one bootstrap node is enough to find the swarm. Without them
    peers are still asked for further ones every 30 s."""
    max_peers: int | None = Field(default=None, ge=1, le=1024)
    """Connections at most; None takes 64, or 256 in mode "relay"."""
    max_per_address: int = Field(default=8, ge=1)
    """Of them with one IP address (IPv6: one /64); loopback is exempt. Raise it where many nodes
    share an address behind one NAT."""
    max_per_subnet: int = Field(default=32, ge=1)
    """The same for one subnet: /24 of IPv4, /56 of IPv6."""
    pool_mib: int = Field(default=64, ge=1)
    """Signed rollouts kept on disk, own and foreign."""
    announcements_mib: int = Field(default=16, ge=1)
    """Announcements kept on disk until they expire: what peers that were away are told."""
    announcements_per_s: float = Field(default=100.0, ge=1)
    """Taken from one peer, its own and others' that it passes on; 20 s' worth at once."""
    author_announcements_per_s: float = Field(default=2.0, gt=0)
    """Taken of one author, whoever brings them; a minute's worth at once."""
    fetches_per_s: float = Field(default=4.0, gt=0)
    """Requests for rollouts that one peer may make; 10 s' worth at once."""
    catalogue_per_s: float = Field(default=2.0, gt=0)
    """Requests for what it missed that one peer may make; a minute's worth at once, which is more
    than a node needs that knows nothing."""
    peer_questions_per_s: float = Field(default=0.2, gt=0)
    """Requests for addresses that one peer may make; 50 s' worth at once."""
    served_mib_per_s: float = Field(default=2.0, gt=0)
    """Sent to one peer in reply to its requests; 16 s' worth at once."""
    stay: bool = False
    """After the last of `rounds` the node goes on serving its peers until it is stopped."""

    @field_validator("bootstrap", "announce", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


class QuotaConfig(_Section):
    """What all peers together may have of this node, and of its disk; section `swarm` has what each
    may, and the disk for rollouts and announcements."""

    served_mib_per_s: float = Field(default=4.0, ge=0)
    """Sent in reply to the requests of all peers; 16 s' worth at once. 0 sets no bound."""
    relayed_mib_per_s: float = Field(default=4.0, ge=0)
    """Carried between others, where this node is a relay; faster circuits wait. 0 sets no bound."""
    seen_hashes: int = Field(default=200_000, ge=1000)
    """Of rollouts, kept on disk while these live, so that none is judged twice: 53 MiB."""
    proofs_mib: int = Field(default=16, ge=2)
    """What liars signed, kept on disk; the oldest give way."""
    shown_mib: int = Field(default=24, ge=0)
    """Rollouts kept on disk to be read by people, a third each for own ones, admitted ones of
    peers, and refused ones; the oldest give way. 0 keeps none."""


class ApiConfig(_Section):
    host: str = "127.0.0.1"
    """An IP address: 127.0.0.1 serves this machine only; any other one is served to the network,
    which needs TLS (below), besides a free port of 127.0.0.1."""
    port: int = Field(default=8420, ge=0, le=65535)
    """0 takes a free one; `api-address` in the home says where this machine asks."""
    tls_cert: Path | None = None
    """PEM file of the certificate, and those between it and its root, for `host` in the network."""
    tls_key: Path | None = None
    """PEM file of its key, not encrypted."""
    names: tuple[str, ...] = ()
    """Names under which the API may be asked, besides those of this machine and `host`, e.g.
    node.example.org. A list, or one text with commas."""
    insecure_public: bool = False
    """Serves the network without TLS: whoever is on the way reads the token and rules the node.
    For a container's own network, or behind a proxy that has TLS."""

    @field_validator("names", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


class SuperviseConfig(_Section):
    hang_s: float = Field(default=900.0, gt=0)
    """A learner whose stage lasts longer is killed and started again from its checkpoint."""
    start_s: float = Field(default=1800.0, gt=0)
    """The same for loading: a large model may have to be downloaded first."""
    stop_s: float = Field(default=60.0, gt=0)
    """After SIGTERM: seconds for the learner to finish or abandon its round and write a
    checkpoint; then it is killed. The node ends at most 10 s later."""
    max_backoff_s: float = Field(default=60.0, gt=0)
    """Between restarts of a learner that keeps failing: 1, 2, 4, ... up to this."""


class EvaluateConfig(_Section):
    questions: int = Field(default=0, ge=0)
    """Held-out questions asked before the first and after the last of `rounds`; 0 asks none."""
    every: int = Field(default=0, ge=0)
    """Rounds between further evaluations; 0 makes none."""


class LogConfig(_Section):
    format: LogFormat = "human"
    """Lines for people, or one JSON object per line. Where `sapo run` shows its live view, the log
    goes to `logs/node.log` in the home."""


class _Origins(dict[str, str]):
    """Settings are equal wherever they come from."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Origins)

    __hash__ = None


class NodeConfig(_Section):
    """Everything that an operator may choose."""

    home: Path = Path("sapo-home")
    """The node's directory: identity, pool, checkpoints, logs."""
    mode: Mode = "train"
    """train: all. generate: contributes rollouts of a fixed model, never updates it and takes
    nothing from peers. observe: sees the swarm, without a policy. relay: as observe, and a public
    bootstrap node through which those are reached whom nobody can dial."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Of questions and sampling. None draws one at the first start and keeps it in `home`."""
    manifest: str | None = None
    """The swarm file: a path, or the name of one that is shipped ("easy", "paper"). None takes the
    one that was joined (`sapo join`), else "easy"."""
    rounds: int | None = Field(default=None, ge=1)
    """Stop after this many; None goes on until stopped."""
    policy: PolicyConfig = PolicyConfig()
    rollout: RolloutConfig = RolloutConfig()
    learn: LearnConfig = LearnConfig()
    batch: BatchConfig = BatchConfig()
    reward: RewardConfig = RewardConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    verify: VerifyConfig = VerifyConfig()
    swarm: SwarmConfig = SwarmConfig()
    quota: QuotaConfig = QuotaConfig()
    api: ApiConfig = ApiConfig()
    supervise: SuperviseConfig = SuperviseConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    log: LogConfig = LogConfig()

    _origins: _Origins = PrivateAttr(default_factory=_Origins)

    @property
    def origins(self) -> Mapping[str, str]:
        """Dotted key -> where its value comes from, for people. Those that are not named are
        defaults. Not sent to the learner process."""
        return dict(self._origins)

    @property
    def has_policy(self) -> bool:
        """Whether the node has a learner process and a verifier; else it only talks to peers."""
        return self.mode in ("train", "generate")

    @property
    def max_peers(self) -> int:
        """Connections at most."""
        return self.swarm.max_peers or (RELAY_PEERS if self.mode == "relay" else NODE_PEERS)

    @property
    def manifest_file(self) -> Path:
        """The swarm file that these settings name.

        Raises:
            ConfigError: there is none.
        """
        joined = self.home / SWARM_FILE
        if self.manifest is None and joined.is_file():
            return joined
        return find_manifest(self.manifest or "easy")


def load_config(
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> NodeConfig:
    """The settings from their four sources.

    Args:
        file: a TOML file with only the differences from the defaults.
        flags: dotted key -> value, e.g. {"learn.learning_rate": 1e-5}; None values are skipped.
        environment: by default the process environment; only names with SAPO_ and no others.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value out of range, a file
            that cannot be read; every problem is listed with where it came from.
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        for key, value in _flatten(_read_toml(file)):
            _put(tree, origin, key, value, str(file))
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in INSTALLERS:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _put(tree, origin, key, text, f"environment variable {name}")
    for key, flag in (flags or {}).items():
        if flag is not None:
            _put(tree, origin, key, flag, f"--{key.split('.')[-1].replace('_', '-')}")
    try:
        config = NodeConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None
    config._origins.update(origin)
    return config


def load_node_config(
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> NodeConfig:
    """As `load_config`; where no file is named, with the home's own `node.toml`, if it has one.

    A `home` in that file says nothing: it is where it lies.

    Raises:
        ConfigError: as `load_config`.
    """
    if file is None:
        home = load_config(flags=flags, environment=environment).home
        if (home / NODE_FILE).is_file():
            config = load_config(home / NODE_FILE, flags, environment)
            return config if config.home == home else config.model_copy(update={"home": home})
    return load_config(file, flags, environment)


def find_home(flag: Path | None) -> Path:
    """The node's directory: as the flag says, else SAPO_HOME, else the default.

    Raises:
        ConfigError: a setting in the environment is wrong.
    """
    return load_config(flags={"home": flag}).home


def find_manifest(name: str) -> Path:
    """The swarm file at a path, or the shipped one of that name.

    Raises:
        ConfigError: neither exists.
    """
    shipped = Path(str(files("node") / "configs" / "swarms"))
    for path in (Path(name), shipped / f"{name}.toml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.toml")))
    raise ConfigError(f"manifest: there is no file '{name}', and shipped are only: {names}")


def known_keys() -> list[str]:
    """Every dotted key of the tree, e.g. "learn.learning_rate"."""
    return list(_leaves(NodeConfig, ""))


def _leaves(section: type[BaseModel], prefix: str) -> Sequence[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _leaves(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{file}: more than {MAX_CONFIG_BYTES} bytes; is it the right file?")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs


def _put(
    tree: dict[str, Any], origin: dict[str, str], key: str, value: object, source: str
) -> None:
    """Sets one dotted key; a key that does not exist is refused here, with the nearest one."""
    if key not in (known := known_keys()):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        leaf = [k for k in known if k.split(".")[-1] == key.split(".")[-1]]
        hint = (leaf or near or [""])[0]
        raise ConfigError(
            f"{source}: there is no setting '{key}'" + (f"; did you mean '{hint}'?" if hint else "")
        )
    origin[key] = source
    *sections, leaf_name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[leaf_name] = value


def _explain(error: ValidationError, origin: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        where = origin.get(key, "default")
        lines.append(f"{where}: {key} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)
