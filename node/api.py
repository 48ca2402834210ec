"""The node's REST API, metrics and page, served from the control process's own trio loop.

Everything is read only, made of the one Snapshot, and needs the token but for three paths
(node/gate.py). A round of the learner never holds up an answer: it runs in another process.
"""

import logging
import socket
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated

import trio
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from hypercorn.config import Config, Sockets
from hypercorn.trio import serve
from starlette.exceptions import HTTPException

from node.access import open_listener, open_token, write_address
from node.gate import Gate, problem
from node.metrics import METRICS_TYPE, metrics_text
from node.status import RoundReport, Snapshot, Stage
from node.status_json import to_json

__all__ = [
    "ASSETS",
    "create_app",
    "open_listener",
    "open_token",
    "serve_api",
    "why_not_ready",
    "write_address",
]

logger = logging.getLogger(__name__)

TakeSnapshot = Callable[[], Snapshot]
FindRounds = Callable[[int, int], Awaitable[list[RoundReport]]]
"""(since, limit) -> at most `limit` reports of rounds after `since`, oldest first."""

MAX_ROUNDS = 1000
"""Reports in one answer."""

STOP_S = 1.5
"""Answers that are under way when the node stops may take so long."""

RESTART_S = 1.0
"""From a failure of the server itself to its restart."""

ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "chart.js": "text/javascript",
    "words.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def create_app(snapshot: TakeSnapshot, rounds: FindRounds, token: str) -> FastAPI:
    """The ASGI app.

    Args:
        snapshot: called from the trio thread, once per request.
        rounds: see `FindRounds`.
        token: see node/access.py.
    """
    app = FastAPI(
        title="sapo node",
        version=version("sapo-swarm"),
        docs_url=None,  # their pages come from foreign servers
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
    )
    app.add_middleware(Gate, token=token)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(RequestValidationError, _explain)
    _add_probes(app, snapshot)
    _add_api(app, snapshot, rounds)
    _add_page(app)
    return app


def _add_probes(app: FastAPI, snapshot: TakeSnapshot) -> None:
    @app.get("/health", summary="Whether the control process is alive")
    async def health() -> Response:
        return PlainTextResponse("ok")

    @app.get("/ready", summary="Whether it does its work; 503 and the reason if not")
    async def ready() -> Response:
        reason = why_not_ready(snapshot())
        return PlainTextResponse("ok") if reason is None else problem(503, reason)

    @app.get("/version", summary="Of the program")
    async def program_version() -> dict[str, str]:
        return {"version": version("sapo-swarm")}


def _add_api(app: FastAPI, snapshot: TakeSnapshot, rounds: FindRounds) -> None:
    @app.get("/api/v1/status", summary="All that the node knows of itself (node/status.py)")
    async def status() -> Response:
        return _json(to_json(snapshot()))

    @app.get("/api/v1/peers", summary="The peers of it")
    async def peers() -> Response:
        return _json(to_json(snapshot().peers))

    @app.get("/api/v1/rounds", summary="Reports of rounds after `since`, oldest first")
    async def round_reports(
        since: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_ROUNDS)] = 100,
    ) -> Response:
        return _json(to_json(await rounds(since, limit)))

    @app.get("/metrics", summary="For Prometheus (node/metrics.py lists them)")
    async def metrics() -> Response:
        return Response(metrics_text(snapshot()), headers={"Content-Type": METRICS_TYPE})


def _add_page(app: FastAPI) -> None:
    folder = files("node") / "dashboard"
    page = (folder / "page.html").read_bytes()
    assets = {name: (folder / name).read_bytes() for name in ASSETS}

    @app.get("/", summary="The page", include_in_schema=False)
    async def index() -> Response:
        return Response(page, media_type="text/html")

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in assets:
            return problem(404, "there is no such file")
        return Response(assets[name], media_type=ASSETS[name])


def why_not_ready(snapshot: Snapshot) -> str | None:
    """Why the learner neither makes rounds nor has made all of them; None when it does, and where
    there is none to be (node/config.py: `mode`)."""
    learner = snapshot.learner
    if learner.is_done or not snapshot.has_policy:
        return None
    if learner.restart_in_s is not None:
        return f"the learner is down; it is started again in {max(learner.restart_in_s, 0):.0f} s"
    if learner.pid is None or learner.stage == Stage.STOPPED:
        return "the learner is not running"
    if learner.stage == Stage.STARTING:
        return "the learner is starting"
    return None


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _explain(_: Request, error: Exception) -> Response:
    match error:
        case RequestValidationError():
            where = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()[:4])
            return problem(422, where)
        case HTTPException():
            return problem(error.status_code, str(error.detail))
    raise error


class _ServerConfig(Config):
    """Hypercorn's settings, with a socket that is there already."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__()
        self._listener = listener
        self.accesslog = None
        self.errorlog = logging.getLogger("node.api.server")
        self.graceful_timeout = STOP_S
        self.include_server_header = False

    def create_sockets(self) -> Sockets:
        return Sockets([], [self._listener], [])


async def serve_api(app: FastAPI, listener: socket.socket, *, stop: trio.Event) -> None:
    """Serves until `stop`, then lets answers under way finish for `STOP_S` seconds.

    The socket listens already, so early requests wait; it is closed at the end. Should the server
    itself fail (not a handler: node/gate.py sees to these), that is logged and it starts again.
    """
    with listener:
        while not stop.is_set():
            config = _ServerConfig(listener.dup())
            try:
                await serve(app, config, shutdown_trigger=stop.wait, mode="asgi")  # type: ignore[arg-type]
            except Exception:
                logger.exception("the API's server failed; it starts again in %s s", RESTART_S)
                with trio.move_on_after(RESTART_S):
                    await stop.wait()
