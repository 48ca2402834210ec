from pathlib import Path

import pytest
from made_results import RATE, made_arm, made_role, made_run

from node.experiment.figures import Declared, measured_runs
from node.experiment.notation import aligned, plain, write_count, write_rate
from node.experiment.outcome import CRITERIA, say_outcome
from node.experiment.picture import draw_curves
from node.experiment.report import CURVES_FILE, TABLE_FILE, report
from node.experiment.results import RunResult
from node.experiment.table import as_table, table_of_cost

DECLARED = Declared("does it pay?", ("own", "replay"), target=0.25, k=4)
CONTROLS = [*made_arm("own", 1.0, 1.0, 1.0), *made_arm("replay", 2.0, 2.0, 2.0, accuracy=0.25)]
REWARD, ACCURACY = CRITERIA


def outcome(*arms: list[RunResult]) -> str:
    runs = measured_runs([*CONTROLS, *(run for arm in arms for run in arm)])
    return say_outcome(runs, "node", DECLARED, REWARD)


def section(text: str, heading: str) -> str:
    """The part below a heading, to the next one."""
    return text.split(f"## {heading}\n\n", 1)[1].split("\n\n## ", 1)[0]


def test_the_table_says_all_of_a_small_experiment() -> None:
    results = [
        *CONTROLS,
        *made_arm("fill", 3.0, 4.0, 5.0, accuracy=0.75),
        *made_arm("paper", 1.0, 2.0, 3.0, accuracy=0.375),
    ]
    text = as_table(results, DECLARED)
    assert text.startswith(
        """\
# does it pay?

- fill (2.00 [1.50, 2.50]) beats replay, the best control, in cumulative own reward; undecided: \
paper (1.00 [0.50, 1.50]).
- fill (+0.250 [+0.250, +0.250]) beats own, the best control, in final held-out pass@1; worse: \
paper (-0.125 [-0.125, -0.125]).

## 2 nodes

"""
    )
    first, _, answers, _, cost = section(text, "2 nodes").split("\n\n")
    assert (
        first
        == """\
| arm              | rate | seeds | cumulative own reward |         of replay |              \
| final held-out pass@1 |               above own |              |
| ---------------- | ---: | ----: | --------------------: | ----------------: | ------------ \
| --------------------: | ----------------------: | ------------ |
| own (control)    | 3e-4 |     3 |           1.00 ± 0.00 | 0.50 [0.50, 0.50] | loses        \
|         0.500 ± 0.000 |                       - | best control |
| replay (control) | 3e-4 |     3 |           2.00 ± 0.00 |                 - | best control \
|         0.250 ± 0.000 | -0.250 [-0.250, -0.250] | loses        |
| fill             | 3e-4 |     3 |           4.00 ± 1.00 | 2.00 [1.50, 2.50] | **beats it** \
|         0.750 ± 0.000 | +0.250 [+0.250, +0.250] | **beats it** |
| paper            | 3e-4 |     3 |           2.00 ± 1.00 | 1.00 [0.50, 1.50] | undecided    \
|         0.375 ± 0.000 | -0.125 [-0.125, -0.125] | loses        |"""
    )
    assert answers.splitlines()[0] == (
        "| arm              | pass@1 before |        pass@1 |        pass@4 |        greedy "
        "| unable at the start |   diversity |"
    )
    assert (
        answers.splitlines()[4]
        == "| fill             | 0.000 ± 0.000 | 0.750 ± 0.000 | 1.000 ± 0.000 | 0.875 ± 0.000 "
        "|                   - | 1.50 ± 0.00 |"
    )
    assert (
        cost.splitlines()[0]
        == "| arm              | own tokens per node | batch reward | foreign groups a round "
        "| replayed a round | zero advantage | own tokens to 0.25 |"
    )
    assert (
        cost.splitlines()[4]
        == "| fill             |                 200 |  1.50 ± 0.00 |                   0.50 "
        "|             0.00 |            75% |             33 ± 0 |"
    )


def test_where_no_arm_beats_the_best_control_the_table_says_so_first() -> None:
    assert outcome(made_arm("fill", 1.9, 2.0, 2.4), made_arm("paper", 1.0, 1.0, 1.5)) == (
        "No arm beats replay, the best control, in cumulative own reward; "
        "undecided: fill (1.05 [0.95, 1.20]); worse: paper (0.58 [0.50, 0.75])."
    )


