from contextlib import closing
from pathlib import Path

import msgspec

from node.history import History
from node.status import ForeignFate, ForeignGroup, HeldOutStatus, RoundReport
from swarm.database import open_database

REPORT = RoundReport(
    1, 0.5, 0.5, 0.0, 1, 2, 0, 10, 1.0, 1.0, None, 0.0, 1.0, 1e-4, 0.0, {"drawing": 0.1},
    foreign_wanted=4,
    foreign=(ForeignGroup("12D3KooW", b"h" * 32, "sums", ForeignFate.USED, 3, 1.5, -0.4, 0.9),),
)  # fmt: skip


def numbered(number: int, reward: float = 0.5) -> RoundReport:
    return msgspec.structs.replace(REPORT, round=number, own_reward=reward)


def test_rounds_survive_the_process_and_come_back_as_they_were(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "db")) as database:
        History(database).put_round(REPORT)
    with closing(open_database(tmp_path / "db")) as database:
        assert History(database).rounds() == [REPORT]
        assert History(database).rounds()[0].foreign_groups_used == 1


def test_a_round_that_is_made_again_replaces_its_first_try(tmp_path: Path) -> None:
    history = History(open_database(tmp_path / "db"))
    history.put_round(numbered(1, 0.1))
    history.put_round(numbered(1, 0.9))
    assert [report.own_reward for report in history.rounds()] == [0.9]


def test_what_followed_on_a_round_that_is_made_again_is_forgotten(tmp_path: Path) -> None:
    history = History(open_database(tmp_path / "db"))
    for number in (1, 2, 3, 4, 2):
        history.put_round(numbered(number))
    assert [report.round for report in history.rounds()] == [1, 2]
    assert [point.last_round for point in history.points(0, 10)] == [1, 2]


def test_rounds_are_paged_and_the_newest_come_oldest_first(tmp_path: Path) -> None:
    history = History(open_database(tmp_path / "db"))
    for number in range(1, 8):
        history.put_round(numbered(number))
    assert [one.round for one in history.rounds(since=2, limit=3)] == [3, 4, 5]
    assert [one.round for one in history.last_rounds(2)] == [6, 7]
    assert history.rounds(since=7) == []


def test_evaluations_are_kept(tmp_path: Path) -> None:
    history = History(open_database(tmp_path / "db"))
    found = [HeldOutStatus(0, 0.1, 0.01, 256), HeldOutStatus(40, 0.2, 0.02, 256)]
    for one in reversed(found):
        history.put_heldout(one)
    assert history.heldout() == found


def test_an_evaluation_of_an_earlier_version_has_no_pass_at_k(tmp_path: Path) -> None:
    database = open_database(tmp_path / "db")
    history = History(database)
    earlier = {"round": 3, "mean": 0.1, "standard_error": 0.01, "num_questions": 256}
    with database.transaction():
        database.execute("INSERT INTO heldout VALUES (?, ?)", (3, msgspec.msgpack.encode(earlier)))
    [found] = history.heldout()
    assert (found.mean, found.pass_k, found.k) == (0.1, None, None)


def test_what_a_fixed_model_did_is_kept_apart_from_what_was_trained(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "db")) as database:
        trained, generated = History(database), History(database, "generated_")
        trained.put_round(numbered(1, 0.25))
        generated.put_round(numbered(1, 0.75))
        generated.put_heldout(HeldOutStatus(0, 0.5, 0.1, 8))
        assert trained.rounds() == [numbered(1, 0.25)] == trained.last_rounds(9)
        assert generated.rounds() == [numbered(1, 0.75)] == generated.last_rounds(9)
        assert trained.heldout() == [] != generated.heldout()
