"""The OpenAPI document: complete, the one in the repository, and what the server really answers."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from node.api import create_app, open_listener, serve_api
from node.api_fake import fake_changeable, fake_readable, fake_store, fill
from node.api_schema import KINDS, describe, field_texts
from node.gate import OPEN_PATHS
from node.news import Event
from node.rollout_view import Fate
from node.status import PeerStatus, RoundReport, Snapshot
from node.status_json import from_json
from rewards.tasks import TaskSpec

ROOT = Path(__file__).parents[2]
TOKEN = "t0ken-" + "x" * 37
SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
DOCUMENT = describe(create_app(fake_readable(), TOKEN, fake_changeable()))
STREAMED = "/api/v1/events"
"""Never ends, so that no tool can check it: tests/node/test_api_stream.py does."""


def test_the_document_in_the_repository_is_current() -> None:
    kept = json.loads((ROOT / "docs/openapi.json").read_text())
    assert kept == json.loads(json.dumps(DOCUMENT)), "run: make openapi"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.mark.parametrize(
    ("path", "operation"),
    [pytest.param(path, one, id=f"{method} {path}") for method, path, one in operations()],
)
def test_every_answer_has_a_schema_and_every_path_its_problems(
    path: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"]
    answers = operation["responses"]
    for status, answer in answers.items():
        ((kind, content),) = answer["content"].items()
        assert content["schema"]
        assert (kind == "application/problem+json") == (int(status) >= 400)
    assert {"421", "500"} <= set(answers)
    assert ("401" in answers) == (path not in OPEN_PATHS) == ("security" in operation)
    assert ("422" in answers) == bool(operation.get("parameters") or "requestBody" in operation)


def test_no_schema_is_missing_and_none_is_loose() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    named = set()

    def walk(tree: Any) -> None:
        if isinstance(tree, dict):
            if "$ref" in tree:
                named.add(tree["$ref"].removeprefix("#/components/schemas/"))
            for one in tree.values():
                walk(one)
        elif isinstance(tree, list):
            for one in tree:
                walk(one)

    walk(DOCUMENT)
    assert named <= set(schemas)
    for name, schema in schemas.items():
        assert schema.get("description"), f"{name} has no docstring"
        assert schema.get("properties") or schema.get("enum"), name
        assert "title" not in schema


def test_what_stands_under_a_field_is_in_the_document() -> None:
    texts = field_texts(RoundReport)
    assert texts["num_unscorable"].startswith("Own answers that the verifier could not decide")
    fields = DOCUMENT["components"]["schemas"]["RoundReport"]["properties"]
    assert fields["num_unscorable"]["description"] == texts["num_unscorable"]
    inherited = DOCUMENT["components"]["schemas"]["PeerView"]["properties"]
    assert inherited["lies"]["description"] == "Refusals that are proven and charged to it."


def test_hashes_are_hexadecimal_and_figures_may_be_null() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["ForeignGroup"]["properties"]["hash"]["pattern"] == "^([0-9a-f]{2})*$"
    assert schemas["RoundReport"]["properties"]["loss"]["type"] == ["number", "null"]
    assert schemas["Snapshot"]["properties"]["now"]["type"] == "number"
    assert "base64" not in json.dumps(DOCUMENT)


def test_the_guide_names_every_path_event_fate_and_status() -> None:
    guide = (ROOT / "docs/api.md").read_text()
    rows = [line.split("|") for line in guide.splitlines() if line.startswith("| ")]
    first = {cells[1].strip() for cells in rows}
    for method, path, _ in operations():
        end = path.rpartition("/")[2]
        assert any(
            f"`{method.upper()} {path}" in cell or (f"`/{end}`" in cell and method == "post")
            for cell in first
        ), path
    assert {event.value for event in Event} <= first
    assert {fate.value for fate in Fate} <= first
    statuses = {status for _, _, one in operations() for status in one["responses"]}
    named = {word for cell in first for word in cell.split(", ") if word.isdigit()}
    assert {status for status in statuses if int(status) >= 400} | {"405"} == named


def test_every_kind_is_a_struct() -> None:
    assert all(issubclass(kind, msgspec.Struct) for kind in KINDS)


# --- what the server really answers ---


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the state of a node that learned for a while, in a thread of its own."""
    store = fake_store()
    fill(store, 1e9)
    known = tuple(PeerStatus(one.node_id, True, lies=one.lies) for one in store.ledger.peers())
    snapshot = msgspec.structs.replace(SNAPSHOT, peers=(*SNAPSHOT.peers, *known))
    tasks = tuple(TaskSpec(name, "reasoning_gym", name, "0.1.25") for name in ("sums", "words"))
    node = fake_readable(lambda: snapshot, store, tasks=tasks, checkpoints=ROOT / "nowhere")
    node.refusals.note({})
    node.refusals.note({"copied": 3})
    listener, stopping = open_listener("127.0.0.1", 0), threading.Event()
    app = create_app(node, TOKEN, fake_changeable(tmp_path_factory.mktemp("home"), store))

    async def serve() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_api, app, listener, stop=stop))
            await trio.to_thread.run_sync(stopping.wait)
            stop.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stopping.set()
    thread.join()


def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    """Its checks in all its phases: answers as their schemas say, no 500, bad requests and other
    methods refused. But for one: it sends wrong tokens until the gate answers 429, and wants 401.
    (test_api.py asks every path without a token.)"""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    a_hash = httpx.get(f"{url}/api/v1/rollouts?limit=1", headers=headers).json()[0]["hash"]
    (tmp_path / "schemathesis.toml").write_text(
        f'[[operations]]\ninclude-path = "/api/v1/rollouts/{{hash}}"\nparameters = '
        f'{{ "path.hash" = "{a_hash}" }}\n'
    )
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run"),
            f"{url}/api/v1/openapi.json",
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--exclude-path", STREAMED, "--exclude-checks", "ignored_auth"),
            *("--max-examples", "12", "--generation-deterministic"),
            *("--no-color", "--continue-on-failure"),
            *("--request-timeout", "20"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    num_operations = len(list(operations())) - 1
    assert f"{num_operations} selected / {num_operations + 1} total" in done.stdout, done.stdout
