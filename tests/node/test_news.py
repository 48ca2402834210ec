from typing import Any

import msgspec
import pytest
import trio
from trio.testing import trio_test

from node.api_fake import EMPTY
from node.news import (
    REFUSALS_EVERY_S,
    Changes,
    Event,
    Item,
    News,
    PeersChanged,
    RefusalsMore,
    StatusNow,
    TooManyListeners,
    WarningsNow,
    first_news,
)
from node.status import LearnerStatus, PeerStatus, Snapshot

ITEM = Item(Event.WARNINGS, WarningsNow(("a",)))


def snapshot(**changes: Any) -> Snapshot:
    return msgspec.structs.replace(EMPTY, **changes)


@trio_test
async def test_all_who_listen_hear_the_same() -> None:
    news = News()
    news.tell(ITEM)  # to nobody
    with news.listen() as one, news.listen() as other:
        news.tell(ITEM)
        assert await one.next(60) is ITEM
        assert await other.next(60) is ITEM
    assert news.num_listeners == 0


@trio_test
async def test_silence_ends_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    with News().listen() as listener:
        assert await listener.next(15) is None


@trio_test
async def test_who_is_too_slow_is_let_go_and_holds_up_nobody() -> None:
    news = News(queue=3)
    with news.listen() as slow, news.listen() as quick:
        for _ in range(5):
            news.tell(ITEM)
            assert await quick.next(60) is ITEM
        assert slow.was_slow and not quick.was_slow
        assert (news.num_listeners, news.num_let_go) == (1, 1)
        for _ in range(3):  # what was told in time is heard
            assert await slow.next(60) is ITEM
        with pytest.raises(trio.EndOfChannel):
            await slow.next(60)


@trio_test
async def test_no_more_listen_than_may() -> None:
    news = News(max_listeners=2)
    with (
        news.listen(),
        news.listen(),
        pytest.raises(TooManyListeners, match="2 clients"),
        news.listen(),
    ):
        raise AssertionError
    with news.listen():  # a place is free again
        assert news.num_listeners == 1


@trio_test
async def test_the_end_of_the_node_ends_all() -> None:
    news = News()
    with news.listen() as listener:
        news.close()
        with pytest.raises(trio.EndOfChannel):
            await listener.next(60)
    with news.listen() as late, pytest.raises(trio.EndOfChannel):
        await late.next(60)


@trio_test
async def test_the_node_is_looked_at_only_while_somebody_listens(
    autojump_clock: trio.testing.MockClock,
) -> None:
    news, looks = News(), 0

    def look() -> Snapshot:
        nonlocal looks
        looks += 1
        return snapshot(warnings=("x" * looks,))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.watch, look)
        await trio.sleep(60)
        assert looks == 0
        with news.listen() as listener:
            item = await listener.next(60)
            assert item is not None and item.event is Event.WARNINGS
        await trio.sleep(60)
        seen = looks
        await trio.sleep(60)
        assert looks == seen
        nursery.cancel_scope.cancel()


def test_a_new_listener_hears_how_it_stands() -> None:
    status, warnings = first_news(snapshot(warnings=("a",)))
    assert isinstance(status.data, StatusNow)
    assert warnings.data == WarningsNow(("a",))


def changes(before: Snapshot, *later: Snapshot, step_s: float = 1.0) -> list[Item]:
    looking = Changes()
    assert looking.look(before, 0.0) == []
    return [
        item for number, one in enumerate(later, 1) for item in looking.look(one, number * step_s)
    ]


def test_what_changes_by_itself_is_no_news() -> None:
    first = LearnerStatus(stage="updating", stage_age_s=1.0, restart_in_s=5.0)
    later = LearnerStatus(stage="updating", stage_age_s=2.0, restart_in_s=4.0)
    told = "updating takes long: {} s so far"
    before = snapshot(learner=first, now=1.0, warnings=(told.format(450),))
    assert changes(before, snapshot(learner=later, now=2.0, warnings=(told.format("451.5"),))) == []


@pytest.mark.parametrize(
    "after",
    [
        {"learner": LearnerStatus(stage="generating")},
        {"learner": LearnerStatus(restarts=1)},
        {"learner": LearnerStatus(restart_in_s=4.0)},
        {"paused": True},
    ],
)
def test_another_stage_or_life_of_the_learner_is_news(after: dict[str, Any]) -> None:
    (item,) = changes(EMPTY, snapshot(**after))
    assert item.event is Event.STATUS
    assert isinstance(item.data, StatusNow)
    assert item.data.paused == after.get("paused", False)


def test_new_warnings_and_their_end_are_news() -> None:
    found = changes(EMPTY, snapshot(warnings=("a",)), snapshot(warnings=("a",)), EMPTY)
    assert [item.data for item in found] == [WarningsNow(("a",)), WarningsNow(())]


def test_peers_that_come_and_go_are_told_together() -> None:
    a, b, c = (PeerStatus(name, connected=True) for name in "abc")
    gone = PeerStatus("a", connected=False)
    found = changes(snapshot(peers=(a,)), snapshot(peers=(gone, b, c)), snapshot(peers=(gone, b)))
    assert [item.data for item in found] == [
        PeersChanged((b, c), ("a",), 2),
        PeersChanged((), ("c",), 1),
    ]


def test_refusals_are_added_up_and_told_now_and_then() -> None:
    growing = [snapshot(refused={"copied": 7 + number}) for number in range(12)]
    found = changes(growing[0], *growing[1:], step_s=REFUSALS_EVERY_S / 5)
    assert [item.data for item in found] == [
        RefusalsMore({"copied": 5}),
        RefusalsMore({"copied": 5}),
    ]
