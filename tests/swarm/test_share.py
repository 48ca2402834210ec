import logging
from typing import Any

import pytest
from trio.testing import trio_test

from rewards.question import Answer, Question
from swarm.protocol import MAX_ANNOUNCEMENT_BYTES
from swarm.rollout import Announcement
from swarm.share import _parts
from swarm.wire import open_announcement, open_rollout, rollout_hash


def own(index: int, texts: tuple[str, ...] = ("yes", "no"), **claims: Any) -> Any:
    answers = tuple(Answer(text, True, **claims) for text in texts)
    return Question("sums", index), answers, tuple(text == "yes" for text in texts), 5


class Listener:
    """Keeps what is announced on the network."""

    def __init__(self, swarm: Any) -> None:
        self.records: list[bytes] = []
        swarm.peer().gossip.deliver = lambda record, carrier, shard: self.records.append(record)

    @property
    def announcements(self) -> list[Announcement]:
        return [open_announcement(record) for record in self.records]


@trio_test
async def test_rollouts_are_kept_announced_and_served(swarm: Any) -> None:
    listener, node = Listener(swarm), swarm.node()
    assert await node.publisher.share([own(1), own(2, ("yes", "yes"))], "m" * 500) == 2
    (announcement,) = listener.announcements
    assert announcement.author == node.node_id
    assert announcement.created == swarm.clock()
    assert [entry.correct for entry in announcement.entries] == [(True, False), (True, True)]
    hashes = [entry.hash for entry in announcement.entries]
    found = await node.publisher.find(hashes)
    for entry in announcement.entries:
        record = found[entry.hash]
        rollout = open_rollout(record)
        assert entry.hash == rollout_hash(record) and entry.num_bytes == len(record)
        assert rollout.question == entry.question
        assert rollout.sequence == announcement.sequence
        assert (rollout.policy_round, entry.policy_round) == (5, 5)
        assert rollout.created == swarm.clock() and rollout.model == "m" * 200
    assert (await node.offload(node.pool.counts)).own == 2
    assert await node.publisher.find([bytes(32)]) == {}


@trio_test
async def test_many_rollouts_take_several_announcements(swarm: Any) -> None:
    listener, node = Listener(swarm), swarm.node()
    assert await node.publisher.share([own(index) for index in range(50)], "model") == 50
    first = listener.announcements
    assert [len(one.entries) for one in first] == [24, 24, 2]
    assert await node.publisher.share([own(99)], "model") == 1
    sequences = [one.sequence for one in listener.announcements]
    assert sequences == sorted(set(sequences)) and len(sequences) == 4
    incarnations = {one.incarnation for one in listener.announcements}
    assert len(incarnations) == 1 and incarnations.pop() < sequences[0]
    for announcement in first:
        found = await node.publisher.find([entry.hash for entry in announcement.entries])
        assert {open_rollout(one).sequence for one in found.values()} == {announcement.sequence}
    stats = node.publisher.stats()
    assert (stats.num_rollouts, stats.num_announcements, stats.num_left_out) == (51, 4, 0)


def test_an_announcement_is_bounded_in_bytes() -> None:
    rollouts = [(Question("é" * 300, 2**53 - 1), (), (True,) * 64, 2**39)] * 24
    parts = list(_parts(rollouts))
    assert len(parts) > 1 and sum(map(len, parts)) == 24
    assert max(map(len, parts)) * 600 < MAX_ANNOUNCEMENT_BYTES


@trio_test
async def test_nothing_to_share_is_not_announced(swarm: Any) -> None:
    listener, node = Listener(swarm), swarm.node()
    assert await node.publisher.share([], "model") == 0
    assert listener.records == []


@pytest.mark.parametrize(
    ("rollout", "complaint"),
    [
        (own(1, ("yes", "é" * 501)), "an answer of 1002 bytes, at most 1000"),
        (own(1, ("yes",)), "1 answers, 2 to 8"),
        (own(1, ("yes",) * 9), "9 answers, 2 to 8"),
        (own(1, ("yes", "\ud800")), "no UTF-8 form"),
        (own(-1), "no such question"),
        ((Question("nope", 1), *own(1)[1:]), "no such question"),
        ((*own(1)[:2], (True,), 5), "2 answers"),
        (own(1, mean_logp=0.25), "malformed"),
        (own(1, mean_logp=float("nan")), "malformed"),
        (own(1, num_tokens=-1), "malformed"),
        ((*own(1)[:3], -1), "malformed"),
    ],
)
@trio_test
async def test_what_peers_would_refuse_is_left_out_with_a_warning(
    swarm: Any, caplog: pytest.LogCaptureFixture, rollout: Any, complaint: str
) -> None:
    listener, node = Listener(swarm), swarm.node()
    with caplog.at_level(logging.WARNING):
        assert await node.publisher.share([own(0), rollout, own(2)], "model") == 2
    assert complaint in caplog.text
    (announcement,) = listener.announcements
    assert [entry.question.index for entry in announcement.entries] == [0, 2]
    assert node.publisher.stats().num_left_out == 1


@trio_test
async def test_a_rollout_above_the_limit_is_left_out(
    swarm: Any, rules: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import msgspec

    roomy = msgspec.structs.replace(rules, max_answer_bytes=1_000_000)
    listener, node = Listener(swarm), swarm.node(rules=roomy)
    large = own(1, ("x" * 600_000,) * 2)
    assert await node.publisher.share([large], "model") == 0
    assert "a record of" in caplog.text and listener.records == []


@trio_test
async def test_what_expired_is_not_served(swarm: Any) -> None:
    listener, node = Listener(swarm), swarm.node()
    await node.publisher.share([own(1)], "model")
    hashes = [entry.hash for entry in listener.announcements[0].entries]
    swarm.clock.now += 3600 + 599
    assert len(await node.publisher.find(hashes)) == 1
    swarm.clock.now += 1
    assert await node.publisher.find(hashes) == {}
