"""The one view of a node, put together from its parts, and what in it is unusual."""

import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec

from node.manifest_check import address_problem
from node.memory import memory_by_part
from node.status import (
    CatchUpStatus,
    HeldOutStatus,
    LearnerStatus,
    PeerStatus,
    PoolStatus,
    RelayStatus,
    RoundReport,
    Snapshot,
)
from node.watchdog import slow_stage
from rewards.sandbox import Isolation
from swarm.bans import Ban
from swarm.gossip import Connection, Traffic
from swarm.refusal import Refusal

SHOWN_ROUNDS = 256
SHOWN_TASKS = 8
"""Tasks left out that have a warning each."""
LATELY = 10
"""Rounds that "lately" means in warnings."""
LONELY_AFTER_S = 30.0
"""Seconds after the start from which having no peer is worth a warning."""
HARMLESS = frozenset(
    {Refusal.OWN, Refusal.REPEATED, Refusal.SEEN, Refusal.NOT_WANTED, Refusal.CROWDED_OUT}
)
"""Refusals that happen all the time where all is well."""
WITHOUT_PEERS = {
    "train": "this node learns alone",
    "generate": "nobody gets what this node generates",
    "observe": "there is nothing to see",
    "relay": "nobody uses this relay",
}
PAUSED = "paused by its operator: no round begins until it is resumed"
LAG_S = 1.0
"""A control process whose loop is held up for longer answers its peers too late."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What does not change while the node runs."""

    node_id: str
    swarm_id: str
    swarm_name: str
    home: str
    model: str
    """Empty without a policy."""
    num_foreign: int
    """J."""
    shares: bool
    hang_s: float
    started: float
    """Unix seconds."""
    mode: str = "train"
    start_s: float = 1800.0

    @property
    def is_alone(self) -> bool:
        """Whether it neither gives nor takes, and is to learn anyway."""
        return self.mode == "train" and not self.num_foreign and not self.shares


@dataclass
class Measured:
    """What a task of the control process writes down once a second, for the next snapshots."""

    peers: tuple[PeerStatus, ...] = ()
    pool: PoolStatus = field(default_factory=PoolStatus)
    refused: dict[str, int] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    lag_s: float = 0.0
    """The longest hold-up of the loop within the last minute."""
    disk_free: int | None = None
    """Bytes where the home is."""
    catch_up: CatchUpStatus = field(default_factory=CatchUpStatus)
    relay: RelayStatus | None = None
    suspicion: str = ""
    """Why the node suspects its own verifier, or nothing."""
    tasks: tuple[str, ...] = ()
    tasks_left_out: dict[str, str] = field(default_factory=dict)
    """Name -> why."""
    isolation: Isolation | None = None
    reports: deque[RoundReport] = field(default_factory=lambda: deque(maxlen=SHOWN_ROUNDS))
    heldout: tuple[HeldOutStatus, ...] = ()
    total_tokens: int = 0

    @property
    def lately(self) -> list[RoundReport]:
        """Of the last rounds, oldest first."""
        return list(self.reports)[-LATELY:]

    def measure_memory(self, learner_pid: int | None) -> None:
        """Reads /proc."""
        self.memory_mib = memory_by_part(learner_pid)

    def measure_disk(self, home: str) -> None:
        """Asks the file system."""
        try:
            self.disk_free = shutil.disk_usage(home).free
        except OSError:
            self.disk_free = None


def make_snapshot(
    facts: NodeFacts,
    measured: Measured,
    learner: LearnerStatus,
    connections: Sequence[Connection],
    traffic: Traffic,
    addresses: Sequence[str],
    clock: Callable[[], float] = time.time,
    *,
    bans: Sequence[Ban] = (),
    paused: bool = False,
) -> Snapshot:
    """All that there is to show, with its warnings."""
    now = clock()
    reports = list(measured.reports)
    return Snapshot(
        node_id=facts.node_id,
        version=version("sapo-swarm"),
        swarm_id=facts.swarm_id,
        swarm_name=facts.swarm_name,
        home=facts.home,
        started=facts.started,
        now=now,
        learner=learner,
        pool=measured.pool,
        peers=with_connections(with_bans(measured.peers, bans), connections, now),
        last_round=reports[-1] if reports else None,
        own_reward=tuple(report.own_reward for report in reports),
        foreign_groups_used=tuple(report.foreign_groups_used for report in reports),
        refused=measured.refused,
        heldout=measured.heldout,
        addresses=tuple(addresses),
        paused=paused,
        warnings=(
            *([PAUSED] if paused else []),
            *_mode_warnings(facts, addresses),
            *find_warnings(facts, measured, learner, len(connections), traffic, now),
        ),
        bytes_sent=traffic.bytes_sent,
        bytes_received=traffic.bytes_received,
        shards_heard=traffic.shards_heard,
        announcements_sent=traffic.announcements_sent,
        announcements_received=traffic.announcements_received,
        announcements_dropped=traffic.announcements_dropped,
        announcements_told=traffic.announcements_served,
        messages_unsent=traffic.messages_unsent,
        limited={str(kind): num for kind, num in traffic.limited.items()},
        catch_up=measured.catch_up,
        relay=measured.relay,
        connections_refused=traffic.connections_refused,
        visits=traffic.visits,
        visits_failed=traffic.visits_failed,
        control_cpu_s=round(time.process_time(), 2),
        lag_s=round(measured.lag_s, 3),
        disk_free=measured.disk_free,
        memory_mib={part: mib for part, mib in measured.memory_mib.items() if mib},
        model=facts.model,
        mode=facts.mode,
        total_tokens=measured.total_tokens,
        tasks=measured.tasks,
        tasks_left_out=measured.tasks_left_out,
        isolation=measured.isolation,
    )


