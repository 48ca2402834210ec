"""The node's metrics: one table, read off the Snapshot, in Prometheus' text format.

No label holds text of a stranger, and there is no label per peer: the number of series does not
grow with the swarm (the API's /api/v1/peers has each peer).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as METRICS_TYPE
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.status import ForeignFate, HeldOutStatus, RelayStatus, RoundReport, Snapshot, Stage
from swarm.limits import Kind

__all__ = ["METRICS", "METRICS_TYPE", "Row", "metrics_text"]

Samples = Iterable[tuple[tuple[str, ...], float]]
"""(values of the labels, value)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric."""

    name: str
    """With its unit; a counter ends in _total."""
    kind: Literal["counter", "gauge"]
    help: str
    read: Callable[[Snapshot], Samples]
    """No samples where there is nothing to say yet."""
    labels: tuple[str, ...] = ()


def _one(read: Callable[[Snapshot], float]) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [((), read(snapshot))]


def _last(read: Callable[[RoundReport], float]) -> Callable[[Snapshot], Samples]:
    """Of the last round, once there is one."""
    return lambda snapshot: [] if snapshot.last_round is None else [((), read(snapshot.last_round))]


def _by_label(read: Callable[[Snapshot], dict[str, float]]) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [((name,), value) for name, value in read(snapshot).items()]


def _over_peers(name: str) -> Callable[[Snapshot], Samples]:
    return _one(lambda snapshot: sum(getattr(peer, name) for peer in snapshot.peers))


def _info(snapshot: Snapshot) -> Samples:
    learner = snapshot.learner
    values = (snapshot.version, snapshot.swarm_id, snapshot.swarm_name, snapshot.node_id)
    return [((*values, snapshot.model, learner.engine, snapshot.mode), 1.0)]


def _stages(snapshot: Snapshot) -> Samples:
    return [((stage,), float(snapshot.learner.stage == stage)) for stage in Stage]


def _round_seconds(snapshot: Snapshot) -> dict[str, float]:
    return {} if snapshot.last_round is None else dict(snapshot.last_round.seconds)


def _shaped_reward(snapshot: Snapshot) -> Samples:
    reward = snapshot.last_round.shaped_reward if snapshot.last_round else None
    return [] if reward is None else [((), reward)]


def _divergence(snapshot: Snapshot) -> Samples:
    nats = snapshot.last_round.kl_to_start if snapshot.last_round else None
    return [] if nats is None else [((), nats)]


def _disk_free(snapshot: Snapshot) -> Samples:
    return [] if snapshot.disk_free is None else [((), snapshot.disk_free)]


def _fates(snapshot: Snapshot) -> dict[str, float]:
    if snapshot.last_round is None:
        return {}
    fates = [group.fate for group in snapshot.last_round.foreign]
    return {fate: float(fates.count(fate)) for fate in ForeignFate}


def _announced_to_pool(snapshot: Snapshot) -> Samples:
    seconds = snapshot.pool.announced_to_pool_s
    return [] if seconds is None else [((), seconds)]


def _held_out(read: Callable[[HeldOutStatus], float | None]) -> Callable[[Snapshot], Samples]:
    def read_both(snapshot: Snapshot) -> Samples:
        ends = (("first",), snapshot.heldout[:1]), (("last",), snapshot.heldout[-1:])
        for name, found in ends:
            for value in map(read, found):
                if value is not None:
                    yield name, value

    return read_both


def _of_relay(read: Callable[[RelayStatus], float]) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [] if snapshot.relay is None else [((), read(snapshot.relay))]


def _isolation(snapshot: Snapshot) -> Samples:
    if snapshot.isolation is not None:
        yield ("files",), float(snapshot.isolation.landlock_abi > 0)
        yield ("network",), float(snapshot.isolation.seccomp)


METRICS: tuple[Row, ...] = (
    Row(
        "sapo_node_info",
        "gauge",
        "Always 1; which node this is, in its labels.",
        _info,
        ("version", "swarm_id", "swarm_name", "node_id", "model", "engine", "mode"),
    ),
    Row(
        "sapo_start_time_seconds",
        "gauge",
        "Unix time of the control process's start.",
        _one(lambda snapshot: snapshot.started),
    ),
    Row(
        "sapo_warnings",
        "gauge",
        "Warnings that a person should look at now.",
        _one(lambda snapshot: len(snapshot.warnings)),
    ),
    # The learner process.
    Row(
        "sapo_learner_up",
        "gauge",
        "1 while the learner process runs.",
        _one(lambda snapshot: float(snapshot.learner.pid is not None)),
    ),
    Row(
        "sapo_learner_done",
        "gauge",
        "1 when all rounds asked for are made.",
        _one(lambda snapshot: float(snapshot.learner.is_done)),
    ),
    Row(
        "sapo_learner_restarts_total",
        "counter",
        "Restarts of the learner process by its supervisor.",
        _one(lambda snapshot: snapshot.learner.restarts),
    ),
    Row(
        "sapo_learner_stage",
        "gauge",
        "1 for what the learner is busy with, 0 for all else.",
        _stages,
        ("stage",),
    ),
    Row(
        "sapo_learner_stage_age_seconds",
        "gauge",
        "How long the present stage has lasted.",
        _one(lambda snapshot: snapshot.learner.stage_age_s),
    ),
    Row(
        "sapo_policy_round",
        "gauge",
        "Rounds that the policy has made; falls to its checkpoint when the learner is killed.",
        _one(lambda snapshot: snapshot.learner.round),
    ),
    Row(
        "sapo_tokens_generated_total",
        "counter",
        "Tokens generated by the own policy.",
        _one(lambda snapshot: snapshot.total_tokens),
    ),
    # The last round.
    Row(
        "sapo_round_own_reward",
        "gauge",
        "Share of the own answers that are correct, last round.",
        _last(lambda report: report.own_reward),
    ),
    Row(
        "sapo_round_shaped_reward",
        "gauge",
        "Mean reward of the own answers with the node's own terms, last round; only with such.",
        _shaped_reward,
    ),
    Row(
        "sapo_round_batch_reward",
        "gauge",
        "Share of correct answers in the training set, foreign groups included, last round.",
        _last(lambda report: report.batch_reward),
    ),
    Row(
        "sapo_round_zero_advantage_ratio",
        "gauge",
        "Share of own groups that teach nothing since all rewards are equal, last round.",
        _last(lambda report: report.zero_advantage_share),
    ),
    Row(
        "sapo_round_finished_ratio",
        "gauge",
        "Share of own answers that ended by themselves, last round.",
        _last(lambda report: report.finished_share),
    ),
    Row(
        "sapo_round_unscorable_answers",
        "gauge",
        "Own answers that the verifier could not decide, last round.",
        _last(lambda report: report.num_unscorable),
    ),
    Row(
        "sapo_round_entropy_nats",
        "gauge",
        "Mean entropy per token of the own answers, last round.",
        _last(lambda report: report.entropy),
    ),
    Row(
        "sapo_round_loss",
        "gauge",
        "Loss of the update, last round.",
        _last(lambda report: report.loss),
    ),
    Row(
        "sapo_round_gradient_norm",
        "gauge",
        "Norm of the gradient before clipping, last round.",
        _last(lambda report: report.gradient_norm),
    ),
    Row(
        "sapo_round_learning_rate",
        "gauge",
        "Learning rate, last round.",
        _last(lambda report: report.learning_rate),
    ),
    Row(
        "sapo_round_clipped_ratio",
        "gauge",
        "Share of tokens whose ratio was clipped, last round.",
        _last(lambda report: report.clip_share),
    ),
    Row(
        "sapo_round_groups",
        "gauge",
        "Groups of the batch, own, replayed and foreign, last round.",
        _last(lambda report: report.num_groups),
    ),
    Row(
        "sapo_round_groups_replayed",
        "gauge",
        "Of these, own ones of earlier rounds.",
        _last(lambda report: report.num_replayed),
    ),
    Row(
        "sapo_round_effective_sample_ratio",
        "gauge",
        "(sum w)^2 / (n sum w^2) over the batch's n answers that have a gradient, last round.",
        _last(lambda report: report.effective_sample_size),
    ),
    Row(
        "sapo_round_kl_to_start_nats",
        "gauge",
        "KL divergence per token of the policy from its start, in rounds that measure it.",
        _divergence,
    ),
    Row(
        "sapo_round_braked",
        "gauge",
        "1 if the brake had switched foreign groups off in the last round (a warning says why).",
        _last(lambda report: float(bool(report.brake))),
    ),
    Row(
        "sapo_round_update_skipped",
        "gauge",
        "1 if the last round made no optimizer step.",
        _last(lambda report: float(report.update_skipped is not None)),
    ),
    Row(
        "sapo_round_tokens_per_second",
        "gauge",
        "Tokens generated per second of generation, last round.",
        _last(lambda report: report.tokens_per_s),
    ),
    Row(
        "sapo_round_seconds",
        "gauge",
        "Seconds of the last round by stage.",
        _by_label(_round_seconds),
        ("stage",),
    ),
    Row(
        "sapo_round_foreign_groups_wanted",
        "gauge",
        "Foreign groups that the strategy asked for, at most J, last round.",
        _last(lambda report: report.foreign_wanted),
    ),
    Row(
        "sapo_round_foreign_groups",
        "gauge",
        "Foreign groups of the last round by what became of them.",
        _by_label(_fates),
        ("fate",),
    ),
    Row(
        "sapo_round_rollouts_shared",
        "gauge",
        "Own rollouts offered to peers, last round.",
        _last(lambda report: report.num_shared),
    ),
    # Held out.
    Row(
        "sapo_heldout_accuracy",
        "gauge",
        "pass@1 on held-out questions, first and last evaluation.",
        _held_out(lambda one: one.mean),
        ("evaluation",),
    ),
    Row(
        "sapo_heldout_standard_error",
        "gauge",
        "Standard error of it.",
        _held_out(lambda one: one.standard_error),
        ("evaluation",),
    ),
    Row(
        "sapo_heldout_pass_k",
        "gauge",
        "pass@k on them: whether any of the k answers to a question is correct.",
        _held_out(lambda one: one.pass_k),
        ("evaluation",),
    ),
    Row(
        "sapo_heldout_k",
        "gauge",
        "k: answers per held-out question.",
        _held_out(lambda one: one.k),
        ("evaluation",),
    ),
    Row(
        "sapo_heldout_greedy_accuracy",
        "gauge",
        "Share of held-out questions whose most likely answer is correct.",
        _held_out(lambda one: one.greedy),
        ("evaluation",),
    ),
    Row(
        "sapo_heldout_diversity",
        "gauge",
        "Mean Vendi score of the answers to a held-out question: 1 if all are equal, k if unlike.",
        _held_out(lambda one: one.diversity),
        ("evaluation",),
    ),
    Row(
        "sapo_heldout_round",
        "gauge",
        "Round of the policy at that evaluation.",
        _held_out(lambda one: one.round),
        ("evaluation",),
    ),
    # Peers.
    Row(
        "sapo_peers_connected",
        "gauge",
        "Peers connected now.",
        _one(lambda snapshot: sum(peer.connected for peer in snapshot.peers)),
    ),
    Row(
        "sapo_peers_known",
        "gauge",
        "Peers that this node keeps a record of.",
        _one(lambda snapshot: len(snapshot.peers)),
    ),
    Row(
        "sapo_peer_rollouts_offered_total",
        "counter",
        "Rollouts that peers announced.",
        _over_peers("rollouts_offered"),
    ),
    Row(
        "sapo_peer_rollouts_admitted_total",
        "counter",
        "Rollouts of peers that passed every check.",
        _over_peers("rollouts_admitted"),
    ),
    Row(
        "sapo_peer_rollouts_used_total",
        "counter",
        "Rollouts of peers that were in a batch.",
        _over_peers("rollouts_used"),
    ),
    Row(
        "sapo_peer_lies_total",
        "counter",
        "Refusals that are proven and charged to their author.",
        _over_peers("lies"),
    ),
    Row(
        "sapo_refused_total",
        "counter",
        "Announcements and rollouts refused, by reason.",
        _by_label(lambda snapshot: dict(snapshot.refused)),
        ("reason",),
    ),
    # The pool.
    Row(
        "sapo_pool_rollouts",
        "gauge",
        "Rollouts in the pool: fresh (not used yet), used, own.",
        _by_label(
            lambda snapshot: {
                "fresh": snapshot.pool.fresh,
                "used": snapshot.pool.used,
                "own": snapshot.pool.own,
            }
        ),
        ("state",),
    ),
    Row(
        "sapo_pool_bytes",
        "gauge",
        "Size of the pool.",
        _one(lambda snapshot: snapshot.pool.num_bytes),
    ),
    Row(
        "sapo_pool_offers",
        "gauge",
        "Rollouts announced and wanted, not fetched yet.",
        _one(lambda snapshot: snapshot.pool.offers),
    ),
    Row(
        "sapo_pool_announced_to_pool_seconds",
        "gauge",
        "Median from first sight of an announcement to the pool, of the last 256.",
        _announced_to_pool,
    ),
    Row(
        "sapo_pool_fetched_bytes_total",
        "counter",
        "Bytes of rollouts fetched, admitted or refused.",
        _one(lambda snapshot: snapshot.pool.fetched_bytes),
    ),
    Row(
        "sapo_evicted_total",
        "counter",
        "What gave way to newer ones on disk before it expired: rollouts, announcements.",
        _by_label(
            lambda snapshot: {
                what: snapshot.pool.evicted.get(what, 0) for what in ("rollouts", "announcements")
            }
        ),
        ("what",),
    ),
    # Traffic and the machine.
    Row(
        "sapo_sent_bytes_total",
        "counter",
        "Bytes sent to peers.",
        _one(lambda snapshot: snapshot.bytes_sent),
    ),
    Row(
        "sapo_received_bytes_total",
        "counter",
        "Bytes received from peers.",
        _one(lambda snapshot: snapshot.bytes_received),
    ),
    Row(
        "sapo_announcements_sent_total",
        "counter",
        "Announcements sent.",
        _one(lambda snapshot: snapshot.announcements_sent),
    ),
    Row(
        "sapo_announcements_received_total",
        "counter",
        "Announcements received.",
        _one(lambda snapshot: snapshot.announcements_received),
    ),
    Row(
        "sapo_announcements_dropped_total",
        "counter",
        "Announcements received and thrown away since the node was too busy.",
        _one(lambda snapshot: snapshot.announcements_dropped),
    ),
    Row(
        "sapo_connections_refused_total",
        "counter",
        "Connections closed because of a limit: in total, of one address or subnet, or at once.",
        _one(lambda snapshot: snapshot.connections_refused),
    ),
    Row(
        "sapo_visits_total",
        "counter",
        "Authors that were not connected, found in order to be asked for rollouts, by outcome.",
        _by_label(lambda snapshot: {"reached": snapshot.visits, "failed": snapshot.visits_failed}),
        ("outcome",),
    ),
    Row(
        "sapo_messages_unsent_total",
        "counter",
        "Messages that the full queue of a slow peer did not take.",
        _one(lambda snapshot: snapshot.messages_unsent),
    ),
    Row(
        "sapo_limited_total",
        "counter",
        "Times that peers met a limit of what one peer may do, by kind.",
        _by_label(lambda snapshot: {kind: snapshot.limited.get(kind, 0) for kind in Kind}),
        ("kind",),
    ),
    Row(
        "sapo_announcements_kept",
        "gauge",
        "Announcements kept on disk for peers that were away.",
        _one(lambda snapshot: snapshot.pool.announcements),
    ),
    Row(
        "sapo_shards_heard",
        "gauge",
        "Shards of the swarm's announcements that reach this node.",
        _one(lambda snapshot: snapshot.shards_heard),
    ),
    Row(
        "sapo_announcements_told_total",
        "counter",
        "Announcements told to peers that had missed them.",
        _one(lambda snapshot: snapshot.announcements_told),
    ),
    Row(
        "sapo_catch_ups_total",
        "counter",
        "Times that peers were asked what this node missed.",
        _one(lambda snapshot: snapshot.catch_up.times),
    ),
    Row(
        "sapo_catch_up_newcomers_total",
        "counter",
        "Newly connected peers that were asked what this node missed, besides those times.",
        _one(lambda snapshot: snapshot.catch_up.newcomers),
    ),
    Row(
        "sapo_catch_up_announcements_total",
        "counter",
        "Missed announcements that peers told, by whether they were taken.",
        _by_label(
            lambda snapshot: {
                "taken": snapshot.catch_up.announcements,
                "refused": snapshot.catch_up.refused,
            }
        ),
        ("fate",),
    ),
    Row(
        "sapo_catch_up_peers_total",
        "counter",
        "Peers asked what was missed, by whether they answered to the end.",
        _by_label(
            lambda snapshot: {
                "answered": snapshot.catch_up.peers,
                "left": snapshot.catch_up.peers_left,
            }
        ),
        ("outcome",),
    ),
    Row(
        "sapo_catch_up_bytes_total",
        "counter",
        "Bytes of requests and replies about what was missed.",
        _one(lambda snapshot: snapshot.catch_up.num_bytes),
    ),
    Row(
        "sapo_relay_reservations",
        "gauge",
        "Peers that can be reached through this node now; only of a relay.",
        _of_relay(lambda relay: relay.reserved),
    ),
    Row(
        "sapo_relay_circuits",
        "gauge",
        "Circuits of other nodes that are open through this one; only of a relay.",
        _of_relay(lambda relay: relay.circuits),
    ),
    Row(
        "sapo_relay_bytes_total",
        "counter",
        "Bytes carried between other nodes; only of a relay.",
        _of_relay(lambda relay: relay.num_bytes),
    ),
    Row(
        "sapo_relay_refused_total",
        "counter",
        "Reservations and circuits beyond a limit; only of a relay.",
        _of_relay(lambda relay: relay.refused),
    ),
    Row(
        "sapo_relay_slowed_total",
        "counter",
        "Pieces of circuits that waited for the rate of all circuits; only of a relay.",
        _of_relay(lambda relay: relay.slowed),
    ),
    Row(
        "sapo_control_cpu_seconds_total",
        "counter",
        "CPU time of the control process.",
        _one(lambda snapshot: snapshot.control_cpu_s),
    ),
    Row(
        "sapo_control_lag_seconds",
        "gauge",
        "How late the control process's loop woke up, the longest of the last minute.",
        _one(lambda snapshot: snapshot.lag_s),
    ),
    Row(
        "sapo_disk_free_bytes",
        "gauge",
        "Bytes free on the file system of the home.",
        _disk_free,
    ),
    Row(
        "sapo_memory_bytes",
        "gauge",
        "Resident memory by part.",
        _by_label(
            lambda snapshot: {
                part: mebibytes * 2**20 for part, mebibytes in snapshot.memory_mib.items()
            }
        ),
        ("part",),
    ),
    Row(
        "sapo_tasks",
        "gauge",
        "Tasks of the swarm: judged here, or left out (sapo status says why).",
        _by_label(
            lambda snapshot: {
                "judged": len(snapshot.tasks),
                "left_out": len(snapshot.tasks_left_out),
            }
        ),
        ("state",),
    ),
    Row(
        "sapo_verifier_closed",
        "gauge",
        "1 if the verifier's workers are kept from it: files (Landlock), network (seccomp).",
        _isolation,
        ("part",),
    ),
)
"""Every metric of the node; there is no other."""

OF_UPDATES = frozenset(
    f"sapo_round_{name}"
    for name in (
        "batch_reward",
        "loss",
        "gradient_norm",
        "learning_rate",
        "clipped_ratio",
        "groups",
        "groups_replayed",
        "effective_sample_ratio",
        "kl_to_start_nats",
        "braked",
        "update_skipped",
        "foreign_groups_wanted",
        "foreign_groups",
    )
)
"""They have no value in a node whose mode has it learn nothing: 0 would be untrue."""

OF_A_POLICY = ("sapo_learner_", "sapo_policy_", "sapo_tokens_", "sapo_round_", "sapo_heldout_")
"""So begin those, and `sapo_tasks` is one, that have no value where there is no policy."""


def _applies(row: Row, snapshot: Snapshot) -> bool:
    is_of_policy = row.name.startswith(OF_A_POLICY) or row.name == "sapo_tasks"
    return (snapshot.has_policy or not is_of_policy) and (
        snapshot.learns or row.name not in OF_UPDATES
    )


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for row in METRICS:
            kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            family = kind(row.name, row.help, labels=row.labels)
            samples = row.read(self._snapshot) if _applies(row, self._snapshot) else ()
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


def metrics_text(snapshot: Snapshot) -> bytes:
    """All metrics; those that have nothing to say yet stand there without a value."""
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    return generate_latest(registry)
