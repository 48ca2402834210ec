"""The gate in front of an app that says what it got: over httpx on trio, from any address."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from trio.testing import MockClock, trio_test

from node import gate
from node.doors import Names
from node.gate import GUESS_S, GUESSES, MAX_BODY_BYTES, Gate

TOKEN = "t0ken-" + "x" * 37
BEARER = {"Authorization": f"Bearer {TOKEN}"}
WRONG = {"Authorization": f"Bearer {TOKEN[::-1]}"}
FAR = "203.0.113.9"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    body = await request.body()
    await JSONResponse({"method": request.method, "bytes": len(body)})(scope, receive, send)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asker:
    """Asks one gate, from addresses that a test names."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.token = TOKEN
        self.gate = Gate(echo, lambda: self.token, clock=self.clock)

    async def __call__(
        self,
        headers: dict[str, str],
        *,
        method: str = "GET",
        path: str = "/api/v1/status",
        host: str = "127.0.0.1:8420",
        client: str = "127.0.0.1",
        content: Any = None,
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.gate, client=(client, 4711))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as asking:
            return await asking.request(method, path, headers=headers, content=content)


@pytest.fixture
def ask() -> Iterator[Asker]:
    yield Asker()


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found.keys() == {"type", "title", "status", "detail"}
    assert found["status"] == answer.status_code
    return found


# --- names ---


@pytest.mark.parametrize(
    ("names", "host", "is_known"),
    [
        (Names(), "LOCALHOST:1", True),
        (Names(), "192.0.2.1", False),
        (Names(any_address=True), "192.0.2.1:8420", True),
        (Names(any_address=True), "[2001:db8::1]:8420", True),
        (Names(any_address=True), "192.0.2.1.sapo.example", False),
        (Names(any_address=True), "sapo.example", False),
        (Names(frozenset({"node.example.org"})), "Node.Example.org:443", True),
        (Names(frozenset({"node.example.org"})), "evil.node.example.org", False),
        (Names(any_address=True), "", False),
        (Names(any_address=True), ":8420", False),
        (Names(any_address=True), "[::1", False),
    ],
)
def test_a_host_is_one_of_the_names_or_an_address_that_can_be_none(
    names: Names, host: str, is_known: bool
) -> None:
    assert (host in names) == is_known


# --- origins ---


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:8420"}, True),
        ({"Origin": "http://127.0.0.1:8421"}, False),  # another server of this machine
        ({"Origin": "http://localhost:8420"}, False),
        ({"Origin": "https://sapo.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@trio_test
async def test_a_page_of_another_origin_gets_nothing_through_the_operators_browser(
    ask: Asker, headers: dict[str, str], is_let_in: bool, method: str
) -> None:
    answer = await ask(BEARER | headers, method=method)
    assert answer.status_code == (200 if is_let_in else 403)
    if not is_let_in:
        assert "origin" in problem(answer)["detail"]


@trio_test
async def test_a_link_of_another_page_leads_in_but_its_form_does_not(ask: Asker) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await ask(BEARER | link)).status_code == 200
    assert (await ask(BEARER | link, method="POST")).status_code == 403
    assert (await ask(link | {"Origin": "https://sapo.example"} | BEARER)).status_code == 403


# --- wrong tokens ---


@trio_test
async def test_who_guesses_from_elsewhere_is_not_even_looked_at_after_some(ask: Asker) -> None:
    for _ in range(GUESSES):
        assert (await ask(WRONG, client=FAR)).status_code == 401
    for headers in (WRONG, BEARER):
        answer = await ask(headers, client=FAR)
        assert problem(answer)["status"] == 429
        assert 0 < int(answer.headers["retry-after"]) <= GUESS_S
    assert (await ask(BEARER, client="203.0.113.10")).status_code == 200, "others are not concerned"
    ask.clock.now += GUESS_S
    assert (await ask(WRONG, client=FAR)).status_code == 401
    assert (await ask(WRONG, client=FAR)).status_code == 429
    ask.clock.now += GUESS_S
    assert (await ask(BEARER, client=FAR)).status_code == 200


@trio_test
async def test_an_ipv6_network_is_one_guesser(ask: Asker) -> None:
    for number in range(GUESSES):
        assert (await ask(WRONG, client=f"2001:db8::{number + 1:x}")).status_code == 401
    assert (await ask(WRONG, client="2001:db8::ffff")).status_code == 429
    assert (await ask(WRONG, client="2001:db8:0:1::1")).status_code == 401


@trio_test
async def test_a_guesser_on_this_machine_shuts_nobody_else_out(ask: Asker) -> None:
    for _ in range(GUESSES):
        assert (await ask(WRONG)).status_code == 401
    assert (await ask(WRONG)).status_code == 429
    assert (await ask(BEARER)).status_code == 200


@trio_test
async def test_guesses_in_the_pages_address_count_and_none_at_all_do_not(ask: Asker) -> None:
    for _ in range(5 * GUESSES):
        assert (await ask({}, client=FAR)).status_code == 401
        assert (await ask({"Cookie": "sapo-00000000=x"}, client=FAR)).status_code == 401
    for _ in range(GUESSES):
        assert (await ask({}, path="/?token=wrong", client=FAR)).status_code == 401
    assert (await ask({}, path="/?token=wrong", client=FAR)).status_code == 429
    assert (await ask({}, path=f"/?token={TOKEN}", client=FAR)).status_code == 429
    assert (await ask({}, path="/health", client=FAR)).status_code == 200


@trio_test
async def test_wrong_tokens_are_said_in_the_log_once(
    ask: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "node.gate"):
        for _ in range(5):
            await ask(WRONG)
    assert [one.getMessage() for one in caplog.records] == [
        "1 requests to the API had a wrong token"
    ]


# --- a new token ---


@trio_test
async def test_a_new_token_counts_at_once_and_the_old_one_no_more(ask: Asker) -> None:
    entry = await ask({}, path=f"/?token={TOKEN}")
    assert entry.status_code == 303
    cookie = {"Cookie": entry.headers["set-cookie"].split(";")[0]}
    assert (await ask(cookie)).status_code == 200
    ask.token = TOKEN[::-1]
    for old in (cookie, BEARER):
        assert (await ask(old)).status_code == 401
    assert (await ask(WRONG)).status_code == 200


# --- bodies ---


@trio_test
async def test_a_body_is_bounded_whether_its_length_is_told_or_not(ask: Asker) -> None:
    most = b"x" * MAX_BODY_BYTES

    async def in_parts() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1024 + 1):
            yield b"x" * 1024

    whole = await ask(BEARER, method="POST", content=most)
    assert whole.json() == {"method": "POST", "bytes": MAX_BODY_BYTES}
    for content in (most + b"x", in_parts()):
        assert problem(await ask(BEARER, method="POST", content=content))["status"] == 413
    for length in ("-1", "x", "9" * 30):
        answer = await ask(BEARER | {"Content-Length": length}, content=b"x")
        assert problem(answer)["status"] == 413


@trio_test
async def test_a_body_that_never_ends_is_given_up(mock_clock: MockClock) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await trio.sleep(1)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/pause",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())],
    }
    began = trio.current_time()
    await Gate(echo, TOKEN)(scope, receive, send)
    assert sent[0]["status"] == 408
    assert trio.current_time() - began == pytest.approx(gate.BODY_S)


@pytest.fixture
def mock_clock() -> MockClock:
    return MockClock(autojump_threshold=0)
