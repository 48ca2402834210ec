"""What the node does now and what its rounds did: one name per number, everywhere.

A learner keeps a `Status`. The control process makes of it, and of what it knows itself, the one
`Snapshot` that API, page, terminal and metrics show.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from rewards.sandbox import Isolation


class Stage(StrEnum):
    """What a node is busy with; the parts of a round in their order."""

    STARTING = "starting"
    DRAWING = "drawing"
    GENERATING = "generating"
    VERIFYING = "verifying"
    SHARING = "sharing"
    MIXING = "mixing"
    """Asking for peers' rollouts, and waiting for them where the settings say so."""
    UPDATING = "updating"
    SYNCING = "syncing"
    CHECKPOINTING = "checkpointing"
    EVALUATING = "evaluating"
    PAUSED = "paused"
    """By an operator: no new round begins until it is resumed."""
    STOPPED = "stopped"


WHAT_IT_DOES = {
    "train": "learns from its own rollouts and from those of peers, and shares its own",
    "generate": "shares rollouts of a model that stays as it is, and learns nothing",
    "observe": "sees the swarm and passes on what is announced; it has no policy, and fetches and "
    "shares no rollouts",
    "relay": "is an address for those who join, and a way to those whom nobody can dial; it has no "
    "policy, and fetches and shares no rollouts",
}
"""What a node does in each mode, for people: follows "it"."""


class ForeignFate(StrEnum):
    """What became of a foreign rollout that the mixer drew."""

    USED = "used"
    ZERO_ADVANTAGE = "zero_advantage"
    """Its rewards are all equal: the mixing rule drops it."""
    TOO_LONG = "too_long_for_model"
    """An answer or the question has more tokens than the own policy takes."""
    EMPTY = "empty_answer"
    """An answer has no tokens and did not finish: nothing to learn from."""
    UNENCODABLE = "unencodable"
    """The own tokenizer cannot write an answer without special tokens, unknown ones included."""


class ForeignGroup(msgspec.Struct, frozen=True):
    """One foreign rollout of a round."""

    author: str
    hash: bytes
    task: str
    fate: ForeignFate
    policy_round: int
    """Claimed by the author."""
    age_s: float
    """From first sight to the batch."""
    mean_logp: float | None = None
    """Mean log-probability per token in nats of its answers under the receiver's own policy; None
    where it was not used, or not measured because `batch.likelihood_weight` is off."""
    weight: float = 1.0
    """What its advantages were multiplied by because of it."""


class TaskAnswers(msgspec.Struct, frozen=True):
    """The own answers of a round to the questions of one task."""

    num_answers: int
    num_correct: int


