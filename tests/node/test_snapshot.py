"""What a snapshot holds, and that whatever goes wrong is said in a warning."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from node.snapshot import LATELY, SHOWN_TASKS, Measured, NodeFacts, make_snapshot, with_connections
from node.status import (
    ForeignFate,
    ForeignGroup,
    LearnerStatus,
    PeerStatus,
    RoundReport,
    Snapshot,
)
from rewards.sandbox import Isolation
from swarm.gossip import Connection, Traffic

FACTS = NodeFacts(
    node_id="me",
    swarm_id="ab" * 32,
    swarm_name="easy",
    home="home",
    model="tiny",
    num_foreign=4,
    shares=True,
    hang_s=100.0,
    started=1000.0,
)
BUSY, QUIET = LearnerStatus(pid=1, stage="updating"), Traffic()
PEER = Connection("peer", "/ip4/127.0.0.1/tcp/1", since=1010.0)
GROUP = ForeignGroup("peer", b"h" * 32, "sums", ForeignFate.USED, 1, 1.0)
REPORT = RoundReport(
    1, 0.5, 0.5, 0.0, 1, 2, 0, 10, 1.0, 1.0, None, 0.0, 1.0, 1e-4, 0.0, {"drawing": 0.1},
    foreign_wanted=4, foreign=(GROUP,) * 4,
)  # fmt: skip


def snapshot(
    measured: Measured | None = None,
    learner: LearnerStatus = BUSY,
    connections: tuple[Connection, ...] = (PEER,),
    traffic: Traffic = QUIET,
    facts: NodeFacts = FACTS,
    addresses: tuple[str, ...] = (),
) -> Snapshot:
    made = measured or with_rounds(REPORT)
    clock = lambda: 1100.0  # noqa: E731
    return make_snapshot(facts, made, learner, connections, traffic, addresses, clock)


def with_rounds(report: RoundReport) -> Measured:
    measured = Measured()
    for number in range(1, LATELY + 1):
        measured.reports.append(msgspec.structs.replace(report, round=number))
    return measured


def test_lag_and_free_disk_are_shown(tmp_path: Path) -> None:
    measured = Measured(lag_s=0.25)
    measured.measure_disk(str(tmp_path))
    assert snapshot(measured).lag_s == 0.25
    assert (snapshot(measured).disk_free or 0) > 0
    measured.measure_disk(str(tmp_path / "gone"))
    assert snapshot(measured).disk_free is None


def test_a_node_that_is_well_has_no_warning() -> None:
    measured = with_rounds(REPORT)
    measured.isolation = Isolation(7, True)
    made = snapshot(measured)
    assert made.warnings == () and made.isolation == Isolation(7, True)
    assert made.own_reward == (0.5,) * LATELY
    assert made.foreign_groups_used == (4,) * LATELY
    assert made.last_round is not None
    assert made.last_round.round == LATELY


def test_peers_of_ledger_and_connections_are_merged_connected_ones_first() -> None:
    known = [PeerStatus("a", connected=False, rollouts_used=3), PeerStatus("peer", connected=False)]
    first, second = with_connections(known, [PEER], now=1100.0)
    assert (first.node_id, first.connected, first.connected_s) == ("peer", True, 90.0)
    assert first.address == PEER.address
    assert (second.node_id, second.connected, second.rollouts_used) == ("a", False, 3)


def refusals() -> Measured:
    measured = with_rounds(REPORT)
    measured.refused = {"wrong_claim": 9, "expired": 2, "not_wanted": 50}
    return measured


def lagging() -> Measured:
    measured = with_rounds(REPORT)
    measured.lag_s = 3.2
    return measured


def suspicious() -> Measured:
    measured = with_rounds(REPORT)
    measured.suspicion = "this node disagrees with 4 of 5 authors"
    measured.tasks_left_out = {"sums": "another digest"}
    return measured


def open_to_files() -> Measured:
    measured = with_rounds(REPORT)
    measured.isolation = Isolation(0, True, ("files can be read: no Landlock",))
    return measured


def without_many_tasks() -> Measured:
    measured = with_rounds(REPORT)
    measured.tasks_left_out = {f"task{number}": "no data" for number in range(SHOWN_TASKS + 2)}
    return measured


REPLACE = msgspec.structs.replace


@pytest.mark.parametrize(
    ("make", "warning"),
    [
        (
            lambda: snapshot(learner=LearnerStatus(restart_in_s=7.0, last_error="Killed")),
            "the learner is down (Killed); next start in 7 s",
        ),
        (
            lambda: snapshot(learner=LearnerStatus(pid=1, restarts=1, last_error="Killed")),
            "the learner was restarted once: Killed",
        ),
        (
            lambda: snapshot(learner=LearnerStatus(pid=1, stage="updating", stage_age_s=51)),
            "updating takes long: 51 s so far; after 2 min the learner is killed and started again "
            "from its checkpoint",
        ),
        (
            lambda: snapshot(learner=LearnerStatus(pid=1, engine_warning="vLLM is not in use: x")),
            "vLLM is not in use: x",
        ),
        (lambda: snapshot(connections=()), "no peer is connected: this node learns alone"),
        (
            lambda: snapshot(with_rounds(REPLACE(REPORT, foreign=()))),
            "learned from nobody in the last 10 rounds",
        ),
        (
            lambda: snapshot(with_rounds(REPLACE(REPORT, foreign=(GROUP,)))),
            "few foreign groups: 10 of 40 wanted in the last 10 rounds",
        ),
        (
            lambda: snapshot(with_rounds(REPLACE(REPORT, update_skipped="no informative group"))),
            "10 of the last 10 updates skipped: no informative group",
        ),
        (
            lambda: snapshot(with_rounds(REPLACE(REPORT, brake="own reward fell from 0.9 to 0.2"))),
            "own reward fell from 0.9 to 0.2",
        ),
        (
            lambda: snapshot(with_rounds(REPLACE(REPORT, num_unscorable=2))),
            "20 own answers of the last 10 rounds unscorable",
        ),
        (lambda: snapshot(refusals()), "all of 11 offers were refused, most as wrong_claim"),
        (
            lambda: snapshot(traffic=Traffic(announcements_dropped=3)),
            "3 announcements were dropped: they come faster than they are read",
        ),
        (
            lambda: snapshot(traffic=Traffic(messages_unsent=2)),
            "2 messages were not sent: a peer is too slow, or this node",
        ),
        (lambda: snapshot(lagging()), "the control process lags: it was held up for 3.2 s"),
        (lambda: snapshot(suspicious()), "this node disagrees with 4 of 5 authors"),
        (
            lambda: snapshot(suspicious()),
            "task sums is left out: another digest",
        ),
        (lambda: snapshot(without_many_tasks()), "2 more tasks are left out"),
        (
            lambda: snapshot(open_to_files()),
            "the verifier's workers are not isolated: files can be read: no Landlock",
        ),
    ],
)
def test_what_goes_wrong_is_said(make: Callable[[], Snapshot], warning: str) -> None:
    assert warning in make().warnings


def test_a_brake_that_is_off_again_is_no_warning() -> None:
    measured = with_rounds(REPLACE(REPORT, brake="own reward fell"))
    measured.reports.append(REPLACE(REPORT, round=LATELY + 1))
    assert snapshot(measured).warnings == ()


def in_mode(mode: str, shares: bool = True) -> NodeFacts:
    return replace(FACTS, mode=mode, shares=shares, num_foreign=0)


IDLE = LearnerStatus(stage="stopped", stage_age_s=0.0)
PUBLIC = "/ip4/198.51.101.7/tcp/8421/p2p/12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p"
PRIVATE = PUBLIC.replace("198.51.101.7", "192.168.1.2")


@pytest.mark.parametrize("mode", ["generate", "observe", "relay"])
def test_a_node_that_does_not_learn_is_not_told_that_it_learns_from_nobody(mode: str) -> None:
    heard = refusals()
    heard.reports.clear()
    if mode == "generate":
        generated = REPLACE(REPORT, foreign_wanted=0, foreign=(), num_groups=0)
        heard.reports.extend(with_rounds(generated).reports)
    learner = BUSY if mode == "generate" else IDLE
    made = snapshot(heard, learner, facts=in_mode(mode), addresses=(PRIVATE, PUBLIC))
    assert (made.warnings, made.mode) == ((), mode)
    (lonely,) = snapshot(
        heard, learner, connections=(), facts=in_mode(mode), addresses=(PUBLIC,)
    ).warnings
    assert lonely.startswith("no peer is connected: ") and "learn" not in lonely


def test_a_relay_that_no_stranger_can_dial_says_so() -> None:
    for addresses in ((), (PRIVATE,)):
        (warning,) = snapshot(
            Measured(), IDLE, facts=in_mode("relay"), addresses=addresses
        ).warnings
        assert "none of this relay's addresses is public" in warning
        assert not snapshot(Measured(), facts=in_mode("observe"), addresses=addresses).warnings


def test_a_node_that_generates_for_nobody_says_so() -> None:
    (warning,) = snapshot(Measured(), facts=in_mode("generate", shares=False)).warnings
    assert warning == "it generates for nobody: swarm.share = 'none'"


def test_a_node_that_wants_to_be_alone_is_not_told_that_it_is() -> None:
    facts = NodeFacts("me", "ab" * 32, "easy", "home", "tiny", 0, False, 100.0, 1000.0)
    alone = with_rounds(REPLACE(REPORT, foreign_wanted=0, foreign=()))
    assert snapshot(alone, connections=(), facts=facts).warnings == ()
