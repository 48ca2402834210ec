import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from node import demo_process
from node.config import load_config
from node.demo import run_demo
from node.demo_home import Place, lay_out
from node.demo_process import adopting_orphans, children, last_line, node_environment
from node.demo_swarm import SwarmRun, run_swarm
from node.summary import Summary
from node.view import Board

FAKE = Path(__file__).with_name("fake_demo_node.py")
EASY = Path(__file__).parents[2] / "configs" / "swarms" / "easy.toml"
DEADLINE_S = 60.0

EachTurn = Callable[[Board, Sequence[int | None]], None]


def fake(mode: str) -> Callable[[Place], list[str]]:
    return lambda place: [sys.executable, str(FAKE), str(place.config_file), mode]


def nothing(_: Board, __: Sequence[int | None]) -> None:
    """A turn in which the test does nothing."""


def run_two(
    directory: Path,
    command: Callable[[Place], list[str]],
    each_turn: EachTurn = nothing,
    stop_asked: threading.Event | None = None,
    max_s: float = DEADLINE_S,
    stop_s: float = DEADLINE_S,
) -> tuple[SwarmRun, Board]:
    config = load_config(flags={"home": directory, "seed": 1}, environment={})
    places = lay_out(config, directory, EASY, num_nodes=2, rounds=3, num_heldout=8, foreign=4)
    board = Board("2 nodes", rounds=3, foreign=4)
    with adopting_orphans() as reap:

        def turn(pids: Sequence[int | None]) -> None:
            reap(pids)
            each_turn(board, pids)

        run = run_swarm(
            places,
            board,
            command=command,
            environment=node_environment(),
            until=time.monotonic() + max_s,
            stop_asked=stop_asked or threading.Event(),
            each_turn=turn,
            stop_s=stop_s,
        )
    return run, board


def have_all_answered(board: Board) -> bool:
    return bool(board.rows) and all(row.snapshot is not None for row in board.rows)


def events(board: Board) -> str:
    return "\n".join(event.plain for event in board.events)


def is_running(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def child_of(directory: Path, number: int) -> int:
    return int((directory / f"node-{number}" / "child").read_text())


def test_a_run_ends_when_all_nodes_are_done_and_says_what_they_did(tmp_path: Path) -> None:
    before = children()
    run, _ = run_two(tmp_path, fake("done"))
    assert run.interruptions == ()
    assert [node.id for node in run.nodes] == ["node-0", "node-1"]
    for node in run.nodes:
        assert node.own_reward == pytest.approx((1 / 3, 2 / 3, 1.0))
        assert node.foreign_groups_used == (4, 4, 4)
        assert (node.rounds, node.engine, node.peers) == (3, "scripted", 1)
        assert (node.refused, node.used_by_peer) == ({"stale": 2}, {"12D3peer": 7})
        assert node.peak_memory_mib == {"control": 50.0}
        assert node.heldout_before is not None
        assert node.heldout_after is not None
        assert (node.heldout_before.greedy.mean, node.heldout_after.greedy.mean) == (0.0, 1.0)
        assert node.restarts == 0
    assert children() == before


def test_a_killed_node_is_started_again_with_its_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_process, "BACKOFF_S", (0.0,) * 4)
    killed: list[int] = []

    def kill_one_then_let_all_finish(board: Board, pids: Sequence[int | None]) -> None:
        if not killed and have_all_answered(board) and pids[1] is not None:
            killed.append(pids[1])
            os.kill(pids[1], signal.SIGKILL)
        elif killed and pids[1] not in (None, killed[0]):
            for number in (0, 1):
                (tmp_path / f"node-{number}" / "go").touch()

    run, board = run_two(tmp_path, fake("busy"), kill_one_then_let_all_finish)
    assert run.interruptions == ()
    assert [node.restarts for node in run.nodes] == [0, 1]
    assert "node-1 was ended by signal 9 (Killed); it is started again in 0 s" in events(board)


def test_the_loss_of_a_learner_is_told_once(tmp_path: Path) -> None:
    stop_asked = threading.Event()

    def lose_a_learner(board: Board, _: Sequence[int | None]) -> None:
        if have_all_answered(board):
            (tmp_path / "node-0" / "learner-died").touch()
        if "lost its learner" in events(board):
            stop_asked.set()

    _, board = run_two(tmp_path, fake("busy"), lose_a_learner, stop_asked)
    assert events(board).count("node-0 lost its learner (ended by signal: Killed\\x1b)") == 1
    assert "node-1 lost" not in events(board)


def test_a_node_that_keeps_dying_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_process, "BACKOFF_S", (0.0, 0.0))
    run, board = run_two(
        tmp_path, lambda place: fake("dying" if place.name == "node-1" else "busy")(place)
    )
    [interruption] = run.interruptions
    assert interruption.startswith("node-1 ended with status 1, see ")
    assert "node-1 ended with status 1 and is given up" in events(board)
    assert run.nodes[1].restarts == 2


