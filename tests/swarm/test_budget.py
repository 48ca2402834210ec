"""How long peers can occupy the verifier: one, many, and beside the node's own answers."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, trio_test

import rewards
from rewards.question import Answer, Judged, Question
from rewards.tasks import TaskSpec
from rewards.verifier import Limits, Verifier
from swarm.budget import MAX_AUTHORS, TOTAL_BURSTS, Budget, BudgetLimits
from swarm.intake import IntakeLimits
from swarm.judge import ScriptedJudge, VerifierJudge
from swarm.manifest import Rules

TIGHT = BudgetLimits(author_burst_s=20, author_share=0.1, total_share=0.5)
HANG_S = 5.0
HANGS = {"hang": HANG_S}
TESTS = Path(__file__).parents[1]
HOSTILE = (
    *(sys.executable, "-P", str(TESTS / "rewards" / "hostile_worker.py")),
    str(Path(rewards.__file__).resolve().parents[1]),
)
OBEDIENT = TaskSpec("obedient", "obedient", "", "1")


@pytest.fixture
def budget(clock: Any) -> Budget:
    return Budget(TIGHT, clock)


def test_an_author_may_use_a_burst_and_then_its_share(budget: Budget, clock: Any) -> None:
    budget.spend("a", 19)
    assert budget.allows("a") and not budget.has_room("a")
    budget.spend("a", 2)
    assert not budget.allows("a") and budget.allows("b") and budget.has_room("b")
    clock.now += 9
    assert not budget.allows("a")
    clock.now += 2
    assert budget.allows("a") and not budget.has_room("a")
    clock.now += 100
    assert budget.has_room("a")


def test_what_was_not_used_is_not_saved_up(budget: Budget, clock: Any) -> None:
    budget.spend("a", 1)
    clock.now += 10_000
    budget.spend("a", 20)
    assert not budget.allows("a")


def test_all_authors_together_wait_beyond_their_bound(budget: Budget, clock: Any) -> None:
    for number in range(10):
        budget.spend(f"minted {number}", TOTAL_BURSTS * 2)
    assert budget.wait_s == 0
    budget.spend("minted", 5)
    assert budget.wait_s == pytest.approx(10)
    clock.now += 6
    assert budget.wait_s == pytest.approx(4)
    assert budget.allows("who did nothing")


def test_the_memory_of_debts_is_bounded(budget: Budget, clock: Any) -> None:
    budget.spend("worst", 30)
    for number in range(2 * MAX_AUTHORS):
        budget.spend(f"minted {number}", 1)
        clock.now += 0.001
    assert len(budget._paid_off) <= MAX_AUTHORS
    assert not budget.allows("worst")
    clock.now += 10_000
    for number in range(MAX_AUTHORS):
        budget.spend(f"minted {number}", 1)
    budget.spend("one more", 1)
    assert "worst" not in budget._paid_off


def test_an_author_of_programs_never_meets_its_budget(clock: Any) -> None:
    budget = Budget(clock=clock)
    for _ in range(1000):
        assert budget.has_room("a")
        for _ in range(8):
            assert budget.allows("a") and budget.wait_s == 0
            budget.spend("a", 0.1)
        clock.now += 10


@trio_test
async def test_a_hostile_author_is_cut_off_and_an_honest_one_is_served(
    swarm: Any, mock_clock: MockClock
) -> None:
    judge = ScriptedJudge(costs_s=HANGS)
    hostile, honest = swarm.peer(), swarm.peer()
    node = swarm.node(judge, fresh_target=4, limits=IntakeLimits(budget=TIGHT))
    async with swarm.running():
        for index in range(60):
            await hostile.offer(index, ("hang", str(index)))
        await trio.sleep(200)
        at_once = TIGHT.author_burst_s + HANG_S
        assert TIGHT.author_burst_s <= judge.held_s <= at_once + 200 * TIGHT.author_share
        for index in range(100, 104):
            await honest.offer(index, (str(index), "no"))
        await trio.sleep(60)
        num_admitted = node.intake.stats().num_admitted
        assert num_admitted == 4 - node.refused_of(honest).get("held_out", 0)
        await node.offload(node.pool.draw, 4, 4, swarm.rng)
        node.intake.wake()
        before = judge.held_s
        await trio.sleep(1000)
        assert before < judge.held_s <= at_once + 1260 * TIGHT.author_share
    refused = node.refused_of(hostile)
    assert refused["unscorable"] == judge.held_s / HANG_S and refused["over_budget"] > 0
    assert node.refused_of(honest).keys() <= {"held_out"} and node.num_lies == 0


@trio_test
async def test_an_author_over_its_budget_is_not_fetched_from(
    swarm: Any, mock_clock: MockClock
) -> None:
    peer, node = swarm.peer(), swarm.node(ScriptedJudge(costs_s=HANGS | {"7": 19.0}))
    node.intake._admission.budget = budget = Budget(TIGHT)
    async with swarm.running():
        await peer.offer()
        await trio.sleep(20)
        assert node.intake.stats().num_admitted == 1
        num_asked = peer.num_asked
        await peer.offer(8, ("8", "no"))
        await trio.sleep(60)
        assert peer.num_asked == num_asked and not budget.has_room(peer.node_id)
        assert node.intake.stats().offers == 1 and node.refused == {}
        await trio.sleep(60)
        assert node.intake.stats().num_admitted == 2


@trio_test
async def test_a_rollout_is_judged_until_the_budget_is_gone(
    swarm: Any, mock_clock: MockClock
) -> None:
    judge = ScriptedJudge(costs_s={"no": 10.0})
    peer, node = swarm.peer(), swarm.node(judge, limits=IntakeLimits(budget=TIGHT))
    async with swarm.running():
        record = await peer.offer(7, ("7", "no", "no", "no", "no"), (True, *(False,) * 4))
        await trio.sleep(100)
        assert node.refused == {"over_budget": 1} and node.num_lies == 0
        assert judge.calls["judge"] == 4
        judge.costs_s = {}
        entry = peer.entry(record, correct=(True, *(False,) * 4))
        await peer.announce(entry)  # what was refused for its cost alone may be offered again
        await trio.sleep(300)
        assert node.intake.stats().num_admitted == 1


@trio_test
async def test_waiting_costs_no_author_anything(swarm: Any, mock_clock: MockClock) -> None:
    peer = swarm.peer()
    node = swarm.node(ScriptedJudge(delay_s=15), limits=IntakeLimits(budget=TIGHT))
    async with swarm.running():
        for index in (7, 8, 9):
            await peer.offer(index, (str(index), "no"))
        await trio.sleep(1000)
    assert node.intake.stats().num_admitted == 3 and node.refused == {}


@trio_test
async def test_second_opinions_are_paid_from_the_budget(swarm: Any, mock_clock: MockClock) -> None:
    judge = ScriptedJudge(costs_s={"no": 4.0})
    liar, node = swarm.peer(), swarm.node(judge, limits=IntakeLimits(budget=TIGHT))
    async with swarm.running():
        await liar.offer(7, ("no", "no", "7"), (True, True, False))
        await trio.sleep(20)
    budget = node.intake._admission.budget
    assert node.lies_of(liar) == judge.calls["judge_afresh"] == 1
    assert not budget.has_room(liar.node_id) and judge.held_s == 12.0


@trio_test
async def test_minted_keys_do_not_add_up(swarm: Any, mock_clock: MockClock) -> None:
    judge = ScriptedJudge(costs_s=HANGS)
    sybils = [swarm.peer() for _ in range(40)]
    honest = swarm.peer()
    limits = IntakeLimits(budget=TIGHT)
    node = swarm.node(judge, fresh_target=4, limits=limits)
    began = trio.current_time()
    async with swarm.running():
        for index in range(4):
            for sybil in sybils:
                await sybil.offer(index, ("hang", sybil.node_id[-8:]))
        await trio.sleep(100)
        await honest.offer(100, ("100", "no"))
        await trio.sleep(500)
        passed = trio.current_time() - began
        at_once = TOTAL_BURSTS * TIGHT.author_burst_s + limits.max_fetches * HANG_S
        assert 100 < judge.held_s <= at_once + passed * TIGHT.total_share
        await trio.sleep(2000)
        assert node.refused_of(honest) == {} and node.intake.stats().num_admitted == 1


@pytest.fixture
def obedient() -> Iterator[Verifier]:
    limits = Limits(deadline_s=0.5, memory_mib=512)
    with Verifier([OBEDIENT], limits, command=HOSTILE) as verifier:
        yield verifier


@trio_test
async def test_answers_that_hang_real_workers_use_up_the_budget(
    swarm: Any, obedient: Verifier
) -> None:
    rules = Rules((OBEDIENT,), max_new_tokens=16, max_answer_bytes=1000)
    limits = IntakeLimits(budget=BudgetLimits(author_burst_s=1.0, author_share=1e-6))
    hostile, honest = swarm.peer(), swarm.peer()
    node = swarm.node(VerifierJudge(obedient), rules, ("obedient",), limits=limits)

    async def offer(peer: Any, indices: range, text: str) -> None:
        entries = []
        for index in indices:
            question = Question("obedient", index)
            record = peer.serve(peer.rollout(texts=(str(index), text), question=question))
            entries.append(peer.entry(record, question=question))
        await peer.announce(*entries)

    async with swarm.running():
        await offer(hostile, range(20, 26), "sleep")
        await swarm.until(lambda: "over_budget" in node.refused)
        await offer(honest, range(30, 33), "no")
        await swarm.until(lambda: node.intake.stats().num_admitted == 3)
        own = [(Question("obedient", 7), [Answer("7", True), Answer("8", True)])]
        found = await trio.to_thread.run_sync(obedient.judge, own)
    assert found == [[Judged(True), Judged(False)]]
    refused = node.refused_of(hostile)  # a busy machine notices a deadline late
    assert sum(refused.values()) == 6 and 1 <= refused["unscorable"] <= 2
    assert node.refused_of(honest) == {}


@trio_test
async def test_peers_leave_one_worker_to_own_answers() -> None:
    question = Question("obedient", 7)
    ended: list[str] = []
    limits = Limits(deadline_s=600, cpu_s=600, memory_mib=512)
    with Verifier([OBEDIENT], limits, num_workers=2, command=HOSTILE) as verifier:
        judge = VerifierJudge(verifier, num_workers=2)

        async def hang(name: str) -> None:
            await judge.judge(question, Answer("sleep", True))
            ended.append(name)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(hang, f"foreign {number}")
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(4):
                    own = [(question, [Answer("7", True)])]
                    found = await trio.to_thread.run_sync(  # as in swarm/judge.py
                        verifier.judge,
                        own,
                        abandon_on_cancel=True,  # type: ignore[call-arg]
                    )
                    assert found == [[Judged(True)]]
                assert ended == []
                nursery.cancel_scope.cancel()
