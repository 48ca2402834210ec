"""The reading part of the API: everything under /api/v1 that changes nothing.

Handlers take what is asked for from its place and encode it; lists that may be long are encoded in
a thread, so that peers are answered meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from fastapi import FastAPI, Header, Query, Request
from fastapi import Path as InPath
from pydantic import StringConstraints
from starlette.responses import Response

from node.api_schema import TEXT, refuses, returns
from node.api_stream import EventStream, last_event_id
from node.api_views import (
    CheckpointView,
    PeerView,
    Refusals,
    Setting,
    TaskView,
    count_refusals,
    view_checkpoints,
    view_settings,
    view_tasks,
)
from node.config import NodeConfig
from node.curve import FIGURES, RoundPoint
from node.gate import problem
from node.log_lines import MAX_LINES, LogLine, LogLines
from node.metrics import METRICS_TYPE, metrics_text
from node.news import News, TooManyListeners
from node.refusal_times import RefusalTimes
from node.rollout_view import Kind, RolloutSummary, RolloutView
from node.status import PeerStatus, RoundReport, Snapshot
from node.status_json import to_json
from node.store import Store
from node.threads import in_thread
from rewards.tasks import TaskSpec

MAX_ROUNDS = 1000
"""Reports in one answer."""
MAX_POINTS = 2000
MAX_ROLLOUTS = 200
MAX_LATELY = 256
AGAIN_S = 5
"""After which a client that found no place may ask for events again."""

STREAM: dict[str, object] = {
    "description": "Events, until the node ends or the client is too slow.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
NODE_ID = "^[1-9A-HJ-NP-Za-km-z]+$"
FIGURE = f"^({'|'.join(FIGURES)})$"
ROLLOUT_HASH = "^[0-9a-f]{64}$"


@dataclass(frozen=True, slots=True)
class Readable:
    """What the API reads."""

    snapshot: Callable[[], Snapshot]
    """Called from the trio thread, once per request."""
    store: Store
    config: NodeConfig
    tasks: tuple[TaskSpec, ...]
    """Of the swarm file."""
    checkpoints: Path
    """Their directory; there may be none."""
    refusals: RefusalTimes
    lines: LogLines
    news: News


def add_reads(app: FastAPI, node: Readable) -> None:
    """Adds all paths."""
    _add_status(app, node)
    _add_rounds(app, node)
    _add_rollouts(app, node)
    _add_peers(app, node)
    _add_home(app, node)
    _add_events(app, node)


def _add_status(app: FastAPI, node: Readable) -> None:
    @app.get(
        "/api/v1/status", summary="All that the node knows of itself", responses=returns(Snapshot)
    )
    async def status() -> Response:
        return _json(to_json(node.snapshot()))

    @app.get(
        "/metrics",
        summary="For Prometheus (docs/metrics.md lists them)",
        responses={200: {"description": "Its text format.", "content": TEXT}},
    )
    async def metrics() -> Response:
        return Response(metrics_text(node.snapshot()), headers={"Content-Type": METRICS_TYPE})


def _add_rounds(app: FastAPI, node: Readable) -> None:
    history, offload = node.store.history, node.store.offload

    @app.get(
        "/api/v1/rounds",
        summary="Rounds after `since`, oldest first: their reports, or with `points` a curve",
        responses=returns((list[RoundReport], list[RoundPoint]), 422),
    )
    async def rounds(
        since: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_ROUNDS, description="Reports at most.")] = 100,
        points: Annotated[
            int | None,
            Query(
                ge=1,
                le=MAX_POINTS,
                description="All rounds after `since` as at most so many points, with mean, least "
                "and greatest value of each figure; `limit` then says nothing. A point stands for "
                "1, 2, 4, ... rounds.",
            ),
        ] = None,
        figures: Annotated[
            list[Annotated[str, StringConstraints(pattern=FIGURE)]] | None,
            Query(
                max_length=len(FIGURES),
                description="Of `points`: only these, which is quicker. Repeat it for several.",
            ),
        ] = None,
    ) -> Response:
        if points is None:
            return await _json_of(await offload(history.rounds, since, limit))
        return await _json_of(await offload(history.points, since, points, figures or FIGURES))

    @app.get(
        "/api/v1/tasks",
        summary="The swarm's tasks: own accuracy lately, and held-out accuracy at first and now",
        responses=returns(list[TaskView], 422),
    )
    async def tasks(
        lately: Annotated[
            int, Query(ge=1, le=MAX_LATELY, description="Last rounds that `own` is of.")
        ] = 50,
    ) -> Response:
        reports = await offload(history.last_rounds, lately)
        snapshot = node.snapshot()
        return _json(
            to_json(
                view_tasks(
                    node.tasks, snapshot.tasks, snapshot.tasks_left_out, reports, snapshot.heldout
                )
            )
        )


def _add_rollouts(app: FastAPI, node: Readable) -> None:
    rollouts, offload = node.store.rollouts, node.store.offload

    @app.get(
        "/api/v1/rollouts",
        summary="Rollouts that are kept to be read, newest first",
        responses=returns(list[RolloutSummary], 422),
    )
    async def list_rollouts(
        kind: Annotated[Kind | None, Query(description="Whose; left out: all.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ROLLOUTS)] = 50,
        before: Annotated[
            int | None,
            Query(ge=1, lt=2**53, description="The last `number` of the page before."),
        ] = None,
        author: Annotated[str | None, Query(max_length=64)] = None,
        task: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        return await _json_of(await offload(rollouts.newest, kind, limit, before, author, task))

    @app.get(
        "/api/v1/rollouts/{hash}",
        summary="One with its question, answers and verdicts. Texts are strangers': escape them",
        responses=returns(RolloutView, 404, 422),
    )
    async def one_rollout(hash: Annotated[str, InPath(pattern=ROLLOUT_HASH)]) -> Response:
        found = await offload(rollouts.find, bytes.fromhex(hash))
        if found is None:
            return problem(404, "no such rollout is kept; old ones give way (quota.shown_mib)")
        return _json(to_json(found))


def _add_peers(app: FastAPI, node: Readable) -> None:
    @app.get(
        "/api/v1/peers",
        summary="All peers that the node knows of, connected ones first",
        responses=returns(list[PeerStatus]),
    )
    async def peers() -> Response:
        return await _json_of(node.snapshot().peers)

    @app.get(
        "/api/v1/peers/{node_id}",
        summary="One peer, and the lies of which proofs are kept",
        responses=returns(PeerView, 404, 422),
    )
    async def one_peer(
        node_id: Annotated[str, InPath(min_length=40, max_length=64, pattern=NODE_ID)],
    ) -> Response:
        found = [peer for peer in node.snapshot().peers if peer.node_id == node_id]
        if not found:
            return problem(404, "this node has not met such a peer, or has forgotten it")
        lies = await node.store.offload(node.store.ledger.lies, node_id)
        return _json(to_json(PeerView(**msgspec.structs.asdict(found[0]), proven_lies=tuple(lies))))

    @app.get(
        "/api/v1/refusals",
        summary="What was not taken: by reason, and when",
        responses=returns(Refusals),
    )
    async def refusals() -> Response:
        times = node.refusals
        total = count_refusals(node.snapshot().refused)
        return _json(to_json(Refusals(total, times.since, times.width_s, times.buckets())))


def _add_home(app: FastAPI, node: Readable) -> None:
    @app.get(
        "/api/v1/checkpoints",
        summary="The checkpoints on the disk, newest first",
        responses=returns(list[CheckpointView]),
    )
    async def checkpoints() -> Response:
        return _json(to_json(await in_thread(view_checkpoints, node.checkpoints)))

    @app.get(
        "/api/v1/config",
        summary="The settings in force and where each comes from, without secrets",
        responses=returns(list[Setting]),
    )
    async def config() -> Response:
        return _json(to_json(view_settings(node.config)))

    @app.get(
        "/api/v1/logs",
        summary="The last lines of the log, oldest first",
        responses=returns(list[LogLine], 422),
    )
    async def logs(limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200) -> Response:
        return await _json_of(node.lines.newest(limit))


def _add_events(app: FastAPI, node: Readable) -> None:
    async def missed(after: int, limit: int) -> list[RoundReport]:
        found: list[RoundReport] = await node.store.offload(node.store.history.last_rounds, limit)
        return [report for report in found if report.round > after]

    @app.get(
        "/api/v1/events",
        summary="What happens, as server-sent events",
        description="`event` is one of status, warnings, round, evaluation, peers, refusals; "
        "`data` is one line of JSON: StatusNow, WarningsNow, RoundReport, HeldOutStatus, "
        "PeersChanged, RefusalsMore. `id` is the number of a round. docs/api.md has more.",
        responses=refuses(422, 503) | {200: STREAM},
    )
    async def events(
        request: Request,
        since: Annotated[
            int | None,
            Query(ge=0, lt=2**53, description="First the rounds after this one, 256 at most."),
        ] = None,
        last_id: Annotated[
            str | None,
            Header(alias="Last-Event-ID", description="As `since`; a browser sends it itself."),
        ] = None,
    ) -> Response:
        known = last_event_id(last_id)
        try:
            return EventStream(node.news, node.snapshot, missed, since if known is None else known)
        except TooManyListeners as error:
            refusal = problem(503, f"{error}; ask again later")
            refusal.headers["Retry-After"] = str(AGAIN_S)
            return refusal


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _json_of(found: Sequence[msgspec.Struct]) -> Response:
    return _json(await in_thread(to_json, found))