def test_several_arms_that_beat_it_stand_best_first() -> None:
    arms = (made_arm(name, *[gain] * 3) for name, gain in (("a", 3.0), ("b", 5.0), ("c", 4.0)))
    assert outcome(*arms) == (
        "b (2.50 [2.50, 2.50]), c (2.00 [2.00, 2.00]) and a (1.50 [1.50, 1.50]) beat replay, "
        "the best control, in cumulative own reward."
    )


def test_two_seeds_decide_nothing() -> None:
    assert outcome(made_arm("fill", 9.0, 9.0)) == (
        "Too few seeds to compare with replay, the best control, in cumulative own reward: "
        "fill (4.50)."
    )
    assert outcome(made_arm("fill", 9.0, 9.0), made_arm("paper", 1.0, 1.0, 1.0)) == (
        "No arm beats replay, the best control, in cumulative own reward; "
        "worse: paper (0.50 [0.50, 0.50]); too few seeds: fill (4.50)."
    )


def test_nothing_is_said_without_a_control_or_without_an_arm_that_shares() -> None:
    assert outcome() == (
        "Of the controls, replay is best in cumulative own reward; nothing else is known."
    )
    runs = measured_runs(made_arm("fill", 1.0))
    assert say_outcome(runs, "node", DECLARED, ACCURACY) == (
        "No control is measured: nothing is said about final held-out pass@1."
    )


def test_a_best_rate_at_the_edge_is_said_loudly_and_all_rates_are_shown() -> None:
    results = [
        made_run(arm, seed, made_role(1.0, (0.0, accuracy)), rate=rate, is_tuning=True)
        for arm, best in (("own", 1e-3), ("fill", 3e-4))
        for rate in (1e-4, 3e-4, 1e-3)
        for seed, accuracy in ((11, 0.25), (12, 0.5 if rate == best else 0.25))
    ]
    results.append(made_run("own", 0, made_role(), rate=1e-4))
    text = as_table(results, Declared("", ("own",), arms=("fill", "own")))
    assert "**At the edge of the rates tried: own (1e-3).**" in text
    assert "Not measured at the chosen rate: fill and own." in text
    assert "Measured at a rate not chosen, and left out: own at 1e-4." in text
    edge = "at the edge of the rates tried"
    assert section(text, "Learning rates").splitlines() == [
        f"| arm           |      1e-4 |          3e-4 |          1e-3 | chosen | {'':30} |",
        f"| ------------- | --------: | ------------: | ------------: | -----: | {'-' * 30} |",
        f"| fill          | 0.250 (2) | **0.375 (2)** |     0.250 (2) |   3e-4 | {'':30} |",
        f"| own (control) | 0.250 (2) |     0.250 (2) | **0.375 (2)** |   1e-3 | {edge} |",
    ]


def test_a_target_reached_by_some_seeds_says_by_how_many_and_by_none_never() -> None:
    results = [
        made_run("fill", 0, made_role(1.0, (0.0, 0.5))),
        made_run("fill", 1, made_role(1.0, (0.0, 0.125))),
        made_run("own", 0, made_role(1.0, (0.0, 0.125))),
    ]
    *_, fill, own = table_of_cost(measured_runs(results), "node", DECLARED).splitlines()
    assert fill.endswith("|  50 (1 of 2 seeds) |")
    assert own.endswith("|              never |")


def test_each_role_has_its_own_sentences_section_and_best_control() -> None:
    results = [
        made_run(
            arm, seed, made_role(weak, name="weak", num_nodes=6), made_role(strong, name="strong")
        )
        for arm, weak, strong in (("own", 1.0, 4.0), ("replay", 2.0, 3.0), ("fill", 3.0, 3.0))
        for seed in range(3)
    ]
    text = as_table(results, DECLARED)
    assert "- **weak**: fill (1.50 [1.50, 1.50]) beats replay, the best control" in text
    assert "- **strong**: No arm beats own, the best control, in cumulative own reward" in text
    assert "of replay" in section(text, "weak (6 nodes)")
    assert "of own" in section(text, "strong (2 nodes)")


def test_an_arm_that_lacks_a_role_is_missing_from_its_section_only() -> None:
    late = made_role(name="late")
    results = [made_run("own", 0, made_role(), late), made_run("fill", 0, made_role())]
    text = as_table(results, DECLARED)
    assert "fill" in section(text, "node (2 nodes)")
    assert "fill" not in section(text, "late (2 nodes)")


