"""What can be read, over the ASGI app in this process, of a node that learned from a peer."""

import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from trio.testing import trio_test

from node.api import create_app
from node.api_fake import EMPTY, NUM_ROUNDS, fake_readable, fake_store, fill
from node.api_reads import Readable
from node.checkpoint import Checkpoints, NodeState
from node.config import load_config
from node.curve import RoundPoint
from node.log_lines import keeping_lines
from node.status import PeerStatus, RoundReport
from node.status_json import from_json
from rewards.tasks import TaskSpec
from swarm.identity import Identity

TOKEN = "t0ken-" + "x" * 37
NOW = time.time()
LIAR = Identity(b"l" * 32).node_id


def busy_node(tmp_path: Path = Path("nowhere")) -> Readable:
    store = fake_store()
    fill(store, NOW)
    peers = tuple(PeerStatus(one.node_id, True, lies=one.lies) for one in store.ledger.peers())
    snapshot = msgspec.structs.replace(
        EMPTY,
        peers=peers,
        heldout=tuple(store.history.heldout()),
        refused=store.ledger.refused_totals(),
        tasks=("sums",),
        tasks_left_out={"words": "its digest differs"},
    )
    tasks = tuple(
        TaskSpec(name, "reasoning_gym", "chain_sum", "0.1.25") for name in ("sums", "words")
    )
    return fake_readable(lambda: snapshot, store, tasks=tasks, checkpoints=tmp_path)


@asynccontextmanager
async def asking(node: Readable) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(node, TOKEN))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(f"/api/v1{path}")
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content)


@trio_test
async def test_rounds_are_asked_for_in_bounded_parts() -> None:
    async with asking(busy_node()) as client:
        page = await get(client, "/rounds?since=7&limit=3")
        assert [one["round"] for one in page] == [8, 9, 10]
        whole = await client.get("/api/v1/rounds?limit=1000")
        assert len(from_json(whole.content, list[RoundReport])) == NUM_ROUNDS
        for query in ("limit=0", "limit=1001", "limit=x", "since=-1", f"since={2**63}", "points=0"):
            refused = await client.get(f"/api/v1/rounds?{query}")
            assert refused.status_code == 422
            assert refused.headers["content-type"] == "application/problem+json"
            assert query.split("=")[0] in refused.json()["detail"]


@trio_test
async def test_rounds_come_as_a_curve_of_few_points() -> None:
    async with asking(busy_node()) as client:
        found = await client.get("/api/v1/rounds?points=7")
        points = from_json(found.content, list[RoundPoint])
        assert [point.first_round for point in points] == [1, 9, 17, 25, 33]
        assert points[0].own_reward is not None
        assert points[0].own_reward.min == 1 / NUM_ROUNDS
        assert points[0].own_reward.max == 8 / NUM_ROUNDS
        assert sum(point.num_rounds for point in points) == NUM_ROUNDS
        (one,) = await get(client, "/rounds?points=1&figures=own_reward&figures=entropy")
        assert [name for name, found in one.items() if isinstance(found, dict)] == [
            "own_reward",
            "entropy",
        ]
        for wrong in ("figures=mood", "figures=round;", "figures="):
            refused = await client.get(f"/api/v1/rounds?points=1&{wrong}")
            assert refused.status_code == 422


@trio_test
async def test_each_task_says_how_the_node_does_at_it_or_why_it_is_left_out() -> None:
    async with asking(busy_node()) as client:
        sums, words = await get(client, "/tasks?lately=10")
    assert (sums["name"], sums["is_offered"], sums["left_out"]) == ("sums", True, None)
    assert sums["own"] == {"accuracy": 0.5, "num_answers": 20, "num_rounds": 10}
    assert (sums["heldout_start"]["round"], sums["heldout_start"]["mean"]) == (0, 0.25)
    assert (sums["heldout_now"]["round"], sums["heldout_now"]["mean"]) == (NUM_ROUNDS, 0.5)
    assert sums["heldout_now"]["standard_error"] is None, "one question has none"
    assert (words["is_offered"], words["left_out"]) == (False, "its digest differs")
    assert (words["own"]["accuracy"], words["heldout_now"]) == (None, None)


