import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from swarm import ledger as ledger_module
from swarm.database import Database, open_database
from swarm.ledger import Ledger, Lie, PeerRecord
from swarm.refusal import Charge, Refusal


@pytest.fixture
def ledger(database: Database, clock: Any) -> Ledger:
    return Ledger(database, clock=clock)


def of(ledger: Ledger, node_id: str) -> PeerRecord:
    return next(peer for peer in ledger.peers() if peer.node_id == node_id)


def test_what_a_peer_did_is_counted(ledger: Ledger, clock: Any) -> None:
    met = clock()
    ledger.count_refused("a", Refusal.BAD_SIGNATURE)
    clock.now += 10
    ledger.count_announcement("a", 24)
    ledger.count_announcement("a", 1)
    ledger.count_fetched("a", 1000)
    ledger.count_fetched("a", 500)
    ledger.count_admitted("a")
    ledger.count_used("a", 2)
    ledger.count_refused("a", Refusal.SEEN, 3)
    ledger.count_refused("b", "too_long_for_model")
    assert of(ledger, "a") == PeerRecord(
        "a",
        first_met=met,
        last_heard=met + 10,
        announcements=2,
        offered=25,
        fetched=2,
        num_bytes=1500,
        admitted=1,
        used=2,
        refused={"bad_signature": 1, "seen": 3},
    )
    assert ledger.refused_totals() == {"bad_signature": 1, "seen": 3, "too_long_for_model": 1}


def test_counts_survive_a_restart_as_of_the_last_flush_and_lies_at_once(
    tmp_path: Path, clock: Any
) -> None:
    with closing(open_database(tmp_path / "a")) as database:
        ledger = Ledger(database, clock=clock)
        ledger.count_announcement("a", 5)
        ledger.flush()
        ledger.count_announcement("b", 1)
        ledger.charge("liar", Refusal.WRONG_CLAIM, [b"announcement", b"rollout"])
        kept = sorted(ledger.peers(), key=str)
        ledger.count_announcement("c", 1)
    with closing(open_database(tmp_path / "a")) as database:
        ledger = Ledger(database, clock=clock)
        assert sorted(ledger.peers(), key=str) == kept
        assert of(ledger, "liar").lies == 1
        assert ledger.refused_totals() == {"wrong_claim": 1}
        (proof,) = ledger.proofs()
        assert (proof.node_id, proof.reason) == ("liar", "wrong_claim")
        assert proof.records == (b"announcement", b"rollout")
        assert ledger.lies("liar") == [Lie("wrong_claim", proof.at, 19)]
        assert ledger.lies("a") == []


def test_peers_are_bounded_and_those_of_worth_are_kept(database: Database, clock: Any) -> None:
    ledger = Ledger(database, max_peers=20, clock=clock)
    ledger.count_used("teacher", 1)
    ledger.charge("liar", Refusal.MISMATCH, [])
    for number in range(100):
        clock.now += 1
        ledger.count_announcement(f"minted {number}", 1)
        ledger.count_refused(f"minted {number}", Refusal.NOT_WANTED)
    names = {peer.node_id for peer in ledger.peers()}
    assert len(names) <= 20
    assert {"teacher", "liar", "minted 99", "minted 90"} <= names and "minted 50" not in names
    assert ledger.refused_totals()["not_wanted"] == 100
    ledger.flush()
    assert {peer.node_id for peer in Ledger(database, clock=clock).peers()} == names


def test_keys_minted_to_lie_do_not_push_out_who_taught(database: Database, clock: Any) -> None:
    ledger = Ledger(database, max_peers=20, clock=clock)
    ledger.count_used("teacher", 1)
    for number in range(100):
        clock.now += 1
        ledger.charge(f"minted {number}", Refusal.MISMATCH, [])
    assert "teacher" in {peer.node_id for peer in ledger.peers()}


def test_proofs_are_bounded_and_lies_are_not(
    database: Database, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PROOFS", 3)
    ledger = Ledger(database, max_proof_bytes=1000, clock=clock)
    for number in range(5):
        ledger.charge("a", Refusal.MISMATCH, [bytes([number])])
    assert [proof.records for proof in ledger.proofs()] == [(b"\x02",), (b"\x03",), (b"\x04",)]
    ledger.charge("a", Refusal.MISMATCH, [bytes(999)])
    assert [proof.records for proof in ledger.proofs()] == [(b"\x04",), (bytes(999),)]
    assert of(ledger, "a").lies == 6


def test_charges_can_be_taken_back(database: Database, ledger: Ledger, clock: Any) -> None:
    ledger.charge("old", Refusal.WRONG_CLAIM, [])
    clock.now += 100
    ledger.charge("a", Refusal.WRONG_CLAIM, [])
    ledger.charge("a", Refusal.WRONG_CLAIM, [])
    ledger.charge("a", Refusal.MISMATCH, [])
    since = clock() - 50
    assert ledger.take_back(Refusal.WRONG_CLAIM, Refusal.DISAGREEMENT, since) == 2
    assert ledger.take_back(Refusal.WRONG_CLAIM, Refusal.DISAGREEMENT, since) == 0
    again = Ledger(database, clock=clock)
    for one in (ledger, again):
        assert of(one, "a").lies == 1
        assert of(one, "a").refused == {"disagreement": 2, "mismatch": 1}
        assert of(one, "old").lies == 1
        assert one.refused_totals() == {"wrong_claim": 1, "disagreement": 2, "mismatch": 1}
        assert [proof.reason for proof in one.proofs()] == ["wrong_claim", "mismatch"]


def test_threads_may_count_while_another_writes(ledger: Ledger, database: Database) -> None:
    def count() -> None:
        for number in range(500):
            ledger.count_fetched(f"peer {number % 7}", 1)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        ledger.flush()
    for thread in threads:
        thread.join()
    ledger.flush()
    for one in (ledger, Ledger(database)):
        assert sum(peer.fetched for peer in one.peers()) == 1500


def test_each_refusal_says_what_it_is_and_who_pays() -> None:
    text = Path(ledger_module.__file__).with_name("refusal.py").read_text()
    for refusal in Refusal:
        line = text.index(f'{refusal.name} = "{refusal.value}"')
        assert text[line:].split("\n")[1].strip().startswith('"""'), refusal
        assert refusal.value == refusal.name.lower()
    free = {one for one in Refusal if one.charge is Charge.NOBODY}
    assert free >= {
        Refusal.EXPIRED,
        Refusal.COPIED,
        Refusal.DISAGREEMENT,
        Refusal.FETCH_FAILED,
        Refusal.HELD_OUT,
        Refusal.UNSCORABLE,
        Refusal.TASK_NOT_JUDGED_HERE,
    }
    carriers = {one for one in Refusal if one.charge is Charge.CARRIER}
    assert carriers == {Refusal.TOO_LARGE, Refusal.MALFORMED, Refusal.BAD_SIGNATURE}
