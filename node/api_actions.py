"""The changing part of the API: everything under /api/v1 that is asked for with POST.

Each action is answered when it is done, and leaves a line in the audit (node/audit.py), whatever
came of it; what node/gate.py turns away does not get here.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import FastAPI, Request
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.responses import Response

from node.actions import (
    Actions,
    BanDone,
    CannotDo,
    CheckpointDone,
    PauseState,
    Stopping,
    UnbanDone,
)
from node.api_reads import NODE_ID
from node.api_schema import returns
from node.audit import Audit
from node.gate import problem
from node.threads import in_thread

T = TypeVar("T", bound=msgspec.Struct)

MAX_REASON_CHARS = 200
MAX_BAN_S = 10 * 365 * 86_400.0
"""A longer ban is one for good."""

NodeId = Annotated[str, InPath(min_length=40, max_length=64, pattern=NODE_ID)]


class BanOrder(BaseModel):
    """Body of a ban."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra=lambda schema: schema.pop("title")
    )

    reason: str = Field(default="", max_length=MAX_REASON_CHARS, description="For people.")
    for_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_BAN_S,
        allow_inf_nan=False,
        description="Seconds from now; null bans for good.",
    )


@dataclass(frozen=True, slots=True)
class Changeable:
    """What the API changes."""

    actions: Actions
    audit: Audit


def add_actions(app: FastAPI, node: Changeable) -> None:
    """Adds all paths."""
    _add_bans(app, node)
    _add_learner(app, node)

    @app.post(
        "/api/v1/shutdown",
        summary="End the node as SIGTERM does; answered before it begins",
        status_code=202,
        responses=_answers(Stopping, status=202),
    )
    async def shutdown(request: Request) -> Response:
        async def begin() -> Stopping:
            return Stopping()

        answer = await _do(node, request, "shutdown", begin, 202)
        answer.background = BackgroundTask(node.actions.shutdown)  # when the answer was sent
        return answer


def _answers(kind: type[msgspec.Struct], *problems: int, status: int = 200) -> dict[Any, Any]:
    """The `responses` of an action: its own, and those of every request with a body."""
    found = returns(kind, 408, *problems)
    found[status] = found.pop(200)
    return found


def _add_bans(app: FastAPI, node: Changeable) -> None:
    @app.post(
        "/api/v1/peers/{node_id}/ban",
        summary="Refuse all that a peer signs, end its connections, remove its rollouts",
        responses=_answers(BanDone, 400, 404, 409, 422),
    )
    async def ban(request: Request, node_id: NodeId, order: BanOrder | None = None) -> Response:
        asked = order or BanOrder()

        async def do() -> BanDone:
            return await node.actions.ban(node_id, asked.reason, asked.for_s)

        how_long = "for good" if asked.for_s is None else f"for {asked.for_s:g} s"
        what = f"ban {node_id} {how_long}, reason: {asked.reason or 'none'}"
        return await _do(node, request, what, do)

    @app.post(
        "/api/v1/peers/{node_id}/unban",
        summary="End a ban, and take what the peer signs again",
        responses=_answers(UnbanDone, 404, 422),
    )
    async def unban(request: Request, node_id: NodeId) -> Response:
        async def do() -> UnbanDone:
            return UnbanDone(node_id, await node.actions.unban(node_id))

        return await _do(node, request, f"unban {node_id}", do)


def _add_learner(app: FastAPI, node: Changeable) -> None:
    async def set_paused(request: Request, is_paused: bool) -> Response:
        async def do() -> PauseState:
            await node.actions.pause(is_paused)
            return PauseState(is_paused)

        return await _do(node, request, "pause" if is_paused else "resume", do)

    @app.post(
        "/api/v1/pause",
        summary="Finish the round under way and begin no other, also after a restart",
        responses=_answers(PauseState, 409),
    )
    async def pause(request: Request) -> Response:
        return await set_paused(request, True)

    @app.post("/api/v1/resume", summary="Begin rounds again", responses=_answers(PauseState, 409))
    async def resume(request: Request) -> Response:
        return await set_paused(request, False)

    @app.post(
        "/api/v1/checkpoint",
        summary="Write a checkpoint at the end of the round; answered when it is on the disk",
        responses=_answers(CheckpointDone, 503),
    )
    async def checkpoint(request: Request) -> Response:
        async def do() -> CheckpointDone:
            return CheckpointDone(await node.actions.checkpoint())

        return await _do(node, request, "checkpoint", do)


async def _do(
    node: Changeable,
    request: Request,
    what: str,
    action: Callable[[], Awaitable[T]],
    status: int = 200,
) -> Response:
    """The answer to an action, which is audited; a failure goes on to the gate."""
    who = f"{request.client.host} port {request.client.port}" if request.client else "unknown"
    try:
        done = await action()
    except CannotDo as refusal:
        await in_thread(node.audit.note, who, what, f"refused: {refusal.detail}")
        return problem(refusal.status, refusal.detail)
    except Exception as error:
        await in_thread(node.audit.note, who, what, f"failed: {type(error).__name__}")
        raise
    told = msgspec.json.encode(done)
    await in_thread(node.audit.note, who, what, f"done: {told.decode()}")
    return Response(told, status, media_type="application/json")
