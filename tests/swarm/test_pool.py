import logging
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from rewards.question import Example, Expansion, Question
from swarm.database import Database, DatabaseTooNew, open_database
from swarm.pool import Pool
from swarm.refusal import Refusal
from swarm.wire import open_rollout, rollout_hash

LIFETIME_S = 1000.0


@pytest.fixture
def pool(database: Database, clock: Any) -> Pool:
    return Pool(database, LIFETIME_S, 2**20, clock=clock)


def add(pool: Pool, clock: Any, record: bytes) -> Refusal | None:
    rollout = open_rollout(record)
    question = rollout.question
    expansion = Expansion(question, f"say {question.index}", str(question.index))
    return pool.add_foreign(record, rollout, expansion, (True, False), clock())


def add_own(pool: Pool, record: bytes) -> None:
    pool.add_own(record, open_rollout(record), (True, False))


def test_what_was_added_can_be_drawn_and_found(pool: Pool, clock: Any, maker: Any) -> None:
    record = maker.rollout(7)
    assert add(pool, clock, record) is None
    assert pool.find([rollout_hash(record), bytes(32)]) == {rollout_hash(record): record}
    clock.now += 5
    (pooled,) = pool.draw(3, 3, random.Random(0))
    assert pooled.hash == rollout_hash(record)
    assert pooled.rollout == open_rollout(record)
    assert pooled.expansion == Expansion(Question("sums", 7), "say 7", "7")
    assert pooled.correct == (True, False)
    assert clock() - pooled.first_seen == 5
    assert pool.find([rollout_hash(record)]), "a used one is still served"


def test_what_is_shown_before_the_question_is_kept_and_counted(
    pool: Pool, clock: Any, maker: Any
) -> None:
    record, question = maker.rollout(7), Question("sums", 7)
    shown = Expansion(question, "say 7", "7", "Be brief.", (Example("say 1", "1"),))
    pool.add_foreign(record, open_rollout(record), shown, (True, False), clock())
    assert pool.counts().num_bytes > len(record) + len("say 77Be brief.say 11")
    (pooled,) = pool.draw(1, 1, random.Random(0))
    assert pooled.expansion == shown


def test_a_pool_of_the_first_schema_is_used_on(
    database: Database, pool: Pool, clock: Any, maker: Any
) -> None:
    add(pool, clock, maker.rollout(7))
    with database.transaction():
        database.execute("ALTER TABLE rollouts DROP COLUMN prompting")
    again = Pool(database, LIFETIME_S, 2**20, clock=clock)
    add(again, clock, maker.rollout(8, ("8", "9")))
    drawn = again.draw(2, 2, random.Random(0))
    assert {one.expansion.text for one in drawn} == {"say 7", "say 8"}


def test_each_is_handed_out_once(pool: Pool, clock: Any, maker: Any) -> None:
    for index in range(5):
        add(pool, clock, maker.rollout(index, (str(index), "no")))
    drawn = [one.hash for _ in range(3) for one in pool.draw(2, 9, random.Random(0))]
    assert len(drawn) == len(set(drawn)) == 5
    assert pool.draw(2, 9, random.Random(0)) == []
    assert (pool.counts().fresh, pool.counts().used) == (0, 5)


def test_one_author_gives_no_more_than_the_cap(
    pool: Pool, clock: Any, make_maker: Callable[[int], Any]
) -> None:
    for number, num in ((1, 10), (2, 1), (3, 2)):
        for index in range(num):
            add(pool, clock, make_maker(number).rollout(index, (str(index), str(number))))
    assert pool.count_drawable(8, 3) == 6
    assert pool.count_drawable(4, 3) == 4
    authors = [one.rollout.author for one in pool.draw(8, 3, random.Random(0))]
    assert sorted(authors.count(make_maker(number).node_id) for number in (1, 2, 3)) == [1, 2, 3]


def test_draws_are_uniform_and_repeat_with_the_seed(tmp_path: Path, clock: Any, maker: Any) -> None:
    records = [maker.rollout(index, (str(index), "no")) for index in range(4)]
    counts = dict.fromkeys(map(rollout_hash, records), 0)
    with closing(open_database(tmp_path / "a")) as database:
        pool = Pool(database, LIFETIME_S, 2**20, clock=clock)
        for record in records:
            add(pool, clock, record)
        for seed in range(400):
            (one,) = pool.draw(1, 1, random.Random(seed))
            counts[one.hash] += 1
            database.execute("UPDATE rollouts SET kind = 1")
            database.commit()
        first = [one.hash for one in pool.draw(3, 3, random.Random(5))]
        database.execute("UPDATE rollouts SET kind = 1")
        database.commit()
        assert [one.hash for one in pool.draw(3, 3, random.Random(5))] == first
    assert all(70 < count < 130 for count in counts.values())