class RoundReport(msgspec.Struct, frozen=True):
    """What one round did."""

    round: int
    """Counts from 1; equals the policy's number of rounds after it."""
    own_reward: float
    """Share of this node's own answers of the round that are correct."""
    batch_reward: float
    """The same over the training set T (the paper's number; equal to own_reward alone); 0 where
    there is none, since nothing is learned (mode "generate")."""
    zero_advantage_share: float
    """Share of own groups whose rewards, own terms included, are all equal: they teach nothing."""
    num_questions: int
    num_answers: int
    num_unscorable: int
    """Own answers that the verifier could not decide; they trained as wrong."""
    own_tokens: int
    """Tokens generated, end-of-sequence tokens included."""
    finished_share: float
    """Share of own answers that ended by themselves."""
    entropy: float
    """Mean entropy per token of the own answers in nats, estimated as -mean log-probability."""
    update_skipped: str | None
    """Why no optimizer step was made, or None."""
    loss: float
    gradient_norm: float
    learning_rate: float
    clip_share: float
    """Share of tokens whose ratio was clipped; 0 with one step per batch."""
    seconds: dict[str, float]
    """Per stage."""
    foreign_wanted: int = 0
    """Foreign groups that the strategy asked for, at most J."""
    foreign: tuple[ForeignGroup, ...] = ()
    """Those that were there."""
    num_shared: int = 0
    """Own rollouts offered to peers."""
    finished_at: float = 0.0
    """Unix seconds."""
    shaped_reward: float | None = None
    """Mean reward of the own answers with this node's terms (node/reward.py); None without any."""
    num_groups: int = 0
    """Groups of the batch, own, replayed and foreign."""
    num_replayed: int = 0
    """Of these, own ones of earlier rounds."""
    effective_sample_size: float = 0.0
    """(sum w)^2 / sum w^2 over the weights of the batch's answers that have a gradient, as a share
    of their number: 1 where all weigh the same; 0 where none has a gradient."""
    kl_to_start: float | None = None
    """KL divergence of the policy from its start in nats per token, estimated on the own answers;
    None in rounds without a measurement."""
    brake: str = ""
    """Why foreign groups were switched off in this round; empty where they were not."""
    own_tasks: dict[str, TaskAnswers] = {}
    """Task -> the own answers to it; empty where a version that did not count them ran."""

    @property
    def foreign_groups_used(self) -> int:
        """Foreign groups in the batch."""
        return sum(group.fate is ForeignFate.USED for group in self.foreign)

    @property
    def round_s(self) -> float:
        """Seconds of the whole round."""
        return sum(self.seconds.values())

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second of generation."""
        return self.own_tokens / max(self.seconds.get(Stage.GENERATING, 0.0), 1e-9)


class TaskHeldOut(msgspec.Struct, frozen=True):
    """What an evaluation found on the questions of one task."""

    mean: float
    """pass@1."""
    standard_error: float
    """Of it, over questions; nan below two."""
    num_questions: int


class HeldOutStatus(msgspec.Struct, frozen=True):
    """One evaluation on held-out questions."""

    round: int
    mean: float
    """pass@1."""
    standard_error: float
    """Of it, over questions; nan below two."""
    num_questions: int
    pass_k: float | None = None
    """pass@k; None, as the figures below, where a version that did not measure it ran."""
    k: int | None = None
    """Answers per question."""
    greedy: float | None = None
    """Accuracy of the most likely answer to each question."""
    diversity: float | None = None
    """Mean Vendi score of the answers to one question: 1 if all are equal, k if all are unlike."""
    tasks: dict[str, TaskHeldOut] = {}
    """The same by task."""


@dataclass
class Status:
    """What a learner does; `on_change` hears of every new stage, engine, report and evaluation."""

    stage: Stage = Stage.STARTING
    stage_since: float = field(default_factory=time.monotonic)
    engine: str = ""
    """The engine in use."""
    engine_warning: str = ""
    """Why the engine is not the one that `auto` would have liked; shown loudly."""
    reports: deque[RoundReport] = field(default_factory=lambda: deque(maxlen=100_000))
    heldout: list[HeldOutStatus] = field(default_factory=list)
    """All evaluations of this node, in the order of their rounds."""
    clock: Callable[[], float] = time.monotonic
    on_change: Callable[[], None] = lambda: None
    on_report: "Callable[[RoundReport | HeldOutStatus], None]" = lambda found: None
    """Hears of every report and evaluation once."""
    _seconds: dict[str, float] = field(default_factory=dict)

    @property
    def stage_age_s(self) -> float:
        """How long the present stage has lasted."""
        return self.clock() - self.stage_since

    def enter(self, stage: Stage) -> None:
        """Names what happens from now on; it counts for no round."""
        self.stage, self.stage_since = stage, self.clock()
        self.on_change()

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Names what happens inside, and adds its duration to the round."""
        self.enter(stage)
        try:
            yield
        finally:
            passed = self.clock() - self.stage_since
            self._seconds[stage] = self._seconds.get(stage, 0.0) + passed

    def take_seconds(self) -> dict[str, float]:
        """Seconds per stage since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds


class PeerStatus(msgspec.Struct, frozen=True):
    """One peer: what it did since this node first met it. Restarts are survived."""

    node_id: str
    connected: bool
    address: str = ""
    """Of the connection, while there is one."""
    connected_s: float = 0.0
    first_met: float = 0.0
    """Unix seconds; 0 where the ledger has nothing of it."""
    announcements: int = 0
    rollouts_offered: int = 0
    """Entries of its announcements."""
    rollouts_fetched: int = 0
    """That arrived here, whoever served them."""
    fetched_bytes: int = 0
    """Of these."""
    rollouts_admitted: int = 0
    rollouts_used: int = 0
    """In batches of this node."""
    refused: dict[str, int] = {}
    """Reason -> count, of announcements and rollouts that it signed or carried."""
    lies: int = 0
    """Refusals that are proven and charged to it."""
    last_heard: float = 0.0
    """Unix seconds of its last announcement; 0 if never."""
    banned: bool = False
    """By this node's operator."""
    banned_until: float | None = None
    """Unix seconds; None: for good, or not at all."""
    ban_reason: str = ""
    """As the operator gave it."""


class PoolStatus(msgspec.Struct, frozen=True):
    """Foreign rollouts at hand."""

    fresh: int = 0
    """Admitted and not used yet."""
    used: int = 0
    own: int = 0
    """Own rollouts kept to be served."""
    num_bytes: int = 0
    offers: int = 0
    """Announced by peers, wanted by the mixing rule, not fetched yet."""
    announced_to_pool_s: float | None = None
    """Median seconds from first sight of an announcement to the pool, of the last 256."""
    fetched_bytes: int = 0
    """Of admitted and refused rollouts, since the start of the process."""
    announcements: int = 0
    """Kept on disk for peers that were away."""
    evicted: dict[str, int] = {}
    """What gave way to newer ones before it expired, since the disk's bounds were reached."""


