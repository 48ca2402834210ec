"""One test per lie that a peer can tell, and what is no lie: each through the real path, from the
bytes that a peer sends to what the honest node's ledger says."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, trio_test

from rewards.extract import mark_answer
from rewards.hostile import hostile_answers
from rewards.question import Expansion, Question, is_held_out
from rewards.tasks import TaskSpec
from rewards.verifier import Verifier
from swarm.intake import IntakeLimits
from swarm.judge import ScriptedJudge, VerifierJudge
from swarm.manifest import Rules
from swarm.wire import ANNOUNCEMENT_MAGIC, SEAL_BYTES, rollout_hash

LONG = 100.0
"""Virtual seconds in which everything that is going to happen has happened."""


@pytest.fixture(autouse=True)
def time_is_virtual(request: pytest.FixtureRequest) -> None:
    """Tests that have no real workers run by the mock clock: they take `mock_clock`."""
    assert ("mock_clock" in request.fixturenames) != bool(
        {"verifier", "matrices"} & set(request.fixturenames)
    )


# What honest nodes say.


@trio_test
async def test_an_honest_rollout_lands_in_the_pool(swarm: Any, mock_clock: MockClock) -> None:
    author, node = swarm.node(), swarm.node()
    async with swarm.running():
        assert await author.share() == 1
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
    assert node.refused == author.refused == {}
    (peer,) = node.ledger.peers()
    assert (peer.announcements, peer.offered, peer.fetched, peer.admitted) == (1, 1, 1, 1)
    assert peer.num_bytes == node.intake.stats().fetched_bytes > 0


@trio_test
async def test_special_tokens_are_text(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        await peer.offer(texts=("7", "<|im_end|><|endoftext|>"))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1


@trio_test
async def test_slow_judges_cost_nobody_anything(swarm: Any, mock_clock: MockClock) -> None:
    nodes = [swarm.node(ScriptedJudge(delay_s=0.2 * (10 if slow else 1))) for slow in (0, 0, 1, 1)]
    async with swarm.running():
        for number, node in enumerate(nodes):
            await node.share(index=number, texts=(str(number), "no", "no", "no"))
        await trio.sleep(LONG)
        assert [await node.num_fresh() for node in nodes] == [3, 3, 3, 3]
    assert [node.refused for node in nodes] == [{}] * 4
    times = [node.intake.stats().announced_to_pool_s for node in nodes]
    assert max(times[:2]) * 5 < min(times[2:])


@trio_test
async def test_a_node_with_another_digest_does_not_judge(swarm: Any, mock_clock: MockClock) -> None:
    author, node = swarm.node(), swarm.node(judged_tasks=("code",))
    async with swarm.running():
        await author.share()
        await trio.sleep(LONG)
    assert node.refused == {"task_not_judged_here": 1}
    assert node.num_lies == 0 and node.intake.stats().fetched_bytes == 0


@trio_test
async def test_a_late_rollout_is_waited_for(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node()
    record = peer.rollout()
    async with swarm.running():
        await peer.announce(peer.entry(record))
        await trio.sleep(4)
        assert peer.num_asked == 1 and await node.num_fresh() == 0
        peer.serve(record)
        await trio.sleep(LONG)
        assert peer.num_asked == 2 and await node.num_fresh() == 1
    assert node.refused == {}


@trio_test
async def test_a_rollout_that_never_comes_is_refused_for_free(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        await peer.announce(peer.entry(peer.rollout()))
        await trio.sleep(LONG)
        assert peer.num_asked == 3
    assert node.refused == {"fetch_failed": 1}
    assert node.num_lies == 0 and node.intake.stats().offers == 0


@trio_test
async def test_offers_of_a_peer_that_is_gone_wait_for_it(swarm: Any, mock_clock: MockClock) -> None:
    peer, node = swarm.peer(), swarm.node()
    async with swarm.running():
        swarm.network.partition([peer.node_id], [node.node_id])
        record = peer.serve(peer.rollout())
        node.gossip.deliver(peer.announcement(peer.entry(record)), "a carrier")
        await trio.sleep(LONG)
        assert node.intake.stats().offers == 1 and peer.num_asked == 0
        swarm.network.heal()
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
        swarm.network.partition([peer.node_id], [node.node_id])
        node.gossip.deliver(peer.announcement(peer.entry(peer.rollout(9), 9), sequence=5), "a")
        await trio.sleep(3600 + LONG)
        node.intake.wake()
        await trio.sleep(LONG)
    assert node.refused == {"expired": 1} and node.intake.stats().offers == 0


@trio_test
async def test_a_carrier_may_serve_what_it_brought(swarm: Any, mock_clock: MockClock) -> None:
    author, carrier, node = swarm.peer(), swarm.peer(), swarm.node()
    record = carrier.serve(author.rollout())
    async with swarm.running():
        swarm.network.leave(author.node_id)
        node.gossip.deliver(author.announcement(author.entry(record)), carrier.node_id)
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
    assert node.refused == {}


@trio_test
async def test_a_node_whose_own_verifier_is_wrong_charges_nobody(
    swarm: Any, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    judge = ScriptedJudge(is_wrong=True)
    node = swarm.node(judge)
    peers = [swarm.peer() for _ in range(7)]
    async with swarm.running():
        for number, peer in enumerate(peers[:4]):
            await peer.offer(number, (str(number), "no"))
        await trio.sleep(LONG)
        assert node.num_lies == 4 and not node.intake.suspicion
        for number, peer in enumerate(peers[4:], start=4):
            await peer.offer(number, (str(number), "no"))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 0
    assert node.refused == {"disagreement": 7}
    assert judge.calls["judge_afresh"] == 4, "none is spent once it suspects itself"
    assert node.num_lies == 0
    assert "7 of 7 authors" in node.intake.suspicion
    assert caplog.text.count("suspects itself") == 1
    assert "4 charges for wrong claims are taken back" in caplog.text


# What liars say.


@trio_test
async def test_a_wrong_claim_is_charged_once_a_fresh_worker_agrees(
    swarm: Any, mock_clock: MockClock
) -> None:
    judge = ScriptedJudge()
    liar, node = swarm.peer(), swarm.node(judge)
    async with swarm.running():
        record = await liar.offer(correct=(False, True))
        await trio.sleep(LONG)
        await liar.announce(liar.entry(record, correct=(False, True)))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 0
        (proof,) = await node.offload(node.ledger.proofs)
    assert node.refused == {"wrong_claim": 1, "seen": 1}
    assert node.lies_of(liar) == 1 and judge.calls["judge_afresh"] == 1
    assert (proof.node_id, proof.reason, proof.records[1]) == (liar.node_id, "wrong_claim", record)


@trio_test
async def test_a_fresh_worker_that_disagrees_acquits(swarm: Any, mock_clock: MockClock) -> None:
    judge = ScriptedJudge()
    judge.is_fickle = True
    peer, node = swarm.peer(), swarm.node(judge)
    async with swarm.running():
        await peer.offer(correct=(False, True))
        await trio.sleep(LONG)
    assert node.refused == {"disagreement": 1} and node.num_lies == 0


@trio_test
async def test_one_author_gets_one_fresh_worker_a_minute(swarm: Any, mock_clock: MockClock) -> None:
    judge = ScriptedJudge()
    liar, node = swarm.peer(), swarm.node(judge)
    async with swarm.running():
        for index in range(5):
            await liar.offer(index, (str(index), "no"), correct=(False, True))
        await trio.sleep(30)
        assert node.refused == {"wrong_claim": 1, "disagreement": 4}
        await trio.sleep(60)
        await liar.offer(9, ("9", "no"), correct=(False, True))
        await trio.sleep(LONG)
    assert node.lies_of(liar) == judge.calls["judge_afresh"] == 2


@trio_test
async def test_a_task_that_measures_time_never_charges(swarm: Any, mock_clock: MockClock) -> None:
    judge = ScriptedJudge()
    peer, node = swarm.peer(), swarm.node(judge)
    question = Question("code", 7)
    async with swarm.running():
        record = peer.serve(peer.rollout(question=question))
        await peer.announce(peer.entry(record, correct=(False, True), question=question))
        await trio.sleep(LONG)
    assert node.refused == {"disagreement": 1}
    assert node.num_lies == judge.calls["judge_afresh"] == 0


@trio_test
async def test_a_hostile_answer_costs_one_deadline_and_nobody_pays(
    swarm: Any, mock_clock: MockClock
) -> None:
    judge = ScriptedJudge()
    peer, node = swarm.peer(), swarm.node(judge)
    async with swarm.running():
        await peer.offer(texts=("7", "hang", "hang", "hang"), correct=(True, False, False, False))
        await trio.sleep(LONG)
    assert node.refused == {"unscorable": 1} and node.num_lies == 0
    assert judge.calls["judge"] == 2


@trio_test
async def test_a_held_out_question_is_not_learned_from(swarm: Any, mock_clock: MockClock) -> None:
    index = next(index for index in range(1000) if is_held_out(f"sums: say {index}"))
    judge = ScriptedJudge()
    peer, node = swarm.peer(), swarm.node(judge)
    async with swarm.running():
        await peer.offer(index, (str(index), "no"))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 0
    assert node.refused == {"held_out": 1} and judge.calls["judge"] == 0


@trio_test
async def test_rules_that_the_swarm_does_not_have_are_charged_once_an_announcement(
    swarm: Any, mock_clock: MockClock
) -> None:
    liar, node = swarm.peer(), swarm.node()
    unknown = [
        liar.entry(liar.rollout(index), question=Question("nope\x1b", index)) for index in range(3)
    ]
    many = liar.entry(liar.rollout(), correct=(True, False) * 5)
    async with swarm.running():
        record = await liar.announce(*unknown, many)
        await trio.sleep(LONG)
        proofs = await node.offload(node.ledger.proofs)
    assert node.refused == {"unknown_task": 3, "too_many_answers": 1}
    assert node.lies_of(liar) == 2 and liar.num_asked == 0
    assert [proof.records for proof in proofs] == [(record,)] * 2


@trio_test
async def test_an_answer_longer_than_the_swarm_allows_is_charged(
    swarm: Any, mock_clock: MockClock
) -> None:
    judge = ScriptedJudge()
    liar, node = swarm.peer(), swarm.node(judge)
    async with swarm.running():
        await liar.offer(7, ("7", "é" * 500))
        await liar.offer(8, ("8", "é" * 501))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
    assert node.refused == {"too_long": 1} and node.lies_of(liar) == 1


@trio_test
async def test_what_is_served_is_bounded_before_it_is_read(
    swarm: Any, mock_clock: MockClock
) -> None:
    liar, node = swarm.peer(), swarm.node()
    nothing = bytes(50 * 2**20)

    async def serve(request: bytes) -> bytes:
        return nothing

    liar.gossip.serve = serve
    async with swarm.running():
        tracemalloc.start()
        await liar.announce(liar.entry(liar.rollout()))
        await trio.sleep(LONG)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert node.refused == {"fetch_failed": 1} and node.num_lies == 0
    assert node.intake.stats().fetched_bytes == 0
    assert peak < 2**21


@trio_test
async def test_more_than_was_announced_is_a_mismatch(swarm: Any, mock_clock: MockClock) -> None:
    liar, node = swarm.peer(), swarm.node()
    async with swarm.running():
        record = liar.serve(liar.rollout(model="m" * 200))
        await liar.announce(liar.entry(record, num_bytes=100))
        await trio.sleep(LONG)
    assert node.refused == {"mismatch": 1} and node.lies_of(liar) == 1


@trio_test
@pytest.mark.parametrize(
    "lie",
    [
        {"question": Question("sums", 8)},
        {"correct": (True, False, False)},
        {"policy_round": 4},
    ],
    ids=lambda lie: next(iter(lie)),
)
async def test_another_rollout_than_was_announced_is_charged(
    swarm: Any, mock_clock: MockClock, lie: dict[str, Any]
) -> None:
    liar, node = swarm.peer(), swarm.node()
    async with swarm.running():
        await liar.announce(liar.entry(liar.serve(liar.rollout()), **lie))
        await trio.sleep(LONG)
    assert node.refused == {"mismatch": 1} and node.lies_of(liar) == 1


@trio_test
async def test_a_sequence_from_later_is_charged_and_one_from_before_is_not(
    swarm: Any, mock_clock: MockClock
) -> None:
    liar, node = swarm.peer(), swarm.node()
    async with swarm.running():
        later = liar.serve(liar.rollout(7, sequence=liar.sequence + 1))
        before = liar.serve(liar.rollout(8, ("8", "no"), sequence=liar.sequence - 1))
        await liar.announce(liar.entry(later), liar.entry(before, 8))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
    assert node.refused == {"mismatch": 1} and node.lies_of(liar) == 1


@trio_test
async def test_an_announcement_in_somebodys_name_costs_its_carrier(
    swarm: Any, mock_clock: MockClock
) -> None:
    liar, victim, node = swarm.peer(), swarm.peer(), swarm.node()
    async with swarm.running():
        genuine = victim.announcement(victim.entry(victim.rollout()))
        forged = genuine[:SEAL_BYTES] + genuine[SEAL_BYTES:].replace(b"sums", b"summ")
        await liar.gossip.announce(forged)
        await trio.sleep(LONG)
    assert node.refused_of(liar) == {"bad_signature": 1}
    assert node.refused_of(victim) == {} and node.num_lies == 0


@trio_test
async def test_a_rollout_in_somebodys_name_is_charged_to_the_announcer(
    swarm: Any, mock_clock: MockClock
) -> None:
    liar, victim, node = swarm.peer(), swarm.peer(), swarm.node()
    genuine = victim.rollout()
    forged = liar.serve(genuine[:SEAL_BYTES] + genuine[SEAL_BYTES:].replace(b"sums", b"summ"))
    broken = liar.serve(genuine[:-1])
    async with swarm.running():
        await liar.announce(liar.entry(forged), liar.entry(broken, 8))
        await trio.sleep(LONG)
    assert node.refused_of(liar) == {"rollout_bad_signature": 1, "rollout_malformed": 1}
    assert node.lies_of(liar) == 2 and node.lies_of(victim) == 0


@trio_test
async def test_who_announces_somebody_elses_rollout_pays_and_keeps_nothing_out(
    swarm: Any, mock_clock: MockClock
) -> None:
    thief, author, node = swarm.peer(), swarm.peer(), swarm.node()
    record = thief.serve(author.serve(author.rollout()))
    async with swarm.running():
        await thief.announce(thief.entry(record))
        await trio.sleep(LONG)
        await thief.announce(thief.entry(record, num_bytes=1))
        await trio.sleep(LONG)
        await author.announce(author.entry(record))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
    assert node.refused_of(thief) == {"not_the_announcers": 1, "mismatch": 1}
    assert node.lies_of(thief) == 2
    assert node.refused_of(author) == {} and node.lies_of(author) == 0


@trio_test
async def test_two_announcements_of_one_sequence_are_one_lie(
    swarm: Any, mock_clock: MockClock
) -> None:
    liar, node = swarm.peer(), swarm.node()
    variants = [
        liar.announcement(liar.entry(liar.serve(liar.rollout(index, (str(index), "no"))), index))
        for index in (7, 8, 9)
    ]
    async with swarm.running():
        for record in variants:
            await liar.gossip.announce(record)
        await trio.sleep(LONG)
        proofs = await node.offload(node.ledger.proofs)
        assert await node.num_fresh() == 1
    assert node.refused == {"equivocation": 1, "repeated": 1}
    assert node.lies_of(liar) == 1
    assert [proof.records for proof in proofs] == [tuple(variants[:2])]


@trio_test
async def test_garbage_costs_its_carrier(swarm: Any, mock_clock: MockClock) -> None:
    liar, node = swarm.peer(), swarm.node()
    async with swarm.running():
        await liar.gossip.announce(ANNOUNCEMENT_MAGIC + bytes(range(200)))
        await liar.gossip.announce(ANNOUNCEMENT_MAGIC)
        await liar.gossip.announce(ANNOUNCEMENT_MAGIC + bytes(64) + b"\x91" * 5000)
        await trio.sleep(LONG)
    assert node.refused_of(liar) == {"malformed": 3} and node.num_lies == 0


@trio_test
async def test_old_announcements_cost_nobody_anything(swarm: Any, mock_clock: MockClock) -> None:
    liar, author, node = swarm.peer(), swarm.peer(), swarm.node()
    record = author.serve(author.rollout())
    announcement = author.announcement(author.entry(record))
    elsewhere = author.announcement(author.entry(record), swarm_id="6" * 64)
    early = author.announcement(author.entry(record), created=swarm.clock() + 601)
    async with swarm.running():
        await liar.gossip.announce(elsewhere)
        await liar.gossip.announce(early)
        await trio.sleep(3600 + 600 + 1)
        await liar.gossip.announce(announcement)
        await trio.sleep(LONG)
        assert await node.num_fresh() == 0 and author.num_asked == 0
    assert node.refused_of(liar) == {"wrong_swarm": 1, "expired": 1}
    assert node.refused_of(author) == {"from_the_future": 1}
    assert node.num_lies == 0


@trio_test
async def test_a_node_does_not_listen_to_itself(swarm: Any, mock_clock: MockClock) -> None:
    liar, author, node = swarm.peer(), swarm.node(), swarm.node()
    heard: list[bytes] = []
    liar.gossip.deliver = lambda record, *_: heard.append(record)
    async with swarm.running():
        await author.share()
        (record,) = heard
        swarm.network.leave(author.node_id)
        author.gossip = swarm.network.join(author.node_id, author.find)  # it forgot what it sent
        author.intake._gossip = author.gossip
        async with trio.open_nursery() as nursery:
            nursery.start_soon(author.intake.run)
            await liar.gossip.announce(record)
            await trio.sleep(LONG)
            nursery.cancel_scope.cancel()
    assert author.refused == {"own": 1} and author.num_lies == 0
    assert node.refused == {}


@trio_test
async def test_a_copy_is_refused_for_free(swarm: Any, mock_clock: MockClock) -> None:
    author, copier, node = swarm.peer(), swarm.peer(), swarm.node()
    async with swarm.running():
        await author.offer()
        await trio.sleep(LONG)
        await copier.offer()
        await author.offer(texts=("8", "7"), correct=(False, True))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 2
    assert node.refused_of(copier) == {"copied": 1} and node.num_lies == 0


@trio_test
async def test_copies_that_are_judged_at_once_are_noticed(
    swarm: Any, mock_clock: MockClock
) -> None:
    peers, node = [swarm.peer() for _ in range(3)], swarm.node(ScriptedJudge(delay_s=1))
    async with swarm.running():
        for peer in peers:
            await peer.offer()
        await trio.sleep(LONG)
        assert await node.num_fresh() == 1
    assert node.refused == {"copied": 2} and node.num_lies == 0


@trio_test
async def test_the_rollout_of_another_swarm_is_not_taken(swarm: Any, mock_clock: MockClock) -> None:
    liar, node = swarm.peer(), swarm.node()
    async with swarm.running():
        elsewhere = liar.serve(liar.rollout(7, swarm_id="6" * 64))
        early = liar.serve(liar.rollout(8, created=swarm.clock() + 700))
        old = liar.serve(liar.rollout(9, created=swarm.clock() - 4300))
        await liar.announce(liar.entry(elsewhere), liar.entry(early, 8), liar.entry(old, 9))
        await trio.sleep(LONG)
        assert await node.num_fresh() == 0
    assert node.refused == {"wrong_swarm": 1, "from_the_future": 1, "expired": 1}
    assert node.num_lies == 0


@trio_test
async def test_one_peer_that_hangs_does_not_stop_the_others(
    swarm: Any, mock_clock: MockClock
) -> None:
    hanging, honest, node = (
        swarm.peer(),
        swarm.peer(),
        swarm.node(limits=IntakeLimits(max_fetches=1)),
    )

    async def serve(request: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    hanging.gossip.serve = serve
    async with swarm.running():
        for index in range(40):
            await hanging.announce(hanging.entry(hanging.rollout(index), index))
        await honest.offer(50, ("50", "no"))
        await trio.sleep(1000)
        assert await node.num_fresh() == 1
    assert node.num_lies == 0


# With real workers.

MATRICES = TaskSpec("matrices", "reasoning_gym", "binary_matrix", "0.1.25", answer_format="tags")


@pytest.fixture(scope="module")
def matrices() -> Iterator[Verifier]:
    with Verifier([MATRICES]) as verifier:
        yield verifier


def training_question(verifier: Verifier, task: str) -> Expansion:
    expansions = verifier.expand([Question(task, index) for index in range(20)])
    return next(
        one for one in expansions if isinstance(one, Expansion) and not is_held_out(one.text)
    )


@trio_test
async def test_code_in_an_answer_is_not_run(swarm: Any, matrices: Verifier, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    touch = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    expansion = await trio.to_thread.run_sync(training_question, matrices, "matrices")
    texts = [
        touch,
        f"<answer>{touch}</answer>",
        f"<answer>[{touch}]</answer>",
        f"<answer>{expansion.truth}</answer>",
    ]
    rules = Rules((MATRICES,), max_new_tokens=16, max_answer_bytes=1000, max_answers=8)
    node = swarm.node(VerifierJudge(matrices), rules, judged_tasks=("matrices",))
    peer = swarm.peer()
    async with swarm.running():
        record = peer.serve(peer.rollout(texts=texts, question=expansion.question))
        correct = (False, False, False, True)
        await peer.announce(peer.entry(record, question=expansion.question, correct=correct))
        await swarm.until(lambda: node.intake.stats().num_admitted == 1 or node.refused)
        assert await node.num_fresh() == 1
    assert node.refused == {} and not canary.exists()


@trio_test
async def test_hostile_answers_are_admitted_as_wrong_and_hurt_nobody(
    swarm: Any, matrices: Verifier, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    by_kind = hostile_answers(canary, num_bytes=900)
    hostile = [text for texts in by_kind.values() for text in texts]
    hostile += [mark_answer(text, "tags") for text in hostile]
    expansion = await trio.to_thread.run_sync(training_question, matrices, "matrices")
    question, right = expansion.question, mark_answer(expansion.truth, "tags")
    rules = Rules((MATRICES,), max_new_tokens=16, max_answer_bytes=1100, max_answers=50)
    node = swarm.node(
        *(VerifierJudge(matrices), rules),
        judged_tasks=("matrices",),
        max_from_one_author=16,
        fresh_target=16,
    )
    stranger, honest = swarm.peer(), swarm.peer()
    lost = matrices.stats.workers_lost
    async with swarm.running():
        num_shared = 0
        for peer, texts in (
            *((stranger, hostile[first : first + 49]) for first in range(0, len(hostile), 49)),
            (honest, ["no"]),
        ):
            record = peer.serve(peer.rollout(texts=[*texts, right], question=question))
            correct = (*(False for _ in texts), True)
            await peer.announce(peer.entry(record, question=question, correct=correct))
            num_shared += 1
            await swarm.until(
                lambda num=num_shared: node.intake.stats().num_admitted == num or node.refused
            )
            assert node.refused == {}
        assert await node.num_fresh() == num_shared
    assert matrices.stats.workers_lost == lost and not canary.exists()


@trio_test
async def test_real_workers_tell_a_true_claim_from_a_wrong_one(
    swarm: Any, verifier: Verifier
) -> None:
    expansion = await trio.to_thread.run_sync(training_question, verifier, "sums")
    question, texts = expansion.question, (expansion.truth, "no")
    honest, liar, node = swarm.peer(), swarm.peer(), swarm.node(VerifierJudge(verifier))
    started = verifier.stats.workers_started
    async with swarm.running():
        for peer, texts, correct in (
            (honest, (expansion.truth, "no"), (True, False)),
            (liar, (expansion.truth, "nay"), (False, True)),
        ):
            record = peer.serve(peer.rollout(texts=texts, question=question))
            await peer.announce(peer.entry(record, question=question, correct=correct))
        await swarm.until(lambda: node.intake.stats().num_admitted == 1 and node.refused)
        (pooled,) = await node.offload(node.pool.draw, 5, 5, swarm.rng)
    assert node.refused_of(liar) == {"wrong_claim": 1} and node.lies_of(liar) == 1
    assert node.refused_of(honest) == {} and node.lies_of(honest) == 0
    assert pooled.expansion == expansion and pooled.correct == (True, False)
    assert pooled.hash == rollout_hash(next(iter(honest.served.values())))
    assert verifier.stats.workers_started == started + 1