def test_draws_follow_the_weights(pool: Pool, database: Database, clock: Any, maker: Any) -> None:
    for index in range(4):
        add(pool, clock, maker.rollout(index, (str(index), "no")))

    def weigh(question: Question, correct: Sequence[bool], age_s: float) -> float:
        return float(question.index)

    first = Counter[int]()
    for seed in range(300):
        drawn = [one.rollout.question.index for one in pool.draw(4, 4, random.Random(seed), weigh)]
        assert sorted(drawn) == [1, 2, 3], "what has no weight is not drawn"
        first[drawn[0]] += 1
        database.execute("UPDATE rollouts SET kind = 1")
        database.commit()
    assert 30 < first[1] < 70 and 75 < first[2] < 125 and 120 < first[3] < 180


def test_what_has_no_weight_does_not_count(
    pool: Pool, clock: Any, make_maker: Callable[[int], Any]
) -> None:
    one, other = make_maker(1), make_maker(2)
    for index in range(3):
        add(pool, clock, one.rollout(index, (str(index), "no")))
    add(pool, clock, other.rollout(1, ("1", "other")))
    asked = []

    def weigh(question: Question, correct: Sequence[bool], age_s: float) -> float:
        asked.append((correct, age_s))
        return float(question.index > 0)

    clock.now += 5
    assert pool.count_drawable(9, 9, weigh) == 3 and pool.count_drawable(9, 1, weigh) == 2
    assert pool.fresh_by_author(weigh) == {one.node_id: 2, other.node_id: 1}
    assert set(asked) == {((True, False), 5.0)}
    clock.now -= 10
    pool.count_drawable(9, 9, weigh)
    assert asked[-1] == ((True, False), 0.0), "a clock that was set back makes nothing negative"


def test_a_draw_does_not_depend_on_the_order_of_arrival(
    tmp_path: Path, clock: Any, maker: Any
) -> None:
    records = [maker.rollout(index, (str(index), "no")) for index in range(6)]
    draws = []
    for name, order in (("a", records), ("b", records[::-1])):
        with closing(open_database(tmp_path / name)) as database:
            pool = Pool(database, LIFETIME_S, 2**20, clock=clock)
            for record in order:
                add(pool, clock, record)
            draws.append([one.hash for one in pool.draw(3, 3, random.Random(1))])
    assert draws[0] == draws[1]


def test_what_was_seen_is_known(pool: Pool, clock: Any, maker: Any) -> None:
    added, own, refused = maker.rollout(1), maker.rollout(2), bytes(32)
    add(pool, clock, added)
    add_own(pool, own)
    add_own(pool, own)
    pool.refuse(refused, clock() + 50)
    pool.refuse(refused, clock() + 500)
    hashes = {rollout_hash(added), rollout_hash(own), refused}
    assert pool.has_seen([*hashes, b"\x01" * 32]) == hashes
    assert add(pool, clock, added) is Refusal.SEEN
    clock.now += 51
    pool.counts()  # forgets what has expired
    assert refused not in pool.has_seen([refused])


def test_a_copy_under_another_name_is_known(
    pool: Pool, clock: Any, make_maker: Callable[[int], Any]
) -> None:
    author, copier = make_maker(1), make_maker(2)
    add(pool, clock, author.rollout(7, ("7", "8")))
    assert add(pool, clock, copier.rollout(7, ("7", "8"), model="mine")) is Refusal.COPIED
    assert add(pool, clock, copier.rollout(8, ("7", "8"))) is None
    assert add(pool, clock, copier.rollout(7, ("8", "7"))) is None
    assert add(pool, clock, copier.rollout(7, ("78", ""))) is None
    assert add(pool, clock, author.rollout(7, ("7", "8"), model="again")) is None
    pool.draw(9, 9, random.Random(0))
    assert add(pool, clock, copier.rollout(7, ("7", "8"), model="used")) is Refusal.COPIED


def test_own_rollouts_are_served_and_not_drawn(pool: Pool, clock: Any, maker: Any) -> None:
    record = maker.rollout(7)
    add_own(pool, record)
    assert pool.draw(1, 1, random.Random(0)) == []
    assert pool.find([rollout_hash(record)]) == {rollout_hash(record): record}
    assert (pool.counts().own, pool.counts().fresh) == (1, 0)
    assert pool.counts().num_bytes == len(record)


