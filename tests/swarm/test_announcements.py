"""What is kept of announcements: in which order, for how long, within which bounds."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarm.announcements import BATCH, Announcements, KeptAnnouncement
from swarm.catalogue import announcement_id
from swarm.database import Database, open_database
from swarm.protocol import CLOCK_TOLERANCE_S

OWN = "own"


@pytest.fixture
def make(database: Database, clock: Any) -> Callable[..., Announcements]:
    def make(**bounds: int) -> Announcements:
        return Announcements(database, OWN, clock=clock, **bounds)

    return make


def one(number: int, author: str = "a", num_bytes: int = 100, expires: float = 1e12) -> Any:
    record = number.to_bytes(4) + author.encode() + bytes(num_bytes)
    return KeptAnnouncement(record[:num_bytes], author, number, float(number), expires)


def ids(*kept: KeptAnnouncement) -> list[bytes]:
    return [announcement_id(each.record) for each in kept]


def put(announcements: Announcements, *kept: KeptAnnouncement) -> None:
    for each in kept:
        announcements.keep(each)
    announcements.write()


def test_what_is_kept_is_found_and_listed_the_last_first(make: Any) -> None:
    kept, announcements = [one(number) for number in range(5)], make()
    put(announcements, *kept)
    assert announcements.newest(0, 10) == (ids(*reversed(kept)), 0)
    first, second = ids(*kept[:2])
    absent = bytes(8)
    assert announcements.find([first, absent]) == {first: kept[0].record}
    assert announcements.unknown([absent, first, absent, second]) == [absent]


def test_of_the_shards_that_are_named_alone(make: Any) -> None:
    kept, announcements = [replace(one(number), shard=number % 3) for number in range(7)], make()
    put(announcements, *kept)
    assert announcements.newest(0, 10, [2]) == (ids(kept[5], kept[2]), 0)
    page, position = announcements.newest(0, 2, [0, 1])
    assert page == ids(kept[6], kept[4]) and position
    assert announcements.newest(position, 9, [0, 1])[0] == ids(kept[3], kept[1], kept[0])
    assert announcements.recall(1) == [kept[6]]


def test_pages_follow_each_other_whatever_comes_meanwhile(make: Any) -> None:
    kept, announcements = [one(number) for number in range(7)], make()
    put(announcements, *kept[:5])
    page, position = announcements.newest(0, 2)
    assert page == ids(kept[4], kept[3]) and position
    put(announcements, kept[5], kept[6])
    page, position = announcements.newest(position, 2)
    assert page == ids(kept[2], kept[1]) and position
    assert announcements.newest(position, 2) == (ids(kept[0]), 0)


def test_what_waits_is_listed_found_and_known_too(make: Any) -> None:
    kept, announcements = one(1), make()
    assert announcements.keep(kept) == 1
    assert announcements.newest(0, 10) == (ids(kept), 0)
    other = one(2)
    announcements.keep(other)
    assert announcements.unknown(ids(kept, other)) == []
    third = one(3)
    announcements.keep(third)
    assert list(announcements.find(ids(third)).values()) == [third.record]


def test_a_batch_costs_one_write(make: Any, database: Database) -> None:
    announcements, written = make(), []
    database.set_trace_callback(
        lambda statement: written.append(statement) if statement.startswith("BEGIN") else None
    )
    for number in range(BATCH):
        assert announcements.keep(one(number)) == number + 1
    assert written == []
    announcements.write()
    assert len(written) == 1 and announcements.counts().num == BATCH


def test_the_same_record_is_kept_once_at_its_first_place(make: Any) -> None:
    announcements = make()
    put(announcements, one(1), one(2), one(1))
    put(announcements, one(1))
    assert announcements.newest(0, 10) == (ids(one(2), one(1)), 0)
    assert announcements.counts().num == 2 and announcements.counts().num_bytes == 200


def test_what_has_expired_is_known_a_while_and_told_to_nobody(make: Any, clock: Any) -> None:
    announcements = make()
    short, long = one(1, expires=clock() + 10), one(2, expires=clock() + 2 * CLOCK_TOLERANCE_S)
    put(announcements, short, long)
    clock.now += 10
    put(announcements, one(4, "b", expires=clock()))
    assert announcements.newest(0, 10) == (ids(long), 0)
    assert announcements.find(ids(short)) == {} and announcements.recall(9) == [long]
    assert announcements.unknown(ids(short)) == []
    clock.now += CLOCK_TOLERANCE_S
    put(announcements, one(3))
    assert announcements.unknown(ids(short)) == ids(short)
    assert announcements.counts().num == 2


def test_of_an_author_the_oldest_give_way(make: Any) -> None:
    announcements = make(max_per_author=3, max_author_bytes=10_000)
    put(announcements, one(0, "b"), *(one(number) for number in range(5)))
    assert announcements.newest(0, 9)[0] == ids(one(4), one(3), one(2), one(0, "b"))
    put(announcements, one(5, num_bytes=9850))
    assert announcements.newest(0, 9)[0] == ids(one(5, num_bytes=9850), one(4), one(0, "b"))
    assert announcements.num_evicted == 0, "that says nothing about the disk"


def test_over_all_the_oldest_of_others_give_way_and_own_ones_stay(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    announcements = make(max_rows=3, max_bytes=1000)
    put(announcements, one(0, OWN), *(one(number, f"author {number}") for number in range(1, 6)))
    newest = [one(number, f"author {number}") for number in (5, 4, 3)]
    assert announcements.newest(0, 9)[0] == ids(*newest, one(0, OWN))
    put(announcements, one(6, "c", num_bytes=801))
    assert announcements.newest(0, 9)[0] == ids(one(6, "c", num_bytes=801), newest[0], one(0, OWN))
    assert announcements.num_evicted == 4, "counted, and said"
    assert [text for text in caplog.messages if "swarm.announcements_mib" in text] == [
        "2 announcements gave way to newer ones before they expired (swarm.announcements_mib)"
    ]


def test_own_ones_are_bounded_too(make: Any) -> None:
    announcements = make(max_per_author=3)
    put(announcements, *(one(number, OWN) for number in range(9)))
    assert announcements.newest(0, 9)[0] == ids(one(8, OWN), one(7, OWN), one(6, OWN))


def test_a_restart_finds_what_was_written_and_recalls_what_is_others(
    tmp_path: Path, clock: Any
) -> None:
    file = tmp_path / "kept.sqlite"
    kept = [one(number, author) for number, author in enumerate(["a", OWN, "b", "c"])]
    database = open_database(file)
    put(Announcements(database, OWN, clock=clock), *kept)
    Announcements(database, OWN, clock=clock).keep(one(9))  # never written
    database.close()
    database = open_database(file)
    again = Announcements(database, OWN, clock=clock)
    assert again.newest(0, 9) == (ids(*reversed(kept)), 0)
    assert again.recall(9) == [kept[0], kept[2], kept[3]]
    assert again.recall(2) == [kept[2], kept[3]]
    put(again, one(7))
    assert again.newest(0, 1)[0] == ids(one(7)), "positions rise over restarts"
    database.close()
