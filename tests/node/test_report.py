"""The terminal's view of a node, and asking one: against the real server, from a thread."""

import io
import re
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import trio
from rich.console import Console
from trio.testing import trio_test

from node.access import ADDRESS_FILE, TOKEN_FILE, open_listener, open_token, write_address
from node.api import create_app, serve_api
from node.config import Mode
from node.home import HomeError
from node.report import (
    NodeUnreachable,
    fetch_rounds,
    fetch_snapshot,
    print_peers,
    print_status,
)
from node.status import WHAT_IT_DOES, RoundReport, Snapshot, Stage
from node.status_json import from_json
from node.words import short_id, size, span

SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)


def shown(show: Callable[[Console], None], width: int = 300, colors: bool = False) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width, force_terminal=colors, no_color=not colors))
    return out.getvalue()


def status_of(snapshot: Snapshot, width: int = 300) -> str:
    return shown(partial(print_status, snapshot), width)


@trio_test
async def test_a_running_node_is_asked_by_its_home(tmp_path: Path) -> None:
    async def rounds(since: int, limit: int) -> list[RoundReport]:
        assert SNAPSHOT.last_round is not None
        return [SNAPSHOT.last_round] if since < 124 and limit == 1000 else []

    app = create_app(lambda: SNAPSHOT, rounds, open_token(tmp_path))
    listener, stop = open_listener("127.0.0.1", 0), trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_api, app, listener, stop=stop))
            with write_address(tmp_path, listener):
                assert await trio.to_thread.run_sync(fetch_snapshot, tmp_path) == SNAPSHOT
                found = await trio.to_thread.run_sync(fetch_rounds, tmp_path, 123)
                assert found == [SNAPSHOT.last_round]
                assert await trio.to_thread.run_sync(fetch_rounds, tmp_path, 124) == []
            stop.set()
    with pytest.raises(NodeUnreachable, match=r"no node runs in .*sapo run"):
        fetch_snapshot(tmp_path)


def test_a_home_in_which_no_node_ever_ran_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeUnreachable, match=rf"no node runs in {tmp_path / 'nowhere'} \(start"):
        fetch_snapshot(tmp_path / "nowhere")


def test_a_node_that_was_killed_is_told_from_one_that_never_ran(tmp_path: Path) -> None:
    open_token(tmp_path)
    with open_listener("127.0.0.1", 0) as listener, write_address(tmp_path, listener):
        left_behind = (tmp_path / ADDRESS_FILE).read_text()
    (tmp_path / ADDRESS_FILE).write_text(left_behind)
    with pytest.raises(NodeUnreachable, match="any more: it was killed"):
        fetch_snapshot(tmp_path)


def test_a_node_that_does_not_answer_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.report.TIMEOUT_S", 0.05)
    open_token(tmp_path)
    with (
        open_listener("127.0.0.1", 0) as listener,
        write_address(tmp_path, listener),
        pytest.raises(NodeUnreachable, match="does not answer: timed out"),
    ):
        fetch_snapshot(tmp_path)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "another version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\x1b]0;x\x07", "another version"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "status 401"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000, "more than 1000 bytes"),
        (b"\x1b[2J\r\n\r\n", "does not answer"),
        (b"", "does not answer"),
    ],
)
@trio_test
async def test_whatever_else_answers_on_the_port_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    monkeypatch.setattr("node.report.MAX_ANSWER_BYTES", 1000)
    open_token(tmp_path)

    def reply(listener: socket.socket) -> None:
        there, _ = listener.accept()
        with there:
            there.recv(65536)
            there.sendall(answer)

    with (
        trio.fail_after(30),
        open_listener("127.0.0.1", 0) as listener,
        write_address(tmp_path, listener),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, reply, listener)
            with pytest.raises(NodeUnreachable, match=reason) as caught:
                await trio.to_thread.run_sync(fetch_snapshot, tmp_path)
            assert str(caught.value).isprintable()


def test_a_token_that_others_may_read_is_not_sent(tmp_path: Path) -> None:
    open_token(tmp_path)
    (tmp_path / TOKEN_FILE).chmod(0o644)
    with (
        open_listener("127.0.0.1", 0) as listener,
        write_address(tmp_path, listener),
        pytest.raises(HomeError, match="chmod 600"),
    ):
        fetch_snapshot(tmp_path)


def test_the_status_begins_with_the_warnings_and_says_the_rest_in_words() -> None:
    text = status_of(SNAPSHOT)
    assert text.startswith("! vLLM does not work here")
    for part in (
        "in the swarm easy runs since",
        "has made 124 of 700 rounds. It generates answers, for 3.2 s so far.",
        "Of its last 6 rounds, 5 learned from peers: 14 foreign groups, with 4 wanted in each",
        "0.125 ± 0.020 at round 0",
        "0.500 ± 0.031 at round 100, 256 questions; pass@8 0.875",
        "claims_differ 7, duplicate 4",
        "with own terms  0.375 in the last round",
        "9 groups, 1 of them foreign, 2 replayed; effective sample size 88%; 0.062 nats from the",
        "own reward fell from 0.6 to 0.2 <i>[red]\\x1b[2J",
        "3 announcements",
        "2 messages",
        "announcements 5, <i>made up</i>\\x1b[2J 1",
        "3 peers reached through it, 2 circuits, 50.0 KiB carried; 1 refused",
        "37 announcements from 9 peers in 4 times, 42.2 KiB",
        "word_ladder: its digest here is 12",
        "FILES OPEN (no Landlock), network and processes closed (seccomp)",
        "every file that the user may read can be read",
    ):
        assert part in text


