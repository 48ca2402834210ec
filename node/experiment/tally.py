"""What the nodes of a run did, counted while they do it, and put together by role."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from node.evaluate import HeldOut
from node.experiment.results import Exam, Role, Rounds
from node.snapshot import HARMLESS
from node.status import ForeignFate, ForeignGroup, RoundReport
from rewards.question import Answer
from swarm.ledger import Ledger
from swarm.refusal import Refusal

LATE = frozenset({Refusal.EXPIRED, Refusal.FETCH_FAILED})
"""Refusals that say that the network was slow."""
ACCUSING = frozenset(Refusal) - HARMLESS - LATE
"""Refusals that something was wrong with a rollout: of an honest peer's, a mistake."""
UNABLE = 0.05
"""A task at whose questions a policy is right less often is one that it cannot do."""


@dataclass(frozen=True, slots=True)
class _Sitting:
    """One node in one exam."""

    round: int
    own_tokens: int
    found: HeldOut


@dataclass(slots=True)
class Tally:
    """One node, round by round."""

    role: str
    joins_at: int
    ledger: Ledger
    carries_mark: Callable[[Answer], bool] | None
    """Whether an answer shows that attackers were learned from; None where nobody attacks."""
    reports: list[RoundReport] = field(default_factory=list)
    ages: list[list[float]] = field(default_factory=list)
    """Of the foreign groups of each round's batch, in rounds of the swarm."""
    poison_shares: list[float] = field(default_factory=list)
    answer_bytes: list[float] = field(default_factory=list)
    sittings: list[_Sitting] = field(default_factory=list)

    def add_round(
        self,
        report: RoundReport,
        answers: Sequence[Answer],
        swarm_round: int,
        joined: Mapping[str, int],
    ) -> None:
        """Counts a round, and credits or names the authors of what was drawn, as a node does.

        Args:
            answers: own ones of the round.
            swarm_round: in which it was made.
            joined: node id -> the round of the swarm with which this node began.
        """
        self.reports.append(report)
        # An author's policy makes one round in each of the swarm's: `policy_round` says in which.
        ages = [swarm_round - joined[one.author] - one.policy_round for one in _used(report)]
        self.ages.append([float(max(0, age)) for age in ages])
        for group in report.foreign:
            if group.fate is ForeignFate.USED:
                self.ledger.count_used(group.author, 1)
            else:
                self.ledger.count_refused(group.author, group.fate.value)
        if self.carries_mark is not None:
            self.poison_shares.append(_mean([float(self.carries_mark(one)) for one in answers]))
            sizes = [float(len(one.text.encode(errors="surrogatepass"))) for one in answers]
            self.answer_bytes.append(_mean(sizes))

    def add_exam(self, own_tokens: int, found: HeldOut) -> None:
        """Counts an exam after the rounds so far.

        Args:
            own_tokens: generated in these rounds.
        """
        self.sittings.append(_Sitting(len(self.reports), own_tokens, found))


def make_role(name: str, nodes: Sequence[Tally], hostile: Collection[str]) -> Role:
    """The figures of a role: means over its nodes, which joined together.

    Args:
        hostile: node ids of the attackers.
    """
    peers = [peer for node in nodes for peer in node.ledger.peers()]
    honest = [peer for peer in peers if peer.node_id not in hostile]
    refused = Counter[str]()
    for node in nodes:
        refused.update(node.ledger.refused_totals())
    used = [one for node in nodes for report in node.reports for one in _used(report)]
    return Role(
        name=name,
        num_nodes=len(nodes),
        rounds=_rounds(nodes),
        exams=_exams(nodes),
        node_reward=tuple(sum(report.own_reward for report in node.reports) for node in nodes),
        node_pass_1=tuple(node.sittings[-1].found.overall.mean for node in nodes),
        refused=dict(sorted(refused.items())),
        admitted_honest=sum(peer.admitted for peer in honest),
        refused_honest=sum(
            count for peer in honest for reason, count in peer.refused.items() if reason in ACCUSING
        ),
        admitted_hostile=sum(peer.admitted for peer in peers if peer.node_id in hostile),
        used_hostile=sum(group.author in hostile for group in used),
    )


def stage_seconds(nodes: Sequence[Tally]) -> dict[str, float]:
    """Seconds per stage of all rounds of all nodes."""
    total = Counter[str]()
    for node in nodes:
        for report in node.reports:
            total.update(report.seconds)
    return dict(total)


def _rounds(nodes: Sequence[Tally]) -> Rounds:
    def mean(figure: Callable[[RoundReport], float]) -> tuple[float, ...]:
        return _means([[figure(report) for report in node.reports] for node in nodes])

    rounds = Rounds(
        own_reward=mean(lambda report: report.own_reward),
        batch_reward=mean(lambda report: report.batch_reward),
        zero_advantage_share=mean(lambda report: report.zero_advantage_share),
        own_tokens=mean(lambda report: report.own_tokens),
        foreign_used=mean(lambda report: report.foreign_groups_used),
        foreign_age=tuple(
            _mean([age for node_ages in ages for age in node_ages])
            for ages in zip(*(node.ages for node in nodes), strict=True)
        ),
        replayed=mean(lambda report: report.num_replayed),
        effective_sample_size=mean(lambda report: report.effective_sample_size),
        entropy=mean(lambda report: report.entropy),
        kl_to_start=mean(
            lambda report: math.nan if report.kl_to_start is None else report.kl_to_start
        ),
        clip_share=mean(lambda report: report.clip_share),
        gradient_norm=mean(lambda report: report.gradient_norm),
        poison_share=_means([node.poison_shares for node in nodes]),
        answer_bytes=_means([node.answer_bytes for node in nodes]),
    )
    return rounds


def _exams(nodes: Sequence[Tally]) -> tuple[Exam, ...]:
    return tuple(
        _exam([node.sittings[number] for node in nodes], nodes)
        for number in range(len(nodes[0].sittings))
    )


def _exam(sittings: Sequence[_Sitting], nodes: Sequence[Tally]) -> Exam:
    found = [one.found for one in sittings]
    per_task = [{name: one.mean for name, one in each.per_task.items()} for each in found]
    unable = [
        _mean([scores[task] for task in weak])
        for node, scores in zip(nodes, per_task, strict=True)
        if (weak := _weak_tasks(node.sittings[0].found))
    ]
    return Exam(
        round=sittings[0].round,
        own_tokens=_mean([float(one.own_tokens) for one in sittings]),
        num_questions=len(found[0].per_question),
        pass_1=_mean([one.overall.mean for one in found]),
        pass_k=_mean([one.pass_at(one.answers_per_question).mean for one in found]),
        greedy=_mean([one.greedy.mean for one in found]),
        diversity=_mean([statistics.fmean(one.vendi) for one in found]),
        per_task={task: _mean([scores[task] for scores in per_task]) for task in per_task[0]},
        unable=_mean(unable) if unable else None,
    )


def _weak_tasks(start: HeldOut) -> list[str]:
    return [name for name, found in start.per_task.items() if found.mean < UNABLE]


def _used(report: RoundReport) -> list[ForeignGroup]:
    return [group for group in report.foreign if group.fate is ForeignFate.USED]


def _means(series: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean over nodes of each round."""
    return tuple(statistics.fmean(values) for values in zip(*series, strict=True))


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
