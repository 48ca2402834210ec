"""A node's own terms: what they add, from which text, and that nobody else hears of them."""

from dataclasses import replace

import msgspec
import pytest

from node.config import ConfigError, RewardConfig, find_manifest, load_config
from node.groups import Origin, VerifiedRollout
from node.reward import NO_TERMS, RewardTerms, make_terms
from rewards.question import Answer, Expansion, Judged, Question, Reason, Unscorable, Verdict
from swarm.manifest import load_manifest

RULES = load_manifest(find_manifest("easy")).rules
FORMATS = {"sums": "tags", "words": "last_line"}
MARKED, UNMARKED = "<answer>3</answer>", "3"


def rollout(*texts: str, verdicts: tuple[Verdict, ...] = (), task: str = "sums") -> VerifiedRollout:
    return VerifiedRollout(
        Expansion(Question(task, 1), "1 + 2 =", "3"),
        tuple(Answer(text, finished=True) for text in texts),
        verdicts or (Judged(False),) * len(texts),
        tuple((1,) for _ in texts),
    )


def test_by_default_rewards_are_correctness() -> None:
    one = rollout(MARKED, "x" * 10_000, verdicts=(Judged(True), Unscorable(Reason.DEADLINE)))
    assert NO_TERMS.apply(one) is one and one.rewards == (1.0, 0.0)
    assert make_terms(RewardConfig(), RULES).apply(one) is one


def test_a_marked_answer_gets_the_format_term_right_or_wrong() -> None:
    terms = RewardTerms(format=0.25, answer_formats=FORMATS)
    verdicts = (Judged(True), Judged(False), Judged(True), Unscorable(Reason.DEADLINE))
    shaped = terms.apply(rollout(MARKED, MARKED, UNMARKED, MARKED, verdicts=verdicts))
    assert shaped.rewards == (1.25, 0.25, 1.0, 0.25)
    assert shaped.correct == (True, False, True, False)
    words = rollout("3", "3", task="words")
    cut = replace(words, answers=(words.answers[0], Answer("3", finished=False)))
    assert terms.apply(cut).rewards == (0.25, 0.0)


@pytest.mark.parametrize(
    ("num_bytes", "penalty"),
    [(0, 0), (799, 0), (800, 0), (850, 0.125), (900, 0.25), (1000, 0.5), (1001, 0.5), (9999, 0.5)],
)
def test_the_length_term_rises_from_what_is_free_to_the_limit(
    num_bytes: int, penalty: float
) -> None:
    terms = RewardTerms(length=0.5, free_bytes=800, max_bytes=1000, answer_formats=FORMATS)
    assert terms.apply(rollout("x" * num_bytes)).rewards == (-penalty,)


def test_length_is_counted_in_bytes_not_in_characters_or_tokens() -> None:
    terms = RewardTerms(length=1.0, free_bytes=0, max_bytes=8, answer_formats=FORMATS)
    assert terms.apply(rollout("xx", "éé", "✓", "\ud800")).rewards == (-0.25, -0.5, -0.375, -0.375)


def test_foreign_answers_get_the_same_terms_as_own_ones() -> None:
    terms = RewardTerms(0.5, 0.5, 0, 100, FORMATS)
    own = rollout(MARKED, UNMARKED, verdicts=(Judged(True), Judged(False)))
    foreign = replace(own, token_ids=None, origin=Origin("peer", bytes(32), 7, 1.0))
    assert terms.apply(own).rewards == terms.apply(foreign).rewards


def test_what_peers_may_want_is_not_changed_by_own_terms() -> None:
    terms = RewardTerms(format=0.5, answer_formats=FORMATS)
    failed = terms.apply(rollout(MARKED, UNMARKED))
    assert failed.has_advantage and not failed.is_informative
    terms = RewardTerms(format=1.0, answer_formats=FORMATS)
    evened = terms.apply(rollout(MARKED, UNMARKED, verdicts=(Judged(False), Judged(True))))
    assert evened.is_informative and not evened.has_advantage


def test_limits_and_formats_come_from_the_swarm() -> None:
    terms = make_terms(RewardConfig(format=0.1, length=0.2), RULES)
    assert (terms.free_bytes, terms.max_bytes) == (819, 1024)
    assert set(terms.answer_formats) == {task.name for task in RULES.tasks}
    config = load_config(flags={"reward.length": 0.5, "reward.free_bytes": 24}, environment={})
    assert make_terms(config.reward, RULES).free_bytes == 24


def test_free_bytes_that_no_answer_exceeds_are_refused() -> None:
    config = RewardConfig(length=0.1, free_bytes=1024)
    with pytest.raises(ConfigError, match=r"reward\.free_bytes = 1024: .* at most 1024 bytes"):
        make_terms(config, RULES)
    assert make_terms(config.model_copy(update={"length": 0.0}), RULES).is_none
    tiny = msgspec.structs.replace(RULES, max_answer_bytes=1)
    assert make_terms(RewardConfig(length=0.1), tiny).free_bytes == 0
