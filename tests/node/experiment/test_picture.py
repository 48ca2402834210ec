from typing import TYPE_CHECKING

import pytest
from made_results import made_arm, made_role, made_run

from node.experiment.figures import Declared, measured_runs
from node.experiment.picture import COLORS, make_figure, styles_of
from node.experiment.results import RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECLARED = Declared("does it pay?", ("own", "replay"), target=0.25, k=4)
RESULTS = [
    made_run("own", 0, made_role(1.0, (0.0, 0.25), own_reward=(0.25, 0.5))),
    made_run("own", 1, made_role(1.0, (0.0, 0.75), own_reward=(0.75, 0.5))),
    made_run("replay", 0, made_role(2.0)),
    made_run("fill", 0, made_role(3.0)),
]


def drawn(results: list[RunResult], declared: Declared = DECLARED) -> "Figure":
    return make_figure(measured_runs(results), declared)


@pytest.fixture(scope="module")
def figure() -> "Figure":
    """Of RESULTS."""
    return drawn(RESULTS)


def line(axes: "Axes", arm: str) -> list[tuple[float, float]]:
    """The points of an arm's line."""
    (found,) = (one for one in axes.lines if one.get_gid() == arm)
    return [(float(x), float(y)) for x, y in found.get_xydata()]  # type: ignore[misc]


def test_the_lines_are_means_over_seeds_against_rounds_and_own_tokens(figure: "Figure") -> None:
    reward, pass_1, pass_k, own, by_tokens, pass_1_by_tokens, _, batch = figure.axes
    assert line(reward, "own") == [(1, 0.5), (2, 1.0)]
    assert line(by_tokens, "own") == [(100, 0.5), (200, 1.0)]
    assert line(pass_1, "own") == [(0, 0.0), (1, 0.5)]
    assert line(pass_1_by_tokens, "own") == [(0, 0.0), (100, 0.5)]
    assert line(pass_k, "own") == [(0, 0.25), (1, 0.75)]
    assert line(own, "own") == [(1, 0.5), (2, 0.5)]
    assert line(batch, "own") == [(1, 1.0), (2, 1.0)]
    assert [axes.get_title(loc="left") for axes in (pass_1, pass_k)] == [
        "held-out pass@1 (dotted: target 0.25)",
        "held-out pass@4",
    ]


def test_the_band_is_one_standard_deviation_over_seeds(figure: "Figure") -> None:
    _, pass_1, *_ = figure.axes
    (band,) = (one for one in pass_1.collections if one.get_gid() == "own")
    points = band.get_paths()[0].vertices.tolist()
    deviation = 0.5 / 2**0.5  # of 0.25 and 0.75
    ends = {round(y, 6) for x, y in points if x == 1}
    assert ends == {round(0.5 - deviation, 6), round(0.5 + deviation, 6)}


def test_own_reward_and_the_papers_number_are_drawn_to_one_scale(figure: "Figure") -> None:
    axes = figure.axes
    assert axes[3].get_ylim() == axes[7].get_ylim()
    assert axes[0].get_ylim() == axes[4].get_ylim()


def test_the_best_control_is_black_others_are_grey_and_arms_that_share_coloured() -> None:
    styles = styles_of(measured_runs(RESULTS), DECLARED)
    assert styles["replay"].color == "black"
    assert styles["fill"].color == COLORS[0]
    red, green, blue = (styles["own"].color[place : place + 2] for place in (1, 3, 5))
    assert red == green == blue


def test_an_arm_looks_the_same_while_others_are_missing() -> None:
    arms = ("own", *(f"arm-{number}" for number in range(14)))
    declared = Declared("", ("own",), arms=arms)
    all_of_them = styles_of(
        measured_runs([run for arm in arms for run in made_arm(arm, 1.0)]), declared
    )
    few = styles_of(measured_runs(made_arm("arm-9", 1.0)), declared)
    assert few == {"arm-9": all_of_them["arm-9"]}
    looks = [(style.color, style.dash) for style in all_of_them.values()]
    assert len(set(looks)) == len(arms)


def test_title_seeds_nodes_and_arms_are_written_around(figure: "Figure") -> None:
    title, subtitle = (text.get_text() for text in figure.texts)
    assert title == "does it pay?"
    assert subtitle.startswith("1 to 2 seeds · 2 nodes")
    assert "± 1 standard deviation over seeds" in subtitle
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "fill",
        "own (control)",
        "replay (control)",
    ]


def test_each_role_has_two_rows_and_an_arm_without_it_no_line_there() -> None:
    late = made_role(own_reward=(0.5,), name="late", num_nodes=1)
    figure = drawn([*RESULTS, made_run("paper", 0, made_role(), late)])
    assert len(figure.axes) == 16
    assert line(figure.axes[8], "paper") == [(1, 0.5)]
    assert [one.get_gid() for one in figure.axes[8].lines] == ["paper"]
    assert [text.get_text() for text in figure.texts][:2] == ["node: 2 nodes", "late: 1 node"]


def test_an_attack_has_its_column() -> None:
    attacked = made_role(poison_share=(0.0, 0.5), answer_bytes=(10.0, 25.0))
    axes = drawn([*RESULTS, made_run("open", 0, attacked)]).axes
    assert len(axes) == 10
    assert line(axes[4], "open") == [(1, 0.0), (2, 0.5)]
    assert line(axes[9], "open") == [(1, 10.0), (2, 25.0)]
    assert axes[4].get_ylim() != axes[9].get_ylim()


def test_a_name_is_never_taken_for_mathematics() -> None:
    figure = drawn(made_arm("_a$\\frac$", 1.0), Declared("$\\broken{$\n", ()))
    figure.draw_without_rendering()
    assert figure.legends[0].get_texts()[0].get_text() == "_a$\\frac$"
