"""Stands for `sapo run` in tests of the demo: an API that says what a node would, and no learning.

    python fake_demo_node.py HOME/node.toml MODE

Modes: "done" has made all rounds; "busy" never will, until HOME/go exists, and has lost
its learner once when HOME/learner-died exists; "wrong" has wrong
settings; "dying" ends at once; "deaf" does not heed SIGTERM. "busy" and "deaf" have a child in a
session of its own, as a learner is, which would live for ever; its number stands in HOME/child.
"""

import signal
import subprocess
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from node.access import open_token, write_address
from node.evaluate import Accuracy, HeldOut, read_heldout, write_heldout
from node.status import (
    ForeignFate,
    ForeignGroup,
    LearnerStatus,
    PeerStatus,
    PoolStatus,
    RoundReport,
    Snapshot,
)
from node.status_json import to_json


def reports(rounds: int, num_foreign: int) -> list[RoundReport]:
    used = ForeignGroup("12D3peer", b"h", "a", ForeignFate.USED, policy_round=1, age_s=1.0)
    return [
        RoundReport(
            round=number,
            own_reward=number / rounds,
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
            seconds={"generating": 0.5},
            foreign_wanted=num_foreign,
            foreign=(used,) * num_foreign,
            finished_at=time.time() + number,
        )
        for number in range(1, rounds + 1)
    ]


class Answers(BaseHTTPRequestHandler):
    home: Path
    mode: str
    made: list[RoundReport]

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {open_token(self.home)}":
            self.send_error(401)
            return
        since = int(self.path.partition("since=")[2].partition("&")[0] or 0)
        body = to_json(self.made[since:] if "rounds" in self.path else self.snapshot())
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def snapshot(self) -> Snapshot:
        is_done = self.mode == "done" or (self.home / "go").exists()
        return Snapshot(
            node_id="12D3fake",
            version="0",
            swarm_id="",
            swarm_name="",
            home=str(self.home),
            started=0.0,
            now=1.0,
            learner=LearnerStatus(
                round=len(self.made) if is_done else 0,
                engine="scripted",
                is_done=is_done,
                restarts=int((self.home / "learner-died").exists()),
                last_error="ended by signal: Killed\x1b",
            ),
            pool=PoolStatus(),
            peers=(PeerStatus("12D3peer", connected=True, rollouts_used=7),),
            last_round=None,
            own_reward=(),
            foreign_groups_used=(),
            refused={"stale": 2},
            heldout=(),
            addresses=(),
            warnings=(),
            bytes_sent=10,
            memory_mib={"control": 50.0},
        )


def main() -> None:
    file, mode = Path(sys.argv[1]), sys.argv[2]
    home = file.parent
    settings = tomllib.loads(file.read_text())
    if mode == "wrong":
        sys.stderr.write("sapo: rollout.engine = 'vlm' \x1b[2J\n\n")
        sys.exit(2)
    if mode == "dying":
        sys.exit(1)
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode in {"busy", "deaf"}:
        child = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
        (home / "child").write_text(str(child.pid))
    if read_heldout(home / "heldout"):
        (home / "took-over").touch()
    for number, share in ((0, 0.0), (settings["rounds"], 1.0)):
        shares, tasks = (share, 0.5) * 4, ("a", "b") * 4
        write_heldout(home / "heldout", number, HeldOut(shares, tasks, 2, Accuracy(share, 0.1, 8)))
    Answers.home, Answers.mode = home, mode
    Answers.made = reports(settings["rounds"], settings.get("swarm", {}).get("foreign", 4))
    server = HTTPServer(("127.0.0.1", 0), Answers)
    open_token(home)
    with write_address(home, server.socket):
        server.serve_forever()


if __name__ == "__main__":
    main()
