"""A node that the API reads and changes, without swarm and learner: for tests and documents."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from node.actions import Actions, Learner
from node.api_actions import Changeable
from node.api_reads import Readable
from node.audit import Audit
from node.config import NodeConfig
from node.history import History
from node.log_lines import LogLines
from node.news import News
from node.refusal_times import RefusalTimes
from node.rollout_log import OwnRollouts, RolloutLog
from node.status import (
    ForeignFate,
    ForeignGroup,
    HeldOutStatus,
    LearnerStatus,
    PoolStatus,
    RoundReport,
    Snapshot,
    TaskAnswers,
    TaskHeldOut,
)
from node.store import Store
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable
from rewards.tasks import TaskSpec
from swarm.admission import Seen
from swarm.announcements import Announcements
from swarm.bans import Bans
from swarm.database import MemoryDatabase
from swarm.identity import Identity
from swarm.intake import Outcome
from swarm.ledger import Ledger
from swarm.offers import Offer
from swarm.pool import Pool
from swarm.refusal import Refusal
from swarm.rollout import Entry, Rollout
from swarm.wire import rollout_hash, seal

P = ParamSpec("P")
T = TypeVar("T")

NUM_ROUNDS = 40
ANSWERS = (
    Answer("41 <script>alert(1)</script>\n\u2028\x1b[2J", True, 9, -0.25),
    Answer("", False, 4, None),
)

EMPTY = Snapshot(
    node_id="12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p",
    version="0",
    swarm_id="0" * 64,
    swarm_name="none",
    home="nowhere",
    started=0.0,
    now=0.0,
    learner=LearnerStatus(),
    pool=PoolStatus(),
    peers=(),
    last_round=None,
    own_reward=(),
    foreign_groups_used=(),
    refused={},
    heldout=(),
    addresses=(),
    warnings=(),
)
"""Of a node that has just started."""


async def at_once(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """An `Offload` for what does not block."""
    return call(*args, **kwargs)


def fake_store() -> Store:
    """An empty database in memory."""
    database = MemoryDatabase()
    pool = Pool(database, lifetime_s=3600.0, max_bytes=2**20)
    return Store(
        pool=pool,
        announcements=Announcements(database, EMPTY.node_id, max_bytes=2**20),
        ledger=Ledger(database),
        bans=Bans(database),
        history=History(database),
        rollouts=RolloutLog(database, pool, max_bytes=2**20),
        offload=at_once,
    )


def fake_readable(
    snapshot: Callable[[], Snapshot] = lambda: EMPTY,
    store: Store | None = None,
    *,
    config: NodeConfig | None = None,
    tasks: tuple[TaskSpec, ...] = (),
    checkpoints: Path = Path("nowhere"),
    news: News | None = None,
) -> Readable:
    """What is given, and nothing else."""
    return Readable(
        snapshot=snapshot,
        store=store or fake_store(),
        config=config or NodeConfig(),
        tasks=tasks,
        checkpoints=checkpoints,
        refusals=RefusalTimes(),
        lines=LogLines(),
        news=news or News(),
    )


def fill(store: Store, now: float) -> list[RoundReport]:
    """Puts into a fake store what a node has that learned from a peer for some rounds: reports,
    evaluations, rollouts of every fate, a peer that lied. Returns the reports.

    Args:
        now: Unix seconds; rounds took ten of them each.
    """
    peer, liar = Identity(b"p" * 32), Identity(b"l" * 32)
    own = OwnRollouts(EMPTY.node_id, "tiny", lambda: now)
    reports = []
    for number in range(1, NUM_ROUNDS + 1):
        began = now - 10.0 * (NUM_ROUNDS - number)
        used = _foreign(store, peer, number, began, None)
        _foreign(store, liar, number, began, Refusal.WRONG_CLAIM)
        if number < NUM_ROUNDS:  # the last one waits in the pool
            store.pool.draw(1, 1, random.Random(number))
        question = Question("sums", number)
        own.asked(number, [Expansion(question, f"What is {number} + 1?", str(number + 1))])
        own.judged([(question, ANSWERS)], [(Judged(True), Unscorable(Reason.DEADLINE))])
        store.rollouts.add_own(own.take(number))
        reports.append(_report(number, began, peer.node_id, used))
        store.history.put_round(reports[-1])
        store.rollouts.note_round(reports[-1])
    for number, mean in ((0, 0.25), (NUM_ROUNDS, 0.5)):
        found = TaskHeldOut(mean, math.nan, 1)
        store.history.put_heldout(HeldOutStatus(number, mean, math.nan, 1, tasks={"sums": found}))
    store.ledger.count_announcement(peer.node_id, NUM_ROUNDS)
    store.ledger.count_refused(peer.node_id, Refusal.NOT_WANTED, 3)
    store.ledger.charge(liar.node_id, Refusal.WRONG_CLAIM, (b"signed bytes",))
    return reports


def _foreign(
    store: Store, author: Identity, number: int, began: float, refusal: Refusal | None
) -> bytes:
    """A peer's rollout on its way through the checks; its hash."""
    question = Question("sums", 1000 + number)
    rollout = Rollout("0" * 64, author.node_id, number, question, ANSWERS, "tiny", number, began)
    record = seal(rollout, author)
    hash = rollout_hash(record)
    expansion = Expansion(question, f"What is {1000 + number} + 1?", str(1001 + number))
    if refusal is None:
        store.pool.add_foreign(record, rollout, expansion, (True, False), began)
    claims = (True, False) if refusal is None else (True, True)
    entry = Entry(hash, question, len(record), claims, number)
    offer = Offer(entry, author.node_id, number, author.node_id, b"", began, began + 1e9)
    seen = Seen(rollout, expansion, [Judged(True), Judged(False)])
    store.rollouts.add_foreign(Outcome(offer, seen, refusal))
    return hash


