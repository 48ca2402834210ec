"""The seam of a policy, the language-model one, and a scripted one for everything but learning."""

import hashlib
import json
import logging
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from node.generate import MIN_TEMPERATURE, Completion, GenerationFailed, Generator, Sampling
from node.groups import Group, Lesson, OwnRollout, Source, VerifiedRollout
from node.likelihood import (
    balanced,
    claimed_logp,
    importance_ratio,
    likeness,
    own_mean_logp,
    token_mean,
)
from node.status import ForeignFate
from node.update import ForeignWeight, Update
from rewards.question import Answer, Example, Expansion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from node.learn import Learner

logger = logging.getLogger(__name__)


class Policy(Protocol):
    """What answers questions and learns from verified rollouts. Called from one thread."""

    def roll_out(
        self, questions: Sequence[Expansion], round_number: int, *, greedy: bool = False
    ) -> list[OwnRollout]:
        """One rollout per question, in order. The same round gives the same rollouts again.

        Args:
            greedy: one answer per question, of the most likely tokens: for evaluation.
        """
        ...

    def fate(self, foreign: VerifiedRollout) -> ForeignFate:
        """Whether the policy can learn from a foreign rollout, or why not: as a whole or not at
        all, since a truncated answer is another one, and a group without some is, too."""
        ...

    def learn(self, batch: Sequence[Lesson]) -> Update:
        """One policy-gradient step on the batch; returns when it is done.

        Args:
            batch: own rollouts, and foreign ones whose `fate` is USED.
        """
        ...

    def sync(self) -> None:
        """Makes the next rollouts come from the weights as they are now."""
        ...

    def save(self, directory: Path) -> None:
        """Writes all that is needed to go on into an existing, empty directory."""
        ...

    def close(self) -> None:
        """Frees memory, threads and processes. Idempotent."""
        ...