def test_every_mode_has_a_line_and_says_only_what_there_is() -> None:
    by_mode = {
        mode: status_of(msgspec.structs.replace(SNAPSHOT, mode=mode, model="tiny"))
        for mode in get_args(Mode)
    }
    for mode, text in by_mode.items():
        assert f"{mode}: it {WHAT_IT_DOES[mode]}" in text
        assert (" learned from peers: " in text) == (mode == "train")
        assert ("effective sample size" in text) == (mode == "train")
        assert ("124 of 700 rounds" in text) == ("tiny on vllm" in text)
        assert ("tiny on vllm" in text) == (mode in ("train", "generate"))
        alone = status_of(msgspec.structs.replace(SNAPSHOT, mode=mode, peers=()))
        assert ("learns alone" in alone) == (mode == "train")
        assert "No peer is connected" in alone
        for stage in ("mixing", "updating"):
            learner = msgspec.structs.replace(SNAPSHOT.learner, stage=stage)
            busy = status_of(msgspec.structs.replace(SNAPSHOT, mode=mode, learner=learner))
            assert ("ends its round" in busy) == (mode == "generate")
        plain = status_of(msgspec.structs.replace(SNAPSHOT, mode=mode, relay=None))
        assert "relay  " not in plain
    assert "It shared 6 of the 8 rollouts of its last round." in by_mode["generate"]


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_its_words(stage: Stage) -> None:
    learner = msgspec.structs.replace(SNAPSHOT.learner, stage=stage)
    text = status_of(msgspec.structs.replace(SNAPSHOT, learner=learner))
    assert "is busy with" not in text


def test_a_learner_that_is_down_is_said_to_be() -> None:
    learner = msgspec.structs.replace(
        SNAPSHOT.learner, pid=None, restart_in_s=14.0, last_error="killed\n\x1b[31m", restarts=2
    )
    text = status_of(msgspec.structs.replace(SNAPSHOT, learner=learner))
    assert "down and is started again in 14 s; it ended with: killed\\n\\x1b[31m." in text


def test_a_node_before_its_first_round_has_a_status() -> None:
    learner = msgspec.structs.replace(SNAPSHOT.learner, stage="starting", round=0, engine="")
    fresh = msgspec.structs.replace(
        SNAPSHOT,
        learner=learner,
        last_round=None,
        own_reward=(),
        foreign_groups_used=(),
        peers=(),
        refused={},
        heldout=(),
        warnings=(),
    )
    text = status_of(fresh)
    assert "It is starting: it loads the model" in text
    assert "No peer is connected" in text
    assert "no peer" in shown(partial(print_peers, fresh))


def test_the_page_is_named_where_it_is_known() -> None:
    address = "http://127.0.0.1:8420/?token=" + "x" * 43
    assert address in shown(lambda out: print_status(SNAPSHOT, out, address), width=40)


def test_the_addresses_of_the_node_can_be_copied_into_a_swarm_file() -> None:
    address = f"/ip4/192.0.2.1/tcp/8421/p2p/{'1' * 52}"
    found = msgspec.structs.replace(SNAPSHOT, addresses=(address, f"{address}\x1b[31m"))
    lines = status_of(found, width=40).splitlines()
    assert lines[-2:] == [f"dial: {address}", f"dial: {address}\\x1b[31m"]


@pytest.mark.parametrize("width", [40, 80, 300])
@pytest.mark.parametrize("show", [print_status, print_peers])
def test_a_strangers_text_cannot_act_on_the_terminal(
    show: Callable[[Snapshot, Console], None], width: int
) -> None:
    text = shown(partial(show, SNAPSHOT), width, colors=True)
    ours = re.compile(r"\x1b\[[0-9;]*m")  # colours are all that we send
    rest = ours.sub("", text)
    assert all(char.isprintable() or char == "\n" for char in rest)
    assert "\x1b[31m" not in text  # red, as a stranger asked for


def test_a_strangers_markup_is_text() -> None:
    peers = shown(partial(print_peers, SNAPSHOT))
    assert "<script>alert(1)</script>\\x1b]0;x\\x07[red]\\u202eevil" in peers
    assert "<b>[bold]\\x1b[2J 2" in peers
    assert "\\x1b[31m[red]\\u2066" in status_of(SNAPSHOT)


def test_peers_are_listed_with_their_whole_ids_and_lies() -> None:
    text = shown(partial(print_peers, SNAPSHOT), width=40)
    for peer in SNAPSHOT.peers[:2]:
        assert peer.node_id in text.splitlines()
    assert "7 proven lies" in text


def test_durations_sizes_and_ids_are_short() -> None:
    assert [span(s) for s in (-1, 0.04, 9.96, 61, 3600, 7512, 200_000)] == [
        "0.0 s",
        "0.0 s",
        "10.0 s",
        "61 s",
        "60 min",
        "2 h 5 min",
        "2 d 7 h",
    ]
    assert [size(n) for n in (0, 1023, 1536, 5 * 2**40)] == [
        "0 B",
        "1,023 B",
        "1.5 KiB",
        "5,120.0 GiB",
    ]
    assert short_id("12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p") == "12D3KooW…aoDd2p"
    assert short_id("short") == "short"
