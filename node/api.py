"""The node's REST API, metrics and page, served from the control process's own trio loop.

Everything needs the token but for three paths (node/gate.py). What is read is in node/api_reads.py,
the document that describes it in node/api_schema.py. A round of the learner never holds up an
answer: it runs in another process.
"""

import logging
import socket
import ssl
from contextlib import nullcontext
from functools import cache, partial
from importlib.metadata import version

import msgspec
import trio
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from hypercorn.config import Config, Sockets
from hypercorn.trio import serve
from starlette.exceptions import HTTPException

from node.access import open_listener, open_token, write_address
from node.api_actions import Changeable, add_actions
from node.api_reads import Readable, add_reads
from node.api_schema import TEXT, describe, refuses, returns
from node.api_views import Version
from node.doors import OF_THIS_MACHINE, Doors, Names
from node.gate import Gate, GiveToken, problem
from node.page import add_page
from node.status import Snapshot, Stage

__all__ = [
    "Readable",
    "create_app",
    "open_listener",
    "open_token",
    "serve_api",
    "why_not_ready",
    "write_address",
]

logger = logging.getLogger(__name__)

STOP_S = 1.5
"""Answers that are under way when the node stops may take so long."""

RESTART_S = 1.0
"""From a failure of the server itself to its restart."""


def create_app(
    node: Readable,
    token: str | GiveToken,
    actions: Changeable | None = None,
    names: Names = OF_THIS_MACHINE,
) -> FastAPI:
    """The ASGI app.

    Args:
        token: see node/access.py.
        actions: what may be changed; None: nothing.
        names: under which it may be asked (node/doors.py).
    """
    app = FastAPI(
        title="sapo node",
        version=version("sapo-swarm"),
        docs_url=None,  # their pages come from foreign servers
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
        default_response_class=Response,  # each path says what it answers with
    )
    app.add_middleware(Gate, token=token, names=names)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(RequestValidationError, _explain)
    _add_probes(app, node)
    add_reads(app, node)
    if actions is not None:
        add_actions(app, actions)
    add_page(app)
    app.openapi = cache(partial(describe, app))  # type: ignore[method-assign]
    return app


def _add_probes(app: FastAPI, node: Readable) -> None:
    ok: dict[int | str, dict[str, object]] = {200: {"description": "ok", "content": TEXT}}

    @app.get("/health", summary="Whether the control process is alive", responses=ok)
    async def health() -> Response:
        return PlainTextResponse("ok")

    @app.get(
        "/ready",
        summary="Whether it does its work; 503 and the reason if not",
        responses=ok | refuses(503),
    )
    async def ready() -> Response:
        reason = why_not_ready(node.snapshot())
        return PlainTextResponse("ok") if reason is None else problem(503, reason)

    @app.get("/version", summary="Of the program", responses=returns(Version))
    async def program_version() -> Response:
        body = msgspec.json.encode(Version(version("sapo-swarm")))
        return Response(body, media_type="application/json")


def why_not_ready(snapshot: Snapshot) -> str | None:
    """Why the learner neither makes rounds nor has made all of them; None when it does, and where
    there is none to be (node/config.py: `mode`)."""
    learner = snapshot.learner
    if learner.is_done or not snapshot.has_policy:
        return None
    if snapshot.paused:
        return "the node is paused by its operator"
    if learner.restart_in_s is not None:
        return f"the learner is down; it is started again in {max(learner.restart_in_s, 0):.0f} s"
    if learner.pid is None or learner.stage == Stage.STOPPED:
        return "the learner is not running"
    if learner.stage == Stage.STARTING:
        return "the learner is starting"
    return None


async def _explain(_: Request, error: Exception) -> Response:
    match error:
        case RequestValidationError():
            where = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()[:4])
            return problem(422, where)
        case HTTPException():
            answer = problem(error.status_code, str(error.detail))
            answer.headers.update(error.headers or {})  # which methods there are, for one
            return answer
    raise error


class _ServerConfig(Config):
    """Hypercorn's settings, with sockets that are there already."""

    def __init__(self, doors: Doors) -> None:
        super().__init__()
        self._doors = doors
        self.accesslog = None
        self.errorlog = logging.getLogger("node.api.server")
        self.graceful_timeout = STOP_S
        self.include_server_header = False

    def create_sockets(self) -> Sockets:
        public = [self._doors.public.dup()] if self._doors.public else []
        local = [self._doors.local.dup()]
        return Sockets(public, local, []) if self._doors.tls else Sockets([], local + public, [])

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self._doors.tls.context if self._doors.tls else None


async def serve_api(app: FastAPI, doors: Doors | socket.socket, *, stop: trio.Event) -> None:
    """Serves until `stop`, then lets answers under way finish for `STOP_S` seconds.

    The sockets listen already, so early requests wait; they are closed at the end. Should the
    server itself fail (not a handler: node/gate.py sees to these), that is logged and it starts
    again.

    Args:
        doors: or one socket of this machine.
    """
    doors = doors if isinstance(doors, Doors) else Doors(doors)
    with doors.local, doors.public or nullcontext():
        while not stop.is_set():
            config = _ServerConfig(doors)
            try:
                await serve(app, config, shutdown_trigger=stop.wait, mode="asgi")  # type: ignore[arg-type]
            except Exception:
                logger.exception("the API's server failed; it starts again in %s s", RESTART_S)
                with trio.move_on_after(RESTART_S):
                    await stop.wait()