class LanguagePolicy:
    """A causal language model: an engine that answers, a learner that updates."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        generator: Generator,
        learner: "Learner",
        sampling: Sampling,
        *,
        max_prompt_tokens: int,
        seed: int,
        likelihood_weight: bool = False,
        importance_ratio: float | None = None,
        kl_every: int = 0,
    ) -> None:
        """
        Args:
            max_prompt_tokens: questions with more are left out, own and foreign.
            likelihood_weight: multiplies the advantage of each foreign answer by
                `likeness(l, o, c)`: l its mean log-probability per token under this policy as it is
                before the update, o that of the round's own answers, c what the author claims.
            importance_ratio: multiplies the advantage of each replayed answer by its truncated
                importance ratio, at most this; None: by 1.
            kl_every: measures the KL divergence from the start in round 1 and every such round;
                0 never. The learner must have kept the start.
        """
        self.tokenizer = tokenizer
        self.generator = generator
        self.learner = learner
        self.sampling = sampling
        self.max_prompt_tokens = max_prompt_tokens
        self.seed = seed
        self.likelihood_weight = likelihood_weight
        self.importance_ratio = importance_ratio
        self.kl_every = kl_every
        self._fresh: list[OwnRollout] = []
        """What was sampled in the round under way, whether or not it comes into the batch."""
        self._special_ids = special_ids(tokenizer)

    def roll_out(
        self, questions: Sequence[Expansion], round_number: int, *, greedy: bool = False
    ) -> list[OwnRollout]:
        """One rollout per question that fits the model's context; others are left out, loudly."""
        prompts = [question_ids(self.tokenizer, question) for question in questions]
        fitting = [len(prompt) <= self.max_prompt_tokens for prompt in prompts]
        if not all(fitting):
            longest = max(len(prompt) for prompt in prompts)
            logger.warning(
                "left out %d of %d questions: the longest has %d tokens, the limit is %d",
                fitting.count(False),
                len(prompts),
                longest,
                self.max_prompt_tokens,
            )
            questions = [one for one, fits in zip(questions, fitting, strict=True) if fits]
            prompts = [one for one, fits in zip(prompts, fitting, strict=True) if fits]
        seeds = [request_seed(self.seed, round_number, question) for question in questions]
        sampling = self.sampling
        if greedy:
            sampling = Sampling(1, self.sampling.max_new_tokens, MIN_TEMPERATURE)
        completions = self._generate(prompts, seeds, sampling)
        rollouts = [
            OwnRollout(
                expansion=question,
                answers=tuple(self._decode(one) for one in answers),
                policy_round=round_number - 1,
                token_ids=tuple(one.token_ids for one in answers),
            )
            for question, answers in zip(questions, completions, strict=True)
        ]
        if not greedy:
            same_round = [one for one in self._fresh if one.policy_round == round_number - 1]
            self._fresh = same_round + rollouts
        return rollouts

    def _generate(
        self, prompts: list[tuple[int, ...]], seeds: list[int], sampling: Sampling
    ) -> list[list[Completion]]:
        """Completions of the engine; one that died is started anew, once."""
        try:
            return self.generator.generate(prompts, seeds, sampling)
        except GenerationFailed:
            logger.exception("the engine died while generating; starting a new one")
            self._renew_engine()
            return self.generator.generate(prompts, seeds, sampling)

    def _renew_engine(self) -> None:
        self.sync()

    def _decode(self, completion: Completion) -> Answer:
        text = self.tokenizer.decode(list(completion.token_ids), skip_special_tokens=True)
        return Answer(
            text=str(text),
            finished=completion.finished,
            num_tokens=len(completion.token_ids),
            mean_logp=sum(completion.logps) / len(completion.logps),
        )

    def fate(self, foreign: VerifiedRollout) -> ForeignFate:
        """USED, or what of the question or the answers the policy cannot take."""
        prompt, answers = rollout_ids(self.tokenizer, foreign)
        if not all(answers):
            return ForeignFate.EMPTY
        if (
            len(prompt) > self.max_prompt_tokens
            or max(map(len, answers)) > self.sampling.max_new_tokens
        ):
            return ForeignFate.TOO_LONG
        # A vocabulary may hold a special token's text as an ordinary piece, or lack a character.
        for ids, answer in zip(answers, foreign.answers, strict=True):
            if not self._special_ids.isdisjoint(ids[:-1] if answer.finished else ids):
                return ForeignFate.UNENCODABLE
        return ForeignFate.USED

    def learn(self, batch: Sequence[Lesson]) -> Update:
        """One step of the learner on the batch as token ids, weighted as the settings say.

        All that is measured is measured before the step.
        """
        groups = [encode(self.tokenizer, lesson) for lesson in batch]
        own, self._fresh = self._fresh, []
        foreign = self._weigh_foreign(batch, groups, own)
        self._weigh_replayed(batch, groups)
        kl_to_start = self._kl_to_start(own)
        return replace(self.learner.learn(groups), foreign=foreign, kl_to_start=kl_to_start)

    def _weigh_foreign(
        self, batch: Sequence[Lesson], groups: list[Group], own: Sequence[OwnRollout]
    ) -> tuple[ForeignWeight, ...]:
        """Multiplies the weights of the foreign answers in `groups` by their likeness; where that
        is off nothing is measured: it would cost a forward pass over all of them."""
        places = [place for place, one in enumerate(batch) if one.source is Source.FOREIGN]
        if not self.likelihood_weight:
            return (ForeignWeight(None, 1.0),) * len(places)
        own_logp = own_mean_logp(own)
        measured = self.learner.answer_logps([groups[place] for place in places])
        figures = []
        for place, logps in zip(places, measured, strict=True):
            answers = zip(logps, batch[place].rollout.answers, strict=True)
            alike = [likeness(logp, own_logp, claimed_logp(answer)) for logp, answer in answers]
            weights = balanced(alike, groups[place].advantages)
            groups[place] = groups[place].times(weights)
            logp = token_mean(logps, [len(ids) for ids in groups[place].answer_ids])
            figures.append(ForeignWeight(logp, statistics.fmean(weights)))
        return tuple(figures)

    def _weigh_replayed(self, batch: Sequence[Lesson], groups: list[Group]) -> None:
        """Multiplies the weights of the replayed answers in `groups` by their importance ratio; of
        those without an advantage it is not measured."""
        cap = self.importance_ratio
        places = [place for place, one in enumerate(batch) if one.source is Source.REPLAY]
        if cap is None or not places:
            return
        measured = self.learner.answer_logps([groups[place].taught for place in places])
        for place, logps in zip(places, measured, strict=True):
            now = iter(logps)
            answers = zip(batch[place].rollout.answers, groups[place].advantages, strict=True)
            ratios = [
                importance_ratio(next(now), answer.mean_logp, cap) if advantage else 1.0
                for answer, advantage in answers
            ]
            groups[place] = groups[place].times(ratios)

    def _kl_to_start(self, own: Sequence[OwnRollout]) -> float | None:
        """Over all of the round's own answers: those of a batch are chosen by their rewards."""
        if not own or not self.kl_every:
            return None
        round_number = own[0].policy_round + 1
        if round_number > 1 and round_number % self.kl_every:
            return None
        groups = [
            Group(
                question_ids(self.tokenizer, one.expansion),
                one.token_ids,
                advantages=(0.0,) * len(one.token_ids),
            )
            for one in own
        ]
        start = self.learner.answer_logps(groups, of_start=True)
        start_logp = token_mean(
            [logp for logps in start for logp in logps],
            [len(ids) for group in groups for ids in group.answer_ids],
        )
        own_logp = own_mean_logp(own)
        return None if own_logp is None or start_logp is None else own_logp - start_logp

    def sync(self) -> None:
        """Hands the learner's weights to the engine."""
        self.generator.sync(self.learner.model)

    def save(self, directory: Path) -> None:
        """Model, tokenizer, optimizer, scheduler and random state of the learner."""
        self.learner.save(directory)

    def close(self) -> None:
        """Ends the engine, then the learner's thread."""
        self.generator.close()
        self.learner.close()