@trio_test
async def test_rollouts_are_listed_in_pages_and_shown_whole() -> None:
    async with asking(busy_node()) as client:
        fates: dict[str, int] = {}
        before = ""
        while page := await get(client, f"/rollouts?kind=foreign&limit=30{before}"):
            for one in page:
                fates[one["fate"]] = fates.get(one["fate"], 0) + 1
            before = f"&before={page[-1]['number']}"
        assert fates == {"used": 20, "refused": NUM_ROUNDS + 19, "in_pool": 1}
        (newest,) = await get(client, "/rollouts?kind=own&limit=1")
        assert (newest["fate"], newest["round"], newest["num_correct"]) == (
            "not_shared",
            NUM_ROUNDS,
            1,
        )
        whole = await get(client, f"/rollouts/{newest['hash']}")
        assert whole["question"] == f"What is {NUM_ROUNDS} + 1?"
        assert [one["correct"] for one in whole["answers"]] == [True, None]
        assert whole["answers"][0]["text"] == "41 <script>alert(1)</script>\n\u2028\x1b[2J"
        assert whole["answers"][1]["unscorable"] == "deadline"
        (lie,) = await get(client, f"/rollouts?author={LIAR}&limit=1")
        assert (lie["reason"], lie["kind"]) == ("wrong_claim", "foreign")
        lie = await get(client, f"/rollouts/{lie['hash']}")
        assert [one["claimed"] for one in lie["answers"]] == [True, True]
        assert [one["correct"] for one in lie["answers"]] == [True, False]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rollouts/" + "0" * 64, 404),
        ("/rollouts/0", 422),
        ("/rollouts/" + "G" * 64, 422),
        ("/rollouts?kind=both", 422),
        ("/rollouts?before=0", 422),
        ("/peers/" + "1" * 52, 404),
        ("/peers/me", 422),
        ("/peers/" + quote("<script>" * 6), 422),
        ("/logs?limit=0", 422),
        ("/tasks?lately=0", 422),
        ("/nothing", 404),
    ],
)
@trio_test
async def test_what_is_not_there_or_out_of_range_is_a_problem(path: str, status: int) -> None:
    async with asking(busy_node()) as client:
        answer = await client.get(f"/api/v1{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


@trio_test
async def test_one_peer_comes_with_the_lies_that_are_proven() -> None:
    async with asking(busy_node()) as client:
        liar = await get(client, f"/peers/{LIAR}")
        assert (liar["node_id"], liar["lies"]) == (LIAR, 1)
        (lie,) = liar["proven_lies"]
        assert (lie["reason"], lie["num_bytes"]) == ("wrong_claim", 12)
        others = [one for one in await get(client, "/peers") if one["node_id"] != LIAR]
        assert (await get(client, f"/peers/{others[0]['node_id']}"))["proven_lies"] == []


@trio_test
async def test_refusals_say_who_pays_and_when_they_were() -> None:
    node = busy_node()
    node.refusals.note({"wrong_claim": 1})
    node.refusals.note({"wrong_claim": 1, "not_wanted": 5})
    async with asking(node) as client:
        found = await get(client, "/refusals")
    assert [one["reason"] for one in found["total"]] == ["not_wanted", "wrong_claim"]
    assert [one["pays"] for one in found["total"]] == ["nobody", "author"]
    assert [one["is_harmless"] for one in found["total"]] == [True, False]
    assert [one["refused"] for one in found["buckets"]] == [{"not_wanted": 5}]
    assert found["buckets"][0]["begin"] % found["width_s"] == 0


@trio_test
async def test_checkpoints_say_round_size_and_age(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=5)
    for number in (3, 12):
        state = NodeState(number, 1, "0" * 64, "tiny", total_tokens=number)
        checkpoints.write(state, lambda path: (path / "weights").write_bytes(b"x" * 1000))  # type: ignore[func-returns-value, arg-type, return-value]
    (tmp_path / "round-00000003" / "state.json").write_text("damaged")
    (tmp_path / "round-later").mkdir()
    async with asking(busy_node(tmp_path)) as client:
        newest, damaged = await get(client, "/checkpoints")
    assert (newest["round"], newest["total_tokens"]) == (12, 12)
    assert newest["num_bytes"] > 1000
    assert 0 <= newest["age_s"] < 3600
    assert (damaged["round"], damaged["total_tokens"]) == (3, None)


@trio_test
async def test_a_node_without_checkpoints_has_none() -> None:
    async with asking(busy_node(Path("nowhere"))) as client:
        assert await get(client, "/checkpoints") == []


@trio_test
async def test_settings_say_where_they_come_from_and_show_no_secret(tmp_path: Path) -> None:
    flags = {"swarm.bootstrap": "a,b", "policy.model": "https://me:pa55@hub.example/m"}
    config = load_config(flags=flags, environment={"SAPO_ROUNDS": "7"})
    async with asking(replace(busy_node(), config=config)) as client:
        answer = await client.get("/api/v1/config")
    assert TOKEN not in answer.text and "pa55" not in answer.text
    settings = {one["key"]: one for one in json.loads(answer.content)}
    assert settings["rounds"]["value"] == 7
    assert settings["rounds"]["origin"] == "environment variable SAPO_ROUNDS"
    assert settings["swarm.bootstrap"] == {
        "key": "swarm.bootstrap",
        "value": ["a", "b"],
        "origin": "--bootstrap",
        "meaning": settings["swarm.bootstrap"]["meaning"],
    }
    assert settings["swarm.bootstrap"]["meaning"].startswith("Addresses of peers to dial")
    assert settings["policy.model"]["value"] == "https://(hidden)@hub.example/m"
    assert settings["batch.token_budget"]["value"] == 3.0, "not every token is a secret"
    assert settings["learn.learning_rate"]["origin"] == "default"


@trio_test
async def test_the_log_is_shown_with_strangers_text_escaped() -> None:
    node = busy_node()
    logger = logging.getLogger("node.test_api_reads")
    with keeping_lines(node.lines):
        logger.warning("a peer says %s", "\x1b[2J\nINFO all is well \u202e")
    async with asking(node) as client:
        (line,) = await get(client, "/logs?limit=1")
    assert (line["level"], line["logger"]) == ("WARNING", "node.test_api_reads")
    assert line["message"] == r"a peer says \x1b[2J\nINFO all is well \u202e"
