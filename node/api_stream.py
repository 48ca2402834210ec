"""`GET /api/v1/events`: the node's news as server-sent events (the HTML standard's format).

A client that comes again with `Last-Event-ID` (browsers do by themselves) first hears the rounds
that it missed. Comments keep the connection alive where nothing happens.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack

import trio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from node.news import Event, Item, Listener, News, first_news
from node.status import RoundReport, Snapshot
from node.status_json import to_json

KEEP_ALIVE_S = 15.0
RETRY_MS = 2000
"""After which a browser comes again."""
MAX_MISSED = 256
"""Rounds told to a client that comes again, the newest; `/api/v1/rounds` has all."""

MissedRounds = Callable[[int, int], Awaitable[list[RoundReport]]]
"""(after this round, limit) -> the newest reports, oldest first."""


class EventStream(StreamingResponse):
    """One client's stream, from its first byte to its end, whoever ends it."""

    def __init__(
        self,
        news: News,
        snapshot: Callable[[], Snapshot],
        missed: MissedRounds,
        after: int | None,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        """Listens from now on.

        Args:
            after: the last round that the client knows; None: it wants none of before.

        Raises:
            TooManyListeners: as many listen as may.
        """
        self._until_end = ExitStack()
        listener = self._until_end.enter_context(news.listen())
        super().__init__(
            _told(listener, snapshot, missed, after, keep_alive_s),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},  # nginx would hold it back
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the client goes, is let go, or the node ends."""
        with self._until_end:
            await super().__call__(scope, receive, send)


async def _told(
    listener: Listener,
    snapshot: Callable[[], Snapshot],
    missed: MissedRounds,
    after: int | None,
    keep_alive_s: float,
) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    for item in first_news(snapshot()):
        yield as_event(item)
    told: set[tuple[int, float]] = set()
    if after is not None:
        for report in await missed(after, MAX_MISSED):
            told.add((report.round, report.finished_at))
            yield as_event(round_item(report))
    while True:
        try:
            news = await listener.next(keep_alive_s)
        except trio.EndOfChannel:
            yield b": too slow, come again\n\n" if listener.was_slow else b": the end\n\n"
            return
        if news is None:
            yield b": still here\n\n"
        elif not _is_told(news, told):
            yield as_event(news)


def round_item(report: RoundReport) -> Item:
    """A finished round as news."""
    return Item(Event.ROUND, report, report.round)


def as_event(item: Item) -> bytes:
    """The bytes of one event. JSON has no line breaks, so that its data is one line: a library
    that splits it at every line break of Unicode would tear strangers' text apart."""
    number = b"" if item.id is None else b"id: %d\n" % item.id
    return b"event: %s\n%sdata: %s\n\n" % (item.event.encode(), number, to_json(item.data))


def _is_told(item: Item, told: set[tuple[int, float]]) -> bool:
    """Whether a round that was told live is among those told from the history."""
    report = item.data
    return isinstance(report, RoundReport) and (report.round, report.finished_at) in told


def last_event_id(text: str | None) -> int | None:
    """The round that a client names as the last it heard; None where it names none."""
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= 15
    return int(text) if text is not None and is_number else None