def request_seed(seed: int, round_number: int, question: Expansion) -> int:
    """The sampling seed of one request, 0 <= seed < 2**31: from (node, round, question)."""
    address = f"sapo-sampling-1 {seed} {round_number} {question.question.task} "
    address += str(question.question.index)
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:4]) >> 1


def question_ids(tokenizer: "PreTrainedTokenizerBase", question: Expansion) -> tuple[int, ...]:
    """All that comes before the answer, the same for own and for foreign answers."""
    return prompt_ids(tokenizer, question.text, question.system, question.examples)


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase",
    text: str,
    system: str = "",
    examples: Sequence[Example] = (),
) -> tuple[int, ...]:
    """A question as token ids, with what its task shows before it: through the chat template, or
    as paragraphs without one, a newline before the answer.

    Where the template has no place for a system message, it begins the first user's message.

    Question texts come from tasks and their data, not from peers; a special token spelled out in
    one is read as plain text only where there is no template.

    Raises:
        jinja2.TemplateError: the template cannot show a conversation.
    """
    if tokenizer.chat_template is None:
        shown = [f"{one.question}\n{one.answer}" for one in examples]
        paragraphs = "\n\n".join([*([system] if system else []), *shown, f"{text}\n"])
        return tuple(tokenizer.encode(paragraphs, split_special_tokens=True))
    turns = [
        turn
        for one in examples
        for turn in (_turn("user", one.question), _turn("assistant", one.answer))
    ] + [_turn("user", text)]
    if system and _shows_system(tokenizer, system, turns):
        turns.insert(0, _turn("system", system))
    elif system:
        turns[0] = _turn("user", f"{system}\n\n{turns[0]['content']}")
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return tuple(ids)


def _shows_system(
    tokenizer: "PreTrainedTokenizerBase", system: str, turns: Sequence[dict[str, str]]
) -> bool:
    """Whether the template takes a system message: some raise, some drop it."""
    from jinja2 import TemplateError

    try:
        shown = tokenizer.apply_chat_template([_turn("system", system), *turns], tokenize=False)
    except TemplateError:
        return False
    return system.strip() in str(shown)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def encode(tokenizer: "PreTrainedTokenizerBase", lesson: Lesson) -> Group:
    """A rollout of a batch as the token ids that the learner takes."""
    prompt, answers = rollout_ids(tokenizer, lesson.rollout)
    return Group(prompt, answers, lesson.advantages, (lesson.weight,) * len(answers))