def with_bans(peers: Sequence[PeerStatus], bans: Sequence[Ban]) -> list[PeerStatus]:
    """What the ledger knows of peers, and who of them and of others is banned."""
    of_peers = {ban.node_id: ban for ban in bans}
    unknown = of_peers.keys() - {peer.node_id for peer in peers}
    return [
        msgspec.structs.replace(peer, banned=True, banned_until=ban.until, ban_reason=ban.reason)
        if (ban := of_peers.get(peer.node_id))
        else peer
        for peer in (*peers, *(PeerStatus(one, connected=False) for one in sorted(unknown)))
    ]


def with_connections(
    peers: Sequence[PeerStatus], connections: Sequence[Connection], now: float
) -> tuple[PeerStatus, ...]:
    """What the ledger knows of peers, and who is connected; connected ones first."""
    known = {peer.node_id: peer for peer in peers}
    there = {one.node_id: one for one in connections}
    merged = []
    for node_id in sorted(known.keys() | there.keys(), key=lambda one: (one not in there, one)):
        peer = known.get(node_id) or PeerStatus(node_id, connected=False)
        if connection := there.get(node_id):
            peer = msgspec.structs.replace(
                peer,
                connected=True,
                address=connection.address,
                connected_s=round(max(0.0, now - connection.since), 1),
            )
        merged.append(peer)
    return tuple(merged)


def find_warnings(
    facts: NodeFacts,
    measured: Measured,
    learner: LearnerStatus,
    num_connected: int,
    traffic: Traffic,
    now: float,
) -> list[str]:
    """What a person should look at, the worst first; nothing here is hidden by being frequent."""
    warnings = []
    if learner.restart_in_s is not None:
        warnings.append(
            f"the learner is down ({learner.last_error}); "
            f"next start in {learner.restart_in_s:.0f} s"
        )
    elif learner.restarts:
        times = "once" if learner.restarts == 1 else f"{learner.restarts} times"
        warnings.append(f"the learner was restarted {times}: {learner.last_error}")
    if slow := slow_stage(learner, measured.lately, facts.hang_s, facts.start_s):
        warnings.append(slow)
    if learner.engine_warning:
        warnings.append(learner.engine_warning)
    if measured.suspicion:
        warnings.append(measured.suspicion)
    if measured.isolation is not None and not measured.isolation.is_complete:
        missing = "; ".join(measured.isolation.missing)
        warnings.append(f"the verifier's workers are not isolated: {missing}")
    for name, reason in list(measured.tasks_left_out.items())[:SHOWN_TASKS]:
        warnings.append(f"task {name} is left out: {reason}")
    if (more := len(measured.tasks_left_out) - SHOWN_TASKS) > 0:
        warnings.append(f"{more} more tasks are left out")
    if not facts.is_alone and not num_connected and now - facts.started > LONELY_AFTER_S:
        warnings.append(f"no peer is connected: {WITHOUT_PEERS[facts.mode]}")
    warnings += _round_warnings(facts, measured.lately)
    admitted = sum(peer.rollouts_admitted for peer in measured.peers)
    refused = {name: num for name, num in measured.refused.items() if name not in HARMLESS}
    num_refused = sum(refused.values())
    if facts.num_foreign and num_refused >= LATELY and not admitted:
        worst = max(refused, key=lambda name: refused[name])
        warnings.append(f"all of {num_refused} offers were refused, most as {worst}")
    if traffic.announcements_dropped:
        warnings.append(
            f"{traffic.announcements_dropped} announcements were dropped: they come faster than "
            "they are read"
        )
    if traffic.messages_unsent:
        warnings.append(
            f"{traffic.messages_unsent} messages were not sent: a peer is too slow, or this node"
        )
    if measured.lag_s > LAG_S:
        warnings.append(f"the control process lags: it was held up for {measured.lag_s:.1f} s")
    return warnings


def _mode_warnings(facts: NodeFacts, addresses: Sequence[str]) -> list[str]:
    """What keeps a node from doing what its mode says."""
    if facts.mode == "generate" and not facts.shares:
        return ["it generates for nobody: swarm.share = 'none'"]
    if facts.mode == "relay" and all(map(address_problem, addresses)):
        return [
            "none of this relay's addresses is public: strangers cannot dial it; name one with "
            "swarm.announce"
        ]
    return []


def _round_warnings(facts: NodeFacts, lately: Sequence[RoundReport]) -> list[str]:
    if not lately:
        return []
    warnings = [brake] if (brake := lately[-1].brake) else []
    used = sum(report.foreign_groups_used for report in lately)
    wanted = sum(report.foreign_wanted for report in lately)
    if wanted and not used and len(lately) == LATELY:
        warnings.append(f"learned from nobody in the last {len(lately)} rounds")
    elif used < wanted / 2 and len(lately) == LATELY:
        warnings.append(
            f"few foreign groups: {used} of {wanted} wanted in the last {len(lately)} rounds"
        )
    if skipped := [report.update_skipped for report in lately if report.update_skipped]:
        warnings.append(f"{len(skipped)} of the last {len(lately)} updates skipped: {skipped[-1]}")
    if unscorable := sum(report.num_unscorable for report in lately):
        warnings.append(f"{unscorable} own answers of the last {len(lately)} rounds unscorable")
    return warnings
