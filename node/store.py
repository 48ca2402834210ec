"""The node's database: what every part of the control process keeps in it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from node.config import NodeConfig
from node.history import History
from node.rollout_log import RolloutLog
from node.threads import OneAtATime
from swarm import catalogue
from swarm.announcements import Announcements
from swarm.bans import Bans
from swarm.database import Offload, open_database
from swarm.ledger import Ledger
from swarm.manifest import Rules
from swarm.pool import Pool


@dataclass(frozen=True, slots=True)
class Store:
    """The node's database: used through `offload` only, never from the trio thread."""

    pool: Pool
    announcements: Announcements
    ledger: Ledger
    bans: Bans
    history: History
    rollouts: RolloutLog
    offload: Offload

    async def find(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """What peers are served: own and foreign rollouts that have not expired."""
        return await self.offload(self.pool.find, hashes)

    async def answer_catalogue(self, request: bytes) -> tuple[bytes, int] | None:
        """What peers are told that they missed."""
        return await catalogue.answer(request, self.announcements, self.offload)


@asynccontextmanager
async def open_store(
    config: NodeConfig, rules: Rules, home: Path, node_id: str
) -> AsyncIterator[Store]:
    """The database in `home`; flushed and closed at the end."""
    offload = OneAtATime()
    database = await offload(open_database, home / "pool.sqlite")
    try:
        ledger = await offload(Ledger, database, max_proof_bytes=config.quota.proofs_mib * 2**20)
        pool = await offload(
            Pool,
            database,
            rules.lifetime_s,
            max_bytes=config.swarm.pool_mib * 2**20,
            max_seen=config.quota.seen_hashes,
        )
        yield Store(
            pool=pool,
            announcements=await offload(
                Announcements,
                database,
                node_id,
                max_bytes=config.swarm.announcements_mib * 2**20,
            ),
            ledger=ledger,
            bans=await offload(Bans, database),
            history=await offload(History, database, "generated_" * (config.mode == "generate")),
            rollouts=await offload(RolloutLog, database, pool, config.quota.shown_mib * 2**20),
            offload=offload,
        )
    finally:
        with trio.CancelScope(shield=True):
            await offload(ledger.flush)
            await offload(database.close)
