"""The events over the real server: every test listens through a socket of this machine."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest
import trio
from trio.testing import trio_test

from node.api import create_app, open_listener, serve_api
from node.api_fake import EMPTY, NUM_ROUNDS, fake_readable, fake_store, fill
from node.api_reads import Readable
from node.api_stream import EventStream, as_event, last_event_id, round_item
from node.news import Event, Item, News, WarningsNow
from node.status import RoundReport

TOKEN = "t0ken-" + "x" * 37
NASTY = "evil\n\ndata: {}\r\u2028\u2029\x85\x1b[2J <script>"


@dataclass
class Told:
    """One event as a client reads it."""

    event: str = ""
    id: str = ""
    data: Any = None
    comment: str = ""


@dataclass
class Client:
    """A client that has asked for events."""

    response: httpx.Response
    waiting: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chunks = self.response.aiter_raw()
        self.rest = b""

    async def next(self) -> Told:
        """The next event or comment."""
        while b"\n\n" not in self.rest:
            self.rest += await anext(self.chunks)
        text, _, self.rest = self.rest.partition(b"\n\n")
        told = Told()
        for line in text.decode().split("\n"):
            name, _, value = line.partition(": ")
            match name:
                case "event":
                    told.event = value
                case "id":
                    told.id = value
                case "data":
                    assert told.data is None, "one line"
                    told.data = json.loads(value)
                case "":
                    told.comment = value
        return told

    async def begin(self) -> None:
        """Reads what everybody hears first."""
        await self.next()  # after how long to come again
        assert (await self.next()).event == "status"
        assert (await self.next()).event == "warnings"


@dataclass
class Server:
    node: Readable
    url: str
    stop: trio.Event

    @asynccontextmanager
    async def listening(
        self, query: str = "", headers: dict[str, str] | None = None
    ) -> AsyncIterator[Client]:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            httpx.AsyncClient(timeout=30, headers=bearer) as client,
            client.stream("GET", f"{self.url}/api/v1/events{query}", headers=headers) as response,
        ):
            yield Client(response)


@asynccontextmanager
async def serving(node: Readable | None = None) -> AsyncIterator[Server]:
    node = node or fake_readable(lambda: msgspec.structs.replace(EMPTY, warnings=(NASTY,)))
    listener, stop = open_listener("127.0.0.1", 0), trio.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_api, create_app(node, TOKEN), listener, stop=stop))
            yield Server(node, url, stop)
            node.news.close()
            stop.set()


def report(number: int) -> RoundReport:
    (made,) = fill(fake_store(), 1e9)[:1]
    return msgspec.structs.replace(made, round=number, finished_at=1e9 + number)


@trio_test
async def test_a_client_hears_how_it_stands_and_then_what_happens() -> None:
    async with serving() as server, server.listening() as client:
        assert client.response.status_code == 200
        assert client.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.response.headers["cache-control"] == "no-store"
        await client.next()
        status = await client.next()
        assert status.data["learner"]["stage"] == "starting"
        assert (await client.next()).data == {"warnings": [NASTY]}
        server.node.news.tell(round_item(report(7)))
        told = await client.next()
        assert (told.event, told.id, told.data["round"]) == ("round", "7", 7)
        assert told.data["foreign"][0]["fate"] == "used"


@trio_test
async def test_events_need_the_token() -> None:
    async with serving() as server, server.listening(headers={"Authorization": "x"}) as client:
        assert client.response.status_code == 401
        assert server.node.news.num_listeners == 0


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"Last-Event-ID": f"{NUM_ROUNDS - 2}"}),
        (f"?since={NUM_ROUNDS - 2}", {}),
        ("?since=0", {"Last-Event-ID": f"{NUM_ROUNDS - 2}"}),
    ],
)
@trio_test
async def test_a_client_that_comes_again_first_hears_the_rounds_that_it_missed(
    query: str, headers: dict[str, str]
) -> None:
    store = fake_store()
    reports = fill(store, 1e9)
    node = fake_readable(lambda: EMPTY, store)
    async with serving(node) as server, server.listening(query, headers) as client:
        await client.begin()
        assert [(await client.next()).id for _ in range(2)] == ["39", "40"]
        server.node.news.tell(round_item(reports[-1]))  # it came while the history was read
        server.node.news.tell(round_item(report(NUM_ROUNDS + 1)))
        assert (await client.next()).id == "41", "and it is told once"
        server.node.news.tell(round_item(report(39)))
        assert (await client.next()).id == "39", "made again after a restart: told again"


@trio_test
async def test_a_client_that_knows_no_round_hears_none_of_before() -> None:
    store = fake_store()
    fill(store, 1e9)
    async with serving(fake_readable(lambda: EMPTY, store)) as server:
        for headers in ({}, {"Last-Event-ID": "yesterday"}):
            async with server.listening(headers=headers) as client:
                await client.begin()
                server.node.news.tell(round_item(report(99)))
                assert (await client.next()).id == "99"


@trio_test
async def test_no_more_clients_than_may_and_a_place_is_free_when_one_goes() -> None:
    node = replace(fake_readable(), news=News(max_listeners=1))
    async with serving(node) as server:
        async with server.listening() as client:
            await client.begin()
            async with server.listening() as refused:
                assert refused.response.status_code == 503
                assert refused.response.headers["retry-after"] == "5"
                problem = json.loads(await refused.response.aread())
                assert "1 clients listen already" in problem["detail"]
        while node.news.num_listeners:  # the server notices that it has gone
            await trio.sleep(0.01)
        async with server.listening() as client:
            await client.begin()


@trio_test
async def test_a_client_that_does_not_read_is_let_go_and_holds_up_no_other() -> None:
    node = replace(fake_readable(), news=News(queue=4))
    big = Item(Event.WARNINGS, WarningsNow(("x" * 2**20,)))
    async with serving(node) as server, server.listening() as deaf, server.listening() as client:
        await deaf.begin()
        await client.begin()
        while node.news.num_let_go == 0:  # until the deaf one's buffers and queue are full
            node.news.tell(big)
            assert (await client.next()).event == "warnings"
        assert node.news.num_listeners == 1
        node.news.tell(round_item(report(1)))
        assert (await client.next()).id == "1"


@trio_test
async def test_the_end_of_the_node_ends_the_stream_in_order() -> None:
    async with serving() as server, server.listening() as client:
        await client.begin()
        server.node.news.close()
        server.stop.set()
        assert (await client.next()).comment == "the end"
        with pytest.raises(StopAsyncIteration):
            await client.next()


@trio_test
async def test_comments_keep_a_silent_connection_alive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    news, sent = News(), []

    async def missed(after: int, limit: int) -> list[RoundReport]:
        return []

    async def receive() -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if sent.count(b": still here\n\n") == 3:
            news.close()

    stream = EventStream(news, lambda: EMPTY, missed, None)
    await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    assert sent[-2:] == [b": the end\n\n", b""]
    assert trio.current_time() == pytest.approx(45.0)
    assert news.num_listeners == 0


def test_an_event_is_one_line_whatever_a_stranger_writes() -> None:
    told = as_event(Item(Event.WARNINGS, WarningsNow((NASTY,))))
    lines = told.split(b"\n")
    assert [line.partition(b":")[0] for line in lines] == [b"event", b"data", b"", b""]
    assert b"\r" not in told
    assert json.loads(lines[1].removeprefix(b"data: ")) == {"warnings": [NASTY]}


@pytest.mark.parametrize(
    ("text", "number"),
    [(None, None), ("", None), ("7", 7), ("-7", None), ("٣", None), ("9" * 99, None), ("1 ", None)],
)
def test_only_a_number_is_a_last_event(text: str | None, number: int | None) -> None:
    assert last_event_id(text) == number
