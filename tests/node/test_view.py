import io
from dataclasses import replace

import msgspec
from rich.console import Console

from node.live import live_view
from node.status import LearnerStatus, PeerStatus, PoolStatus, RoundReport, Snapshot
from node.view import LINE_EVERY_S, Board, Row, sparkline


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made_snapshot(stage: str = "generating", is_done: bool = False) -> Snapshot:
    return Snapshot(
        node_id="12D3node",
        version="0.1.0",
        swarm_id="ab" * 32,
        swarm_name="easy",
        home="home",
        started=0.0,
        now=1.0,
        learner=LearnerStatus(
            pid=1, stage=stage, round=3, target_rounds=40, engine="vllm", is_done=is_done
        ),
        pool=PoolStatus(),
        peers=(PeerStatus("12D3a", connected=True), PeerStatus("12D3b", connected=False)),
        last_round=None,
        own_reward=(0.1, 0.2, 0.3),
        foreign_groups_used=(0, 2, 3),
        refused={"stale": 3, "held_out": 4},
        heldout=(),
        addresses=(),
        warnings=(),
    )


def made_report(number: int) -> RoundReport:
    return RoundReport(
        round=number,
        own_reward=0.5,
        batch_reward=0.5,
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
        seconds={},
    )


def made_board(*rows: Row, clock: Clock | None = None) -> Board:
    board = Board("4 nodes, J = 4", rounds=40, foreign=4, clock=clock or Clock())
    board.rows = rows
    return board


def text_console() -> Console:
    return Console(file=io.StringIO(), width=140, force_terminal=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rendered(board: Board) -> str:
    console = text_console()
    console.print(board)
    return written(console)


def test_a_row_shows_round_reward_foreign_groups_refusals_peers_and_stage() -> None:
    text = rendered(made_board(Row("node-0", made_snapshot())))
    [row] = [line for line in text.splitlines() if "node-0" in line]
    for part in ("3 of 40", "0.300", "▃▆█", "5 in 2/3 ", " 7 ", " 1 ", "generating"):
        assert part in row
    assert "refused: held_out 4, stale 3" in text
    assert "vllm" in text


def test_a_row_fits_into_eighty_columns() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(made_board(Row("node-0", made_snapshot("checkpointing"))))
    [row] = [line for line in written(console).splitlines() if "node-0" in line]
    assert "checkpointing" in row
    assert "5 in 2/3 " in row


def test_a_node_that_never_answered_is_starting() -> None:
    text = rendered(made_board(Row("node-0", age_s=12.0)))
    assert "starting, 12 s" in text
    assert "0 of 40" in text


def test_a_silent_node_is_shown_with_the_age_of_what_it_said() -> None:
    row = Row("node-0", made_snapshot(), age_s=9.0)
    assert "no answer for 9 s" in rendered(made_board(row))


def test_a_dead_node_is_shown_as_such_whatever_it_said_last() -> None:
    row = Row("node-0", made_snapshot(), trouble="killed, starts again in 2 s")
    assert "killed, starts again in 2 s" in rendered(made_board(row))


def test_a_learner_that_is_down_is_shown_as_such() -> None:
    down = LearnerStatus(stage="stopped", restart_in_s=3.0)
    row = Row("node-0", msgspec.structs.replace(made_snapshot(), learner=down))
    assert "learner restarts in 3 s" in rendered(made_board(row))


def test_a_node_with_all_its_rounds_is_done() -> None:
    assert "done" in rendered(made_board(Row("node-0", made_snapshot(is_done=True))))


def test_what_a_node_says_cannot_act_on_the_terminal() -> None:
    snapshot = msgspec.structs.replace(
        made_snapshot(stage="[red]\x1b[2J"),
        refused={"[bold]\x1b]0;x\x07": 1},
        learner=LearnerStatus(stage="[red]\x1b[2J", engine="e\x1b", engine_warning="[u]\x1b[1m"),
    )
    text = rendered(made_board(Row("node-0", snapshot)))
    assert "\x1b" not in text
    assert "\x07" not in text
    for part in ("[red]", "[bold]", "[u]"):
        assert part in text


def test_the_board_is_calm_before_anything_is_known() -> None:
    assert "4 nodes, J = 4" in rendered(made_board())


def test_events_are_shown_with_their_time_and_only_the_last_ones() -> None:
    clock = Clock()
    board = made_board(clock=clock)
    for number in range(8):
        clock.now = float(number)
        board.tell(f"event {number}")
    text = rendered(board)
    assert "7 s  event 7" in text
    assert "event 2" not in text


def test_without_a_terminal_there_is_a_line_now_and_then_and_every_event_at_once() -> None:
    clock, console = Clock(), text_console()
    board = made_board(Row("node-0", made_snapshot()), clock=clock)
    with live_view(board, console, LINE_EVERY_S) as refresh:
        refresh()
        assert (
            written(console).count(
                "0 s  round 3 of 40  own reward 0.30  foreign groups used 5  generating"
            )
            == 1
        )
        clock.now = 1.0
        board.tell("node-0 was killed")
        refresh()
        refresh()
        assert written(console).count("node-0 was killed") == 1
        assert written(console).count("round 3") == 1
        clock.now = 5.0
        refresh()
        assert written(console).count("round 3") == 2
        board.tell("the end")
    assert "the end" in written(console)


def test_a_row_knows_whether_the_node_is_done() -> None:
    row = Row("node-0", made_snapshot(is_done=True))
    assert row.is_done
    assert not replace(row, snapshot=made_snapshot()).is_done
    assert not Row("node-0").is_done


def test_a_sparkline_fits_its_width_and_shows_the_highest() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    assert len(sparkline([float(value) for value in range(1000)], width=48)) <= 48
    assert sparkline([]) == sparkline([0.0]) == ""


def test_while_a_learner_starts_again_its_last_round_is_shown() -> None:
    starting = LearnerStatus(stage="starting", round=0)
    snapshot = msgspec.structs.replace(made_snapshot(), learner=starting)
    assert Row("node-0", snapshot).round == 0
    known = msgspec.structs.replace(snapshot, last_round=made_report(8))
    assert Row("node-0", known).round == 8
