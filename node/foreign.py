"""What a node takes from its peers: the intake, as the strategy wants it."""

import random
import time
from collections.abc import Callable
from dataclasses import replace

from node.batch import Want, make_strategy, max_from_one_peer
from node.config import NodeConfig, VerifyConfig
from node.experience import Experience
from swarm.announcements import Announcements
from swarm.bans import IsBanned, nobody
from swarm.budget import BudgetLimits
from swarm.database import Offload
from swarm.gossip import Gossip
from swarm.intake import HearOutcome, Intake, IntakeLimits, unheard
from swarm.judge import Judge
from swarm.ledger import Ledger
from swarm.limits import PeerLimits
from swarm.manifest import Manifest
from swarm.pool import Pool
from swarm.wanted import Wanted

IN_A_SWARM = IntakeLimits(num_holders=3, max_visits=2, deadline_s=300.0, patience_s=5.0)
"""Of a node whose peers come and go."""

FRESH_PER_J = 2
"""Foreign rollouts kept ready, as a multiple of J: a round's worth, and one that is on its way."""


def make_intake(
    config: NodeConfig,
    manifest: Manifest,
    gossip: Gossip,
    judge: Judge,
    pool: Pool,
    ledger: Ledger,
    offload: Offload,
    *,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
    kept: Announcements | None = None,
    peer_limits: PeerLimits | None = None,
    is_banned: IsBanned = nobody,
    hear_outcome: HearOutcome = unheard,
) -> Intake:
    """Fetches what the node's strategy wants before its first round, so that this finds a pool.
    Which tasks it judges, it must be told, and later what else is wanted.

    Args:
        clock: Unix seconds.
        kept: where announcements are kept over restarts; None keeps none, and asks nobody for
            rollouts but author and carrier: peers that never leave need neither.
        peer_limits: how often an author may announce; None is no limit.
        is_banned: of authors: nothing that they signed is taken.
        hear_outcome: is told of each rollout that was fetched.
    """
    limits = IntakeLimits() if kept is None else IN_A_SWARM
    want = make_strategy(config).want((), Experience())
    return Intake(
        gossip=gossip,
        judge=judge,
        pool=pool,
        ledger=ledger,
        offload=offload,
        rules=manifest.rules,
        swarm_id=manifest.swarm_id,
        wanted=wanted_by(want),
        limits=replace(limits, budget=_budget(config.verify)),
        clock=clock,
        rng=rng,
        kept=kept,
        peer_limits=peer_limits,
        is_banned=is_banned,
        hear_outcome=hear_outcome,
    )


def wanted_by(want: Want) -> Wanted:
    """A strategy's wish as the intake hears it; with `most` = 0 nothing is fetched."""
    return Wanted(
        num_fresh=FRESH_PER_J * want.most,
        max_from_one_author=FRESH_PER_J * max_from_one_peer(want.most, want.peer_share),
        could_use=lambda entry: want.could_use(entry.correct),
        weigh=want.weight,
    )


def _budget(verify: VerifyConfig) -> BudgetLimits:
    total_share = verify.foreign_share * verify.workers
    return BudgetLimits(verify.author_burst_s, verify.author_share, total_share)
