"""Asking a running node: against the real server, from a thread, and against false ones."""

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from node.access import ADDRESS_FILE, TOKEN_FILE, open_listener, open_token, write_address
from node.api import create_app, serve_api
from node.api_fake import fake_readable, fake_store
from node.ask import NodeRefused, NodeUnreachable, ban, fetch_rounds, fetch_snapshot, unban
from node.home import HomeError
from node.status import Snapshot
from node.status_json import from_json

SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)


@trio_test
async def test_a_running_node_is_asked_by_its_home(tmp_path: Path) -> None:
    assert SNAPSHOT.last_round is not None
    store = fake_store()
    store.history.put_round(SNAPSHOT.last_round)
    app = create_app(fake_readable(lambda: SNAPSHOT, store), open_token(tmp_path))
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
    monkeypatch.setattr("node.ask.TIMEOUT_S", 0.05)
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
    monkeypatch.setattr("node.ask.MAX_ANSWER_BYTES", 1000)
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


PEER = "12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p"
FakeNode = Callable[..., object]


def test_a_ban_is_sent_as_the_contract_has_it(tmp_path: Path, fake_node: FakeNode) -> None:
    ban_path, unban_path = f"/api/v1/peers/{PEER}/ban", f"/api/v1/peers/{PEER}/unban"
    answers = {
        ban_path: (200, {"node_id": PEER, "banned_until": 1e9, "purged": 7}),
        unban_path: (200, {"node_id": PEER, "was_banned": True}),
    }
    with fake_node(tmp_path, answers) as asked:
        done = ban(tmp_path, PEER, "lies", 60.0)
        assert (done.banned_until, done.purged) == (1e9, 7)
        assert unban(tmp_path, PEER).was_banned
    assert asked == [
        (ban_path, {"reason": "lies", "for_s": 60.0}),
        (unban_path, {}),
    ]


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        (404, {"detail": "Not Found"}, "version knows no ban"),
        (405, {}, "version knows no ban"),
        (404, {"detail": "no node id"}, "refused the ban: no node id"),
        (422, {"detail": "for_s\x1b[2J", "title": "x"}, r"refused the ban: for_s\\x1b\[2J"),
        (500, [1], r"refused the ban:  \(500\)"),
    ],
)
def test_what_the_node_refuses_is_said_with_its_reason(
    tmp_path: Path, fake_node: FakeNode, status: int, body: object, complaint: str
) -> None:
    path = f"/api/v1/peers/{PEER}/ban"
    with (
        fake_node(tmp_path, {path: (status, body)}),
        pytest.raises(NodeRefused, match=complaint) as caught,
    ):
        ban(tmp_path, PEER, "", None)
    assert str(caught.value).isprintable()


def test_another_nodes_token_is_no_refusal(tmp_path: Path, fake_node: FakeNode) -> None:
    with (
        fake_node(tmp_path, {f"/api/v1/peers/{PEER}/ban": (401, {})}),
        pytest.raises(NodeUnreachable, match="status 401"),
    ):
        ban(tmp_path, PEER, "", None)


def test_an_id_cannot_lead_to_another_path(tmp_path: Path, fake_node: FakeNode) -> None:
    with fake_node(tmp_path, {}) as asked, pytest.raises(NodeRefused):
        unban(tmp_path, "../shutdown?x=/")
    assert asked == [("/api/v1/peers/..%2Fshutdown%3Fx%3D%2F/unban", {})]