def test_wrong_settings_are_told_at_once_and_in_printable_letters(tmp_path: Path) -> None:
    run, _ = run_two(tmp_path, fake("wrong"))
    assert any(
        text.endswith("node.log: sapo: rollout.engine = 'vlm' \\x1b[2J")
        for text in run.interruptions
    )
    assert sum(node.restarts for node in run.nodes) == 0


def test_a_stop_leaves_no_process_not_even_a_session_of_a_killed_node(tmp_path: Path) -> None:
    before, stop_asked = children(), threading.Event()

    def kill_one_and_stop(board: Board, pids: Sequence[int | None]) -> None:
        if have_all_answered(board) and not stop_asked.is_set():
            assert pids[0] is not None
            os.kill(pids[0], signal.SIGKILL)
            stop_asked.set()

    run, _ = run_two(tmp_path, fake("busy"), kill_one_and_stop, stop_asked)
    assert run.interruptions == ("it was stopped",)
    assert children() == before
    for number in (0, 1):
        assert not is_running(child_of(tmp_path, number))


def test_nodes_that_do_not_heed_a_stop_are_killed(tmp_path: Path) -> None:
    stop_asked = threading.Event()

    def stop(board: Board, _: Sequence[int | None]) -> None:
        if have_all_answered(board):
            stop_asked.set()

    before = children()
    run_two(tmp_path, fake("deaf"), stop, stop_asked, stop_s=0.1)
    assert children() == before
    assert not is_running(child_of(tmp_path, 0))


def test_the_end_of_the_time_ends_the_run(tmp_path: Path) -> None:
    run, _ = run_two(tmp_path, fake("busy"), max_s=0.0)
    assert run.interruptions == ("the time was up (--max-s)",)
    assert [node.rounds for node in run.nodes] == [0, 0]


def test_an_error_in_the_demo_itself_leaves_no_process(tmp_path: Path) -> None:
    before = children()

    def fail(board: Board, _: Sequence[int | None]) -> None:
        if have_all_answered(board):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_two(tmp_path, fake("busy"), fail)
    assert children() == before


def demo(home: Path, num_nodes: int, with_control: bool, strategy: str = "paper") -> Summary:
    home.mkdir()
    return run_demo(
        load_config(flags={"home": home, "seed": 1, "batch.strategy": strategy}, environment={}),
        num_nodes=num_nodes,
        rounds=3,
        num_heldout=8,
        with_control=with_control,
        max_s=DEADLINE_S,
        stop_asked=threading.Event(),
        console=Console(file=io.StringIO()),
        command=fake("done"),
    )


def test_a_demo_with_a_control_run_writes_both_down(tmp_path: Path) -> None:
    summary = demo(tmp_path / "demo", num_nodes=2, with_control=True)
    assert summary.failures == ()
    data = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert [node["foreign_groups_used"] for node in data["nodes"]] == [[4, 4, 4]] * 2
    assert [node["foreign_groups_used"] for node in data["control"]["nodes"]] == [[0, 0, 0]] * 2
    assert data["sharing"].startswith("sharing made no difference that is clear")
    assert data["versions"]["sapo-swarm"]
    assert (tmp_path / "demo" / "summary.png").stat().st_size > 10_000
    assert (tmp_path / "demo" / "control" / "node-0" / "took-over").exists()
    assert not (tmp_path / "demo" / "node-0" / "took-over").exists()
    seeds = [
        load_config(tmp_path / "demo" / part / "node-1" / "node.toml", environment={}).seed
        for part in (".", "control")
    ]
    assert seeds == [1001, 1001]


def test_a_single_node_learns_from_nobody_and_that_is_no_failure(tmp_path: Path) -> None:
    summary = demo(tmp_path / "demo", num_nodes=1, with_control=False)
    assert summary.failures == ()
    assert summary.foreign == 0
    assert summary.nodes[0].foreign_groups_used == (0, 0, 0)


def test_a_demo_of_nodes_that_take_nothing_of_peers_is_one_of_lone_nodes(tmp_path: Path) -> None:
    summary = demo(tmp_path / "demo", num_nodes=2, with_control=True, strategy="own-replay")
    assert (summary.failures, summary.foreign, summary.control) == ((), 0, ())
    node = load_config(tmp_path / "demo" / "node-0" / "node.toml", environment={})
    assert (node.batch.strategy, node.swarm.foreign, node.swarm.share) == ("own-replay", 0, "none")


def test_settings_in_the_environment_do_not_reach_the_nodes() -> None:
    seen = node_environment({"SAPO_SEED": "3", "PATH": "/bin", "OMP_NUM_THREADS": "8"})
    assert seen == {"PATH": "/bin", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def test_the_last_line_of_a_log_is_the_last_that_says_something(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_bytes(b"x" * 10_000 + b"\nlast \xff words\x1b\n\n")
    assert last_line(log) == "last \\ufffd words\\x1b"
    log.write_bytes(b"")
    assert last_line(log) == ""
