"""Why a node does not contribute: a snapshot of each case, and the words for it."""

from pathlib import Path

import msgspec
import pytest

from node.status import ForeignFate, ForeignGroup, PeerStatus, Snapshot
from node.status_json import from_json
from node.why import explain, unusual

replace = msgspec.structs.replace
WHOLE = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
assert WHOLE.last_round is not None
LAST = replace(WHOLE.last_round, brake="", foreign=(), foreign_wanted=4, num_shared=0)
QUIET = replace(
    WHOLE,
    last_round=LAST,
    foreign_groups_used=(0, 0, 0),
    pool=replace(WHOLE.pool, fresh=0, offers=0),
    refused={},
    peers=(PeerStatus("a" * 52, connected=True),),
)
UNUSABLE = ForeignGroup("a" * 52, b"1" * 32, "sums", ForeignFate.TOO_LONG, 1, 2.0)


@pytest.mark.parametrize(
    ("snapshot", "why"),
    [
        (replace(QUIET, last_round=replace(LAST, brake="it fell")), "the brake is on"),
        (replace(QUIET, last_round=replace(LAST, foreign_wanted=0)), "its settings want none"),
        (
            replace(QUIET, last_round=replace(LAST, foreign=(UNUSABLE,))),
            "1 were drawn in the last one and not usable (too_long_for_model)",
        ),
        (replace(QUIET, pool=replace(QUIET.pool, fresh=3)), "3 lie in the pool"),
        (replace(QUIET, pool=replace(QUIET.pool, offers=5)), "5 are announced and not fetched"),
        (QUIET, "no peer has offered anything yet"),
        (replace(QUIET, peers=()), "no peer is connected"),
        (
            replace(
                QUIET,
                peers=(replace(QUIET.peers[0], rollouts_offered=9, rollouts_admitted=1),),
                refused={"seen": 2, "claims_differ\x1b": 6},
            ),
            "of 9 offers 1 were admitted, most others refused as claims_differ\\x1b",
        ),
        (
            replace(QUIET, peers=(replace(QUIET.peers[0], rollouts_offered=9),)),
            "of 9 offers none is at hand now",
        ),
    ],
)
def test_a_node_that_used_nothing_says_why(snapshot: Snapshot, why: str) -> None:
    said = explain(snapshot)
    assert "Of its last 3 rounds, 0 learned from peers: 0 foreign groups" in said
    assert f": {why}" in said and said.isprintable()


def test_a_node_that_used_something_needs_no_reason() -> None:
    used = replace(QUIET, foreign_groups_used=(0,) * 20 + (2, 0))
    assert (
        "Of its last 16 rounds, 1 learned from peers: 2 foreign groups, with 4 wanted in the "
        "last one." in explain(used)
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"zero_advantage_share": 1.0}, "judged alike, which teaches nobody"),
        (
            {"zero_advantage_share": 0.5},
            "its settings share none (swarm.share), or none",
        ),
        ({"num_questions": 0}, "no question was answered"),
    ],
)
def test_a_node_that_shared_nothing_says_why(changes: dict[str, float], why: str) -> None:
    said = explain(replace(QUIET, last_round=replace(LAST, **changes)))
    assert "It shared none of the" in said and why in said
    shared = explain(replace(QUIET, last_round=replace(LAST, num_shared=3)))
    assert f"It shared 3 of the {LAST.num_questions} rollouts of its last round." in shared


def test_before_the_first_round_there_is_nothing_to_blame() -> None:
    fresh = explain(replace(QUIET, last_round=None, foreign_groups_used=()))
    assert "It has shared nothing yet: its first round is not finished." in fresh
    assert "learned from peers" not in fresh


def test_what_is_unusual_ends_the_paragraph_and_is_escaped() -> None:
    assert unusual(replace(QUIET, warnings=())) == ""
    said = unusual(replace(QUIET, warnings=("no peer", "x\x1b[2J" + "y" * 1000)))
    assert said.startswith("Unusual: no peer; x\\x1b[2J") and said.isprintable()
    assert len(said) < 400


def test_that_nobody_is_connected_is_said_once() -> None:
    alone = replace(QUIET, peers=(), warnings=())
    assert "No peer is connected: it learns alone." in explain(alone)
    warned = replace(alone, warnings=("no peer is connected: this node learns alone",))
    assert "No peer is connected" not in explain(warned)
    assert "no peer is connected: this node learns alone" in unusual(warned)


def test_the_stage_may_be_left_out() -> None:
    assert "so far" in explain(QUIET) and "so far" not in explain(QUIET, with_stage=False)
