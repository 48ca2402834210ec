"""The API of two real nodes that share and fetch, while their learners work.

Only the learners are scripted: they answer each question once rightly and once wrongly, and draw
what peers have.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.access import read_address, read_token

SCRIPT = str(Path(__file__).parents[1] / "node" / "run_scripted_node.py")
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}
DEADLINE_S = 120


class Node:
    """One node, asked as a program of its operator would."""

    def __init__(self, home: Path, *settings: str) -> None:
        self.home = home
        home.mkdir()
        with (home / "node.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", SCRIPT, str(home), "exchange", *settings],
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def client(self) -> httpx.Client:
        url = read_address(self.home)
        assert url is not None
        headers = {"Authorization": f"Bearer {read_token(self.home)}"}
        return httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=30)

    def get(self, path: str) -> Any:
        with self.client() as client:
            answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for(self, find: Callable[["Node"], Any]) -> Any:
        """What is found, as soon as it is there."""
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up and self.process.poll() is None:
            if read_address(self.home) is not None and (found := find(self)):
                return found
            time.sleep(0.1)  # between looks at another process
        raise AssertionError((self.home / "node.log").read_text(errors="replace")[-4000:])

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(DEADLINE_S) == 0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    directory = tmp_path_factory.mktemp("api")
    first = Node(directory / "first", "rounds=1000")
    started: list[Node] = [first]
    try:
        status = first.wait_for(lambda node: node.get("/status"))
        bootstrap = f"swarm.bootstrap={status['addresses'][0]}"
        started.append(Node(directory / "second", "rounds=1000", bootstrap))
        yield first, started[1]
        for node in started:
            node.end()
    finally:
        for node in started:
            if node.process.poll() is None:
                node.process.kill()


def test_own_rollouts_can_be_read_as_they_are_shared(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    shared = node.wait_for(
        lambda node: [one for one in node.get("/rollouts?kind=own") if one["fate"] == "shared"]
    )
    whole = node.get(f"/rollouts/{shared[0]['hash']}")
    assert whole["author"] == node.get("/status")["node_id"]
    assert whole["sequence"] is not None
    assert [one["correct"] for one in whole["answers"]] == [True, False]
    assert whole["question"] and whole["truth"]


def test_peers_rollouts_can_be_read_with_what_became_of_them(nodes: tuple[Node, Node]) -> None:
    first, second = nodes

    def drawn(node: Node) -> list[Any]:
        listed = node.get("/rollouts?kind=foreign&limit=200")
        return [one for one in listed if one["fate"] == "drawn"]

    found = second.wait_for(drawn)
    whole = second.get(f"/rollouts/{found[0]['hash']}")
    author = first.get("/status")["node_id"]
    assert (whole["author"], whole["kind"]) == (author, "foreign")
    assert [one["correct"] for one in whole["answers"]] == [True, False]
    assert [one["claimed"] for one in whole["answers"]] == [True, False]
    assert first.get(f"/rollouts/{whole['hash']}")["question"] == whole["question"]

    def fetched(node: Node) -> Any:
        peer = node.get(f"/peers/{author}")  # measured once a second
        return peer if peer["rollouts_fetched"] else None

    peer = second.wait_for(fetched)
    assert peer["connected"] and peer["first_met"] > 0


def test_events_tell_of_each_round_and_of_those_that_were_missed(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    node.wait_for(lambda node: node.get("/rounds?since=2"))
    rounds: list[int] = []
    with node.client() as client, client.stream("GET", "/events?since=1") as stream:
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                rounds.append(int(value))
            if len(rounds) == 5:
                break
    assert rounds == [2, 3, 4, 5, 6]


def test_what_else_there_is_to_read_is_that_of_the_node(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    node.wait_for(lambda node: node.get("/rounds?since=1"))
    points = node.get("/rounds?points=1")
    assert points[0]["first_round"] == 1 and points[0]["num_rounds"] >= 2
    settings = {one["key"]: one for one in node.get("/config")}
    assert settings["rounds"]["value"] == 1000
    tasks = node.get("/tasks")
    assert len(tasks) == 8 and all(one["is_offered"] for one in tasks)
    messages = [one["message"] for one in node.get("/logs?limit=1000")]
    assert any("serving the API at" in message for message in messages)
    assert node.get("/checkpoints") == []
    assert {"total", "since", "width_s", "buckets"} == set(node.get("/refusals"))
    token = read_token(node.home)
    for path in ("/config", "/logs?limit=1000", "/status"):
        assert token not in json.dumps(node.get(path))
