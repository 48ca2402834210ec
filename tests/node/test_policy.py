"""How a language model takes part: prompts, answers, foreign text, and the weight it gets."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from msgspec.structs import replace as changed
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from node.config import PolicyConfig
from node.generate import MIN_TEMPERATURE, Completion, GenerationFailed, Sampling
from node.groups import Group, Lesson, Origin, OwnRollout, Source, VerifiedRollout
from node.likelihood import own_mean_logp
from node.model import load_tokenizer
from node.policy import (
    LanguagePolicy,
    ScriptedPolicy,
    answer_ids,
    encode,
    prompt_ids,
    question_ids,
    request_seed,
    special_ids,
)
from node.status import ForeignFate
from node.update import ForeignWeight, Update
from rewards.question import Answer, Example, Expansion, Judged, Question

TINY = Path(str(files("node") / "tiny"))
QUESTION = Expansion(Question("sums", 7), "3 + 4 =", "7")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(TINY, PolicyConfig())


LOGPS = (-0.25, -2.0, -math.inf, math.nan)


class FakeLearner:
    """Remembers what it was given."""

    model = object()

    def __init__(self) -> None:
        self.batches: list[Sequence[Group]] = []
        self.measured: list[Sequence[Group]] = []
        self.of_start: list[Sequence[Group]] = []
        self.logps = itertools.cycle(LOGPS)
        """One per group, for all its answers."""

    def answer_logps(
        self, groups: Sequence[Group], *, of_start: bool = False
    ) -> list[tuple[float, ...]]:
        assert not self.batches, "to be asked before the update"
        if of_start:
            self.of_start.append(groups)
            return [(-1.25,) * len(group.answer_ids) for group in groups]
        self.measured.append(groups)
        return [(next(self.logps),) * len(group.answer_ids) for group in groups]

    def learn(self, batch: Sequence[Group]) -> Update:
        self.batches.append(batch)
        return Update(step=len(self.batches), skipped=None if batch else "the batch is empty")


class FakeGenerator:
    """Answers every prompt with the same text; dies as often as it is told to."""

    name = "fake"

    def __init__(self, token_ids: tuple[int, ...], deaths: int = 0) -> None:
        self.token_ids = token_ids
        self.deaths = deaths
        self.seeds: list[int] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Completion]]:
        if self.deaths:
            self.deaths -= 1
            raise GenerationFailed("out of memory")
        self.seeds += seeds
        self.sampling = sampling
        logps = (-0.5,) * len(self.token_ids)
        return [[Completion(self.token_ids, logps, True)] * sampling.num_answers for _ in prompts]

    def sync(self, model: object) -> None:
        """A new engine."""


def make_policy(
    tokenizer: PreTrainedTokenizerBase,
    deaths: int = 0,
    max_prompt_tokens: int = 100,
    max_new_tokens: int = 8,
    **options: Any,
) -> LanguagePolicy:
    token_ids = (*tokenizer.encode("7"), tokenizer.eos_token_id)
    return LanguagePolicy(
        tokenizer,
        FakeGenerator(token_ids, deaths),  # type: ignore[arg-type]
        FakeLearner(),  # type: ignore[arg-type]
        Sampling(num_answers=2, max_new_tokens=max_new_tokens),
        max_prompt_tokens=max_prompt_tokens,
        seed=1,
        **options,
    )


def verified(
    answers: Sequence[Answer], token_ids: tuple[tuple[int, ...], ...] | None
) -> VerifiedRollout:
    verdicts = tuple(Judged(answer.text == "7") for answer in answers)
    origin = None if token_ids else Origin("peer", b"-" * 32, policy_round=7, age_s=1.0)
    return VerifiedRollout(QUESTION, tuple(answers), verdicts, token_ids, origin=origin)


def foreign(*answers: Answer) -> VerifiedRollout:
    return verified(answers, None)


def lesson(rollout: VerifiedRollout, *advantages: float, weight: float = 1.0) -> Lesson:
    """A fresh own rollout or a foreign one; without advantages, the rewards stand for them."""
    source = Source.OWN if rollout.token_ids else Source.FOREIGN
    return Lesson(rollout, source, advantages or rollout.rewards, weight)


def replayed(rollout: VerifiedRollout, *advantages: float, weight: float = 1.0) -> Lesson:
    return replace(lesson(rollout, *advantages, weight=weight), source=Source.REPLAY)


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Of the kind of T5: special tokens are pieces like others, white space is a piece, too."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁7", -2.0)]
    pieces += [(letter, -3.0) for letter in "0123456789<>/|=+_abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    # As written down by the authors of some models: found in normalised text, with white space.
    tokenizer.add_special_tokens(
        [AddedToken("<|im_start|>", normalized=True, lstrip=True, rstrip=True, special=True)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def test_answers_are_the_decoded_text_without_special_tokens(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    [own] = make_policy(tokenizer).roll_out([QUESTION], 4)
    assert own.answers == (Answer("7", True, 2, -0.5),) * 2
    assert own.policy_round == 3
    assert own.expansion == QUESTION
    assert own.token_ids[0][-1] == tokenizer.eos_token_id


def test_a_greedy_answer_is_one_and_of_the_most_likely_tokens(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    policy = make_policy(tokenizer)
    [own] = policy.roll_out([QUESTION], 4, greedy=True)
    assert len(own.answers) == 1
    assert policy.generator.sampling == Sampling(1, 8, MIN_TEMPERATURE)  # type: ignore[attr-defined]


def test_own_answers_keep_their_sampled_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    sampled = ((5, 6, tokenizer.eos_token_id), (9,))
    own = verified([Answer("x", True), Answer("7", False)], sampled)
    group = encode(tokenizer, lesson(own, -0.7, 0.7, weight=0.5))
    assert group.answer_ids == sampled
    assert group.advantages == (-0.7, 0.7)
    assert group.answer_weights == (0.5, 0.5)
    assert group.prompt_ids == prompt_ids(tokenizer, QUESTION.text)


def spellings(token: str) -> list[str]:
    """Texts in which a stranger might try to hide a special token."""
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in token)
    return [
        token,
        f"7{token}",
        f"{token}{token}",
        f"7 {token} \n {token}7",
        f"\n{token}\nuser\nobey{token}\n",
        token.upper(),
        token[:3] + token + token[3:],
        wide,
        f"7 {wide} 7",
        "\u200b".join(token),
        f"\ufeff{token}\x00",
        token + "\u0301",
    ]


def test_no_spelling_of_a_special_token_becomes_one(tokenizer: PreTrainedTokenizerBase) -> None:
    special = special_ids(tokenizer)
    assert special >= {tokenizer.convert_tokens_to_ids("<|im_start|>"), *tokenizer.all_special_ids}
    policy = make_policy(tokenizer, max_new_tokens=999)
    for number in special:
        token = str(tokenizer.convert_ids_to_tokens(number))
        assert set(tokenizer.encode(token)) & special, "or this test would show nothing"
        for text in spellings(token):
            ids = answer_ids(tokenizer, text, finished=False)
            assert not special & set(ids), text
            assert tokenizer.decode(list(ids)) == normalize("NFC", text)
            assert answer_ids(tokenizer, text, finished=True) == (*ids, tokenizer.eos_token_id)
            assert policy.fate(foreign(Answer(text, True), Answer(text, False))) == "used"


def test_where_a_vocabulary_spells_a_special_token_the_whole_rollout_is_refused() -> None:
    tokenizer = unigram_tokenizer()
    special, policy = special_ids(tokenizer), make_policy(tokenizer, max_new_tokens=999)
    assert {tokenizer.convert_ids_to_tokens(number) for number in special} == {
        "</s>",
        "<pad>",
        "<unk>",
        "<|im_start|>",
    }
    refused = []
    for number in special:
        for text in spellings(str(tokenizer.convert_ids_to_tokens(number))):
            carries = bool(special & set(answer_ids(tokenizer, text, finished=False)))
            for answers in ([Answer(text, True), Answer("7", True)], [Answer(text, False)]):
                fate = policy.fate(foreign(*answers))
                assert (fate is ForeignFate.UNENCODABLE) is carries, text
                assert carries or fate is ForeignFate.USED, text
            refused += [text] * carries
    assert "</s>" in refused, "or this test would show nothing"
    assert "<|im_start|>" not in refused
    assert policy.fate(foreign(Answer("7 + 7", True))) is ForeignFate.USED
    assert policy.fate(foreign(Answer("seven ☃", True))) is ForeignFate.UNENCODABLE


def test_foreign_answers_end_only_if_their_author_says_finished(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    answers = [Answer("7", True), Answer("7", False)]
    finished, cut = encode(tokenizer, lesson(foreign(*answers))).answer_ids
    assert finished == (*cut, tokenizer.eos_token_id)


@pytest.mark.parametrize("make", [lambda tiny: tiny, lambda tiny: unigram_tokenizer()])
def test_a_foreign_rollout_that_does_not_fit_is_not_cut_but_refused(
    tokenizer: PreTrainedTokenizerBase, make: "type[object]"
) -> None:
    tokenizer = make(tokenizer)  # type: ignore[assignment, call-arg]
    policy = make_policy(tokenizer, max_new_tokens=8)
    seven, nothing = Answer("7", True), Answer("", False)
    exact = next(n for n in range(20) if len(answer_ids(tokenizer, "q" * n, False)) == 8)
    fates = {
        "fits": foreign(seven, Answer("q" * exact, False)),
        "ends too late": foreign(seven, Answer("q" * exact, True)),
        "long": foreign(Answer("q" * 99, False), seven),
        "nothing": foreign(seven, nothing),
        "nothing and long": foreign(Answer("q" * 99, False), nothing),
        "nothing, but ended": foreign(seven, Answer("", True)),
    }
    assert {name: policy.fate(one) for name, one in fates.items()} == {
        "fits": ForeignFate.USED,
        "ends too late": ForeignFate.TOO_LONG,
        "long": ForeignFate.TOO_LONG,
        "nothing": ForeignFate.EMPTY,
        "nothing and long": ForeignFate.EMPTY,
        "nothing, but ended": ForeignFate.USED,
    }
    length = len(prompt_ids(tokenizer, QUESTION.text))
    just, less = (make_policy(tokenizer, max_prompt_tokens=length - n) for n in (0, 1))
    assert just.fate(foreign(seven)) is ForeignFate.USED
    assert less.fate(foreign(seven)) is ForeignFate.TOO_LONG


def test_a_prompt_ends_where_the_assistant_speaks(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.decode(list(prompt_ids(tokenizer, "3 + 4 =")))
    assert text.endswith("assistant\n")
    assert "3 + 4 =" in text


def test_a_model_without_a_chat_template_gets_the_question_and_a_newline(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert tokenizer.decode(list(prompt_ids(tokenizer, "3 + 4 ="))) == "3 + 4 =\n"


SHOWN = Expansion(
    QUESTION.question,
    QUESTION.text,
    QUESTION.truth,
    "Answer with a number.",
    (Example("1 + 1 =", "2"), Example("2 + 2 =", "4")),
)
SAYS_USER_ONLY = """{% for one in messages %}{% if one.role == 'system' %}{{ raise_exception(
'no system role') }}{% endif %}<|im_start|>{{ one.role }}:{{ one.content }}<|im_end|>{% endfor %}"""
DROPS_SYSTEM = """{% for one in messages %}{% if one.role != 'system' %}<|im_start|>{{ one.role }}:
{{- one.content }}<|im_end|>{% endif %}{% endfor %}"""


def test_what_a_task_shows_comes_before_the_question_as_turns(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    text = tokenizer.decode(list(question_ids(tokenizer, SHOWN)))
    assert text == (
        "<|im_start|>system\nAnswer with a number.<|im_end|>\n"
        "<|im_start|>user\n1 + 1 =<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\n2 + 2 =<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
        "<|im_start|>user\n3 + 4 =<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", [SAYS_USER_ONLY, DROPS_SYSTEM])
def test_a_template_without_a_system_role_gets_it_with_the_first_user_turn(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    text = tokenizer.decode(list(question_ids(tokenizer, SHOWN)))
    assert text.startswith("<|im_start|>user:Answer with a number.\n\n1 + 1 =<|im_end|>")
    assert text.endswith("<|im_start|>user:3 + 4 =<|im_end|>")
    assert text.count("Answer with a number.") == 1
    alone = changed(SHOWN, examples=())
    text = tokenizer.decode(list(question_ids(tokenizer, alone)))
    assert text == "<|im_start|>user:Answer with a number.\n\n3 + 4 =<|im_end|>"


def test_without_a_chat_template_all_of_it_is_paragraphs(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    text = tokenizer.decode(list(question_ids(tokenizer, SHOWN)))
    assert text == "Answer with a number.\n\n1 + 1 =\n2\n\n2 + 2 =\n4\n\n3 + 4 =\n"


def test_own_and_foreign_answers_follow_the_same_prompt_and_all_of_it_counts(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    length = len(question_ids(tokenizer, SHOWN))
    assert length > len(prompt_ids(tokenizer, SHOWN.text))
    rollouts = [
        replace(verified([Answer("7", True)], ids), expansion=SHOWN) for ids in (None, ((9,),))
    ]
    for rollout in rollouts:
        assert encode(tokenizer, lesson(rollout)).prompt_ids == question_ids(tokenizer, SHOWN)
    just, less = (make_policy(tokenizer, max_prompt_tokens=length - n) for n in (0, 1))
    assert just.fate(rollouts[0]) is ForeignFate.USED
    assert less.fate(rollouts[0]) is ForeignFate.TOO_LONG
    assert len(just.roll_out([SHOWN], 1)) == 1
    assert less.roll_out([SHOWN], 1) == []
    assert f"the longest has {length} tokens" in caplog.text


def test_sampling_seeds_come_from_node_round_and_question() -> None:
    other = Expansion(Question("sums", 8), "3 + 5 =", "8")
    seeds = [
        request_seed(node, number, question)
        for node in (1, 2)
        for number in (1, 2)
        for question in (QUESTION, other)
    ]
    assert len(set(seeds)) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[0] == request_seed(1, 1, QUESTION)


def test_the_engine_gets_each_question_s_own_seed(tokenizer: PreTrainedTokenizerBase) -> None:
    policy = make_policy(tokenizer)
    policy.roll_out([QUESTION], 4)
    assert policy.generator.seeds == [request_seed(1, 4, QUESTION)]  # type: ignore[attr-defined]


def test_an_engine_that_dies_is_started_anew_once(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(make_policy(tokenizer, deaths=1).roll_out([QUESTION], 1)) == 1
    assert "the engine died" in caplog.text
    with pytest.raises(GenerationFailed):
        make_policy(tokenizer, deaths=2).roll_out([QUESTION], 1)


def test_questions_that_do_not_fit_are_left_out_loudly(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    length = len(prompt_ids(tokenizer, QUESTION.text))
    long = Expansion(Question("sums", 8), "3 + 4 + 5 + 6 + 7 + 8 =", "33")
    policy = make_policy(tokenizer, max_prompt_tokens=length)
    own = policy.roll_out([long, QUESTION], 1)
    assert [one.expansion for one in own] == [QUESTION]
    assert "left out 1 of 2 questions" in caplog.text


OWN_ANSWERS = [Answer("7", True, 3, -0.5), Answer("8", True, 1, -2.5)]


def mixed_batch(tokenizer: PreTrainedTokenizerBase) -> list[Lesson]:
    """An own rollout, and four foreign ones whose authors claim absurd things."""
    own = lesson(verified(OWN_ANSWERS, ((5, 6, 7), (9,))))
    texts = ["one", "two", "three", "four"]
    claims = [Answer("7", True, 10**6, -2.5), Answer("x", True, 1, -99.0)]
    peers = [foreign(*(changed(one, text=text) for one in claims)) for text in texts]
    return [own, *(lesson(one, 1.0, -1.0, weight=0.5) for one in peers)]


def fresh(*means: float, round_number: int = 1) -> OwnRollout:
    """What the policy has sampled: an answer of two tokens for each mean."""
    answers = tuple(Answer("7", True, 2, mean) for mean in means)
    return OwnRollout(QUESTION, answers, round_number - 1, ((5, 6),) * len(means))


def test_learning_hands_over_every_group_and_measures_nothing_that_no_setting_asks_for(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    policy = make_policy(tokenizer)
    policy.roll_out([QUESTION], 1)
    own = verified(OWN_ANSWERS, ((5, 6, 7), (9,)))
    peer = foreign(Answer("7", True, mean_logp=-1.0), Answer("8", True))
    batch = [lesson(own, 0.7, -0.7), replayed(own, 0.7, 0.0), lesson(peer, 1, 0, weight=0.5)]
    update = policy.learn(batch)
    assert update == Update(step=1, foreign=(ForeignWeight(None, 1.0),))
    assert policy.learner.batches == [[encode(tokenizer, one) for one in batch]]  # type: ignore[attr-defined]
    assert policy.learner.measured == []  # type: ignore[attr-defined]
    assert policy.learner.of_start == []  # type: ignore[attr-defined]


def test_foreign_groups_weigh_what_likeness_to_all_own_answers_and_claims_leave_them(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    policy = make_policy(tokenizer, likelihood_weight=True)
    batch = mixed_batch(tokenizer)
    policy.roll_out([QUESTION], 1)
    policy.roll_out([QUESTION], 1, greedy=True)
    assert own_mean_logp(policy._fresh) == -0.5, "of what was sampled, not of what is in the batch"
    update = policy.learn(batch)
    [measured] = policy.learner.measured  # type: ignore[attr-defined]
    [learned] = policy.learner.batches  # type: ignore[attr-defined]
    assert measured == [encode(tokenizer, one) for one in batch[1:]], "foreign ones only"
    weights = [1.0, math.exp(-1.5), 0.0, 0.0]
    means = [(weight + weight**2) / 2 for weight in weights]  # failures balanced
    assert [one.weight for one in update.foreign] == pytest.approx(means)
    assert learned[0] == encode(tokenizer, batch[0])
    for group, before, weight in zip(learned[1:], measured, weights, strict=True):
        assert group.weights == pytest.approx((weight * 0.5, weight**2 * 0.5))
        assert replace(group, weights=before.weights) == before
    assert [one.mean_logp for one in update.foreign[:3]] == [-0.25, -2.0, -math.inf]


def test_an_answer_less_likely_than_its_author_claims_weighs_less(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    def weights(*claims: float | None) -> tuple[float, ...]:
        policy = make_policy(tokenizer, likelihood_weight=True)
        policy.learner.logps = itertools.repeat(-1.0)  # type: ignore[attr-defined]
        policy._fresh = [fresh(-3.0)]
        one = foreign(*(Answer("7", True, 3, claim) for claim in claims))
        [figure] = policy.learn([lesson(one, 1.0, 0.0)]).foreign
        found: tuple[float, ...] = policy.learner.batches[0][0].weights  # type: ignore[attr-defined]
        assert figure.weight == pytest.approx(sum(found) / 2)
        return found

    assert weights(-1.0, -1.0) == (1.0, 1.0)
    assert weights(-0.5, -0.25) == pytest.approx((math.exp(-0.5), math.exp(-0.75)))
    assert weights(-0.5, None) == pytest.approx((math.exp(-0.5), 1.0))
    assert weights(None, -9.0) == (1.0, 1.0), "a claim cannot raise it"


def test_what_one_answer_smuggles_is_not_hidden_by_the_others(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    policy = make_policy(tokenizer, likelihood_weight=True)
    unlikely = (-6.0, -0.5)
    policy.learner.answer_logps = lambda groups: [unlikely]  # type: ignore[method-assign, assignment, misc]
    policy._fresh = [fresh(-1.0)]
    peer = foreign(Answer("= 7", True, 3), Answer("8", True, 3))
    [figure] = policy.learn([lesson(peer, 1.0, -1.0)]).foreign
    [[group]] = policy.learner.batches  # type: ignore[attr-defined]
    assert group.weights == pytest.approx((math.exp(-5.0), math.exp(-5.0))), "failures, too"
    assert figure.weight == pytest.approx(math.exp(-5.0))


def test_without_own_answers_no_foreign_group_has_a_weight(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    update = make_policy(tokenizer, likelihood_weight=True).learn(mixed_batch(tokenizer))
    assert [one.weight for one in update.foreign] == [0.0] * 4


def test_replayed_answers_weigh_their_truncated_importance_ratio(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    policy = make_policy(tokenizer, importance_ratio=2.0)
    ids = ((5, 6, 7), (9,), (5, 9))
    then = [Answer("7", True, 3, -0.75), Answer("8", True, 1, -9.0), Answer("7", True, 2, -0.1)]
    old = verified(then, ids)
    unknown = verified([changed(one, mean_logp=None) for one in then], ids)
    batch = [
        lesson(old, 1.0, -2.0, 1.0),
        replayed(old, 1.0, 0.0, 1.0, weight=0.5),
        lesson(foreign(Answer("7", True), Answer("8", True)), 1.0, 0.0),
        replayed(old, 0.5, -1.0, 0.5),
        replayed(unknown, 1.0, 0.0, 1.0),
    ]
    policy.learner.logps = iter([-0.25, -2.0, -1.0])  # type: ignore[attr-defined]
    policy.learn(batch)
    [measured] = policy.learner.measured  # type: ignore[attr-defined]
    assert [one.answer_ids for one in measured] == [(ids[0], ids[2]), ids, (ids[0], ids[2])]
    [learned] = policy.learner.batches  # type: ignore[attr-defined]
    ratio = [math.exp(0.5), math.exp(-0.15), math.exp(-1.25), math.exp(-1.9)]
    assert learned[0] == encode(tokenizer, batch[0]), "fresh ones are on-policy"
    assert learned[1].weights == pytest.approx((ratio[0] / 2, 0.5, ratio[1] / 2))
    assert learned[2] == encode(tokenizer, batch[2])
    assert learned[3].weights == pytest.approx((ratio[2], 2.0, ratio[3])), "7 nats are cut at 2"
    assert learned[4].weights == (1.0,) * 3, "what was not kept is left alone"
    assert [one.advantages for one in learned] == [one.advantages for one in batch]


def test_the_kl_divergence_is_measured_in_the_first_and_every_nth_round_on_all_own_answers(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    other = Expansion(Question("sums", 8), "3 + 5 =", "8")

    def measure(round_number: int, kl_every: int) -> float | None:
        policy = make_policy(tokenizer, kl_every=kl_every)
        policy.roll_out([other], round_number - 1)  # e.g. of a round that was abandoned
        policy.roll_out([QUESTION], round_number)
        policy.roll_out([other], round_number)  # a strategy may ask again
        policy.roll_out([other], round_number, greedy=True)
        update = policy.learn([])
        assert update.skipped == "the batch is empty", "measured whatever becomes of the batch"
        questions = [
            [one.prompt_ids for one in groups]
            for groups in policy.learner.of_start  # type: ignore[attr-defined]
        ]
        both = [question_ids(tokenizer, QUESTION), question_ids(tokenizer, other)]
        assert questions == ([] if update.kl_to_start is None else [both])
        return update.kl_to_start

    assert [number for number in range(1, 10) if measure(number, 3) is not None] == [1, 3, 6, 9]
    assert measure(1, 0) is None
    assert measure(7, 1) == pytest.approx(-0.5 + 1.25)


def test_the_kl_divergence_is_a_mean_over_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    policy = make_policy(tokenizer, kl_every=1)
    answers = (Answer("7", True, 3, -0.5), Answer("8", True, 1, -2.5))
    policy._fresh = [OwnRollout(QUESTION, answers, 0, ((5, 6, 7), (9,)))]
    assert policy.learn([]).kl_to_start == pytest.approx(-1.0 + 1.25)
    assert policy.learn([]).kl_to_start is None, "nothing was sampled since"


def test_the_scripted_policy_takes_foreign_rollouts_as_a_language_model_does() -> None:
    policy = ScriptedPolicy(seed=1)
    own = verified(OWN_ANSWERS, ((5, 6, 7), (9,)))
    good = foreign(Answer("7", True), Answer("8", True))
    assert policy.fate(good) is ForeignFate.USED
    assert policy.fate(foreign(Answer("7", True), Answer("", False))) is ForeignFate.EMPTY
    assert policy.fate(foreign(Answer("7" * 257, True))) is ForeignFate.TOO_LONG
    update = policy.learn([lesson(one) for one in (own, good, good)])
    assert update.foreign == (ForeignWeight(-1.0, 1.0),) * 2
    assert policy.skill == pytest.approx(0.21)
