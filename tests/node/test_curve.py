import math
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from node.curve import FIGURES, Spread, width_for
from node.history import History
from node.status import RoundReport
from swarm.database import Database, MemoryDatabase, open_database


def report(number: int, reward: float = 0.5, **figures: object) -> RoundReport:
    made = RoundReport(
        number, reward, 0.5, 0.0, 1, 2, 0, 10, 1.0, 1.0, None, 0.0, 1.0, 1e-4, 0.0,
        {"drawing": 0.5, "generating": 2.0}, finished_at=100.0 * number,
    )  # fmt: skip
    return msgspec.structs.replace(made, **figures)


def history(*reports: RoundReport, database: Database | None = None) -> History:
    made = History(database or MemoryDatabase())
    for one in reports:
        made.put_round(one)
    return made


def test_few_rounds_are_one_point_each() -> None:
    first, second = history(report(1, 0.25), report(2, 0.75)).points(0, 2)
    assert (first.first_round, first.last_round, first.num_rounds) == (1, 1, 1)
    assert first.own_reward == Spread(0.25, 0.25, 0.25)
    assert second.finished_at == 200.0
    assert second.round_s == Spread(2.5, 2.5, 2.5)
    assert second.tokens_per_s == Spread(5.0, 5.0, 5.0)


def test_a_point_keeps_mean_and_extremes_of_its_rounds() -> None:
    found = history(*(report(number, number / 8) for number in range(1, 9))).points(0, 2)
    assert [(one.first_round, one.last_round) for one in found] == [(1, 4), (5, 8)]
    assert found[0].own_reward == Spread(2.5 / 8, 1 / 8, 4 / 8)
    assert found[1].num_rounds == 4
    assert found[1].finished_at == 800.0


def test_points_stay_where_they_are_while_the_node_learns() -> None:
    node = history(*(report(number) for number in range(1, 13)))
    before = [(one.first_round, one.last_round) for one in node.points(0, 4)]
    for number in range(13, 17):
        node.put_round(report(number))
    after = [(one.first_round, one.last_round) for one in node.points(0, 4)]
    assert before == [(1, 4), (5, 8), (9, 12)]
    assert after == [*before, (13, 16)]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 1000), (999, 1001), (4, 5)])
def test_there_are_never_more_points_than_asked_for(first: int, last: int, most: int) -> None:
    width = width_for(first, last, most)
    num = len({(number - 1) // width for number in range(first, last + 1)})
    assert num <= most
    if width > 1:  # as fine as possible
        assert len({(n - 1) // (width // 2) for n in range(first, last + 1)}) > most


def test_points_begin_after_the_round_asked_for() -> None:
    node = history(*(report(number) for number in range(1, 9)))
    assert [one.first_round for one in node.points(5, 2)] == [6, 7]
    assert node.points(8, 2) == []
    assert history().points(0, 1) == []


def test_a_figure_that_was_not_measured_or_is_no_number_counts_for_nothing() -> None:
    node = history(
        report(1, loss=math.nan, kl_to_start=None), report(2, loss=2.0, kl_to_start=None)
    )
    (point,) = node.points(0, 1)
    assert point.loss == Spread(2.0, 2.0, 2.0)
    assert point.kl_to_start is None


def test_only_some_figures_can_be_asked_for() -> None:
    (point,) = history(report(1), report(2)).points(0, 1, ("loss", "own_tokens"))
    assert point.loss == Spread(0.0, 0.0, 0.0)
    assert point.own_tokens == Spread(10.0, 10.0, 10.0)
    assert point.own_reward is None
    assert (point.first_round, point.last_round) == (1, 2)


def test_rounds_of_a_version_without_the_table_are_taken_over(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "db")) as database:
        history(report(1), report(2), database=database)
        database.execute("DROP TABLE rounds_figures")
    with closing(open_database(tmp_path / "db")) as database:
        assert [one.last_round for one in History(database).points(0, 9)] == [1, 2]


def test_a_table_of_a_version_with_other_figures_is_made_anew(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "db")) as database:
        history(report(1), database=database)
        database.execute("ALTER TABLE rounds_figures DROP COLUMN loss")
    with closing(open_database(tmp_path / "db")) as database:
        (point,) = History(database).points(0, 9)
    assert point.loss == Spread(0.0, 0.0, 0.0)


def test_every_figure_is_one_of_a_report() -> None:
    assert all(hasattr(report(1), name) for name in FIGURES)
