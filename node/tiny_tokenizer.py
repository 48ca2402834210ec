"""The embedded policy's tokenizer: bytes, and the words and phrases that its tasks repeat.

Its vocabulary is 3 special tokens, 256 bytes, and added tokens for whole words and fixed phrases
of the tasks ("Spell this word backward (example: sun -> nus): "). There are no merges. So questions
are short, every digit is a token of its own, and the letters of a rare word, which some tasks ask
to be turned around, stay letters; merges would have glued them.

Any Unicode text is encoded and comes back in its normal form C. That, and that pieces are added
tokens, is because transformers 5 gives every model of type qwen2 the class Qwen2Tokenizer, which
puts its own normaliser and pre-tokeniser in the place of those in tokenizer.json, silently.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from tokenizers import AddedToken, Regex, pre_tokenizers
from transformers import Qwen2Tokenizer

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (PAD, START, END)
"""In the order of their ids, from 0."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MAX_CONTEXT_TOKENS = 1024

Pieces = Literal["bytes", "words", "phrases"]
"""What a vocabulary holds besides special tokens: bytes; words, too; phrases, too."""

_WORD = r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s"
"""A digit, a word or a run of signs with the space before it, or one white-space character."""

_MIN_SHARE = 0.01
"""Words, and phrases, are pieces if they occur in this share of some task's texts."""
_MIN_FOLLOWS, _MIN_PRECEDES = 0.4, 0.1
"""Two words belong to one phrase if the second is what follows the first in this share of its
occurrences, and the first precedes the second in that share."""


def train_tokenizer(
    texts: Iterable[tuple[Sequence[str], Sequence[str]]], pieces: Pieces = "phrases"
) -> Qwen2Tokenizer:
    """The tokenizer for tasks given as (questions, answers), one pair of sequences per task.

    The same texts give the same tokenizer.
    """
    added = {"user\n", "assistant\n"}
    for questions, answers in texts:
        split = [_words(text) for text in questions]
        if pieces != "bytes":
            added |= _frequent_words([*split, *map(_words, answers)], len(split))
        if pieces == "phrases":
            added |= _frequent_phrases(split)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])},
        merges=[],
        eos_token=END,
        pad_token=PAD,
        model_max_length=MAX_CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.add_tokens([AddedToken(START, special=True, normalized=False)], special_tokens=True)
    tokenizer.add_tokens(
        # a word counts only where no letter stands beside it; of several pieces the longest counts
        [AddedToken(one, single_word=one.isalpha(), normalized=False) for one in sorted(added)]
    )
    return tokenizer


_splitter = pre_tokenizers.Split(Regex(_WORD), "isolated")


def _words(text: str) -> list[str]:
    return [word for word, _ in _splitter.pre_tokenize_str(text)]


def _frequent_words(texts: Sequence[Sequence[str]], num_questions: int) -> set[str]:
    counts = Counter(word for text in texts for word in set(text))
    frequent = {word.strip() for word, k in counts.items() if k >= _MIN_SHARE * num_questions}
    return {word for word in frequent if len(word) > 1}


def _frequent_phrases(texts: Sequence[Sequence[str]]) -> set[str]:
    """Chains of words that nearly always come together, without digits."""
    single = Counter(word for text in texts for word in text)
    pairs = Counter(pair for text in texts for pair in pairwise(text))
    tight = {
        (first, second)
        for (first, second), count in pairs.items()
        if count >= _MIN_SHARE * len(texts)
        and count >= _MIN_FOLLOWS * single[first]
        and count >= _MIN_PRECEDES * single[second]
        and not first.isnumeric()
        and not second.isnumeric()
    }
    chains: Counter[str] = Counter()
    for text in texts:
        chain: list[str] = []
        for word in text:
            if chain and (chain[-1], word) not in tight:
                chains["".join(chain)] += len(chain) > 1
                chain = []
            chain.append(word)
        chains["".join(chain)] += len(chain) > 1
    return {chain for chain, k in chains.items() if k >= _MIN_SHARE * len(texts)}
