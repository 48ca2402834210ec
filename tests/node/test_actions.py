"""The changing part of the API: the real app over httpx, with real bans, pool and audit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from trio.testing import trio_test

from node.actions import PAUSE_FILE, is_kept_paused
from node.api import create_app, why_not_ready
from node.api_fake import EMPTY, FakeLearner, FakeSwarm, fake_changeable, fake_readable, fake_store
from node.audit import AUDIT_FILE
from node.snapshot import with_bans
from node.status import LearnerStatus, PeerStatus
from node.store import Store
from node.supervisor import LearnerAbsent, NoLearner
from rewards.question import Answer, Expansion, Question
from swarm.bans import Ban, Bans
from swarm.database import MemoryDatabase
from swarm.identity import Identity
from swarm.rollout import Rollout
from swarm.wire import rollout_hash, seal

TOKEN = "t0ken-" + "x" * 37
PEER, OTHER = (Identity(bytes([number]) * 32) for number in (1, 2))
NOW = 1_800_000_000.0


class Node:
    """An app, and what is behind it."""

    def __init__(self, home: Path, learner: Any = None) -> None:
        self.home = home
        self.store: Store = fake_store()
        self.swarm = FakeSwarm()
        self.changeable = fake_changeable(home, self.store, self.swarm, learner)
        self.app = create_app(fake_readable(store=self.store), TOKEN, self.changeable)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(
            self.app, raise_app_exceptions=False, client=("192.0.2.7", 4711)
        )
        bearer = {"Authorization": f"Bearer {TOKEN}"} | headers
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8420"
        ) as asking:
            if isinstance(body, bytes):
                json_type = {"Content-Type": "application/json"}
                return await asking.post(path, content=body, headers=bearer | json_type)
            return await asking.post(path, json=body, headers=bearer)

    def audit(self) -> list[dict[str, str]]:
        file = self.home / AUDIT_FILE
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield Node(tmp_path)


def add_rollout(store: Store, author: Identity, index: int) -> bytes:
    """Puts a rollout into the pool; returns its hash."""
    answers = (Answer(f"{author.node_id} {index}", True), Answer("no", True))
    question = Question("sums", index)
    rollout = Rollout("5" * 64, author.node_id, 1, question, answers, "m", 1, store.pool._clock())
    record = seal(rollout, author)
    expansion = Expansion(question, "1 + 1", "2")
    assert store.pool.add_foreign(record, rollout, expansion, (True, False), NOW) is None
    return rollout_hash(record)


# --- bans ---


@trio_test
async def test_a_ban_purges_the_peers_rollouts_and_no_others(node: Node) -> None:
    for index in range(3):
        add_rollout(node.store, PEER, index)
    add_rollout(node.store, OTHER, 9)
    answer = await node.post(f"/api/v1/peers/{PEER.node_id}/ban", {"reason": "lies", "for_s": None})
    assert answer.status_code == 200
    assert answer.json() == {"node_id": PEER.node_id, "banned_until": None, "purged": 3}
    assert node.store.pool.fresh_by_author() == {OTHER.node_id: 1}
    assert [ban.reason for ban in node.store.bans.bans()] == ["lies"]
    assert node.swarm.told == [("drop_author", PEER.node_id), ("drop", PEER.node_id)]
    (line,) = node.audit()
    assert line["who"] == "192.0.2.7 port 4711"
    assert line["what"] == f"ban {PEER.node_id} for good, reason: lies"
    assert line["result"].startswith("done: ") and '"purged":3' in line["result"]


@trio_test
async def test_a_ban_ends_by_its_time_or_by_hand(node: Node) -> None:
    path = f"/api/v1/peers/{PEER.node_id}"
    record = add_rollout(node.store, PEER, 3)
    answer = await node.post(f"{path}/ban", {"for_s": 60})
    assert node.store.pool.has_seen([record]), "a copy would be refused as one"
    until = answer.json()["banned_until"]
    (ban,) = node.store.bans.bans()
    assert until == ban.until == pytest.approx(ban.at + 60)
    for was_banned in (True, False):
        answer = await node.post(f"{path}/unban")
        assert answer.json() == {"node_id": PEER.node_id, "was_banned": was_banned}
        assert not node.store.pool.has_seen([record]), "it may be fetched again"
        assert not node.store.bans.is_banned(PEER.node_id)
    assert ("hear_again", PEER.node_id) in node.swarm.told
    assert ("ask_again", "") in node.swarm.told
    assert (await node.post(f"{path}/ban")).json()["banned_until"] is None, "no body: for good"
    assert [line["what"].split()[0] for line in node.audit()] == ["ban", "unban", "unban", "ban"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"reason": "x" * 201}, "reason"),
        ({"reason": 7}, "reason"),
        ({"for_s": 0}, "for_s"),
        ({"for_s": -1}, "for_s"),
        ({"for_s": "60"}, "for_s"),
        ({"for_s": True}, "for_s"),
        ({"for_s": 1e12}, "for_s"),
        ({"until": 60}, "until"),
        ([], ""),
        (b'{"for_s": NaN}', "for_s"),
        (b'{"for_s": 1e999}', "for_s"),
        (b'{"reason": "\\ud800"}', "reason"),
        (b"[" * 10_000, ""),
        (b'{"reason": "', ""),
        (b"\xff\xfe", ""),
    ],
)
@trio_test
async def test_a_ban_that_is_not_understood_bans_nobody(node: Node, body: Any, said: str) -> None:
    answer = await node.post(f"/api/v1/peers/{PEER.node_id}/ban", body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert node.store.bans.bans() == () and node.audit() == []


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("x", 422),
        ("1" * 64, 404),
        ("1" * 65, 422),
        (PEER.node_id[:-1], 404),
        (PEER.node_id.lower(), 404),
        ("%0a" * 50, 422),
    ],
)
@trio_test
async def test_only_a_nodes_id_is_banned(node: Node, name: str, status: int) -> None:
    for action in ("ban", "unban"):
        answer = await node.post(f"/api/v1/peers/{name}/{action}")
        assert answer.status_code == status
        assert ("no node's id" in answer.json()["detail"]) == (status == 404)
    assert node.store.bans.bans() == ()
    assert all(line["result"].startswith("refused: ") for line in node.audit())


@trio_test
async def test_a_node_bans_not_itself_and_not_without_end(node: Node) -> None:
    answer = await node.post(f"/api/v1/peers/{EMPTY.node_id}/ban")
    assert (answer.status_code, answer.json()["title"]) == (409, "Conflict")
    object.__setattr__(node.store, "bans", Bans(MemoryDatabase(), max_bans=0))
    answer = await node.post(f"/api/v1/peers/{PEER.node_id}/ban")
    assert answer.status_code == 409 and "unban some" in answer.json()["detail"]


@trio_test
async def test_words_of_a_ban_do_nothing_to_the_audit(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    reason = '\x1b[2J\r\n{"who": "nobody"}\u202e'
    with caplog.at_level("INFO", "node.audit"):
        await node.post(f"/api/v1/peers/{PEER.node_id}/ban", {"reason": reason})
    assert node.store.bans.bans()[0].reason == reason
    (line,) = node.audit()
    assert "\\x1b[2J\\r\\n" in line["what"] and "\\u202e" in line["what"]
    (record,) = caplog.records
    assert record.getMessage().isprintable()


# --- pause ---


@trio_test
async def test_a_pause_is_kept_in_the_home(node: Node) -> None:
    for path, is_paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        answer = await node.post(f"/api/v1/{path}")
        assert (answer.status_code, answer.json()) == (200, {"paused": is_paused})
        assert node.changeable.actions.is_paused == is_kept_paused(node.home) == is_paused
    assert [line["what"] for line in node.audit()] == ["pause", "pause", "resume", "resume"]


@trio_test
async def test_a_pause_that_cannot_be_kept_is_none(tmp_path: Path) -> None:
    told = []

    class Learner(FakeLearner):
        async def set_paused(self, is_paused: bool) -> None:
            told.append(is_paused)

    node = Node(tmp_path, Learner())
    (tmp_path / PAUSE_FILE).mkdir()  # where the file should go
    (tmp_path / PAUSE_FILE / "x").touch()
    answer = await node.post("/api/v1/pause")
    assert answer.status_code == 500 and "bug" in answer.json()["detail"]
    assert told == [True, False] and not node.changeable.actions.is_paused
    assert node.audit()[0]["result"].startswith("failed: ")


# --- the learner and the end ---


@trio_test
async def test_a_checkpoint_is_answered_with_its_round(node: Node) -> None:
    answer = await node.post("/api/v1/checkpoint")
    assert (answer.status_code, answer.json()) == (200, {"round": 7})
    assert node.audit()[0]["result"] == 'done: {"round":7}'


@trio_test
async def test_what_the_learner_cannot_do_is_said(tmp_path: Path) -> None:
    class Dead(FakeLearner):
        async def checkpoint(self) -> int:
            raise LearnerAbsent("it ended before")

    answer = await Node(tmp_path, Dead()).post("/api/v1/checkpoint")
    assert (answer.status_code, answer.json()["detail"]) == (503, "it ended before")
    without = Node(tmp_path, NoLearner())
    for path, status in (("pause", 409), ("resume", 409), ("checkpoint", 503)):
        answer = await without.post(f"/api/v1/{path}")
        assert (answer.status_code, answer.json()["detail"]) == (
            status,
            "this node makes no rounds",
        )
    assert not (tmp_path / PAUSE_FILE).exists()


@trio_test
async def test_the_end_begins_when_it_is_answered(node: Node) -> None:
    answer = await node.post("/api/v1/shutdown")
    assert (answer.status_code, answer.json()) == (202, {"stopping": True})
    assert node.swarm.told == [("stop", "")]
    assert node.audit()[0]["what"] == "shutdown"


# --- who may ---


ACTIONS = [
    f"/api/v1/peers/{PEER.node_id}/ban",
    f"/api/v1/peers/{PEER.node_id}/unban",
    "/api/v1/pause",
    "/api/v1/resume",
    "/api/v1/checkpoint",
    "/api/v1/shutdown",
]


def test_these_are_all_actions(node: Node) -> None:
    posts = {one.path for one in node.app.routes if "POST" in (getattr(one, "methods", None) or ())}
    assert posts == {one.replace(PEER.node_id, "{node_id}") for one in ACTIONS}


@pytest.mark.parametrize("path", ACTIONS)
@trio_test
async def test_nothing_is_changed_without_the_token_or_by_another_page(
    node: Node, path: str
) -> None:
    refused = [
        await node.post(path, Authorization="Bearer wrong"),
        await node.post(path, Origin="http://127.0.0.1:9999"),
        await node.post(path, Host="sapo.example"),
        await node.post(path, b" " * 20_000),
    ]
    assert [one.status_code for one in refused] == [401, 403, 421, 413]
    assert node.swarm.told == [] and node.audit() == []
    assert not (node.home / PAUSE_FILE).exists() and node.store.bans.bans() == ()


@pytest.mark.parametrize("path", ACTIONS)
@trio_test
async def test_an_action_is_described_with_all_its_answers(node: Node, path: str) -> None:
    described = node.app.openapi()["paths"][path.replace(PEER.node_id, "{node_id}")]
    assert described.keys() == {"post"}
    answers = described["post"]["responses"]
    assert {"401", "403", "413", "421", "429", "500"} <= answers.keys()
    done = await node.post(path)
    assert str(done.status_code) in answers
    content = answers[str(done.status_code)]["content"]
    schema = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    fields = node.app.openapi()["components"]["schemas"][schema]["properties"]
    assert fields.keys() == done.json().keys()


# --- what is shown ---


def test_a_ban_is_shown_at_the_peer_also_at_one_that_was_never_met() -> None:
    met, other = PeerStatus(PEER.node_id, connected=False, lies=3), PeerStatus("other", True)
    bans = [
        Ban(PEER.node_id, "lies", "operator", NOW, NOW + 60),
        Ban(OTHER.node_id, "", "operator", NOW, None),
    ]
    shown = {peer.node_id: peer for peer in with_bans([met, other], bans)}
    assert shown.keys() == {PEER.node_id, OTHER.node_id, "other"}
    peer = shown[PEER.node_id]
    assert (peer.banned, peer.banned_until, peer.ban_reason) == (True, NOW + 60, "lies")
    assert peer.lies == 3
    assert shown[OTHER.node_id].banned and shown[OTHER.node_id].banned_until is None
    assert shown["other"] == other and not other.banned


def test_a_node_that_is_paused_is_not_ready_and_one_that_has_no_rounds_is() -> None:
    learner = LearnerStatus(pid=1, stage="generating")
    paused = msgspec.structs.replace(EMPTY, paused=True, learner=learner)
    assert "paused" in str(why_not_ready(paused))
    assert why_not_ready(msgspec.structs.replace(paused, paused=False)) is None
    done = msgspec.structs.replace(learner, is_done=True)
    assert why_not_ready(msgspec.structs.replace(paused, learner=done)) is None
