import math
from pathlib import Path

import pytest
from fake_swarm import made

from node.experiment.results import RESULTS_FILE, RunKey, append_result, read_results

FIRST, SECOND = (made(RunKey("own", seed, 1e-4)) for seed in (1, 2))


def keys(directory: Path) -> list[RunKey]:
    return [result.key for result in read_results(directory)]


def test_results_come_back_in_the_order_in_which_they_were_appended(tmp_path: Path) -> None:
    directory = tmp_path / "results" / "controls"
    append_result(directory, SECOND)
    append_result(directory, FIRST)
    assert keys(directory) == [SECOND.key, FIRST.key]
    (back, _) = read_results(directory)
    assert back.roles[0].exams == SECOND.roles[0].exams


def test_where_nothing_was_run_there_are_no_results(tmp_path: Path) -> None:
    assert keys(tmp_path) == []


def test_a_round_without_a_measurement_comes_back_as_nan(tmp_path: Path) -> None:
    append_result(tmp_path, FIRST)
    (back,) = read_results(tmp_path)
    kl, *rest = back.roles[0].rounds.kl_to_start
    assert math.isnan(kl)
    assert rest == [0.25]


def test_a_last_line_that_a_crash_cut_short_is_no_result_and_makes_room_for_the_next(
    tmp_path: Path,
) -> None:
    append_result(tmp_path, FIRST)
    append_result(tmp_path, SECOND)
    file = tmp_path / RESULTS_FILE
    file.write_bytes(file.read_bytes()[:-10])
    assert keys(tmp_path) == [FIRST.key]
    append_result(tmp_path, SECOND)
    assert keys(tmp_path) == [FIRST.key, SECOND.key]
    assert file.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("line", ["{}", "[]", "garbage", '{"roles": [1]}', '{"roles": []}'])
def test_a_whole_line_that_is_no_result_is_an_error_with_its_number(
    tmp_path: Path, line: str
) -> None:
    append_result(tmp_path, FIRST)
    with (tmp_path / RESULTS_FILE).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2 is no result"):
        keys(tmp_path)
