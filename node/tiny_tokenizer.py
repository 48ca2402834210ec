"""The embedded policy's tokenizer: bytes, and the words and phrases that its tasks repeat.

Byte-level, so any Unicode text is encoded and comes back exactly. A token is a special token, a
byte, or a whole piece: a word or a fixed phrase of the tasks ("Spell this word backward (example:
sun -> nus):"). There are no merges: a piece that is not in the vocabulary falls apart into bytes.
So questions are short, every digit is a token of its own, and the letters of a rare word, which
some tasks ask to be turned around, stay letters. Merges would have glued them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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

_WORD = r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s"
"""A digit, a word or a run of signs with the space before it, or one white-space character."""

_MIN_SHARE = 0.01
"""Words, and phrases, are pieces if they occur in this share of some task's texts."""
_MIN_FOLLOWS, _MIN_PRECEDES = 0.4, 0.1
"""Two words belong to one phrase if the second is what follows the first in this share of its
occurrences, and the first precedes the second in that share."""


def train_tokenizer(texts: Iterable[tuple[Sequence[str], Sequence[str]]]) -> "Tiny":
    """The tokenizer for tasks given as (questions, answers), one pair of lists per task.

    The same texts give the same tokenizer.
    """
    words: Counter[str] = Counter()
    phrases = Counter({"user\n": 1, "assistant\n": 1})
    for questions, answers in texts:
        split = [_words(text) for text in questions]
        words.update(_frequent_words([*split, *map(_words, answers)], len(split)))
        phrases.update(_frequent_phrases(split))
    # longest first: the regular expression takes the first alternative that matches
    ordered = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    # a phrase may end with the space of the next word, so each word is there with and without
    bare = sorted({form for word in words for form in (word, word.strip())})
    return _assemble(ordered, [word for word in bare if len(word.encode()) > 1])


Tiny = PreTrainedTokenizerFast


def _assemble(phrases: Sequence[str], words: Sequence[str]) -> Tiny:
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [to_bytes.pre_tokenize_str(piece)[0][0] for piece in (*phrases, *words)]
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *sorted(to_bytes.alphabet()), *pieces])
    model = models.BPE(
        vocab={token: number for number, token in enumerate(tokens)}, merges=[], ignore_merges=True
    )
    tokenizer = Tokenizer(model)
    pattern = "|".join([*map(_escape, phrases), _WORD])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), to_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=MAX_CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _escape(text: str) -> str:
    """The text as a regular expression of Oniguruma, which reads "\\ " otherwise than Python."""
    return re.sub(r"([.*+?^${}()|\[\]\\])", r"\\\1", text).replace("\n", "\\n")


_splitter = pre_tokenizers.Split(Regex(_WORD), "isolated")


def _words(text: str) -> list[str]:
    return [word for word, _ in _splitter.pre_tokenize_str(text)]


def _frequent_words(texts: Sequence[Sequence[str]], num_questions: int) -> Counter[str]:
    counts = Counter(word for text in texts for word in set(text))
    return Counter({w: k for w, k in counts.items() if k >= _MIN_SHARE * num_questions})


def _frequent_phrases(texts: Sequence[Sequence[str]]) -> Counter[str]:
    """Chains of words that nearly always come together, without digits, by how often they occur."""
    single = Counter(word for text in texts for word in text)
    pairs = Counter(pair for text in texts for pair in zip(text, text[1:], strict=False))
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
    return Counter({c: k for c, k in chains.items() if k >= _MIN_SHARE * len(texts)})
