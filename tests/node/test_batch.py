"""Each strategy picks exactly what its definition says, of own, of foreign and of old groups."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from node.batch import (
    STRATEGIES,
    AtHand,
    Own,
    Want,
    advantages,
    make_strategy,
    max_from_one_peer,
    may_share,
)
from node.config import Mode, Share, load_config
from node.experience import Experience, TaskAccuracy
from node.groups import BatchLimits, Group, Lesson, Origin, Source, VerifiedRollout
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable

HUNG = Unscorable(Reason.DEADLINE)


def rollout(task: str, verdicts: Sequence[bool | Unscorable], index: int = 0) -> VerifiedRollout:
    question = Question(task, index)
    return VerifiedRollout(
        Expansion(question, "text", "truth"),
        tuple(Answer("x", True, 1, -0.5) for _ in verdicts),
        tuple(one if isinstance(one, Unscorable) else Judged(one) for one in verdicts),
        tuple((1,) for _ in verdicts),
    )


def foreign(verdicts: Sequence[bool]) -> VerifiedRollout:
    origin = Origin("peer", b"\0" * 32, policy_round=3, age_s=1.0)
    return replace(rollout("a", verdicts), token_ids=None, origin=origin)


def make(
    name: str, questions: int = 4, foreign: int = 4, mode: Mode = "train", **batch: object
) -> Own:
    """A strategy as settings make it."""
    flags = {f"batch.{key}": value for key, value in batch.items()} | {"mode": mode}
    flags |= {"batch.strategy": name, "rollout.questions": questions, "swarm.foreign": foreign}
    return make_strategy(load_config(flags=flags, environment={}))


def compose(
    strategy: Own,
    own: Sequence[VerifiedRollout],
    foreign: Sequence[VerifiedRollout] = (),
    experience: Experience | None = None,
) -> list[Lesson]:
    at_hand = AtHand(own, foreign, experience or Experience(), random.Random(1))
    return strategy.compose(at_hand)


def found(batch: Sequence[Lesson]) -> list[tuple[VerifiedRollout, Source]]:
    return [(one.rollout, one.source) for one in batch]


MIXED, MIXED_TOO = rollout("a", [True, False, False]), rollout("b", [False, True], 1)
FAILED, MASTERED = rollout("a", [False, False], 2), rollout("b", [True, True], 3)
OWN_GROUPS = [MIXED, FAILED, MIXED_TOO, MASTERED]
PEERS = [foreign([True, False, False]), foreign([False, True])]
OLD = [rollout("a", [True, False], 10 + number) for number in range(9)]


def test_advantages_are_those_of_trl_within_one_group() -> None:
    assert advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx(
        [1.4997, -0.4999, -0.4999, -0.4999], abs=1e-4
    )
    assert advantages([1.0, 1.0]) == (0.0, 0.0)
    assert advantages([]) == ()


def test_own_learns_from_all_own_groups_and_wants_nothing() -> None:
    strategy = make("own")
    assert found(compose(strategy, OWN_GROUPS)) == [(one, Source.OWN) for one in OWN_GROUPS]
    assert strategy.want(OWN_GROUPS, Experience()) == Want()
    assert not Want().could_use([True, False])
    assert strategy.most_foreign == 0
    assert (strategy.num_more([], 0), strategy.num_more(OWN_GROUPS, 4)) == (4, 0)


def test_own_dynamic_asks_until_the_batch_is_informative_or_the_budget_is_spent() -> None:
    strategy = make("own-dynamic", token_budget=2.0)
    assert strategy.num_more([], 0) == 4
    assert strategy.num_more(OWN_GROUPS, 4) == 2
    assert strategy.num_more([*OWN_GROUPS, MIXED, FAILED], 6) == 1
    assert strategy.num_more([*OWN_GROUPS, MIXED, MIXED], 6) == 0
    failing = [FAILED] * 4  # of 2 tokens each: the budget is 16
    assert strategy.num_more([*failing, FAILED, FAILED, FAILED], 7) == 4
    assert strategy.num_more([*failing, *failing], 8) == 0
    assert found(compose(strategy, [*OWN_GROUPS, MIXED])) == [
        (one, Source.OWN) for one in (MIXED, MIXED_TOO, MIXED)
    ]


def test_own_dynamic_ends_even_where_no_question_can_be_answered() -> None:
    strategy, num_asked = make("own-dynamic"), 0
    while num := strategy.num_more([], num_asked):
        num_asked += num
    assert num_asked <= 64


def test_own_replay_fills_the_batch_with_own_successes_of_the_last_rounds() -> None:
    strategy = make("own-replay", groups=5, replay_rounds=7)
    experience = Experience(replayable=OLD)
    batch = compose(strategy, OWN_GROUPS, (), experience)
    assert found(batch[:2]) == [(MIXED, Source.OWN), (MIXED_TOO, Source.OWN)]
    assert [one.source for one in batch[2:]] == [Source.REPLAY] * 3
    assert (
        len(
            {one.rollout.expansion.question for one in batch[2:]}
            & {o.expansion.question for o in OLD}
        )
        == 3
    )
    fresh, old = batch[0], batch[2]
    assert fresh.advantages == advantages(MIXED.rewards), "signed"
    assert old.advantages == pytest.approx((0.7070, 0.0), abs=1e-3), "positives only"
    signed = compose(make("own-replay", groups=5, replay_negatives=True), [], (), experience)
    assert signed[0].advantages == pytest.approx((0.7070, -0.7070), abs=1e-3)
    assert strategy.replay_rounds == 7
    assert strategy.want(OWN_GROUPS, experience) == Want()
    assert len(compose(make("own-replay", groups=1), OWN_GROUPS, (), experience)) == 2, "fresh all"
    assert len(compose(make("own-replay", groups=99), [], (), experience)) == 9


def test_own_weakness_asks_more_of_what_the_node_cannot() -> None:
    experience = Experience(
        accuracies={
            "a": TaskAccuracy(0.75, 9),
            "b": TaskAccuracy(1.0, 9),
            "c": TaskAccuracy(0.0, 9),
        }
    )
    weights = {"a": 0.25, "b": 0.05, "c": 1.0}
    assert make("own-weakness").question_weights(experience) == weights
    assert found(compose(make("own-weakness"), OWN_GROUPS)) == found(
        compose(make("own"), OWN_GROUPS)
    )
    for name in ("own", "fill", "teach", "paper"):
        assert make(name).question_weights(experience) == {}
        assert make(name, weakness=True).question_weights(experience) == weights


def test_paper_takes_all_own_groups_and_j_foreign_ones_signed_and_uniformly() -> None:
    strategy = make("paper", foreign=2)
    want = strategy.want(OWN_GROUPS, Experience())
    assert (want.num_groups, want.most, want.masters, want.task_weights) == (2, 2, False, {})
    batch = compose(strategy, OWN_GROUPS, PEERS)
    assert found(batch) == [(one, Source.OWN) for one in OWN_GROUPS] + [
        (one, Source.FOREIGN) for one in PEERS
    ]
    assert [one.advantages for one in batch] == [advantages(one.rollout.rewards) for one in batch]
    assert not any(strategy.worth(foreign([True, True]), Experience()))


def test_fill_takes_as_many_foreign_groups_as_own_ones_are_missing_then_replays() -> None:
    strategy = make("fill", foreign=3, groups=6)
    experience = Experience(replayable=OLD)
    assert strategy.want(OWN_GROUPS, experience).num_groups == 3, "4 are missing, J is 3"
    assert strategy.want([MIXED] * 5, experience).num_groups == 1
    assert strategy.want([MIXED] * 7, experience).num_groups == 0
    assert strategy.want([MIXED] * 7, experience).most == 3, "and it goes on to keep some ready"
    batch = compose(strategy, OWN_GROUPS, PEERS, experience)
    assert [one.source for one in batch] == [Source.OWN] * 2 + [Source.FOREIGN] * 2 + [
        Source.REPLAY
    ] * 2
    assert batch[0].advantages == advantages(MIXED.rewards)
    assert batch[2].advantages == pytest.approx((1.1545, 0, 0), abs=1e-3)
    assert min(value for one in batch[2:] for value in one.advantages) == 0.0
    assert not strategy.want(OWN_GROUPS, experience).could_use([True, True])


def test_teach_values_a_foreign_success_by_own_weakness_in_groups_of_masters_too() -> None:
    strategy = make("teach", groups=6)
    experience = Experience(accuracies={"a": TaskAccuracy(0.25, 9), "b": TaskAccuracy(0.9, 9)})
    want = strategy.want(OWN_GROUPS, experience)
    assert want.could_use([True, True]) and not want.could_use([False, False])
    assert want.num_groups == 4
    assert want.task_weights == pytest.approx({"a": 0.75, "b": 0.1})
    assert strategy.worth(foreign([True, True]), experience) == (0.75, 0.75)
    batch = compose(strategy, [MIXED], [foreign([True, False, True])], experience)
    assert batch[1].advantages == (0.75, 0.0, 0.75)
    assert batch[0].advantages == advantages(MIXED.rewards)
    assert strategy.worth(foreign([True, False]), Experience()) == (1.0, 0.0)


def test_rescue_wants_the_questions_that_failed_here_and_puts_them_last_and_whole() -> None:
    strategy = make("rescue", foreign=2)
    lately = Question("c", 5)
    want = strategy.want(OWN_GROUPS, Experience(failed=[lately]))
    assert want.questions == {FAILED.expansion.question, lately}
    assert want.num_groups == 2
    assert want.weight(lately, [True, False], 0.0) == 1.0
    assert want.weight(MIXED.expansion.question, [True, False], 0.0) == 0.0
    assert want.weight(lately, [True, True], 0.0) == 0.0, "not mixed"
    assert want.could_use([True, False]), "an announcement is kept until its question fails"
    assert strategy.want([MIXED], Experience()).num_groups == 0
    twin = replace(foreign([True, False]), expansion=FAILED.expansion)
    batch = compose(strategy, OWN_GROUPS, [twin])
    assert found(batch) == [(one, Source.OWN) for one in OWN_GROUPS] + [(twin, Source.FOREIGN)]
    assert batch[-1].advantages == advantages([1.0, 0.0]), "whole, and not pooled with the own one"
    assert batch[1].advantages == (0.0, 0.0)
    assert strategy.asks_common


def test_a_fixed_model_asks_as_its_strategy_does_wants_nothing_and_learns_from_nothing() -> None:
    own = make("own")
    weak = Experience(accuracies={"a": TaskAccuracy(0.25, 8), "b": TaskAccuracy(0.5, 8)})
    for name in STRATEGIES:
        strategy, learning = make(name, mode="generate"), make(name)
        assert strategy.most_foreign == 0 and strategy.replay_rounds == 0
        assert strategy.want([FAILED] * 4, Experience()) == Want()
        assert compose(strategy, OWN_GROUPS, experience=Experience(replayable=OLD)) == []
        assert strategy.asks_common == learning.asks_common
        assert strategy.question_weights(weak) == learning.question_weights(weak)
        assert strategy.num_more([FAILED] * 4, 4) == learning.num_more([FAILED] * 4, 4)
    assert make("own-dynamic", mode="generate").num_more([FAILED] * 4, 4) > 0
    assert own.num_more([FAILED] * 4, 4) == 0


def test_what_is_old_is_not_wanted_and_weighs_less() -> None:
    want = make("paper", max_age_s=60).want((), Experience())
    question = Question("a", 1)
    assert (want.weight(question, [True, False], 60), want.weight(question, [True, False], 61)) == (
        1,
        0,
    )
    peer = replace(PEERS[0], origin=Origin("peer", b"", 3, age_s=20.0))
    batch = compose(make("paper", half_life_s=10), [MIXED], [peer])
    assert [one.weight for one in batch] == [1.0, 0.25]
    assert batch[1].advantages == advantages(peer.rewards), "the weight comes on top"
    assert [one.weight for one in compose(make("fill"), [MIXED], [peer])] == [1.0, 1.0]


def test_every_strategy_wants_the_share_of_one_peer_that_is_set() -> None:
    for name in ("paper", "fill", "teach", "rescue"):
        want = make(name, peer_share=0.25, foreign=4).want([FAILED] * 4, Experience())
        assert want.peer_share == 0.25
    assert Want(4, 4, 0.25).max_from_one_peer == 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_batch_is_larger_than_the_learner_is_told(name: str) -> None:
    strategy = make(name, questions=3, foreign=2, groups=5)
    experience = Experience(replayable=OLD, failed=[Question("c", 1), Question("c", 2)])
    want = strategy.want([FAILED] * 3, experience)
    long = foreign([True] + [False] * 9)
    for own in ([MIXED] * 3, [FAILED] * 3):
        batch = compose(strategy, own, [long] * want.num_groups, experience)
        num_answers = sum(len(one.rollout.answers) for one in batch)
        assert num_answers <= strategy.max_answers(num_answers=3, max_foreign_answers=10)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_round_composes_the_same_batch(name: str) -> None:
    experience = Experience(replayable=OLD)
    batches = [compose(make(name), OWN_GROUPS, PEERS, experience) for _ in range(2)]
    assert batches[0] == batches[1]


@pytest.mark.parametrize(
    ("num_foreign", "share", "most"),
    [(4, 0.5, 2), (5, 0.5, 3), (4, 1.0, 4), (1, 0.5, 1), (4, 0.01, 1), (100, 0.07, 7), (3, 0.4, 2)],
)
def test_one_peer_may_fill_its_share_rounded_up(num_foreign: int, share: float, most: int) -> None:
    assert max_from_one_peer(num_foreign, share) == most


OWN = {
    "mixed": rollout("a", [True, False]),
    "lesson": rollout("a", [True, True], 1),
    "second lesson": rollout("a", [True, True], 2),
    "other task": rollout("b", [True, True]),
    "failed": rollout("b", [False, False]),
    "mixed too": rollout("b", [False, True]),
    "hung": rollout("a", [True, HUNG]),
    "hung lesson": rollout("c", [True, True, HUNG]),
}


@pytest.mark.parametrize(
    ("share", "names"),
    [
        ("none", []),
        ("informative", ["mixed", "mixed too"]),
        ("lessons", ["mixed", "lesson", "other task", "mixed too"]),
        ("all", ["mixed", "lesson", "second lesson", "other task", "failed", "mixed too"]),
    ],
)
def test_each_setting_shares_exactly_what_it_says(share: Share, names: list[str]) -> None:
    assert may_share(list(OWN.values()), share) == [OWN[name] for name in names]
    assert may_share([], share) == []


def test_the_lesson_of_a_task_is_its_first_one_even_among_equals() -> None:
    twins = [OWN["lesson"], OWN["lesson"], OWN["mixed"]]
    assert may_share([replace(one) for one in twins], "lessons") == [twins[0], twins[2]]


def test_an_unscorable_answer_counts_as_wrong_and_keeps_its_rollout_at_home() -> None:
    hung = OWN["hung"]
    assert hung.correct == (True, False)
    assert hung.rewards == (1.0, 0.0)
    assert hung.is_informative
    assert not hung.is_shareable


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -0.5])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    limits = BatchLimits(max_answers=4, max_answer_tokens=4, max_positions=8, vocab_size=9)
    group = Group((1,), ((2,), (3,)), (1.0, -1.0), weights=(0.5, 1.0))
    limits.check([group])
    with pytest.raises(ValueError, match=r"group 1 of the batch: the weight .* at least 0"):
        limits.check([group, replace(group, weights=(1.0, weight))])
    with pytest.raises(ValueError, match="2 answers, but 1 weights"):
        limits.check([replace(group, weights=(1.0,))])
