"""What every request to the API passes: who may ask, and what is said along with each answer.

Covered: a request without the token, a web page that asks through the operator's browser (by
another name for the node, from a frame, by a script, by a form), tokens that are guessed, bodies
that are long or never end, a handler that fails.
Not covered: how many connections somebody opens. The cookie goes to every port of this machine, as
browsers have it: another web server here, opened in the same browser, can read it.
"""

import hashlib
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Container
from http import HTTPStatus
from urllib.parse import parse_qs

import trio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.doors import OF_THIS_MACHINE
from node.escape import printable
from node.way_in import way_in
from swarm.connection_limits import find_origin, is_loopback
from swarm.debts import Debts
from swarm.seldom import Seldom

logger = logging.getLogger(__name__)

GiveToken = Callable[[], str]
"""The token as it is now."""

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})
"""Answered without the token: they say nothing of the swarm."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose bodies nobody reads; another method changes something."""

MAX_BODY_BYTES, BODY_S = 16_384, 10.0
"""Of one request, and for it to arrive."""

GUESSES, GUESS_S = 10, 6.0
"""Wrong tokens of one address at once, and one more after so many seconds."""
MAX_GUESSERS = 4096
"""Addresses that are remembered for it."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
UNLESS_SAID = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
}
"""Where the answer itself says nothing of it (node/way_in.py and node/page.py do)."""


def problem(status: int, detail: str) -> Response:
    """An error as RFC 9457 has it."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(json.dumps(body), status, media_type="application/problem+json")


class Gate:
    """ASGI middleware. A failing handler is logged and answered with 500, and goes no further."""

    def __init__(
        self,
        app: ASGIApp,
        token: str | GiveToken,
        names: Container[str] = OF_THIS_MACHINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            names: what a Host header may say (node/doors.py).
            clock: seconds that never jump back.
        """
        self._app = app
        self._give_token = token if callable(token) else lambda: token
        self._names = names
        self._clock = clock
        self._guessers = Debts[str](MAX_GUESSERS)
        self._guesses = Seldom(logger, "%d requests to the API had a wrong token", clock)

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
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                for name, value in UNLESS_SAID.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self._answer(scope) or self._app
            if answer is self._app and scope["method"] not in READING:
                body = await _read_body(receive)
                if isinstance(body, Response):
                    answer = body
                else:
                    receive = _replay(body, receive)
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
        if headers.get("host", "") not in self._names:
            return problem(421, "ask 127.0.0.1 or localhost; other names are set as api.names")
        if _is_too_long(headers):
            return problem(413, f"a body of at most {MAX_BODY_BYTES} bytes is read")
        if path in OPEN_PATHS:
            return None
        if not _is_same_origin(headers, scope["method"]):
            return problem(403, "a page of another origin may not ask through your browser")
        token = self._give_token().encode()
        query = parse_qs(scope["query_string"]).get(b"token", []) if path == "/" else []
        given = query[0] if query else _given(headers, token)
        if not given:
            return way_in() if path == "/" else _refusal()
        guesser, left_s = self._guesser(scope)
        if left_s and not is_loopback(guesser):  # all of this machine have one address
            return _slow_down(left_s)
        if not secrets.compare_digest(given, token):
            return self._count_guess(guesser, left_s, path)
        return _let_in(scope, token) if query else None

    def _guesser(self, scope: Scope) -> tuple[str, float]:
        """Whose guess a wrong token is, and for how many seconds it may not guess."""
        host = (scope.get("client") or ("", 0))[0]
        guesser = host if is_loopback(host) else find_origin(host).address
        debt_s = self._guessers.left_s(guesser, self._clock())
        return guesser, max(0.0, debt_s - (GUESSES - 1) * GUESS_S)

    def _count_guess(self, guesser: str, left_s: float, path: str) -> Response:
        if left_s:
            return _slow_down(left_s)
        self._guessers.add(guesser, GUESS_S, self._clock())
        self._guesses.note()
        return way_in(is_wrong=True) if path == "/" else _refusal()


def _given(headers: Headers, token: bytes) -> bytes:
    """The token that a request has; a cookie of another token, or of another node, is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip().encode()
    return cookie_parser(headers.get("cookie", "")).get(_cookie(token), "").encode()


def _cookie(token: bytes) -> str:
    """Cookies know no ports: nodes of one machine need one name each."""
    return f"sapo-{hashlib.sha256(token).hexdigest()[:8]}"


def _let_in(scope: Scope, token: bytes) -> Response:
    answer = RedirectResponse("/", 303)  # and the token is gone from the address bar
    is_secure = scope.get("scheme") == "https"
    answer.set_cookie(
        _cookie(token), token.decode(), httponly=True, samesite="strict", secure=is_secure
    )
    return answer


def _refusal() -> Response:
    refusal = problem(401, "send the header Authorization: Bearer TOKEN (HOME/api-token)")
    refusal.headers["WWW-Authenticate"] = "Bearer"
    return refusal


def _slow_down(left_s: float) -> Response:
    refusal = problem(429, "too many wrong tokens; wait")
    refusal.headers["Retry-After"] = str(math.ceil(left_s))
    return refusal


def _is_same_origin(headers: Headers, method: str) -> bool:
    """Whether a request is none that a page of another origin had a browser make: another name,
    another port, or one that hides where it comes from. Programs that are no browser name none."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers["host"].lower():
        return False
    site = headers.get("sec-fetch-site", "none")
    is_link = headers.get("sec-fetch-mode") == "navigate" and method in READING
    return is_link or site in ("none", "same-origin")


def _is_too_long(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return not (length.isascii() and length.isdigit()) or int(length[:20]) > MAX_BODY_BYTES


async def _read_body(receive: Receive) -> bytes | Response:
    """A whole body, bounded in bytes and seconds; or what is answered instead."""
    body, is_whole = bytearray(), False
    try:
        with trio.fail_after(BODY_S):
            while not is_whole:
                message = await receive()
                body += message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if len(body) > MAX_BODY_BYTES:
                    return problem(413, f"a body of at most {MAX_BODY_BYTES} bytes is read")
    except trio.TooSlowError:
        return problem(408, f"the body did not arrive within {BODY_S:.0f} s")
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body again, then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again
