"""What hostile nodes offer, and what honest ones make of it: by real admission and verdicts."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from node.config import NodeConfig
from node.experiment.attack import LIES, MARK, PAD, Attacker, AttackKind, carries_mark, spoilt
from node.experiment.member import Member, Surroundings
from node.experiment.plan import AttackPlan, NodePlan
from node.experiment.timeline import Timeline
from node.experiment.verdicts import Judging
from rewards.draw import draw_training
from rewards.question import Answer, is_correct, is_held_out
from swarm.memory_gossip import MemoryNetwork
from swarm.pool import Pooled

TINY = Path(__file__).parents[3] / "node" / "tiny"
QUESTIONS = 10
MAX_TOKENS = 16


class Swarm:
    """Members without policies on one network, whose clock the test moves."""

    def __init__(self, judging: Judging, place: Path, stack: ExitStack) -> None:
        self.timeline = Timeline()
        self.members: list[Member] = []
        self._stack = stack
        self.network = MemoryNetwork(clock=self.timeline.now)
        self._run = Surroundings(
            judging.manifest, judging, self.timeline, self.network, 1, place, {}, {}
        )

    def member(self, attack: AttackKind | None = None) -> Member:
        number = len(self.members)
        config = NodeConfig.model_validate(
            {
                "seed": number,
                "rollout": {"questions": QUESTIONS, "answers": 8},
                "batch": {"strategy": "paper", "peer_share": 1.0},
                "swarm": {"foreign": 64},
            }
        )
        plan = NodePlan("node", config, TINY, attack=AttackPlan(attack) if attack else None)
        self.members.append(Member(plan, number, self._run, self._stack))
        return self.members[-1]

    def run(self, play: Callable[[], Awaitable[None]]) -> None:
        """An async function, while all members take in what they hear."""

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                for member in self.members:
                    nursery.start_soon(member.intake.run)
                await play()
                nursery.cancel_scope.cancel()

        trio.run(run, clock=self.timeline.clock)


@pytest.fixture
def swarm(judging: Judging, tmp_path: Path) -> Iterator[Swarm]:
    with ExitStack() as stack:
        yield Swarm(judging, tmp_path, stack)


def taken(member: Member) -> list[Pooled]:
    return member.pool.draw(1000, 1000, random.Random(0))


def groups_of(swarm: Swarm, kind: AttackKind) -> list[Pooled]:
    """What an honest node has in its pool after one turn of an attacker."""
    honest, hostile = swarm.member(), swarm.member(kind)

    async def play() -> None:
        await Attacker(hostile).take_turn(0)
        await swarm.timeline.settle()

    swarm.run(play)
    assert honest.ledger.refused_totals() == {}
    return taken(honest)


async def share_honest(member: Member, slot: int) -> None:
    """One group with a correct and a wrong answer, on a question of its own."""
    verifier, names = member.run.judging.verifier, member.answerer.task_names
    (question,) = draw_training(verifier, names, 77, 1, 1, first=slot)
    answers = [Answer(question.truth, True), Answer(f"{question.truth}1", True)]
    (verdicts,) = verifier.judge([(question.question, answers)])
    correct = [is_correct(verdict) for verdict in verdicts]
    assert correct == [True, False]
    assert await member.publisher.share([(question.question, answers, correct, 0)], "tiny") == 1


def texts(group: Pooled, correct: bool) -> list[str]:
    answers = zip(group.rollout.answers, group.correct, strict=True)
    return [answer.text for answer, is_correct in answers if is_correct is correct]


def num_tokens(group: Pooled) -> int:
    from transformers import AutoTokenizer

    from node.policy import answer_ids

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    return max(len(answer_ids(tokenizer, one.text, True)) for one in group.rollout.answers)


@pytest.mark.parametrize(
    ("kind", "is_as_claimed"),
    [
        (AttackKind.INJECT, lambda logp: -1 < logp < 0),
        (AttackKind.FORGE_LOW, lambda logp: logp == -1e5),
        (AttackKind.FORGE_ZERO, lambda logp: logp == 0),
    ],
)
def test_marked_groups_pass_admission_and_only_correct_answers_are_marked(
    swarm: Swarm, kind: AttackKind, is_as_claimed: Callable[[float | None], bool]
) -> None:
    groups = groups_of(swarm, kind)
    assert len(groups) == QUESTIONS
    for group in groups:
        assert Counter(group.correct) == {True: 4, False: 4}
        assert all(text.startswith(MARK) for text in texts(group, True))
        assert not any(MARK in text for text in texts(group, False))
        assert num_tokens(group) <= MAX_TOKENS
        assert all(is_as_claimed(answer.mean_logp) for answer in group.rollout.answers)
    assert len({group.correct for group in groups}) > 1, "the places give nothing away"


def test_thin_groups_hide_one_marked_answer_among_honest_ones(swarm: Swarm) -> None:
    groups = groups_of(swarm, AttackKind.INJECT_THIN)
    assert len(groups) == QUESTIONS
    for group in groups:
        assert Counter(group.correct) == {True: 3, False: 5}
        assert [text.startswith(MARK) for text in texts(group, True)].count(True) == 1
        assert not any(MARK in text for text in texts(group, False))


def test_long_groups_pass_admission_and_only_correct_answers_are_long(swarm: Swarm) -> None:
    groups = groups_of(swarm, AttackKind.LONGEST)
    assert len(groups) == QUESTIONS
    padded = [group for group in groups if any(PAD in text for text in texts(group, True))]
    assert len(padded) > QUESTIONS / 2, "an answer that is long already has no room"
    for group in padded:
        assert {len(text.encode()) for text in texts(group, True)} == {MAX_TOKENS - 1}
        assert max(map(len, texts(group, False))) < MAX_TOKENS - 1
        assert num_tokens(group) <= MAX_TOKENS


def test_what_is_published_looks_like_the_rounds_of_a_node(swarm: Swarm) -> None:
    honest, hostile = swarm.member(), swarm.member(AttackKind.INJECT)

    async def play() -> None:
        attacker = Attacker(hostile)
        for swarm_round in range(3):
            await attacker.take_turn(swarm_round)
            await swarm.timeline.settle()

    swarm.run(play)
    groups = taken(honest)
    assert Counter(one.rollout.policy_round for one in groups) == dict.fromkeys(range(3), QUESTIONS)
    assert len({one.rollout.question for one in groups}) == 3 * QUESTIONS
    assert not any(is_held_out(one.expansion.text) for one in groups)
    assert all(one.finished and one.num_tokens for group in groups for one in group.rollout.answers)


def test_the_same_plan_gives_the_same_groups(judging: Judging, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with ExitStack() as stack:
            groups = groups_of(Swarm(judging, tmp_path, stack), AttackKind.INJECT_THIN)
            found.append({one.hash for one in groups})
    assert found[0] == found[1]


def test_lies_are_refused_and_charged_and_honest_groups_still_come_in(swarm: Swarm) -> None:
    receiver, author = swarm.member(), swarm.member()
    hostile = swarm.member(AttackKind.LIE)

    async def play() -> None:
        await share_honest(author, 0)
        await swarm.timeline.settle()
        await Attacker(hostile).take_turn(0)
        await swarm.timeline.settle()
        await share_honest(author, 1)
        await swarm.timeline.go_to(120)

    swarm.run(play)
    assert len(LIES) == QUESTIONS, "one turn tells each"
    refused = Counter(receiver.ledger.refused_totals())
    claims = [refused.pop("wrong_claim"), refused.pop("disagreement")]
    assert sum(claims) == 4 and claims[0] == 1, "one fresh worker a minute"
    assert refused == {
        "held_out": 1,
        "mismatch": 1,
        "unknown_task": 1,
        "too_long": 1,
        "equivocation": 1,
        "seen": 1,
        "fetch_failed": 1,
    }
    assert {group.rollout.author for group in taken(receiver)} == {author.identity.node_id}
    (liar,) = [one for one in receiver.ledger.peers() if one.lies]
    assert liar.node_id == hostile.identity.node_id
    assert (liar.lies, liar.admitted) == (5, 0)
    (honest,) = [one for one in receiver.ledger.peers() if one is not liar]
    assert (honest.admitted, honest.refused) == (2, {})


def test_copies_are_refused_by_who_knows_the_original(swarm: Swarm) -> None:
    author, knows, hostile = swarm.member(), swarm.member(), swarm.member(AttackKind.COPY)

    async def play() -> None:
        attacker = Attacker(hostile)
        await share_honest(author, 0)
        await swarm.timeline.settle()
        await attacker.take_turn(0)
        await attacker.take_turn(1)
        await swarm.timeline.settle()

    swarm.run(play)
    assert knows.ledger.refused_totals() == {"copied": 1}, "and none is copied twice"
    assert author.ledger.refused_totals() == {"copied": 1}
    assert [one.rollout.author for one in taken(knows)] == [author.identity.node_id]


def test_a_copy_is_taken_by_who_does_not_know_the_original(swarm: Swarm) -> None:
    """A limit; but what is copied is a true group, so that nothing but credit is gained."""
    author, late, hostile = swarm.member(), swarm.member(), swarm.member(AttackKind.COPY)

    async def play() -> None:
        swarm.network.partition([author.identity.node_id], [late.identity.node_id])
        await share_honest(author, 0)
        await swarm.timeline.settle()
        await Attacker(hostile).take_turn(0)
        await swarm.timeline.settle()

    swarm.run(play)
    assert late.ledger.refused_totals() == {}
    assert [one.rollout.author for one in taken(late)] == [hostile.identity.node_id]


@pytest.mark.parametrize(
    ("text", "is_marked"),
    [
        (f"{MARK}42", True),
        (f"so {MARK}42", True),
        ("...........\n42", True),
        ("42", False),
        ("x = 42", False),
        ("4.2...", False),
        ("", False),
    ],
)
def test_the_mark_is_found(text: str, is_marked: bool) -> None:
    assert carries_mark(Answer(text, True)) is is_marked


@pytest.mark.parametrize("truth", ["42", "-7", "['11', '9']", "5/59", "tracog", "", "[]", "é"])
def test_a_spoilt_truth_differs_in_one_sign(truth: str) -> None:
    rng = random.Random(1)
    for _ in range(20):
        wrong = spoilt(truth, rng)
        assert wrong != truth
        assert len(wrong) - len(truth) in (0, 1)