def rollout_ids(
    tokenizer: "PreTrainedTokenizerBase", rollout: VerifiedRollout
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Question and answers as token ids.

    Own answers keep their sampled ids. Foreign text is encoded with special tokens split, so that
    no peer can inject one; the end of sequence is added only where the author says finished.
    """
    token_ids = rollout.token_ids
    if token_ids is None:
        token_ids = tuple(
            answer_ids(tokenizer, answer.text, answer.finished) for answer in rollout.answers
        )
    return question_ids(tokenizer, rollout.expansion), token_ids


def answer_ids(tokenizer: "PreTrainedTokenizerBase", text: str, finished: bool) -> tuple[int, ...]:
    """An answer's text as token ids, special tokens split; with the end of sequence if finished."""
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return (*ids, tokenizer.eos_token_id) if finished else tuple(ids)


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """All ids that text must never become: those with a role (end, padding, unknown, ...), and
    those that the tokenizer marks as special, such as the beginning of a message."""
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(marked | set(tokenizer.all_special_ids))


class ScriptedPolicy:
    """A policy without a model: knows every truth, errs on purpose, and gets better by learning.

    For tests of everything around the policy; nothing here says anything about learning.
    """

    max_answer_tokens = 256
    """A token is a byte."""

    def __init__(self, seed: int, num_answers: int = 8, skill: float = 0.2) -> None:
        self.seed = seed
        self.num_answers = num_answers
        self.skill = skill
        """Probability that an answer is correct."""
        self.step = 0

    @classmethod
    def load(cls, directory: Path, seed: int, num_answers: int = 8) -> "ScriptedPolicy":
        """The policy that `save` wrote."""
        state = json.loads((directory / "scripted.json").read_text())
        policy = cls(seed, num_answers, state["skill"])
        policy.step = state["step"]
        return policy

    def roll_out(
        self, questions: Sequence[Expansion], round_number: int, *, greedy: bool = False
    ) -> list[OwnRollout]:
        """The truth with probability `skill` (greedy: if above one half), else spoilt."""
        return [self._answer(question, round_number, greedy) for question in questions]

    def _answer(self, question: Expansion, round_number: int, greedy: bool) -> OwnRollout:
        draw = random.Random(request_seed(self.seed, round_number, question))
        chances = [0.5] if greedy else [draw.random() for _ in range(self.num_answers)]
        texts = [
            question.truth if chance < self.skill else f"{question.truth} or not"
            for chance in chances
        ]
        answers = tuple(Answer(text, True, len(text), -1.0) for text in texts)
        token_ids = tuple(tuple(text.encode()) for text in texts)
        return OwnRollout(question, answers, round_number - 1, token_ids)

    def fate(self, foreign: VerifiedRollout) -> ForeignFate:
        """As a language model of one token per byte would say."""
        if not all(answer.text or answer.finished for answer in foreign.answers):
            return ForeignFate.EMPTY
        longest = max(len(answer.text.encode()) for answer in foreign.answers)
        return ForeignFate.TOO_LONG if longest > self.max_answer_tokens else ForeignFate.USED

    def learn(self, batch: Sequence[Lesson]) -> Update:
        """Gains skill in proportion to the share of rollouts that teach, whoever wrote them."""
        share = sum(any(one.advantages) for one in batch) / max(len(batch), 1)
        self.skill = min(0.95, self.skill + 0.01 * share)
        self.step += 1
        num_foreign = sum(one.source is Source.FOREIGN for one in batch)
        return Update(step=self.step, foreign=(ForeignWeight(-1.0, 1.0),) * num_foreign)

    def sync(self) -> None:
        """Nothing to do: there is only one set of weights."""

    def save(self, directory: Path) -> None:
        """One small JSON file."""
        text = json.dumps({"skill": self.skill, "step": self.step})
        (directory / "scripted.json").write_text(text)

    def close(self) -> None:
        """Nothing to free."""
