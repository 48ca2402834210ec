"""Two real nodes, over libp2p, in a swarm with a task of every kind: judged, shared, admitted.

Only the learner is scripted: it answers each question once rightly and once wrongly.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from node.ask import NodeUnreachable, fetch_snapshot
from node.join import join_swarm, read_swarm_file
from rewards.tasks import TaskFacts, TaskSpec
from rewards.verifier import Verifier

SCRIPT = str(Path(__file__).parents[1] / "node" / "run_scripted_node.py")
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("SAPO_")}
DEADLINE_S = 120
NUM_ROWS = 40

SQUARE = "n = int(input())\nprint(n * n)"
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "exact": ("last_line", {}),
    "number": ("tags", {"tolerance": 0.5}),
    "choice": ("boxed", {"choices": "choices"}),
    "math": ("boxed", {}),
    "regex": ("last_line", {"example": "example"}),
    "json": ("last_line", {"example": "example"}),
    "code": ("code_block", {"example": "example"}),
}
"""Check -> answer format, further parameters."""


def row(check: str, number: int) -> dict[str, object]:
    question = f"{check} number {number}"
    match check:
        case "choice":
            return {"question": question, "answer": "B", "choices": ["no", "yes", "perhaps"]}
        case "math":
            return {"question": question, "answer": rf"\frac{{{number}}}{{97}}"}
        case "regex":
            return {
                "question": question,
                "answer": f"a{{{number + 1}}}b*",
                "example": "a" * (number + 1),
            }
        case "json":
            return {"question": question, "answer": {"const": [number]}, "example": f"[{number}]"}
        case "code":
            tests = {"inputs": ["3", str(number)], "outputs": ["9\n", f"{number**2}\n"]}
            return {"question": question, "answer": tests, "example": SQUARE}
    return {"question": question, "answer": str(number)}


def make_swarm(directory: Path) -> Path:
    """A swarm file with a task of every kind, and its data beside it."""
    specs, data = [TaskSpec("sums", "reasoning_gym", "chain_sum", "0.1.25")], {}
    for check, (answer_format, params) in ROWS.items():
        file = directory / f"{check}.jsonl"
        file.write_text("".join(json.dumps(row(check, n)) + "\n" for n in range(NUM_ROWS)))
        version = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
        kind = "code" if check == "code" else "rows"
        params = params if check == "code" else {"check": check, **params}
        specs.append(
            TaskSpec(check, kind, file.name, version, params, answer_format)  # type: ignore[arg-type]
        )
        data[check] = file
    with Verifier(specs, data=data) as verifier:
        described = verifier.describe()
    lines = ['[about]\nname = "all kinds"\n[rules]\nmax_new_tokens = 64\nmax_answer_bytes = 4096']
    for spec in specs:
        facts = described[spec.name]
        assert isinstance(facts, TaskFacts), facts
        fields = msgspec.to_builtins(msgspec.structs.replace(spec, digest=facts.digest))
        lines += ["[[rules.tasks]]", *to_toml(fields)]
        lines += ["[rules.tasks.params]", *to_toml(spec.params)]
    swarm_file = directory / "swarm.toml"
    swarm_file.write_text("\n".join(lines))
    return swarm_file


def to_toml(fields: Mapping[str, object]) -> list[str]:
    """Strings and numbers are written as in JSON."""
    return [
        f"{name} = {json.dumps(value)}"
        for name, value in fields.items()
        if isinstance(value, str | int | float)
    ]


class Node:
    def __init__(self, home: Path, seed: int, bootstrap: str = "") -> None:
        self.home = home
        settings = [
            f"seed={seed}",
            "swarm.foreign=16",
            "batch.peer_share=1",
            "swarm.share=all",
            f"swarm.bootstrap={bootstrap}",
        ]
        with (home / "node.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", SCRIPT, str(home), "exchange", *settings],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        return (self.home / "node.log").read_text(errors="replace")[-3000:]

    def address(self) -> str:
        """Once it listens."""
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                if found := fetch_snapshot(self.home).addresses:
                    return found[0]
            except NodeUnreachable:
                time.sleep(0.05)  # between looks at another process
        raise AssertionError(self.log())

    def exchanged(self) -> set[str]:
        try:
            return set((self.home / "exchanged").read_text().splitlines())
        except FileNotFoundError:
            return set()

    def wait_for(self, lines: set[str]) -> set[str]:
        give_up = time.monotonic() + DEADLINE_S
        while not lines <= (found := self.exchanged()):
            if time.monotonic() > give_up or self.process.poll() is not None:
                raise AssertionError(f"missing {lines - found}\n{self.log()}")
            time.sleep(0.1)  # between looks at another process
        return found


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    swarm_file = make_swarm(tmp_path)
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        join_swarm(read_swarm_file(str(swarm_file)), home)
    first = Node(homes[0], 1)
    second = Node(homes[1], 2, first.address())
    yield first, second
    for node in (first, second):
        if node.process.poll() is None:
            node.process.kill()
        node.process.wait()


@pytest.mark.timeout(300)
def test_two_nodes_judge_and_exchange_answers_of_every_kind(nodes: tuple[Node, Node]) -> None:
    names = ["sums", *ROWS]
    verdicts = "(Judged(correct=True), Judged(correct=False))"
    own = {f"own {name} {verdicts}" for name in names}
    foreign = {f"foreign {name} (True, False)" for name in names}
    for node in nodes:
        assert node.wait_for(own | foreign) == own | foreign
        found = fetch_snapshot(node.home)
        assert found.tasks_left_out == {}
        assert not any(peer.lies for peer in found.peers)
        assert found.refused.get("disagreement", 0) == found.refused.get("unscorable", 0) == 0
    for node in nodes:
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(DEADLINE_S) == 0, node.log()
