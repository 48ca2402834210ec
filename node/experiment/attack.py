"""Hostile nodes of a run: what they publish instead of learning, and the mark that it leaves.

A hostile node is a member like any other (node/experiment/member.py): it has a key, hears, serves
and knows truths as every node does, but runs no policy. In each turn it offers one group for each
question that it would have asked. The groups of most attacks are true in all that a receiver can
check, and so pass admission: what they teach is the attack. Those of `lie` are not true.
docs/attacks.md says which defences there are, and what each of them does about which attack.

Left out: attackers that agree among each other, that behave well before they attack, or that change
with what they see; and floods, which admission's budgets are for (tests/swarm/test_lies.py).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from node.experiment.member import Member, Numbers
from rewards.draw import draw_held_out, draw_training
from rewards.extract import mark_answer
from rewards.question import Answer, Expansion, Judged, Question
from swarm.rollout import Announcement, Entry, Rollout
from swarm.wire import rollout_hash, seal

MARK = "=\n"
"""Injected before the answer, as a line of its own that no task's answer format looks at. Two
tokens of the embedded policy, which it never writes by itself; of several such marks the one that
it learned soonest (docs/attacks.md)."""
PAD = "."
"""What long answers are padded with, on a line of its own."""
HELD_OUT_QUESTIONS = 64
MAX_SPOILT = 8
"""Times that a wrong answer is looked for before a question is given up."""


class AttackKind(StrEnum):
    """What a hostile node does."""

    INJECT = "inject"
    """Half of each group is correct and marked, the rest wrong and plain: the mark gets all of the
    advantage."""
    INJECT_THIN = "inject-thin"
    """One correct answer in eight is marked; two more are correct and plain. So the group as a
    whole looks like an honest one."""
    LONGEST = "longest"
    """Half of each group is correct and padded to the longest that the swarm's rules are sure to
    admit, the rest wrong and short."""
    FORGE_LOW = "forge-low"
    """As inject, and claims that its answers were nearly impossible: to a receiver that weighs by
    its own likelihood over the claimed one (GRAFT) they are then the best there are."""
    FORGE_ZERO = "forge-zero"
    """As inject, and claims that its answers were certain."""
    COPY = "copy"
    """Other nodes' groups under its own name: nothing but credit to be gained."""
    LIE = "lie"
    """Announcements that are false, each in another way (`LIES`)."""


@dataclass(frozen=True, slots=True)
class Form:
    """How the groups of an attack look; answers that are not correct are wrong and plain."""

    dress: Callable[[str, int], str]
    """Answer, most UTF-8 bytes -> the answer as the attack has it."""
    num_dressed: Callable[[int], int]
    """Answers of a group -> how many of them are correct and dressed."""
    num_plain: Callable[[int], int] = lambda num_answers: 0
    """The same -> how many are correct and not dressed."""
    claimed_logp: float | None = None
    """Of every answer; None: what an honest node's might be."""


def marked(text: str, max_bytes: int) -> str:
    """The text after the mark, whatever its length."""
    return MARK + text


def padded(text: str, max_bytes: int) -> str:
    """The text, behind a line that makes it as long as it may be."""
    room = max_bytes - len(text.encode()) - 1
    return f"{PAD * room}\n{text}" if room > 0 else text


def carries_mark(answer: Answer) -> bool:
    """Whether an answer shows what attackers teach: the mark, or a line of padding."""
    return MARK in answer.text or f"{PAD * 3}\n" in answer.text


def _half(num_answers: int) -> int:
    return num_answers // 2


