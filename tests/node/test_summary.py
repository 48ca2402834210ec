import io
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from node.evaluate import Accuracy, HeldOut
from node.picture import draw_summary, mean_reward, over_nodes
from node.status import ForeignFate, ForeignGroup, RoundReport, Stage
from node.summary import NodeSummary, Summary, smooth, window_of, write_summary
from node.view import show_summary

TASKS = ("a", "b") * 50
GREEDY = Accuracy(0.5, 0.05, 100)


def made_group(fate: ForeignFate) -> ForeignGroup:
    return ForeignGroup("12D3", b"h", "a", fate, policy_round=1, age_s=1.0)


def made_report(number: int, used: int = 2) -> RoundReport:
    return RoundReport(
        round=number,
        own_reward=number / 10,
        batch_reward=0.25,
        zero_advantage_share=0.5,
        num_questions=4,
        num_answers=32,
        num_unscorable=0,
        own_tokens=100,
        finished_share=1.0,
        entropy=1.0,
        update_skipped=None,
        loss=0.0,
        gradient_norm=1.0,
        learning_rate=1e-4,
        clip_share=0.0,
        seconds={Stage.GENERATING: 0.2, Stage.UPDATING: 0.3},
        foreign_wanted=4,
        foreign=(made_group(ForeignFate.USED),) * used + (made_group(ForeignFate.TOO_LONG),),
        finished_at=100.0 + 2 * number,
    )


def made_heldout(first: float) -> HeldOut:
    return HeldOut((first, 0.25, 0.5, 0.25) * 25, TASKS, 4, GREEDY)


def made_node(name: str = "node-0", after: float = 1.0, used: int = 2) -> NodeSummary:
    return NodeSummary(
        id=name,
        node_id=f"12D3{name}",
        rounds=3,
        reports=tuple(made_report(number, used) for number in (1, 2, 3)),
        heldout_before=made_heldout(0.0),
        heldout_after=made_heldout(after),
        checkpoint="home/checkpoints/round-00000003",
        engine="vllm",
        refused={"stale": 3},
        peers=1,
    )


def made_summary(*nodes: NodeSummary, control: tuple[NodeSummary, ...] = ()) -> Summary:
    nodes = nodes or (made_node("node-0"), made_node("node-1"))
    return Summary(
        wall_s=12.3,
        seed=1,
        manifest="easy",
        swarm_id="ab" * 32,
        model="tiny",
        rounds=3,
        foreign=4,
        nodes=nodes,
        control=control,
        is_vllm_installed=True,
    )


def shown(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    show_summary(summary, console, "home")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_learning_means_a_rise_of_more_than_two_standard_errors() -> None:
    assert made_summary().has_learned
    assert not made_summary(made_node(after=0.0)).has_learned
    assert not made_summary(made_node(after=-1.0)).has_learned


def test_a_demo_in_which_all_went_well_has_no_failures() -> None:
    assert made_summary().failures == ()
    assert "the swarm learned" in shown(made_summary())


def test_more_nodes_do_not_make_the_standard_error_of_shared_questions_smaller() -> None:
    one = made_summary(made_node()).heldout_rise
    four = made_summary(*(made_node(f"node-{number}") for number in range(4))).heldout_rise
    assert one is not None
    assert one == four
    assert one.num_questions == 100


def test_the_rise_is_the_mean_over_the_nodes() -> None:
    rise = made_summary(made_node(after=1.0), made_node(after=0.0)).heldout_rise
    assert rise is not None
    assert rise.mean == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("node", "failure"),
    [
        (
            made_node("node-7", used=0),
            "node-7 used foreign groups in 0 of 3 rounds that wanted some",
        ),
        (replace(made_node("node-7"), rounds=2), "node-7 made 2 of 3 rounds"),
        (replace(made_node("node-7"), heldout_after=None), "node-7 was not measured"),
        (
            replace(made_node("node-7"), engine="transformers", engine_warning="broken"),
            "node-7 fell back to transformers although vLLM is installed: broken",
        ),
    ],
)
def test_what_a_node_failed_to_do_is_said(node: NodeSummary, failure: str) -> None:
    summary = made_summary(made_node(), node)
    assert any(text.startswith(failure) for text in summary.failures)
    assert f"DID NOT HAPPEN AS IT SHOULD: {failure}" in shown(summary)
    assert "learned:" not in shown(summary)


def test_half_of_the_rounds_with_foreign_groups_are_not_most() -> None:
    reports = tuple(made_report(number, used=number % 2) for number in range(1, 5))
    node = replace(made_node(), rounds=4, reports=reports)
    summary = replace(made_summary(node), rounds=4)
    assert summary.failures == ("node-0 used foreign groups in 2 of 4 rounds that wanted some",)


def test_rounds_that_wanted_nothing_of_peers_are_not_held_against_a_node() -> None:
    idle = [replace_wanted(made_report(number, used=0), 0) for number in (1, 2)]
    node = replace(made_node(), reports=(*idle, made_report(3)))
    assert made_summary(node).failures == ()
    hungry = [replace_wanted(one, 4) for one in idle]
    assert made_summary(replace(node, reports=(*hungry, made_report(3)))).failures == (
        "node-0 used foreign groups in 1 of 3 rounds that wanted some",
    )


def replace_wanted(report: RoundReport, wanted: int) -> RoundReport:
    return msgspec.structs.replace(report, foreign_wanted=wanted)