def test_rollouts_expire(pool: Pool, clock: Any, maker: Any) -> None:
    fresh = maker.rollout(1)
    own = maker.rollout(2)
    created_earlier = maker.rollout(3, created=clock() - LIFETIME_S - 500)
    for record in (fresh, created_earlier):
        add(pool, clock, record)
    add_own(pool, own)
    hashes = [rollout_hash(record) for record in (fresh, own, created_earlier)]
    clock.now += 101  # past the signed time, the lifetime and the tolerance of ten minutes
    assert pool.find(hashes).keys() == set(hashes[:2])
    assert pool.fresh_by_author() == {maker.node_id: 1}
    clock.now += LIFETIME_S - 101  # past the lifetime from first sight
    assert pool.find(hashes).keys() == {hashes[1]}
    assert pool.draw(1, 1, random.Random(0)) == []
    clock.now += 600
    assert pool.find(hashes) == {}
    assert pool.counts().num_bytes == 0


def size_of(record: bytes) -> int:
    index = open_rollout(record).question.index
    return len(record) + len(f"say {index}") + len(str(index))


def test_at_the_bound_used_then_fresh_then_own_ones_give_way(
    database: Database,
    clock: Any,
    make_maker: Callable[[int], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    me, peer = make_maker(1), make_maker(2)
    records = [peer.rollout(index, (str(index), "no")) for index in range(6)]
    own = me.rollout(9)
    pool = Pool(database, LIFETIME_S, 4 * size_of(records[0]) + len(own), clock=clock)

    def kept() -> set[int]:
        hashes = {rollout_hash(record): index for index, record in enumerate(records)}
        return {hashes[one] for one in pool.find(hashes)}

    add_own(pool, own)
    for record in records[:2]:
        clock.now += 1
        add(pool, clock, record)
    pool.draw(2, 2, random.Random(0))
    for record in records[2:4]:
        clock.now += 1
        add(pool, clock, record)
    assert kept() == {0, 1, 2, 3} and pool.num_evicted == 0
    clock.now += 1
    add(pool, clock, records[4])
    assert kept() == {1, 2, 3, 4}, "the older of the used ones goes first"
    clock.now += 1
    add(pool, clock, records[5])
    assert kept() == {2, 3, 4, 5}
    clock.now += 1
    add(pool, clock, peer.rollout(8, ("8", "no")))
    assert kept() == {3, 4, 5}, "then the oldest fresh one"
    assert pool.find([rollout_hash(own)]), "own ones last"
    assert pool.has_seen([rollout_hash(records[0])]), "and what went is not fetched again"
    assert pool.counts().num_bytes <= 4 * size_of(records[0]) + len(own)
    assert pool.num_evicted == 3, "counted, and said once a minute"
    assert caplog.messages == [
        "1 rollouts gave way to newer ones before they expired (swarm.pool_mib)"
    ]


def test_own_rollouts_leave_room_for_others(
    database: Database, clock: Any, make_maker: Callable[[int], Any]
) -> None:
    me, peer = make_maker(1), make_maker(2)
    pool = Pool(database, LIFETIME_S, 2000, clock=clock)
    for index in range(20):
        clock.now += 1
        add_own(pool, me.rollout(index, (str(index), "x" * 100)))
    assert 0 < pool.counts().num_bytes <= 1000
    add(pool, clock, peer.rollout(1))
    assert pool.counts().fresh == 1


def test_rows_and_memory_of_hashes_are_bounded(database: Database, clock: Any, maker: Any) -> None:
    pool = Pool(database, LIFETIME_S, 2**20, max_rows=3, max_seen=5, clock=clock)
    for index in range(8):
        clock.now += 1
        add(pool, clock, maker.rollout(index, (str(index), "no")))
    assert pool.counts().fresh == 3
    for number in range(20):
        pool.refuse(number.to_bytes(32), clock() + 10_000 + number)
    newest = [number.to_bytes(32) for number in range(20)]
    assert pool.has_seen(newest) == set(newest[15:])


def test_what_is_in_the_pool_is_known_when_its_hash_was_forgotten(
    database: Database, clock: Any, maker: Any
) -> None:
    pool = Pool(database, LIFETIME_S, 2**20, max_seen=5, clock=clock)
    record = maker.rollout(7)
    add(pool, clock, record)
    for number in range(20):
        pool.refuse(number.to_bytes(32), clock() + 10_000)
    assert pool.has_seen([rollout_hash(record)]) == {rollout_hash(record)}
    assert add(pool, clock, record) is Refusal.SEEN
    assert pool.counts().fresh == 1


def test_a_pool_survives_a_restart(tmp_path: Path, clock: Any, maker: Any) -> None:
    used, fresh = maker.rollout(1), maker.rollout(2)
    for attempt in range(2):
        with closing(open_database(tmp_path / "pool.sqlite")) as database:
            pool = Pool(database, LIFETIME_S, 2**20, clock=clock)
            if attempt == 0:
                add(pool, clock, used)
                assert len(pool.draw(1, 1, random.Random(0))) == 1
                add(pool, clock, fresh)
            else:
                assert pool.has_seen([rollout_hash(used)])
                assert [one.hash for one in pool.draw(9, 9, random.Random(0))] == [
                    rollout_hash(fresh)
                ]


def test_a_pool_survives_a_kill(tmp_path: Path, clock: Any, maker: Any) -> None:
    """What a call has returned from is there after SIGKILL."""
    file = tmp_path / "pool.sqlite"
    record = maker.rollout(1)
    script = (
        "import os, sys\n"
        "from swarm.database import open_database\nfrom swarm.pool import Pool\n"
        "pool = Pool(open_database(__import__('pathlib').Path(sys.argv[1])), 1000, 2**20)\n"
        "pool.refuse(bytes(32), 4e9)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, file], env={**os.environ})
    assert done.returncode == -9
    with closing(open_database(file)) as database:
        pool = Pool(database, LIFETIME_S, 2**20, clock=clock)
        assert pool.has_seen([bytes(32)]) == {bytes(32)}
        assert add(pool, clock, record) is None


def test_a_file_of_a_newer_version_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "pool.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = file.read_bytes()
    with pytest.raises(DatabaseTooNew, match="schema 3, this one knows 2"):
        open_database(file)
    assert file.read_bytes() == before


def damage_header(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)


def damage_pages(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [damage_header, damage_pages, replace_by_folder])
def test_a_damaged_file_is_moved_aside_loudly(
    tmp_path: Path, clock: Any, maker: Any, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    file = tmp_path / "pool.sqlite"
    with closing(open_database(file)) as database:
        add(Pool(database, LIFETIME_S, 2**20, clock=clock), clock, maker.rollout(1))
    damage(file)
    with caplog.at_level(logging.ERROR), closing(open_database(file)) as database:
        pool = Pool(database, LIFETIME_S, 2**20, clock=clock)
        assert pool.counts().fresh == 0
        assert add(pool, clock, maker.rollout(1)) is None
    assert "moved to" in caplog.text
    assert (tmp_path / "pool.sqlite.broken").exists()


def test_a_damaged_record_is_dropped_loudly(
    pool: Pool, database: Database, clock: Any, maker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for index in (1, 2):
        add(pool, clock, maker.rollout(index, (str(index), "no")))
    damaged = rollout_hash(maker.rollout(1, ("1", "no")))
    database.execute("UPDATE rollouts SET record = x'00' WHERE hash = ?", (damaged,))
    database.commit()
    drawn = pool.draw(2, 2, random.Random(0))
    assert [one.rollout.question.index for one in drawn] == [2]
    assert "is damaged" in caplog.text


def test_a_locked_file_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    file = tmp_path / "pool.sqlite"
    open_database(file).close()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            open_database(file, timeout_s=0.01)
    assert not (tmp_path / "pool.sqlite.broken").exists()


def test_the_trio_thread_may_not_use_it(pool: Pool, database: Database) -> None:
    async def misuse() -> None:
        with pytest.raises(RuntimeError, match="block the trio loop"):
            pool.counts()
        with pytest.raises(RuntimeError, match="block the trio loop"):
            database.execute("SELECT 1")
        assert (await trio.to_thread.run_sync(pool.counts)).fresh == 0

    trio.run(misuse)


def test_two_threads_may_not_use_it_at_once(pool: Pool, database: Database) -> None:
    raised: list[str] = []

    def use() -> None:
        try:
            pool.counts()
        except RuntimeError as error:
            raised.append(str(error))

    with database.transaction():
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert raised == ["the database is used by two threads at once, or nested"]
    use()
    assert len(raised) == 1


def test_a_transaction_that_fails_changes_nothing(pool: Pool, database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.execute("INSERT INTO seen VALUES (x'00', NULL, NULL, 9e9)")
        raise ZeroDivisionError
    assert pool.has_seen([b"\x00"]) == set()
