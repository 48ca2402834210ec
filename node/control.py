"""The control process: peers, pool, verifier, API and the learner's supervisor in one trio loop.

No torch here: the loop must answer peers within seconds while the learner computes for minutes.
SQLite and the verifier's blocking calls run in threads. Every part that dies ends the node with a
traceback, except the learner, which is started again.

On SIGTERM or Ctrl-C: the learner finishes or abandons its round and writes a checkpoint (at most
`supervise.stop_s`, then it is killed), the node leaves the swarm and ends within 10 s more. A
second signal ends everything at once.

A node without a policy (modes "observe" and "relay") has neither a learner nor a verifier: it
hears, keeps and passes on what is announced, and tells others what they missed.
"""

import logging
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from node.access import TOKEN_FILE, LiveToken, write_address
from node.actions import Actions, is_kept_paused
from node.answerer import Answerer
from node.api import Readable, create_app, serve_api
from node.api_actions import Changeable
from node.api_stream import round_item
from node.audit import Audit
from node.batch import make_strategy
from node.checkpoint import checkpoints_dir, find_start, open_checkpoints
from node.config import ConfigError, NodeConfig
from node.doors import Doors, open_doors
from node.foreign import make_intake
from node.home import keep_seed, open_home
from node.log_lines import LogLines, keeping_lines
from node.manifest_check import address_problem
from node.network_settings import network_options, peer_limits
from node.news import Event, Item, News
from node.pipe import HeldOutDone, Logged, RoundDone
from node.refusal_times import RefusalTimes
from node.rollout_log import OwnRollouts
from node.sd_notify import find_systemd, keep_informed
from node.snapshot import PAUSED, SHOWN_ROUNDS, Measured, NodeFacts, make_snapshot
from node.status import (
    WHAT_IT_DOES,
    CatchUpStatus,
    ForeignFate,
    PeerStatus,
    PoolStatus,
    RelayStatus,
    RoundReport,
    Snapshot,
)
from node.store import Store, open_store
from node.supervisor import LearnerEnd, NoLearner, Supervisor
from node.tasks import find_isolation, find_usable_tasks, open_verifier
from node.threads import in_thread
from node.watchdog import Watchdog
from rewards.tasks import TaskFacts
from rewards.verifier import Verifier
from swarm.catch_up import CatchUp, CatchUpStats
from swarm.database import DatabaseTooNew
from swarm.identity import SEQUENCE_FILE, Sequences, open_identity
from swarm.intake import Outcome
from swarm.judge import NoJudge, VerifierJudge
from swarm.ledger import PeerRecord
from swarm.libp2p import Libp2pGossip, open_libp2p
from swarm.libp2p_fixes import WrongLibp2p
from swarm.libp2p_host import ListenError
from swarm.limits import PeerLimits
from swarm.manifest import Manifest, Rules, load_manifest
from swarm.peer_book import WrongAddress
from swarm.relay import Relay
from swarm.share import Publisher

logger = logging.getLogger(__name__)


MEASURE_EVERY_S = 1.0
LAG_MEMORY_S = 60.0
LEAVE_S = 10.0
"""Seconds for leaving the swarm and closing everything, once the learner has ended."""

Show = Callable[[Snapshot], None]