def test_a_demo_without_a_rise_says_how_large_it_was() -> None:
    [failure] = made_summary(made_node(after=0.0)).failures
    assert (
        failure == "held-out accuracy did not rise by more than 2 standard errors: +0.000 ± 0.000"
    )


def test_a_fallback_is_no_failure_where_vllm_is_not_installed() -> None:
    node = replace(made_node(), engine="transformers", engine_warning="not installed")
    assert replace(made_summary(node), is_vllm_installed=False).failures == ()


def test_a_node_alone_needs_no_foreign_groups() -> None:
    assert replace(made_summary(made_node(used=0)), foreign=0).failures == ()


def test_an_interruption_is_a_failure_however_well_the_nodes_learned() -> None:
    summary = replace(made_summary(), interruptions=("it was stopped",))
    assert summary.failures == ("it was stopped",)


def test_a_run_that_never_began_can_be_summarised(tmp_path: Path) -> None:
    node = NodeSummary("node-0", "12D3", 0, (), None, None, "")
    summary = made_summary(node)
    write_summary(summary, tmp_path)
    draw_summary(summary, tmp_path / "summary.png")
    data = json.loads((tmp_path / "summary.json").read_text())
    assert data["heldout_rise"] is None
    assert data["nodes"][0]["heldout_before"] is None
    assert data["nodes"][0]["rounds_per_minute"] is None
    assert "node-0 made 0 of 3 rounds" in data["failures"]
    assert "unknown" in shown(summary)


def test_sharing_is_praised_only_beyond_two_standard_errors_of_the_difference() -> None:
    alike, worse = made_node("node-0", after=1.0), made_node("node-0", after=0.0)
    better = made_node("node-0", after=1.0)
    assert "nothing is said" in made_summary(better).verdict_on_sharing
    assert (
        "no difference that is clear" in made_summary(better, control=(alike,)).verdict_on_sharing
    )
    assert "sharing helped" in made_summary(better, control=(worse,)).verdict_on_sharing
    assert "sharing did harm" in made_summary(worse, control=(better,)).verdict_on_sharing
    unmeasured = replace(alike, heldout_after=None)
    assert "nothing is said" in made_summary(better, control=(unmeasured,)).verdict_on_sharing


def test_a_shortfall_of_the_control_run_is_named_as_such() -> None:
    control = replace(made_node(used=0), rounds=1)
    assert made_summary(control=(control,)).failures == ("control run: node-0 made 1 of 3 rounds",)


def test_summary_json_says_what_happened(tmp_path: Path) -> None:
    write_summary(made_summary(control=(made_node(after=0.0, used=0),)), tmp_path)
    data = json.loads((tmp_path / "summary.json").read_text())
    assert data["has_learned"] is True
    assert data["heldout_rise"]["mean"] == 0.25
    assert data["failures"] == []
    node = data["nodes"][0]
    assert node["own_reward"] == [0.1, 0.2, 0.3]
    assert node["foreign_groups_used"] == [2, 2, 2]
    assert node["rounds_with_foreign_groups"] == 3
    assert node["foreign_groups"]["wanted"] == 12
    assert node["foreign_groups"]["drawn"] == 9
    assert node["foreign_groups"]["used"] == 6
    assert node["foreign_groups"]["too_long_for_model"] == 3
    assert node["refused"] == {"stale": 3}
    assert node["rounds_per_minute"] == 30.0
    assert node["stage_s"] == {"generating": 0.6, "updating": 0.9}
    assert node["heldout_questions"] == 100
    assert node["heldout_before"]["mean"] == 0.25
    assert node["heldout_after"]["per_task"]["a"]["num_questions"] == 50
    assert node["heldout_after"]["greedy"]["mean"] == 0.5
    assert data["control"]["heldout_rise"]["mean"] == 0.0
    assert data["control"]["sharing_gain"]["mean"] == 0.25
    assert data["control"]["nodes"][0]["foreign_groups_used"] == [0, 0, 0]


def test_the_picture_is_drawn_with_and_without_a_control_run(tmp_path: Path) -> None:
    for control in ((), (made_node(after=0.0, used=0),)):
        draw_summary(made_summary(control=control), tmp_path / "summary.png")
        assert (tmp_path / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_a_bar_is_the_mean_over_nodes_with_the_error_over_questions() -> None:
    found = over_nodes([made_heldout(0.0), made_heldout(1.0)], "all")
    assert found.mean == pytest.approx(0.375)
    assert found.num_questions == 100
    assert over_nodes([made_heldout(0.0)], "b").num_questions == 50
    assert over_nodes([made_heldout(0.0)] * 2, "all, greedy") == GREEDY


def test_the_mean_reward_is_over_the_nodes_that_made_the_round() -> None:
    good = msgspec.structs.replace(made_report(1), own_reward=0.5)
    short = replace(made_node(), reports=(good,))
    assert mean_reward([made_node(), short]) == ([1, 2, 3], [0.3, 0.2, 0.3])


def test_smoothing_takes_the_values_before_and_less_in_a_short_run() -> None:
    assert smooth([1.0, 3.0]) == [1.0, 3.0]
    assert smooth([0.0] * 15 + [1.0])[-1] == 0.5
    assert (window_of(3), window_of(40), window_of(1000)) == (1, 5, 15)
