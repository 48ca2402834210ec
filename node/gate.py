"""What every request to the API passes: who may ask, and what is said along with each answer.

Covered: a request without the token, a web page that asks through the browser of this machine (by
another name for it, from a frame, by a script), a handler that fails.
Not covered: how many connections a program of this machine opens. The cookie goes to every port of
this machine, as browsers have it: another web server here, opened in the same browser, can read it.
"""

import hashlib
import json
import logging
import secrets
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.escape import printable

logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})
"""Answered without the token: they say nothing of the swarm."""

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names under which the API may be asked. Any other is a web page that had its own name point here
(DNS rebinding)."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

WAY_IN = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>sapo</title>
<h1>This page needs the node's token</h1>
<p>On the node's machine, <code>sapo status --home HOME</code> prints the address that opens it.</p>
</html>
"""


def problem(status: int, detail: str) -> Response:
    """An error as RFC 9457 has it."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(json.dumps(body), status, media_type="application/problem+json")


class Gate:
    """ASGI middleware. A failing handler is logged and answered with 500, and goes no further."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()
        # Cookies know no ports: nodes of one machine need one name each.
        self._cookie = f"sapo-{hashlib.sha256(self._token).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; websockets are refused."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._answer(scope) or self._app
        try:
            await answer(scope, receive, send_with_headers)
        except Exception:
            logger.exception("the answer to %s failed", printable(scope["path"]))
            if not has_begun:
                await problem(500, "a bug; the node's log has more")(
                    scope, receive, send_with_headers
                )

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered in place of the app, or None where the app may answer."""
        headers, path = Headers(scope=scope), scope["path"]
        if not _is_this_machine(headers.get("host", "")):
            return problem(421, "ask 127.0.0.1 or localhost")
        if path in OPEN_PATHS:
            return None
        if path == "/" and (given := parse_qs(scope["query_string"]).get(b"token")):
            return self._let_in() if self._is_token(given[0]) else HTMLResponse(WAY_IN, 401)
        if self._is_token(self._given(headers)):
            return None
        if path == "/":
            return HTMLResponse(WAY_IN, 401)
        refusal = problem(401, "send the header Authorization: Bearer TOKEN (HOME/api-token)")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _let_in(self) -> Response:
        answer = RedirectResponse("/", 303)  # and the token is gone from the address bar
        answer.set_cookie(self._cookie, self._token.decode(), httponly=True, samesite="strict")
        return answer

    def _given(self, headers: Headers) -> bytes:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return given.strip().encode()
        return cookie_parser(headers.get("cookie", "")).get(self._cookie, "").encode()

    def _is_token(self, given: bytes) -> bool:
        return secrets.compare_digest(given, self._token)


def _is_this_machine(host: str) -> bool:
    name, colon, port = host.rpartition(":")
    if colon and port.isascii() and port.isdigit():
        host = name
    return host.lower() in HOSTS