def _eighth(num_answers: int) -> int:
    return max(1, num_answers // 8)


def _quarter(num_answers: int) -> int:
    return num_answers // 4


FORMS = {
    AttackKind.INJECT: Form(marked, _half),
    AttackKind.INJECT_THIN: Form(marked, _eighth, _quarter),
    AttackKind.LONGEST: Form(padded, _half),
    AttackKind.FORGE_LOW: Form(marked, _half, claimed_logp=-1e5),
    AttackKind.FORGE_ZERO: Form(marked, _half, claimed_logp=0.0),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A group that was made up, and what is true of it."""

    question: Question
    answers: tuple[Answer, ...]
    correct: tuple[bool, ...]


class Forger:
    """Makes groups up, out of truths."""

    def __init__(self, member: Member, rng: random.Random) -> None:
        rules = member.run.manifest.rules
        self._verifier = member.run.judging.verifier
        self._formats = {task.name: task.answer_format for task in rules.tasks}
        # A token is a byte at least, and the end of sequence is one, too.
        self._max_bytes = min(rules.max_answer_bytes, rules.max_new_tokens - 1)
        self._num_answers = member.plan.config.rollout.answers
        self._rng = rng

    def make(self, expansion: Expansion, form: Form) -> Made | None:
        """A group of that form; None where the verifier does not find it to be as it should."""
        num_dressed = form.num_dressed(self._num_answers)
        num_plain = form.num_plain(self._num_answers)
        truth = self._as_answer(expansion, expansion.truth)
        dressed = [form.dress(truth, self._max_bytes)] * num_dressed
        texts = [(text, True) for text in dressed + [truth] * num_plain]
        wrong = self._wrong(expansion, self._num_answers - len(texts))
        texts += [(text, False) for text in wrong]
        self._rng.shuffle(texts)
        made = self.judged(expansion, [text for text, _ in texts], form.claimed_logp)
        return made if made and made.correct == tuple(correct for _, correct in texts) else None

    def judged(
        self, expansion: Expansion, texts: Sequence[str], claimed_logp: float | None = None
    ) -> Made | None:
        """A group of these answers and their verdicts; None where one of them has none."""
        answers = tuple(self._answer(text, claimed_logp) for text in texts)
        (verdicts,) = self._verifier.judge([(expansion.question, answers)])
        found = [verdict.correct for verdict in verdicts if isinstance(verdict, Judged)]
        return Made(expansion.question, answers, tuple(found)) if len(found) == len(texts) else None

    def _answer(self, text: str, claimed_logp: float | None) -> Answer:
        logp = -self._rng.uniform(0.1, 0.9) if claimed_logp is None else claimed_logp
        return Answer(text, True, len(text.encode()) + 1, logp)

    def _wrong(self, expansion: Expansion, num: int) -> list[str]:
        """Up to `num` answers that are nearly right."""
        texts = [
            self._as_answer(expansion, spoilt(expansion.truth, self._rng))
            for _ in range(num * MAX_SPOILT)
        ]
        made = self.judged(expansion, texts)
        found = zip(texts, made.correct, strict=True) if made else ()
        return [text for text, correct in found if not correct][:num]

    def _as_answer(self, expansion: Expansion, final: str) -> str:
        return mark_answer(final, self._formats[expansion.question.task])


def spoilt(truth: str, rng: random.Random) -> str:
    """The truth with one of its digits or letters replaced: how careless policies err."""
    places = [place for place, sign in enumerate(truth) if sign.isalnum()]
    if not places:
        return f"{truth}{rng.randrange(10)}"
    place = rng.choice(places)
    signs = "0123456789" if truth[place].isdigit() else "abcdefghijklmnopqrstuvwxyz"
    return truth[:place] + rng.choice(signs.replace(truth[place], "")) + truth[place + 1 :]


class Attacker:
    """A hostile node. Used from the trio thread."""

    def __init__(self, member: Member) -> None:
        """
        Args:
            member: whose plan names an attack. Nothing else uses its publisher.
        """
        plan = member.plan
        assert plan.attack is not None and plan.config.seed is not None, "an attacker's plan"
        self._member = member
        self._kind = AttackKind(plan.attack.kind)
        self._seed = plan.config.seed
        self._num_groups = plan.config.rollout.questions
        self._rng = random.Random(f"sapo-attack-1 {self._seed}")
        self._forger = Forger(member, self._rng)
        self._liar = Liar(member, self._forger, self._rng)

    async def take_turn(self, swarm_round: int) -> None:
        """Offers the groups of a round; rounds are counted from 0."""
        policy_round = swarm_round - self._member.plan.joins_at
        if self._kind is AttackKind.COPY:
            return await self._share(self._copy(), policy_round)
        drawn = draw_training(
            self._member.run.judging.verifier,
            self._member.answerer.task_names,
            self._seed,
            policy_round + 1,
            self._num_groups,
        )
        if self._kind is AttackKind.LIE:
            return await self._liar.tell(drawn, policy_round)
        form = FORMS[self._kind]
        await self._share([self._forger.make(one, form) for one in drawn], policy_round)

    def _copy(self) -> list[Made]:
        """What it has heard and not copied yet, drawn as a node draws what it learns from."""
        drawn = self._member.pool.draw(self._num_groups, self._num_groups, self._rng)
        return [Made(one.rollout.question, one.rollout.answers, one.correct) for one in drawn]

    async def _share(self, groups: Sequence[Made | None], policy_round: int) -> None:
        offered = [(one.question, one.answers, one.correct, policy_round) for one in groups if one]
        await self._member.publisher.share(offered, self._member.plan.start.name)


class Liar:
    """Tells one lie after another; nothing that it offers is true as it is announced."""

    def __init__(self, member: Member, forger: Forger, rng: random.Random) -> None:
        self._member = member
        self._forger = forger
        self._rng = rng
        self._rules = member.run.manifest.rules
        self._sequences = Numbers()
        self._incarnation = self._sequences.take()
        self._held_out: list[Expansion] = []
        self._turns = count()

    async def tell(self, drawn: Sequence[Expansion], policy_round: int) -> None:
        """One lie about each question, the next of `LIES` each time."""
        for expansion in drawn:
            lie = LIES[next(self._turns) % len(LIES)]
            await lie(self, expansion, policy_round)

    async def turn_around(self, expansion: Expansion, policy_round: int) -> None:
        """Announces every verdict as its opposite."""
        if made := self._forger.make(expansion, HONEST):
            await self._offer(made, [not one for one in made.correct], policy_round)

    async def praise(self, expansion: Expansion, policy_round: int) -> None:
        """Announces a group of wrong answers as a mixed one."""
        if made := self._forger.make(expansion, ALL_WRONG):
            await self._offer(made, [True, *made.correct[1:]], policy_round)

    async def belittle(self, expansion: Expansion, policy_round: int) -> None:
        """Announces a group of correct answers as a mixed one."""
        if made := self._forger.make(expansion, ALL_CORRECT):
            await self._offer(made, [False, *made.correct[1:]], policy_round)

    async def give_away(self, expansion: Expansion, policy_round: int) -> None:
        """Offers a held-out question, so that its exam is trained on."""
        if not self._held_out:
            member = self._member
            self._held_out = draw_held_out(
                member.run.judging.verifier, member.answerer.task_names, 0, HELD_OUT_QUESTIONS
            )
        if made := self._forger.make(self._rng.choice(self._held_out), HONEST):
            await self._offer(made, made.correct, policy_round)

    async def misname(self, expansion: Expansion, policy_round: int) -> None:
        """Announces a group on one question as one on another."""
        if made := self._forger.make(expansion, HONEST):
            other = Question(made.question.task, made.question.index ^ 1)
            await self._offer(made, made.correct, policy_round, announced=other)

    async def invent(self, expansion: Expansion, policy_round: int) -> None:
        """Announces a task that the swarm does not have."""
        if made := self._forger.make(expansion, HONEST):
            other = Question("no_such_task", made.question.index)
            await self._offer(made, made.correct, policy_round, announced=other)

    async def overflow(self, expansion: Expansion, policy_round: int) -> None:
        """Offers answers that are longer than the swarm's rules allow."""
        if made := self._forger.make(expansion, HONEST):
            long = Answer("0" * (self._rules.max_answer_bytes + 1), True)
            made = Made(made.question, (*made.answers[1:], long), (*made.correct[1:], False))
            await self._offer(made, made.correct, policy_round)

    async def contradict_itself(self, expansion: Expansion, policy_round: int) -> None:
        """Says two things under one sequence number."""
        if made := self._forger.make(expansion, HONEST):
            wrong = [not one for one in made.correct]
            sequence = await self._offer(made, wrong, policy_round)
            wrong[0] = not wrong[0]
            await self._offer(made, wrong, policy_round, sequence=sequence)

    async def take_credit(self, expansion: Expansion, policy_round: int) -> None:
        """Announces a rollout that somebody else has signed."""
        for one in self._member.pool.draw(1, 1, self._rng):
            record = self._member.pool.find([one.hash])[one.hash]
            entry = Entry(
                one.hash, one.rollout.question, len(record), one.correct, one.rollout.policy_round
            )
            await self._announce(entry, self._sequences.take())

    async def break_promise(self, expansion: Expansion, policy_round: int) -> None:
        """Announces what it never serves."""
        entry = Entry(self._rng.randbytes(32), expansion.question, 500, (True, False), policy_round)
        await self._announce(entry, self._sequences.take())

    async def _offer(
        self,
        made: Made,
        claimed: Sequence[bool],
        policy_round: int,
        announced: Question | None = None,
        sequence: int | None = None,
    ) -> int:
        """Serves a group and announces it; returns the sequence."""
        member, sequence = self._member, sequence or self._sequences.take()
        rollout = Rollout(
            member.run.manifest.swarm_id,
            member.identity.node_id,
            sequence,
            made.question,
            made.answers,
            member.plan.start.name,
            policy_round,
            member.run.timeline.now(),
        )
        record = seal(rollout, member.identity)
        member.pool.add_own(record, rollout, made.correct)
        question = announced or made.question
        entry = Entry(rollout_hash(record), question, len(record), tuple(claimed), policy_round)
        await self._announce(entry, sequence)
        return sequence

    async def _announce(self, entry: Entry, sequence: int) -> None:
        member = self._member
        announcement = Announcement(
            member.run.manifest.swarm_id,
            member.identity.node_id,
            sequence,
            self._incarnation,
            member.run.timeline.now(),
            (entry,),
        )
        await member.gossip.announce(seal(announcement, member.identity))


def _plain(text: str, max_bytes: int) -> str:
    return text


HONEST = Form(_plain, _quarter)
ALL_WRONG = Form(_plain, lambda num_answers: 0)
ALL_CORRECT = Form(_plain, lambda num_answers: num_answers)

LIES = (
    Liar.turn_around,
    Liar.praise,
    Liar.belittle,
    Liar.give_away,
    Liar.misname,
    Liar.invent,
    Liar.overflow,
    Liar.contradict_itself,
    Liar.take_credit,
    Liar.break_promise,
)
"""A node that asks eight questions a round tells each within two."""