def run_node(
    config: NodeConfig, learner: tuple[str, ...] | None = None, show: Show | None = None
) -> LearnerEnd:
    """Runs a node to its end; see the top of this file.

    Args:
        learner: the command that starts a learner (node/supervisor.py); for tests.
        show: is given a snapshot every second, in the trio thread.

    Raises:
        ConfigError, ManifestError, HomeError, IdentityError: what the user has to change.
        VerifierBroken: the tasks cannot be expanded and judged on this machine.
    """
    try:
        return trio.run(_run, config, learner, show)
    except BaseExceptionGroup as group:
        error = _first_of(group)
    except (ListenError, WrongAddress, WrongLibp2p, DatabaseTooNew) as wrong:
        error = wrong
    if isinstance(error, ListenError | WrongAddress | WrongLibp2p | DatabaseTooNew):
        raise ConfigError(str(error)) from error
    raise error


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a person should see: trio wraps what ends a nursery."""
    for error in group.exceptions:
        return _first_of(error) if isinstance(error, BaseExceptionGroup) else error
    return group


async def _run(
    config: NodeConfig, learner: tuple[str, ...] | None, show: Show | None
) -> LearnerEnd:
    async with open_control(config, learner) as control:
        return await control.run(show)


@dataclass(frozen=True, slots=True)
class Work:
    """What a node with a policy has, besides what every node has."""

    verifier: Verifier
    publisher: Publisher
    own: OwnRollouts


@asynccontextmanager
async def open_control(
    config: NodeConfig, learner: tuple[str, ...] | None = None
) -> AsyncIterator["Control"]:
    """All parts, opened in order and closed in the opposite one."""
    manifest = load_manifest(config.manifest_file)
    async with AsyncExitStack() as stack:
        home = stack.enter_context(open_home(config.home))
        identity = stack.enter_context(open_identity(home))
        if config.has_policy:
            find_start(config, manifest.swarm_id, open_checkpoints(config))  # told at once
        doors = stack.enter_context(open_doors(config.api))
        verifier: Verifier | None = None
        if config.has_policy:
            verifier = stack.enter_context(open_verifier(config, manifest))
        store = await stack.enter_async_context(
            open_store(config, manifest.rules, home, identity.node_id)
        )
        limits = peer_limits(config)
        gossip = await stack.enter_async_context(
            open_libp2p(
                identity,
                manifest.swarm_id,
                listen=config.swarm.listen,
                find=store.find,
                bootstrap=(*manifest.bootstrap.peers, *config.swarm.bootstrap),
                peers_file=home / "peers.json",
                max_peers=config.max_peers,
                options=network_options(config),
                answer_catalogue=store.answer_catalogue,
                peer_limits=limits,
                num_shards=manifest.rules.shards,
                is_banned=store.bans.is_banned,
            )
        )
        work: Work | None = None
        if verifier is not None:
            own = OwnRollouts(identity.node_id, config.policy.model)
            publisher = Publisher(
                identity,
                manifest.swarm_id,
                manifest.rules,
                Sequences(home / SEQUENCE_FILE),
                store.pool,
                gossip,
                store.offload,
                kept=store.announcements,
                hear_kept=own.hear_kept,
            )
            gossip.twins.incarnation = publisher.incarnation
            work = Work(verifier, publisher, own)
        yield Control(config, manifest, store, gossip, limits, doors, work, learner)


class Control:
    """Everything but the learner, while the node runs."""

    def __init__(
        self,
        config: NodeConfig,
        manifest: Manifest,
        store: Store,
        gossip: Libp2pGossip,
        limits: PeerLimits,
        doors: Doors,
        work: Work | None,
        learner: tuple[str, ...] | None,
    ) -> None:
        self._config = config
        self._manifest = manifest
        self._work = work
        self._store = store
        self._gossip = gossip
        self._doors = doors
        self._measured = Measured()
        self._readable = Readable(
            snapshot=self.snapshot,
            store=store,
            config=config,
            tasks=manifest.rules.tasks,
            checkpoints=checkpoints_dir(config),
            refusals=RefusalTimes(),
            lines=LogLines(),
            news=News(),
        )
        self._stop_asked = trio.Event()
        self._api_stop = trio.Event()
        self._facts = NodeFacts(
            node_id=gossip.node_id,
            swarm_id=manifest.swarm_id,
            swarm_name=manifest.about.name,
            home=str(config.home),
            mode=config.mode,
            model=config.policy.model if config.has_policy else "",
            num_foreign=make_strategy(config).most_foreign,
            shares=config.swarm.share != "none",
            hang_s=config.supervise.hang_s,
            start_s=config.supervise.start_s,
            started=time.time(),
        )
        self._intake = make_intake(
            config,
            manifest,
            gossip,
            VerifierJudge(work.verifier, config.verify.workers) if work else NoJudge(),
            store.pool,
            store.ledger,
            store.offload,
            kept=store.announcements,
            peer_limits=limits,
            is_banned=store.bans.is_banned,
            hear_outcome=self._hear_outcome,
        )
        self._catch_up = CatchUp(gossip, store.announcements, self._intake.hear, store.offload)
        self._answerer: Answerer | None = None
        self._supervisor: Supervisor | NoLearner = NoLearner()
        if work is not None:
            self._answerer = Answerer(
                config.swarm,
                work.verifier,
                store.pool,
                work.publisher,
                self._intake,
                store.offload,
                seed=keep_seed(config.home, config.seed),
                rules=manifest.rules,
                model=config.policy.model,
                clock=time.time,
                own=work.own,
            )
            self._supervisor = Supervisor(
                config, self._answerer.answer, self._hear, learner, is_kept_paused(config.home)
            )
        self._actions = Actions(
            config.home,
            gossip.node_id,
            store,
            gossip.drop,
            self._intake,
            self._catch_up,
            self._supervisor,
            lambda: self._stop("asked through the API"),
            work is not None and is_kept_paused(config.home),
        )

    def snapshot(self) -> Snapshot:
        """The node as it is; what needs a disk is at most a second old."""
        return make_snapshot(
            self._facts,
            self._measured,
            self._supervisor.status(),
            self._gossip.connections(),
            self._gossip.traffic(),
            self._gossip.addresses(),
            bans=self._store.bans.bans(),
            paused=self._actions.is_paused,
        )

    async def run(self, show: Show | None = None) -> LearnerEnd:
        """Runs until the learner has ended in order, or a stop is asked and heeded."""
        with keeping_lines(self._readable.lines):
            return await self._run(show)

    async def _run(self, show: Show | None) -> LearnerEnd:
        self._say_mode()
        await self._recall()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)  # first: a signal must not meet Python's own
            nursery.start_soon(self._serve_api)
            nursery.start_soon(self._measure)
            nursery.start_soon(self._watch_lag)
            nursery.start_soon(self._watch_stages)
            if show is not None:
                nursery.start_soon(self._show, show)
            nursery.start_soon(self._readable.news.watch, self.snapshot)
            nursery.start_soon(self._take_in)
            end = await self._supervisor.run()
            self._log_end(end)
            if end.all_rounds and self._config.swarm.stay:
                logger.info("all rounds are made; serving peers until stopped")
                await self._stop_asked.wait()
            self._readable.news.close()
            self._api_stop.set()
            nursery.cancel_scope.cancel()
        return end

    def _say_mode(self) -> None:
        if self._actions.is_paused:
            logger.warning(PAUSED)
        if self._config.mode != "train":
            logger.info("mode %s: %s", self._config.mode, WHAT_IT_DOES[self._config.mode])
        if self._config.mode == "relay":
            for address in self._gossip.addresses():
                if (problem := address_problem(address)) is None:
                    logger.info('for [bootstrap] of the swarm file: "%s"', address)
                else:
                    logger.warning('not for strangers: "%s": %s', address, problem[1])

    async def _recall(self) -> None:
        """What the database knows from before, of rounds of this mode."""
        if self._work is None:
            return
        history = self._store.history
        self._measured.reports.extend(await self._store.offload(history.last_rounds, SHOWN_ROUNDS))
        self._measured.heldout = tuple(await self._store.offload(history.heldout))

    async def _take_in(self) -> None:
        """Takes what peers announce, and their rollouts, where any are wanted."""
        if self._work is None:
            # As if it judged all: what it hears is refused as not wanted, not for another reason.
            self._intake.judge_tasks(_as_declared(self._manifest.rules))
        else:
            await self._find_tasks(self._work.verifier)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._catch_up.run)
            await self._intake.run()
            nursery.cancel_scope.cancel()

    async def _find_tasks(self, verifier: Verifier) -> None:
        """Finds which tasks this machine judges as all do."""
        usable, left_out = await in_thread(find_usable_tasks, verifier, self._manifest)
        self._measured.isolation = find_isolation(self._config, verifier)
        self._measured.tasks, self._measured.tasks_left_out = tuple(usable), dict(left_out)
        assert self._answerer is not None
        self._answerer.task_names = tuple(usable)
        self._answerer.has_tasks.set()
        self._intake.judge_tasks(usable)

    async def _hear(self, news: RoundDone | HeldOutDone | Logged) -> None:
        """Keeps what the learner reports, and credits the authors of what it used."""
        if isinstance(news, Logged):
            self._readable.lines.add(news.line)
            return
        offload, history, ledger = self._store.offload, self._store.history, self._store.ledger
        if isinstance(news, HeldOutDone):
            known = self._measured.heldout
            self._measured.heldout = news.heldout
            for found in news.heldout:
                await offload(history.put_heldout, found)
                if found not in known:
                    self._readable.news.tell(Item(Event.EVALUATION, found))
            return
        report, reports = news.report, self._measured.reports
        while reports and reports[-1].round >= report.round:  # made again after a restart
            reports.pop()
        reports.append(report)
        self._measured.total_tokens = news.total_tokens
        await offload(history.put_round, report)
        await self._keep_rollouts(report)
        self._readable.news.tell(round_item(report))
        for group in report.foreign:
            if group.fate is ForeignFate.USED:
                ledger.count_used(group.author, 1)
            else:
                ledger.count_refused(group.author, group.fate.value)

    async def _keep_rollouts(self, report: RoundReport) -> None:
        """For people to read: what was answered in the round, and what was made of peers'."""
        assert self._work is not None
        own = self._work.own.take(report.round)
        await self._store.offload(self._store.rollouts.add_own, own)
        await self._store.offload(self._store.rollouts.note_round, report)

    async def _hear_outcome(self, outcome: Outcome) -> None:
        await self._store.offload(self._store.rollouts.add_foreign, outcome)

    async def _measure(self) -> None:
        """Refreshes once a second what snapshots show of the database and of /proc."""
        measured, pool, ledger = self._measured, self._store.pool, self._store.ledger
        while True:
            counts, stats = await self._store.offload(pool.counts), self._intake.stats()
            kept = await self._store.offload(self._store.announcements.counts)
            measured.catch_up = _catch_up_status(self._catch_up.stats())
            if self._gossip.reach is not None and self._gossip.reach.relay is not None:
                measured.relay = _relay_status(self._gossip.reach.relay)
            measured.pool = PoolStatus(
                fresh=counts.fresh,
                used=counts.used,
                own=counts.own,
                num_bytes=counts.num_bytes,
                offers=stats.offers,
                announced_to_pool_s=stats.announced_to_pool_s,
                fetched_bytes=stats.fetched_bytes,
                announcements=kept.num,
                evicted={
                    "rollouts": pool.num_evicted,
                    "announcements": self._store.announcements.num_evicted,
                },
            )
            measured.peers = tuple(map(_peer_status, ledger.peers()))
            measured.refused = ledger.refused_totals()
            self._readable.refusals.note(measured.refused)
            measured.suspicion = self._intake.suspicion
            await in_thread(measured.measure_memory, self._supervisor.status().pid)
            await in_thread(measured.measure_disk, self._facts.home)
            await trio.sleep(MEASURE_EVERY_S)

    async def _watch_lag(self) -> None:
        """Notes how late this loop wakes up: the longest of the last minute."""
        lags: deque[float] = deque(maxlen=int(LAG_MEMORY_S / MEASURE_EVERY_S))
        while True:
            began = trio.current_time()
            await trio.sleep(MEASURE_EVERY_S)
            lags.append(trio.current_time() - began - MEASURE_EVERY_S)
            self._measured.lag_s = max(lags)

    async def _watch_stages(self) -> None:
        """Logs once of each stage that it lasts too long; snapshots warn of it all the time."""
        limits = self._config.supervise
        dog = Watchdog(limits.hang_s, limits.start_s)
        while True:
            if said := dog.look(self._supervisor.status(), self._measured.lately):
                logger.warning("%s", said)
            await trio.sleep(MEASURE_EVERY_S)

    async def _show(self, show: Show) -> None:
        while True:
            show(self.snapshot())
            await trio.sleep(MEASURE_EVERY_S)

    async def _serve_api(self) -> None:
        home, doors, audit = self._config.home, self._doors, Audit(self._config.home)
        async with trio.open_nursery() as nursery:
            token = LiveToken(home, lambda: nursery.start_soon(in_thread, audit.note_token))
            changeable = Changeable(self._actions, audit)
            app = create_app(self._readable, token, changeable, doors.names)
            if doors.tls is not None:
                nursery.start_soon(doors.tls.renew)
            with write_address(home, doors.local) as url:
                logger.info("serving the API at %s; the token is in %s", url, TOKEN_FILE)
                if (systemd := find_systemd()) is not None:
                    nursery.start_soon(keep_informed, systemd, self.snapshot)
                await serve_api(app, doors, stop=self._api_stop)
            nursery.cancel_scope.cancel()

    async def _watch_signals(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        num_heard = 0
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                name, num_heard = signal.Signals(number).name, num_heard + 1
                if num_heard > 1:
                    logger.warning("%s again: ending at once", name)
                    self._supervisor.kill()
                    os._exit(128 + number)
                self._stop(name, "; once more ends at once")

    def _stop(self, why: str, and_then: str = "") -> None:
        """Begins the end. A second call changes nothing."""
        logger.warning("%s: %s%s", why, self._way_out, and_then)
        self._stop_asked.set()
        if self._answerer is not None:
            self._answerer.stop_waiting()
        self._supervisor.stop()

    @property
    def _way_out(self) -> str:
        if self._work is None:
            return "leaving the swarm"
        limit_s = self._config.supervise.stop_s
        return f"the learner may finish its round and write a checkpoint (at most {limit_s:.0f} s)"

    def _log_end(self, end: LearnerEnd) -> None:
        if end.failure:
            logger.error("the learner cannot go on: %s", end.failure)
        elif end.was_killed:
            logger.error("the learner was killed; the last checkpoint stands")


def _as_declared(rules: Rules) -> dict[str, TaskFacts]:
    return {
        task.name: TaskFacts(task.digest, deterministic=False, num_questions=None)
        for task in rules.tasks
    }


def _catch_up_status(stats: CatchUpStats) -> CatchUpStatus:
    return CatchUpStatus(
        times=stats.num_runs,
        announcements=stats.num_announcements,
        refused=stats.num_refused,
        peers=stats.num_answered,
        peers_left=stats.num_left,
        num_bytes=stats.num_bytes,
        newcomers=stats.num_newcomers,
    )


def _relay_status(relay: Relay) -> RelayStatus:
    return RelayStatus(
        reserved=len(relay.reserved()),
        circuits=relay.num_circuits,
        num_bytes=relay.num_bytes,
        refused=relay.num_refused,
        slowed=relay.num_slowed,
    )


def _peer_status(record: PeerRecord) -> PeerStatus:
    return PeerStatus(
        record.node_id,
        connected=False,
        first_met=record.first_met,
        announcements=record.announcements,
        rollouts_offered=record.offered,
        rollouts_fetched=record.fetched,
        fetched_bytes=record.num_bytes,
        rollouts_admitted=record.admitted,
        rollouts_used=record.used,
        refused=record.refused,
        lies=record.lies,
        last_heard=record.last_heard,
    )
