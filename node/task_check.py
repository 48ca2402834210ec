"""The gate for those who write tasks: whether strangers can rely on what a task says.

Everything is measured on real workers, through the node's own path. A second set of workers runs
under another hash seed and is asked in another order: two nodes must agree.

Checked: expansion, addresses, agreement, right answers, wrong and hostile ones, held-out questions,
distinct questions, constant answers, time, digest.
Not checked: whether the truth is true, and whether the question can be understood.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from node.escape import printable
from node.task_tools import DigestState, OpenVerifier, addresses, entry_of, start_workers
from rewards.draw import DrawFailed, draw_training
from rewards.extract import AnswerFormat, mark_answer
from rewards.hostile import hostile_answers
from rewards.question import (
    Answer,
    Expansion,
    Judged,
    Question,
    Reason,
    Unscorable,
    Verdict,
    is_correct,
    is_held_out,
    normalise,
)
from rewards.tasks import TaskFacts, TaskSpec
from rewards.verifier import Verifier
from rewards.worker import Refused

HASH_SEED = 4242
"""Of the second set of workers."""
NUM_QUESTIONS = 1000
MAX_QUESTIONS = 20_000
"""A task with no more than these has all of them looked at."""
NUM_JUDGED = 64
"""Questions whose answers are judged."""
NUM_CONSTANTS = 3
"""Truths, the most common ones, that are tried as answers to everything."""
BATCH = 100
"""Questions expanded at once: so often progress is told."""
MAX_FAILURES = 3
"""Expansions that may fail before a task is given up."""
HELD_OUT_SHARE = 1 / 16
NUM_DEVIATIONS = 4
"""Standard deviations that the held-out share may be off, of what chance gives."""
CONSTANT_FAILS, CONSTANT_NOTE = 0.9, 0.1
FEW_QUESTIONS = 5000
LONG_BYTES, ROOM_FOR_MARKS = 15_000, 64
"""Of hostile answers."""
SLOW_S = 1.0
"""Of one verdict: worth a note."""
DEPENDS = "it must depend on the task's name and the index alone (no hash(), no set order)"
COSTLY = (Reason.DEADLINE, Reason.MEMORY, Reason.CRASHED, Reason.CHECKER_ERROR)
"""Unscorable is allowed, but these cost a worker, or are a fault of the task."""


class Outcome(StrEnum):
    """What a check says of a task."""

    HOLDS = "holds"
    NOTE = "note"
    """It holds; its author should know something."""
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What all checks found about a task."""

    spec: TaskSpec
    findings: tuple[Finding, ...]
    """Without the digest's."""
    state: DigestState
    digest: str
    """As this machine has it; empty where it is not built."""

    @property
    def holds(self) -> bool:
        """Whether no check failed; says nothing about the digest."""
        return all(finding.outcome is not Outcome.FAILS for finding in self.findings)

    @property
    def needs_digest(self) -> bool:
        """Whether all that is missing in the manifest is this digest."""
        return self.holds and self.state is not DigestState.AS_STATED


class GaveUp(Exception):
    """A check failed so that the ones after it make no sense."""


Tell = Callable[[str], None]
"""Is told what is being done."""


def check_tasks(
    specs: Sequence[TaskSpec],
    open_tasks: OpenVerifier,
    max_answer_bytes: int,
    tell: Tell,
    num_questions: int = NUM_QUESTIONS,
) -> Iterator[TaskReport]:
    """A report for each task, in order, as soon as it is made.

    Args:
        max_answer_bytes: of the manifest; the long ones of the hostile answers stay below.
        num_questions: sampled of a task without end, and drawn for training.

    Raises:
        VerifierBroken: workers that were ready cannot be started any more.
    """
    tell("starting workers")
    here, described = start_workers(specs, open_tasks, 0)
    try:
        usable = [spec for spec in specs if isinstance(described[spec.name], TaskFacts)]
        there, elsewhere = start_workers(usable, open_tasks, HASH_SEED) if usable else (None, {})
        try:
            for spec in specs:
                found, other = described[spec.name], elsewhere.get(spec.name)
                if isinstance(found, Refused):
                    yield _not_built(spec, found.message)
                elif isinstance(other, Refused):
                    yield _not_built(spec, f"not so in another process: {other.message}")
                elif here is not None and there is not None and other is not None:
                    state = entry_of(spec, found).state
                    check = _Check(
                        spec, found, other, here, there, max_answer_bytes, tell, num_questions
                    )
                    yield TaskReport(spec, check.run(), state, found.digest)
        finally:
            if there is not None:
                there.close()
    finally:
        if here is not None:
            here.close()


