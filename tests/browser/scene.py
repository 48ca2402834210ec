"""A made-up node that has learned for a while from peers, few or many: for tests and pictures."""

import math
import random
import time
from dataclasses import dataclass, field

import msgspec

from node.api_fake import EMPTY, fake_readable, fake_store
from node.api_reads import Readable
from node.news import News
from node.rollout_log import OwnRollouts
from node.status import (
    ForeignFate,
    ForeignGroup,
    HeldOutStatus,
    LearnerStatus,
    PeerStatus,
    PoolStatus,
    RoundReport,
    Snapshot,
    TaskAnswers,
    TaskHeldOut,
)
from node.store import Store
from rewards.question import Answer, Expansion, Judged, Question
from rewards.sandbox import Isolation
from rewards.tasks import TaskSpec
from swarm.admission import Seen
from swarm.identity import Identity
from swarm.intake import Outcome
from swarm.offers import Offer
from swarm.refusal import Refusal
from swarm.rollout import Entry, Rollout
from swarm.wire import rollout_hash, seal

TASKS = ("sums", "spell_backward", "count_letters", "bitwise", "chain_sum")
HOSTILE = "<img src=x onerror=\"document.title='hacked'\">\x1b[31m\u202e<script>hacked()</script>"


@dataclass
class Scene:
    """A node. `snapshot` may be replaced between looks at it."""

    num_rounds: int = 320
    num_peers: int = 7
    seed: int = 1
    store: Store = field(default_factory=fake_store)
    news: News = field(default_factory=News)
    snapshot: Snapshot = EMPTY
    reports: list[RoundReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = time.time()
        self._random = random.Random(self.seed)
        self.authors = [Identity(bytes([number + 1]) * 32) for number in range(self.num_peers)]
        for number in range(1, self.num_rounds + 1):
            self.add_round(number)
        self._add_rollouts()
        self._evaluate()
        self.snapshot = self._snapshot()

    def readable(self) -> Readable:
        specs = tuple(TaskSpec(name, "reasoning_gym", name, "0.1.25") for name in TASKS)
        return fake_readable(lambda: self.snapshot, self.store, tasks=specs, news=self.news)

    def add_round(self, number: int) -> RoundReport:
        report = self._report(number)
        self.store.history.put_round(report)
        self.reports.append(report)
        return report

    def _skill(self, number: int) -> float:
        return 0.18 + 0.52 * (1 - math.exp(-number / 140))

    def _report(self, number: int) -> RoundReport:
        draw = self._random
        skill = min(1.0, max(0.0, self._skill(number) + draw.gauss(0, 0.06)))
        by_task = {
            name: TaskAnswers(16, round(16 * min(1, max(0, skill + 0.1 * (place - 2)))))
            for place, name in enumerate(TASKS)
        }
        weights = [1 / (place + 1) for place in range(self.num_peers)]
        num = min(4, draw.choice((2, 3, 3, 4, 4))) if self.authors else 0
        foreign = tuple(
            ForeignGroup(
                draw.choices(self.authors, weights)[0].node_id,
                draw.randbytes(32),
                draw.choice(TASKS),
                ForeignFate.USED if draw.random() < 0.92 else ForeignFate.ZERO_ADVANTAGE,
                number,
                draw.lognormvariate(3.2, 1.4),
                -0.6,
            )
            for _ in range(num)
        )
        return RoundReport(
            round=number,
            own_reward=skill,
            batch_reward=min(1.0, skill + 0.03),
            zero_advantage_share=0.25,
            num_questions=8,
            num_answers=64,
            num_unscorable=0,
            own_tokens=draw.randrange(600, 900),
            finished_share=0.98,
            entropy=0.9 * math.exp(-number / 300) + draw.gauss(0.1, 0.02),
            update_skipped=None,
            loss=draw.gauss(0, 0.03),
            gradient_norm=draw.lognormvariate(0, 0.3),
            learning_rate=1e-4,
            clip_share=0.0,
            seconds={
                "generating": draw.uniform(3.5, 4.5),
                "verifying": 0.4,
                "sharing": 0.05,
                "mixing": draw.uniform(0, 0.9),
                "updating": draw.uniform(2, 2.6),
                "syncing": 0.12,
            },
            foreign_wanted=4,
            foreign=foreign,
            num_shared=6,
            finished_at=self.now - 8.0 * (self.num_rounds - number),
            num_groups=8 + num,
            num_replayed=1,
            effective_sample_size=draw.uniform(0.8, 0.95),
            kl_to_start=0.4 * (1 - math.exp(-number / 200)) if number % 5 == 0 else None,
            own_tasks=by_task,
        )

    def _evaluate(self) -> None:
        for number in range(0, self.num_rounds + 1, 80):
            tasks = {
                name: TaskHeldOut(
                    min(1, max(0, self._skill(number) - 0.02 + 0.1 * (place - 2))), 0.03, 64
                )
                for place, name in enumerate(TASKS)
            }
            mean = sum(one.mean for one in tasks.values()) / len(tasks)
            self.store.history.put_heldout(HeldOutStatus(number, mean, 0.022, 320, tasks=tasks))

    def _add_rollouts(self) -> None:
        own = OwnRollouts(EMPTY.node_id, "tiny", lambda: self.now)
        for number in range(max(1, self.num_rounds - 12), self.num_rounds + 1):
            question = Question("spell_backward", number)
            text = "Spell this word backward (example: sun -> nus): frog"
            texts = [
                "gorf",
                "gorf",
                "grof",
                "The word backward is gorf",
                "gorf",
                "frog",
                "",
                "gorf",
            ]
            answers = tuple(Answer(one, True, 5, -0.3) for one in texts)
            own.asked(number, [Expansion(question, text, "gorf")])
            own.judged([(question, answers)], [tuple(Judged("gorf" in one) for one in texts)])
            self.store.rollouts.add_own(own.take(number))
        for place, author in enumerate(self.authors[:6]):
            refusal = Refusal.WRONG_CLAIM if place == 5 else None
            self.add_foreign(author, place, refusal=refusal)

    def add_foreign(
        self, author: Identity, index: int, *, text: str = "", refusal: Refusal | None = None
    ) -> str:
        """A peer's rollout; its hash."""
        texts = [text or "7 + 5 = 12", "12", "The answer is 13", "12"]
        answers = tuple(Answer(one, True, 7, -0.4) for one in texts)
        question = Question("sums", 2000 + index)
        rollout = Rollout(
            "0" * 64,
            author.node_id,
            index,
            question,
            answers,
            "Qwen2.5-0.5B-Instruct",
            41,
            self.now,
        )
        record = seal(rollout, author)
        hash = rollout_hash(record)
        expansion = Expansion(question, f"What is 7 + 5?{text}", "12")
        verdicts = (True, True, False, True)
        if refusal is None:
            self.store.pool.add_foreign(record, rollout, expansion, verdicts, self.now)
        claims = verdicts if refusal is None else (True, True, True, True)
        entry = Entry(hash, question, len(record), claims, 41)
        offer = Offer(entry, author.node_id, index, author.node_id, b"", self.now, self.now + 1e6)
        seen = Seen(rollout, expansion, [Judged(one) for one in verdicts])
        self.store.rollouts.add_foreign(Outcome(offer, seen, refusal))
        return hash.hex()

    def _peers(self) -> tuple[PeerStatus, ...]:
        used = {author.node_id: 0 for author in self.authors}
        for report in self.reports:
            for group in report.foreign:
                used[group.author] += group.fate is ForeignFate.USED
        peers = []
        for place, author in enumerate(self.authors):
            relayed = place % 4 == 2
            connected = place % 9 != 8
            at = f"/ip4/192.0.2.{place + 1}/tcp/8421"
            peers.append(
                PeerStatus(
                    author.node_id,
                    connected=connected,
                    address=(f"{at}/p2p-circuit" if relayed else at) if connected else "",
                    connected_s=5000.0 - 60 * place if connected else 0.0,
                    first_met=self.now - 9000 + place,
                    announcements=self.num_rounds,
                    rollouts_offered=5 * used[author.node_id] + 3,
                    rollouts_fetched=2 * used[author.node_id],
                    rollouts_admitted=2 * used[author.node_id],
                    rollouts_used=used[author.node_id],
                    refused={"not_wanted": 40, "wrong_claim": 2} if place == 5 else {"seen": 3},
                    lies=2 if place == 5 else 0,
                    last_heard=self.now - 3 * place,
                )
            )
        return tuple(peers)

    def _snapshot(self) -> Snapshot:
        lately = self.reports[-256:]
        heldout = tuple(self.store.history.heldout())
        return msgspec.structs.replace(
            EMPTY,
            version="0.1.0",
            swarm_name="easy",
            home="/home/me/sapo-home",
            started=self.now - 8.0 * self.num_rounds,
            now=self.now,
            model="tiny",
            learner=LearnerStatus(
                pid=1,
                stage="generating",
                stage_age_s=1.5,
                round=self.num_rounds,
                engine="vllm",
                target_rounds=700,
            ),
            pool=PoolStatus(31, 402, 96, 1_830_912, 12, 0.84, 2_911_044, 118),
            peers=self._peers(),
            last_round=lately[-1] if lately else None,
            own_reward=tuple(one.own_reward for one in lately),
            foreign_groups_used=tuple(one.foreign_groups_used for one in lately),
            refused={"not_wanted": 212, "seen": 41, "wrong_claim": 2, "duplicate": 4}
            if self.authors
            else {},
            heldout=heldout,
            addresses=("/ip4/192.0.2.250/tcp/8421",),
            bytes_sent=123_456_789,
            bytes_received=98_765_432,
            announcements_sent=self.num_rounds,
            announcements_received=self.num_rounds * self.num_peers,
            disk_free=53_687_091_200,
            memory_mib={"control": 182.5, "learner": 2410.25, "verifier": 96.0},
            total_tokens=79_360,
            control_cpu_s=812.5,
            lag_s=0.05,
            tasks=TASKS,
            isolation=Isolation(4, True, ()),
        )