def test_what_attackers_achieved_has_its_table() -> None:
    attacked = made_role(poison_share=(0.0, 0.5), answer_bytes=(10.0, 25.0))
    results = [made_run("own", 0, made_role()), made_run("open", 0, attacked)]
    table = section(as_table(results, DECLARED), "2 nodes").split("Under attack:\n\n")[1]
    assert (
        table
        == """\
| arm           | attack success | growth of length | honest accepted | hostile groups used \
| final held-out pass@1 |
| ------------- | -------------: | ---------------: | --------------: | ------------------: \
| --------------------: |
| own (control) |              - |                - |             90% |                3.00 \
|                 0.500 |
| open          |            50% |             2.50 |             90% |                3.00 \
|                 0.500 |"""
    )
    assert "Under attack" not in as_table(CONTROLS, DECLARED)


def test_what_a_defence_changes_is_paired_by_seed_and_has_its_table() -> None:
    results = []
    for seed, (bad, good) in enumerate([(0.9, 0.1), (0.7, 0.1), (0.8, 0.0)]):
        for arm, share in (("open", bad), ("closed", good)):
            role = made_role(poison_share=(0.0, share), answer_bytes=(10.0, 10.0))
            results.append(made_run(arm, seed, role))
    declared = Declared("x", ("open",), against={"closed": "open", "missing": "open"})
    table = section(as_table(results, declared), "2 nodes").split("changes:\n\n")[1]
    header, _, closed, missing = table.splitlines()
    assert "| above | " in header
    assert closed.startswith("| closed  | open  | -0.733 [-0.8")
    assert "+0.000 [+0.000, +0.000]" in closed
    assert missing.count(" - |") == 3
    assert "What a defence changes" not in as_table(results, DECLARED)


def test_while_runs_are_missing_the_table_says_that_nothing_is_final() -> None:
    declared = Declared("x", ("own",), num_runs=7)
    assert "**6 of 7 runs so far: nothing here is final.**" in as_table(CONTROLS, declared)
    assert "so far" not in as_table([*CONTROLS, *made_arm("fill", 1.0)], declared)
    assert "No run has ended yet." in as_table([], Declared("x", ("own",)))


def test_a_name_from_a_file_has_no_effect_in_markdown() -> None:
    name = "a|b `c` <i>*d*\n\x1b[31m[e](f)&amp;"
    assert plain(name) == ("a\\|b \\`c\\` \\<i\\>\\*d\\*\\\\n\\\\x1b\\[31m\\[e\\](f)\\&amp;")
    first = section(as_table(made_arm(name, 1.0), DECLARED), "2 nodes").split("\n\n")[0]
    assert first.count("\n") == 2
    assert plain(name) in first


def test_a_table_is_aligned() -> None:
    assert aligned(["arm", "x"], [["a", "10.0"], ["long", "9"]]) == (
        "| arm  |    x |\n| ---- | ---: |\n| a    | 10.0 |\n| long |    9 |"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (999.4, "999"),
        (999.5, "1k"),
        (12_345, "12.3k"),
        (999_600, "1M"),
        (4.56e6, "4.56M"),
    ],
)
def test_counts_are_written_with_three_digits(value: float, written: str) -> None:
    assert write_count(value) == written


@pytest.mark.parametrize(
    ("rate", "written"), [(3e-4, "3e-4"), (RATE * 10, "3e-3"), (2.5e-5, "2.5e-5"), (1.0, "1e0")]
)
def test_rates_are_written_as_powers_of_ten(rate: float, written: str) -> None:
    assert write_rate(rate) == written


def test_a_report_before_the_first_measuring_run_has_no_picture_and_one_after_it_has(
    tmp_path: Path,
) -> None:
    tuning = made_run("own", 11, made_role(), is_tuning=True)
    report([tuning], DECLARED, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [TABLE_FILE]
    assert draw_curves([tuning], DECLARED, tmp_path / CURVES_FILE) is False
    report([tuning, made_run("own", 0, made_role())], DECLARED, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [CURVES_FILE, TABLE_FILE]
    assert "3e-4" in (tmp_path / TABLE_FILE).read_text()
    assert (tmp_path / CURVES_FILE).read_bytes().startswith(b"\x89PNG")