def _not_built(spec: TaskSpec, why: str) -> TaskReport:
    finding = Finding("built", Outcome.FAILS, printable(why, 2000))
    return TaskReport(spec, (finding,), DigestState.NOT_BUILT, "")


@dataclass
class _Check:
    """The checks of one task: each adds its finding."""

    spec: TaskSpec
    facts: TaskFacts
    facts_there: TaskFacts
    here: Verifier
    there: Verifier
    max_answer_bytes: int
    tell: Tell
    num_questions: int
    findings: list[Finding] = field(default_factory=list)
    sample: list[Expansion] = field(default_factory=list)
    """Its questions, each once."""
    probed: list[Expansion] = field(default_factory=list)
    """Those of them whose answers are judged, from first to last."""
    num_asked: int = 0
    judged: list[tuple[Question, list[Answer], list[Verdict]]] = field(default_factory=list)
    """All verdicts so far, to be compared."""

    def run(self) -> tuple[Finding, ...]:
        try:
            self.check_expansion()
            self.check_addresses()
            self.check_right_answers()
            self.check_wrong_answers()
            self.check_hostile_answers()
            self.check_agreement()
            self.check_held_out()
            self.check_distinct()
            self.check_constant_answers()
        except GaveUp:
            pass
        return tuple(self.findings)

    def check_expansion(self) -> None:
        """Every question can be made, in time."""
        expansions: list[Expansion] = []
        failures: list[tuple[Question, Unscorable]] = []
        asked = self._questions()
        start = time.monotonic()
        for first in range(0, len(asked), BATCH):
            self._tell(f"expanding {first:,} of {len(asked):,}")
            batch = asked[first : first + BATCH]
            for question, outcome in zip(batch, self.here.expand(batch), strict=True):
                if isinstance(outcome, Unscorable):
                    failures.append((question, outcome))
                else:
                    expansions.append(outcome)
            if len(failures) >= MAX_FAILURES:
                break
        seconds = time.monotonic() - start
        self.num_asked = len(asked)
        self.sample = list({expansion.question: expansion for expansion in expansions}.values())
        self.probed = self.sample[:: max(1, len(self.sample) // NUM_JUDGED)][:NUM_JUDGED]
        if failures:
            question, why = failures[0]
            self._fails(
                "expansion",
                f"question {question.index} cannot be made: {_why(why)}; every index from 0 to "
                "2**53 - 1 must give one",
            )
            raise GaveUp
        each = seconds / len(asked)
        self._holds("expansion", f"{len(asked):,} questions; {_ms(each)} each")

    def check_addresses(self) -> None:
        """A question's own address leads to it, and to nothing else."""
        self._tell("following addresses")
        far = addresses(self.spec.name, "address", NUM_JUDGED)
        found = [one for one in self.here.expand(far) if isinstance(one, Expansion)]
        again = self.here.expand([one.question for one in found])
        for asked, one, same in zip(far, found, again, strict=False):
            if one != same and one.question == asked:
                where = f"question {asked.index} differs when it is asked for again"
                self._fails("agreement", f"{where}: {DEPENDS}")
                raise GaveUp
            if one != same or one.question.task != self.spec.name:
                self._fails(
                    "addresses",
                    f"index {asked.index} leads to the question of index {one.question.index}, "
                    "which expands to another: Expansion.question must be its lowest address",
                )
                raise GaveUp
        number = self.facts.num_questions
        num_there = len({one.question for one in (*self.sample, *found)})
        if number is None and num_there < self.num_asked / 2:
            self._fails("addresses", "they repeat: state num_questions")
        elif number is not None and (num_there > number or self.num_asked == number > num_there):
            said = f"there are {num_there:,}, but its num_questions is {number:,}"
            self._fails("addresses", said)
        elif number is None:
            self._holds("addresses", "without end, each a question's own")
        else:
            self._holds("addresses", f"{number:,}, to which all others lead")

    def check_right_answers(self) -> None:
        """The truth, written as the task's format asks, is correct."""
        questions = self.probed
        requests = [(one, [self._marked(one.truth)]) for one in questions]
        start = time.monotonic()
        verdicts = [first for first, *_ in self._judge("judging right answers", requests)]
        each = (time.monotonic() - start) / len(questions)
        pairs = zip(questions, verdicts, strict=True)
        wrong = [(one, verdict) for one, verdict in pairs if not is_correct(verdict)]
        if wrong:
            one, verdict = wrong[0]
            said = _why(verdict) if isinstance(verdict, Unscorable) else "wrong"
            self._fails(
                "right answers",
                f"{len(wrong)} of {len(questions)} are not judged correct, e.g. "
                f"{_quoted(one.truth, 60)} to question {one.question.index}: {said}",
            )
        else:
            self._holds(
                "right answers", f"{len(questions)}, all judged correct; {_ms(each)} a verdict"
            )

    def check_wrong_answers(self) -> None:
        """Nothing, and two answers at once, are not correct."""
        questions = self.probed
        # in a block the mark must be none of Python, nor of JSON
        either = "\nor " if self.spec.answer_format == AnswerFormat.CODE_BLOCK else " or "
        requests = []
        for one, other in zip(questions, [*questions[1:], questions[0]], strict=True):
            hedge = self._marked(one.truth + either + other.truth)
            nothing = [Answer(text, finished=True) for text in ("", " \n", "\x00")]
            requests.append((one, [hedge, self._marked(""), *nothing]))
        verdicts = self._judge("judging wrong answers", requests)
        self._must_be_wrong("wrong answers", requests, verdicts, "empty ones and two at once")

    def check_hostile_answers(self) -> None:
        """What strangers might write is not correct, and judged in time."""
        requests: list[tuple[Expansion, list[Answer]]] = []
        verdicts: list[list[Verdict]] = []
        times: list[tuple[float, str]] = []
        marked, raw = self.probed[0], self.probed[-1]
        long = max(1, min(LONG_BYTES, self.max_answer_bytes - ROOM_FOR_MARKS))
        for kind, texts in hostile_answers(num_bytes=long).items():
            for text in texts:
                self._tell(f"judging hostile answers: {kind}")
                for one, answer in (
                    (marked, self._marked(text)),
                    (raw, Answer(text, finished=True)),
                ):
                    if normalise(text) == normalise(one.truth):
                        continue
                    start = time.monotonic()
                    verdicts += self._judge_once([(one, [answer])])
                    times.append((time.monotonic() - start, text))
                    requests.append((one, [answer]))
        slowest, text = max(times)
        said = f"slowest {_ms(slowest)}"
        if slowest > SLOW_S:
            said += f": {_quoted(text, 30)}"
        self._must_be_wrong("hostile answers", requests, verdicts, said, slowest > SLOW_S)

    def check_agreement(self) -> None:
        """Workers under another hash seed, asked in reverse, say the same."""
        questions = [one.question for one in self.sample]
        for first in range(0, len(questions), BATCH):
            self._tell(f"comparing two processes: {first:,} of {len(questions):,}")
            batch = questions[::-1][first : first + BATCH]
            ours = self.sample[::-1][first : first + BATCH]
            for one, other in zip(ours, self.there.expand(batch), strict=True):
                if one != other:
                    where = f"question {one.question.index} differs between two processes"
                    self._fails("agreement", f"{where}: {DEPENDS}")
                    raise GaveUp
        if self.facts != self.facts_there:
            self._fails("agreement", f"the digest differs between two processes: {DEPENDS}")
            return
        said = f"{len(questions):,} questions"
        if not self.facts.deterministic:
            self._note("agreement", f"{said} alike in two processes; verdicts may differ")
            return
        self._tell("comparing verdicts of two processes")
        requests = [(question, answers) for question, answers, _ in reversed(self.judged)]
        verdicts = [found for _, _, found in reversed(self.judged)]
        for (question, answers), found, theirs in zip(
            requests, verdicts, self.there.judge(requests), strict=True
        ):
            for answer, our, their in zip(answers, found, theirs, strict=True):
                # one that met a limit may meet it elsewhere or not: nobody pays for that
                if isinstance(our, Judged) and isinstance(their, Judged) and our != their:
                    self._fails(
                        "agreement",
                        f"two processes judge {_quoted(answer.text, 60)} to question "
                        f"{question.index} differently: set deterministic = False, or mend it",
                    )
                    return
        number = sum(len(answers) for _, answers in requests)
        self._holds("agreement", f"{said} and {number:,} verdicts alike in two processes")

    def check_held_out(self) -> None:
        """Some questions are kept for exams, and none of these is ever drawn for training."""
        texts = {normalise(one.text) for one in self.sample}
        held_out = sum(map(is_held_out, texts))
        share = held_out / len(texts)
        spread = math.sqrt(HELD_OUT_SHARE * (1 - HELD_OUT_SHARE) / len(texts))
        said = f"{share:.1%} of {len(texts):,} texts"
        if held_out in (0, len(texts)):
            missing = "held out" if held_out == 0 else "left to train on"
            self._fails("held out", f"of {len(texts):,} texts none is {missing}: add questions")
            return
        if abs(share - HELD_OUT_SHARE) > NUM_DEVIATIONS * spread:
            self._fails("held out", f"{said}; it should be near {HELD_OUT_SHARE:.1%}")
            return
        self._tell(f"drawing {self.num_questions:,} questions for training")
        try:
            drawn = draw_training(self.here, [self.spec.name], 1, 1, self.num_questions)
        except DrawFailed as error:
            self._fails("held out", str(error))
            return
        again = self.there.expand([one.question for one in drawn])
        for one, other in zip(drawn, again, strict=True):
            if one != other or is_held_out(other.text):
                self._fails(
                    "held out",
                    f"question {one.question.index}, drawn for training, is held out or another "
                    "question on another node",
                )
                return
        self._holds("held out", f"{said}; none of {len(drawn):,} drawn for training")

    def check_distinct(self) -> None:
        """How many questions there are: exactly, or by how often two of a sample are the same."""
        number = self.facts.num_questions
        texts = Counter(normalise(one.text) for one in self.sample)
        if number is not None:
            looked = f"{number:,} questions"
            if number > len(self.sample):
                looked += f", of which {len(self.sample):,} were looked at"
            if rows := self._ambiguous():
                first, second = rows
                self._note("distinct", f"{looked}; {first} and {second} differ only in their truth")
            elif repeated := len(self.sample) - len(texts):
                self._note("distinct", f"{looked}; {repeated:,} repeat the text of another")
            elif number < FEW_QUESTIONS:
                self._note("distinct", f"{looked}: so few can be learned by heart")
            else:
                self._holds("distinct", looked)
            return
        pairs = sum(count * (count - 1) // 2 for count in texts.values())
        possible = self.num_asked * (self.num_asked - 1) // 2
        if not pairs:
            self._holds("distinct", f"more than {_about(possible / 3)} (estimated)")
        elif (estimate := possible / pairs) < FEW_QUESTIONS:
            few = f"some {_about(estimate)} (estimated): so few can be learned by heart"
            self._note("distinct", few)
        else:
            self._holds("distinct", f"some {_about(estimate)} (estimated)")

    def check_constant_answers(self) -> None:
        """How often the best of the most common truths is right whatever is asked."""
        common = Counter(one.truth for one in self.sample).most_common(NUM_CONSTANTS)
        constants = [truth for truth, count in common if count > 1] or [common[0][0]]
        questions = self.probed
        requests = [(one, [self._marked(truth) for truth in constants]) for one in questions]
        verdicts = self._judge("judging constant answers", requests)
        right = [sum(map(is_correct, column)) for column in zip(*verdicts, strict=True)]
        best = max(range(len(right)), key=right.__getitem__)
        share = right[best] / len(questions)
        said = f"{_quoted(constants[best], 40)} is right for {share:.0%} of {len(questions)}"
        if share > CONSTANT_FAILS:
            self._fails("constant", f"{said}: a policy needs no more than that")
        elif share > CONSTANT_NOTE:
            self._note("constant", f"{said} without thinking")
        else:
            self._holds("constant", said)

    def _questions(self) -> list[Question]:
        number, name = self.facts.num_questions, self.spec.name
        if number is not None and number <= MAX_QUESTIONS:
            return [Question(name, index) for index in range(number)]
        return addresses(name, "check", self.num_questions)

    def _marked(self, text: str) -> Answer:
        return Answer(mark_answer(text, self.spec.answer_format), finished=True)

    def _judge(
        self, doing: str, requests: Sequence[tuple[Expansion, list[Answer]]]
    ) -> list[list[Verdict]]:
        verdicts: list[list[Verdict]] = []
        parts = iter(requests)
        while part := list(islice(parts, 8)):
            self._tell(f"{doing}: {len(verdicts)} of {len(requests)}")
            verdicts += self._judge_once(part)
        return verdicts

    def _judge_once(
        self, requests: Sequence[tuple[Expansion, list[Answer]]]
    ) -> list[list[Verdict]]:
        asked = [(one.question, answers) for one, answers in requests]
        verdicts = self.here.judge(asked)
        for (question, answers), found in zip(asked, verdicts, strict=True):
            self.judged.append((question, answers, found))
        return verdicts

    def _must_be_wrong(
        self,
        check: str,
        requests: Sequence[tuple[Expansion, list[Answer]]],
        verdicts: Sequence[Sequence[Verdict]],
        said: str,
        is_slow: bool = False,
    ) -> None:
        number = 0
        reasons: Counter[Reason] = Counter()
        for (one, answers), found in zip(requests, verdicts, strict=True):
            for answer, verdict in zip(answers, found, strict=True):
                number += 1
                if isinstance(verdict, Unscorable):
                    reasons[verdict.reason] += 1
                elif verdict.correct:
                    self._fails(
                        check,
                        f"{_quoted(answer.text, 60)} is judged correct; "
                        f"the truth of question {one.question.index} is "
                        f"{_quoted(one.truth, 60)}",
                    )
                    return
        unscorable = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        text = f"{number:,} answers, none correct; {said}"
        text += f"; unscorable: {unscorable}" if unscorable else ""
        is_costly = any(reasons[reason] for reason in COSTLY)
        (self._note if is_costly or is_slow else self._holds)(check, text)

    def _ambiguous(self) -> tuple[int, int] | None:
        """Indices of two questions with the same text and different truths."""
        seen: dict[str, Expansion] = {}
        for one in self.sample:
            first = seen.setdefault(one.text, one)
            if first.truth != one.truth:
                return first.question.index, one.question.index
        return None

    def _tell(self, doing: str) -> None:
        self.tell(f"{self.spec.name}: {doing}")

    def _holds(self, check: str, text: str) -> None:
        self.findings.append(Finding(check, Outcome.HOLDS, text))

    def _note(self, check: str, text: str) -> None:
        self.findings.append(Finding(check, Outcome.NOTE, text))

    def _fails(self, check: str, text: str) -> None:
        self.findings.append(Finding(check, Outcome.FAILS, text))


def _why(unscorable: Unscorable) -> str:
    return f"{unscorable.reason} {printable(unscorable.detail)}".strip()


def _quoted(text: str, max_chars: int) -> str:
    return f"'{printable(text, max_chars)}'"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"


def _about(number: float) -> str:
    """Two digits of a large number."""
    digits = max(0, len(str(int(number))) - 2)
    return f"{round(number, -digits):,.0f}"