class CatchUpStatus(msgspec.Struct, frozen=True):
    """What this node asked its peers for because it had missed it, since its start."""

    times: int = 0
    """That peers were asked."""
    announcements: int = 0
    """Taken."""
    refused: int = 0
    """Announcements that were told and not taken."""
    peers: int = 0
    """Asked to the end, over all times."""
    peers_left: int = 0
    """That did not answer, or told what was of no use."""
    num_bytes: int = 0
    """Of requests and replies."""
    newcomers: int = 0
    """Peers that were asked for having newly connected, besides the times."""


class RelayStatus(msgspec.Struct, frozen=True):
    """What a relay does for nodes that nobody can dial (swarm/relay.py)."""

    reserved: int = 0
    """Peers that can be reached through this node now."""
    circuits: int = 0
    """Open now."""
    num_bytes: int = 0
    """Carried since the start."""
    refused: int = 0
    """Reservations and circuits beyond a limit."""
    slowed: int = 0
    """Pieces of circuits, of 16 KiB at most, that waited since all together had their rate."""


class LearnerStatus(msgspec.Struct, frozen=True):
    """The learner process as its supervisor sees it."""

    pid: int | None = None
    stage: str = "starting"
    stage_age_s: float = 0.0
    round: int = 0
    """Rounds that the policy has made."""
    target_rounds: int | None = None
    engine: str = ""
    engine_warning: str = ""
    restarts: int = 0
    """Since the control process started."""
    last_error: str = ""
    """Why it ended the last time; escaped."""
    restart_in_s: float | None = None
    """Seconds until it is started again, while it is down."""
    is_done: bool = False
    """All rounds are made."""


class Snapshot(msgspec.Struct, frozen=True):
    """The one view of a node: API, page, terminal, metrics and demo show this and nothing else."""

    node_id: str
    version: str
    swarm_id: str
    swarm_name: str
    home: str
    started: float
    """Unix seconds of the control process's start."""
    now: float
    learner: LearnerStatus
    pool: PoolStatus
    peers: tuple[PeerStatus, ...]
    last_round: RoundReport | None
    own_reward: tuple[float, ...]
    """Of the last rounds, oldest first."""
    foreign_groups_used: tuple[int, ...]
    """Of the same rounds."""
    refused: dict[str, int]
    """Reason -> count over all peers."""
    heldout: tuple[HeldOutStatus, ...]
    addresses: tuple[str, ...]
    """Where peers can dial this node."""
    warnings: tuple[str, ...]
    """Whatever a person should look at now, one sentence each; empty when all is well."""
    bytes_sent: int = 0
    bytes_received: int = 0
    shards_heard: int = 1
    """Of those into which the swarm's announcements are split."""
    announcements_sent: int = 0
    announcements_received: int = 0
    announcements_dropped: int = 0
    announcements_told: int = 0
    """To peers that had missed them."""
    messages_unsent: int = 0
    """Own and others', that the full queue of a slow peer did not take."""
    limited: dict[str, int] = {}
    """How often peers met a limit, by kind."""
    catch_up: CatchUpStatus = CatchUpStatus()
    relay: RelayStatus | None = None
    """None where this node is no relay."""
    connections_refused: int = 0
    """Closed because of a limit on connections."""
    visits: int = 0
    """Authors that were not connected, and were found and connected in order to be asked."""
    visits_failed: int = 0
    control_cpu_s: float = 0.0
    """CPU seconds of the control process."""
    lag_s: float = 0.0
    """How late its loop woke up, the longest of the last minute."""
    disk_free: int | None = None
    """Bytes that are free where the home is; None where that is not known (yet)."""
    memory_mib: dict[str, float] = {}
    """Resident memory by part: control, learner, verifier."""
    model: str = ""
    mode: str = "train"
    """What the node does: train, generate, observe or relay (`mode` in node/config.py)."""
    total_tokens: int = 0
    tasks: tuple[str, ...] = ()
    """Offered and judged by this node."""
    tasks_left_out: dict[str, str] = {}
    """Of the manifest, but not offered and not judged by this node -> why, as a sentence."""
    isolation: Isolation | None = None
    """What keeps the verifier's workers from files and network; None until one is ready."""
    paused: bool = False
    """By an operator: when the round under way is finished, none begins until it is resumed."""

    @property
    def learns(self) -> bool:
        """Whether there are updates."""
        return self.mode == "train"

    @property
    def has_policy(self) -> bool:
        """Whether there are a learner process and rounds."""
        return self.mode in ("train", "generate")
