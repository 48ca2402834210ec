import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from node.evaluate import Accuracy, HeldOut
from node.status import RoundReport, Stage, Status
from node.summary import NodeSummary, Summary, smooth, write_summary
from node.view import LiveView, live_view, show_summary, sparkline

TASKS = ("a", "b") * 50


def made_summary(after: float) -> Summary:
    node = NodeSummary(
        id="node-0",
        engine="vllm",
        engine_warning="",
        rounds=3,
        own_reward=(0.1, 0.2, 0.3),
        round_s=(0.5, 0.5, 0.5),
        own_tokens=300,
        heldout_before=HeldOut((0.0, 0.25, 0.5, 0.25) * 25, TASKS, 4, Accuracy(0.5, 0.05, 100)),
        heldout_after=HeldOut((after, 0.25, 0.5, 0.25) * 25, TASKS, 4, Accuracy(0.5, 0.05, 100)),
        checkpoint="home/checkpoints/round-00000003",
    )
    return Summary(12.3, 1, "easy", "ab" * 32, "tiny", (node,))


def made_report(number: int) -> RoundReport:
    return RoundReport(
        round=number,
        own_reward=0.25,
        batch_reward=0.25,
        zero_advantage_share=0.5,
        num_questions=8,
        num_answers=64,
        num_unscorable=0,
        own_tokens=640,
        finished_share=1.0,
        entropy=1.0,
        update_skipped=None,
        loss=0.0,
        gradient_norm=1.0,
        learning_rate=1e-4,
        clip_share=0.0,
        seconds={Stage.GENERATING: 0.2, Stage.UPDATING: 0.3},
    )


def text_console() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rendered(view: object) -> str:
    console = text_console()
    console.print(view)
    return written(console)


def test_learning_means_a_rise_of_more_than_two_standard_errors() -> None:
    assert made_summary(after=1.0).has_learned
    assert not made_summary(after=0.0).has_learned
    assert not made_summary(after=-1.0).has_learned


def test_summary_files_say_what_happened(tmp_path: Path) -> None:
    summary = made_summary(after=1.0)
    write_summary(summary, tmp_path)
    data = json.loads((tmp_path / "summary.json").read_text())
    assert data["has_learned"] is True
    assert data["heldout_rise"]["mean"] == 0.25
    node = data["nodes"][0]
    assert node["heldout_questions"] == 100
    assert node["heldout_before"]["mean"] == 0.25
    assert node["heldout_after"]["per_task"]["a"]["num_questions"] == 50
    assert node["heldout_after"]["greedy"]["mean"] == 0.5
    assert node["own_reward"] == [0.1, 0.2, 0.3]
    assert (tmp_path / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_takes_the_values_before() -> None:
    assert smooth([1.0, 3.0]) == [1.0, 2.0]
    assert smooth([0.0] * 30 + [1.0] * 15)[-1] == 1.0


def test_a_sparkline_fits_its_width_and_shows_the_highest() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    assert len(sparkline([float(value) for value in range(1000)], width=48)) <= 48
    assert sparkline([]) == sparkline([0.0]) == ""


def test_the_view_shows_stage_round_and_warnings() -> None:
    status = Status(stage=Stage.UPDATING, engine="transformers")
    status.engine_warning = "vLLM is not in use: [bold]not installed[/bold]"
    status.reports.extend(made_report(number) for number in (1, 2))
    status.reports.append(replace(made_report(3), update_skipped="no group is informative"))
    text = rendered(LiveView(status, max_rounds=10))
    for part in ("updating", "3 of 10", "0.250", "vLLM is not in use: [bold]", "3,200 while"):
        assert part in text
    assert "1 of the last 3 updates: no group is informative" in text


def test_the_view_is_calm_before_the_first_round() -> None:
    assert "starting" in rendered(LiveView(Status(), max_rounds=None))


def test_nothing_is_drawn_where_the_output_is_no_terminal() -> None:
    console = text_console()
    with live_view(Status(), console, None):
        pass
    assert written(console) == ""


def test_the_summary_says_when_nothing_was_learned(tmp_path: Path) -> None:
    console = text_console()
    show_summary(made_summary(after=0.0), console, str(tmp_path))
    show_summary(made_summary(after=1.0), console, str(tmp_path))
    text = written(console)
    assert "NO RISE beyond 2 standard errors: held-out accuracy +0.000" in text
    assert "learned: held-out accuracy +0.250" in text
