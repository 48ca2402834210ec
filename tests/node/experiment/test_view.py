from io import StringIO

from rich.console import Console

from node.experiment.view import LINE_EVERY_S, Board, Row
from node.live import live_view


def printed(width: int = 80) -> Console:
    return Console(file=StringIO(), width=width)


def text_of(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_board_shows_what_is_done_what_is_being_made_and_the_time_left() -> None:
    board = Board("controls", num_runs=110, num_done=37, elapsed_s=700, left_s=1500)
    board.rows = (Row("fill, seed 3, 0.0003", 12, 50, 31), Row("own, seed 3, 0.001", 0, 50, 2))
    board.tell("paper, seed 2, 0.001 failed and is made once more: ValueError: nan")
    console = printed()
    console.print(board)
    shown = text_of(console)
    assert "controls: 37 of 110 runs  12 min  about 25 min left" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["fill,", "seed", "3,", "0.0003", "12", "of", "50", "31", "s"] in rows
    assert "12 min  paper, seed 2, 0.001 failed and is made once more: ValueError: nan" in shown


def test_in_a_pipe_there_is_a_line_now_and_then_and_each_event_once() -> None:
    board, console = Board("smoke", num_runs=8), printed(300)
    with live_view(board, console, LINE_EVERY_S) as refresh:
        refresh()
        board.elapsed_s = LINE_EVERY_S - 1
        board.tell("something happened")
        refresh()
        assert text_of(console).splitlines() == [
            "smoke: 0 of 8 runs  0.0 s  time left unknown",
            "29 s  something happened",
        ]
        board.elapsed_s, board.num_done, board.left_s = LINE_EVERY_S, 3, 50
        board.rows = (Row("own, seed 1, 0.0003", 2, 3, 4),)
        refresh()
        board.tell("it ended")
    assert text_of(console).splitlines()[2:] == [
        "smoke: 3 of 8 runs  30 s  about 50 s left  own, seed 1, 0.0003: 2 of 3",
        "30 s  it ended",
    ]


def test_in_a_terminal_the_board_is_shown_until_the_end() -> None:
    console = Console(file=StringIO(), width=80, force_terminal=True)
    board = Board("smoke", num_runs=8)
    with live_view(board, console, LINE_EVERY_S) as refresh:
        board.num_done = 8
        refresh()
    assert "smoke: 8 of 8 runs" in text_of(console)
