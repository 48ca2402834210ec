"""The API over the real server: every test asks through a socket of this machine."""

import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from fastapi import FastAPI
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.routing import Route
from trio.testing import trio_test

from node.api import Readable, create_app, open_listener, serve_api, why_not_ready
from node.api_fake import fake_readable
from node.gate import OPEN_PATHS
from node.status import Snapshot
from node.status_json import from_json

SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
TOKEN = "t0ken-" + "x" * 37
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def problem(self) -> dict[str, object]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, object] = json.loads(self.body)
        assert found["status"] == self.status
        return found


@dataclass
class Server:
    app: FastAPI
    port: int
    stop: trio.Event

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return await trio.to_thread.run_sync(self._get, path, headers or {})

    def _get(self, path: str, headers: dict[str, str]) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read().decode())
        finally:
            connection.close()


@asynccontextmanager
async def serving(
    snapshot: Callable[[], Snapshot] = lambda: SNAPSHOT,
    token: str = TOKEN,
    readable: Readable | None = None,
) -> AsyncIterator[Server]:
    """A running server; leaving the block stops it and waits for its end."""
    app = create_app(readable or fake_readable(snapshot), token)
    listener = open_listener("127.0.0.1", 0)
    server = Server(app, listener.getsockname()[1], trio.Event())
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_api, app, listener, stop=server.stop))
            yield server
            server.stop.set()


UNKNOWN = {"/api/v1/rollouts/" + "0" * 64, "/api/v1/peers/" + "1" * 50}
"""What is asked for in them is not there."""


def paths(app: FastAPI) -> list[str]:
    found = []
    for route in app.routes:
        assert isinstance(route, Route), f"{route} is of a kind that this test does not know"
        path = route.path.replace("{name}", "page.js")
        if "GET" in (route.methods or ()):
            found.append(path.replace("{hash}", "0" * 64).replace("{node_id}", "1" * 50))
    return found


@trio_test
async def test_liveness_readiness_and_version_are_open() -> None:
    async with serving() as server:
        assert (await server.get("/health")).body == "ok"
        assert (await server.get("/ready")).body == "ok"
        assert json.loads((await server.get("/version")).body)["version"]


@trio_test
async def test_every_other_route_needs_the_token() -> None:
    async with serving() as server:
        closed = [path for path in paths(server.app) if path not in OPEN_PATHS]
        assert len(closed) >= 7
        for path in closed:
            assert (await server.get(path)).status == 401, path
            if path != "/api/v1/events":  # tests/node/test_api_stream.py
                wanted = 404 if path in UNKNOWN else 200
                assert (await server.get(path, BEARER)).status == wanted, path


@trio_test
async def test_nothing_is_told_without_the_token_not_even_what_exists() -> None:
    async with serving() as server:
        for path in ("/nothing", "/health/", "//health", "/%68ealth/..", "/docs", "/redoc"):
            refused = await server.get(path)
            assert refused.status == 401, path
            assert "www-authenticate" in refused.headers
            assert (await server.get(path, BEARER)).problem["status"] == 404


@pytest.mark.parametrize("given", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "töken"])
@trio_test
async def test_a_wrong_token_is_refused(given: str) -> None:
    async with serving() as server:
        for headers in ({"Authorization": f"Bearer {given}"}, {"Authorization": given}):
            answer = await server.get("/api/v1/status", headers)
            assert answer.status == 401
            assert "Bearer" in str(answer.problem["detail"])
        assert (await server.get("/", {"Cookie": f"sapo-00000000={TOKEN}"})).status == 401


@trio_test
async def test_a_browser_gets_in_by_the_address_and_stays_in_by_a_cookie() -> None:
    async with serving() as server:
        outside = await server.get("/")
        assert (outside.status, outside.headers["content-type"]) == (
            401,
            "text/html; charset=utf-8",
        )
        assert "sapo status" in outside.body
        assert (await server.get("/?token=wrong")).status == 401
        entry = await server.get(f"/?token={TOKEN}")
        assert (entry.status, entry.headers["location"]) == (303, "/")
        cookie, *flags = entry.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(flags)
        for path in ("/", "/assets/page.js", "/api/v1/status"):
            assert (await server.get(path, {"Cookie": cookie})).status == 200, path


@trio_test
async def test_two_nodes_of_one_machine_share_a_browser() -> None:
    names = []
    for token in (TOKEN, TOKEN[::-1]):
        async with serving(token=token) as server:
            entry = await server.get(f"/?token={token}")
            names.append(entry.headers["set-cookie"].split("=")[0])
    assert len(set(names)) == 2  # cookies know no ports


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8420", 200),
        ("LOCALHOST", 200),
        ("[::1]:8420", 200),
        ("[::1]", 200),
        ("sapo.example", 421),
        ("127.0.0.1.sapo.example:8420", 421),
        ("127.0.0.1:8420@sapo.example", 421),
        ("localhost:80:80", 421),
        ("", 421),
    ],
)
@trio_test
async def test_only_names_of_this_machine_are_answered(host: str, status: int) -> None:
    async with serving() as server:
        for path in ("/health", "/api/v1/status", f"/?token={TOKEN}"):
            wanted = 303 if status == 200 and "token" in path else status
            assert (await server.get(path, BEARER | {"Host": host})).status == wanted


