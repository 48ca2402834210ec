"""The terminal's view of a node."""

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from rich.console import Console

from node.config import Mode
from node.report import print_peers, print_status
from node.status import WHAT_IT_DOES, Snapshot, Stage
from node.status_json import from_json
from node.words import short_id, size, span

SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)


def shown(show: Callable[[Console], None], width: int = 300, colors: bool = False) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width, force_terminal=colors, no_color=not colors))
    return out.getvalue()


def status_of(snapshot: Snapshot, width: int = 2000) -> str:
    return shown(partial(print_status, snapshot), width)


def test_the_status_says_in_words_what_it_does_and_what_is_unusual() -> None:
    text = status_of(SNAPSHOT)
    paragraph = text.partition("mode  ")[0]
    assert "Unusual: vLLM does not work here" in paragraph
    for part in (
        "in the swarm easy runs since",
        "has made 124 of 700 rounds. It generates answers, and waits for the engine, for 3.2 s so",
        "Of its last 6 rounds, 5 learned from peers: 14 foreign groups, with 4 wanted in the",
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
    assert "It is starting, and waits for the model to be loaded" in text
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


def test_a_ban_is_shown_with_its_end_and_reason() -> None:
    replace = msgspec.structs.replace
    peer = replace(SNAPSHOT.peers[0], banned=True, banned_until=1e9, ban_reason="lies\x1b[2J")
    banned = replace(SNAPSHOT, peers=(peer,))
    assert re.search(
        r"banned until 2001-09-0\d \d\d:\d\d: lies\\x1b", shown(partial(print_peers, banned))
    )
    good = replace(SNAPSHOT, peers=(replace(peer, banned_until=None, ban_reason=""),))
    assert "banned for good\n" in shown(partial(print_peers, good))
    assert "banned" not in shown(partial(print_peers, SNAPSHOT))


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