def _report(number: int, finished_at: float, author: str, hash: bytes) -> RoundReport:
    fate = ForeignFate.USED if number % 2 else ForeignFate.TOO_LONG
    group = ForeignGroup(author, hash, "sums", fate, number, 2.0, -0.5)
    is_last = number == NUM_ROUNDS
    return RoundReport(
        round=number,
        own_reward=number / NUM_ROUNDS,
        batch_reward=0.5,
        zero_advantage_share=0.25,
        num_questions=1,
        num_answers=2,
        num_unscorable=1,
        own_tokens=13,
        finished_share=0.5,
        entropy=0.75,
        update_skipped=None,
        loss=math.nan if number == 2 else -0.01,
        gradient_norm=1.0,
        learning_rate=1e-4,
        clip_share=0.0,
        seconds={"generating": 4.0, "updating": 2.0},
        foreign_wanted=1,
        foreign=() if is_last else (group,),
        finished_at=finished_at,
        own_tasks={"sums": TaskAnswers(2, 1)},
    )


class FakeLearner:
    """Does at once what it is told."""

    round = 7

    async def set_paused(self, is_paused: bool) -> None:
        """See Supervisor."""

    async def checkpoint(self) -> int:
        """See Supervisor."""
        return self.round


class FakeSwarm:
    """Of a node's peers and of its end: writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    async def drop(self, node_id: str) -> None:
        """See Libp2pGossip."""
        self.told.append(("drop", node_id))

    def drop_author(self, author: str) -> int:
        """See Intake."""
        self.told.append(("drop_author", author))
        return 0

    def hear_again(self, author: str) -> None:
        """See Intake."""
        self.told.append(("hear_again", author))

    def wake(self) -> None:
        """See Intake."""

    def ask_again(self) -> None:
        """See CatchUp."""
        self.told.append(("ask_again", ""))

    def stop(self) -> None:
        """Instead of an end."""
        self.told.append(("stop", ""))


def fake_changeable(
    home: Path = Path("nowhere"),
    store: Store | None = None,
    swarm: FakeSwarm | None = None,
    learner: Learner | None = None,
) -> Changeable:
    """Actions of a home, on what is given."""
    swarm = swarm or FakeSwarm()
    actions = Actions(
        home,
        EMPTY.node_id,
        store or fake_store(),
        swarm.drop,
        swarm,
        swarm,
        learner or FakeLearner(),
        swarm.stop,
    )
    return Changeable(actions, Audit(home))