@trio_test
async def test_every_answer_forbids_what_the_page_does_not_need() -> None:
    async with serving() as server:
        for path in ("/", "/health", "/api/v1/status", "/nothing", "/assets/page.css"):
            for headers in ({}, BEARER):
                answer = await server.get(path, headers)
                policy = answer.headers["content-security-policy"]
                assert policy.startswith(("default-src 'self';", "default-src 'none';"))
                assert "unsafe" not in policy
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["referrer-policy"] == "no-referrer"
                is_kept = answer.status == 200 and path in ("/", "/assets/page.css")
                kept = "private, no-cache" if is_kept else "no-store"
                assert answer.headers["cache-control"] == kept


@trio_test
async def test_the_status_is_the_whole_snapshot() -> None:
    async with serving() as server:
        answer = await server.get("/api/v1/status", BEARER)
        assert answer.headers["content-type"] == "application/json"
        assert from_json(answer.body.encode(), Snapshot) == SNAPSHOT
        peers = json.loads((await server.get("/api/v1/peers", BEARER)).body)
        assert [peer["node_id"] for peer in peers] == [one.node_id for one in SNAPSHOT.peers]


@trio_test
async def test_metrics_are_in_the_text_format() -> None:
    async with serving() as server:
        answer = await server.get("/metrics", BEARER)
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "\nsapo_policy_round 124.0\n" in answer.body


def learner(**changes: object) -> Snapshot:
    changed = msgspec.structs.replace(SNAPSHOT.learner, **changes)
    return msgspec.structs.replace(SNAPSHOT, learner=changed)


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (learner(), None),
        (learner(stage="updating"), None),
        (learner(stage="stopped", pid=None, is_done=True), None),
        (learner(stage="starting"), "starting"),
        (learner(pid=None), "not running"),
        (learner(stage="stopped"), "not running"),
        (learner(restart_in_s=7.2, pid=None), "again in 7 s"),
        (msgspec.structs.replace(learner(stage="stopped", pid=None), mode="observe"), None),
        (msgspec.structs.replace(learner(stage="stopped", pid=None), mode="generate"), "not runn"),
    ],
)
def test_a_node_is_ready_when_its_learner_makes_rounds(
    snapshot: Snapshot, reason: str | None
) -> None:
    found = why_not_ready(snapshot)
    assert found is None if reason is None else reason in str(found)


@trio_test
async def test_a_node_that_is_not_ready_says_why_but_no_details() -> None:
    down = learner(restart_in_s=3.0, last_error="secret")
    async with serving(lambda: down) as server:
        answer = await server.get("/ready")
        assert answer.status == 503
        assert "learner is down" in str(answer.problem["detail"])
        assert "secret" not in answer.body


@trio_test
async def test_a_handler_that_fails_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> Snapshot:
        raise ZeroDivisionError("secret")

    with caplog.at_level(logging.ERROR):
        async with serving(broken) as server:
            for path in ("/api/v1/status", "/metrics", "/ready"):
                answer = await server.get(path, BEARER)
                assert answer.problem["status"] == 500
                assert "secret" not in answer.body
            assert (await server.get("/health")).status == 200
    assert [record.name for record in caplog.records] == ["node.gate"] * 3
    assert all(record.exc_info for record in caplog.records)


GARBAGE = [
    b"\x00" * 100_000,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: %%%\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
]


@trio_test
async def test_bytes_that_are_no_request_end_only_their_connection() -> None:
    async with serving() as server:
        for garbage in GARBAGE:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            try:
                await stream.send_all(garbage)
                await stream.receive_some()  # an answer, or the end
            except trio.BrokenResourceError:
                pass  # it hung up: as good
            await stream.aclose()
            assert (await server.get("/health")).status == 200, garbage[:40]


@trio_test
async def test_a_server_that_fails_starts_again_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = []

    async def failing_once(app: FastAPI, config: Config, **options: Any) -> None:
        starts.append(config)
        if len(starts) == 1:
            config.create_sockets().insecure_sockets[0].close()
            raise ExceptionGroup("nursery", [ZeroDivisionError("a bug")])
        await serve(app, config, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("node.api.serve", failing_once)
    monkeypatch.setattr("node.api.RESTART_S", 0.0)
    with caplog.at_level(logging.ERROR):
        async with serving() as server:
            assert (await server.get("/health")).body == "ok"
    assert len(starts) == 2
    assert [record.name for record in caplog.records] == ["node.api"]


@trio_test
async def test_a_websocket_is_refused() -> None:
    async with serving() as server:
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        assert (await server.get("/api/v1/status", BEARER | upgrade)).status == 403


@trio_test
async def test_a_client_that_never_reads_does_not_hold_up_the_end() -> None:
    big = msgspec.structs.replace(SNAPSHOT, own_reward=(0.123456789,) * 400_000)
    ask = f"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    sent = trio.Event()

    def snapshot() -> Snapshot:
        sent.set()
        return big

    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with serving(snapshot) as server:
            await trio.to_thread.run_sync(deaf.connect, ("127.0.0.1", server.port))
            await trio.to_thread.run_sync(deaf.sendall, ask.encode())
            await sent.wait()
            server.stop.set()  # leaving the block waits for the end, 60 s at most


@trio_test
async def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    async with serving() as server:
        idle = await trio.open_tcp_stream("127.0.0.1", server.port)
        await idle.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await idle.receive_some()).startswith(b"HTTP/1.1 200")
        server.stop.set()
        while await idle.receive_some():
            pass
        await idle.aclose()
