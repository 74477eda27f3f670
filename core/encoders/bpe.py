"""Byte-level BPE that learns its merges from the experiment's own text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE
from typing_extensions import Self

from core.encoders.bytelevel import GPT2, ByteLevel, cutting, tokenizer
from core.encoders.text import WHITESPACE, spans, utf8, wrong_state
from core.errors import UserError

# Bytes to learn merges from, at most. From 4 instead of 20 MB of source code, 1,024 ids spell other code in 0.2 %
# more tokens and 16,384 ids in 1.2 % more. The trainer needs up to 2 us and 60 bytes for each (random words, DNA).
SAMPLE = 4_000_000
CHUNK = 1 << 14  # characters kept or dropped together; small, so that the sample covers all parts of a long text
# The trainer's time grows with the square of a run without whitespace, so DNA or Chinese is learnt in short runs.
LONG_RUN = re.compile(f"[^{WHITESPACE}]{{65}}")
SHORT_RUNS = re.compile(f"[{WHITESPACE}]*[^{WHITESPACE}]{{1,64}}|[{WHITESPACE}]+")
SMALLEST = 257  # ids: the bytes and the end token


class BpeEncoder(ByteLevel):
    """merges: pairs of tokens in order of rank, each "left right" in GPT-2's alphabet of bytes.

    split_pattern: how text is cut before pairs are merged, as `prepare.split_pattern`.
    """

    kind = "bpe"

    def __init__(self, merges: Sequence[str], split_pattern: str = GPT2) -> None:
        super().__init__([pair(merge) for merge in merges], split_pattern)
        self.merges = list(merges)

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int, split_pattern: str = GPT2) -> Self:
        """Learn merges from at most SAMPLE bytes, evenly spread over the texts.

        vocab_size: ids at most, including the 256 bytes and the end token. There are fewer where no more pairs occur
        twice. Raises UserError below 257, and for a split_pattern that is no regular expression or gives up on a text.
        """
        if vocab_size < SMALLEST:
            raise UserError(
                f"vocab_size = {vocab_size} is too small for bpe",
                place="prepare.vocab_size",
                remedy=f"Use {SMALLEST} (bytes only) or more.",
            )
        learner = tokenizer(BPE(), split_pattern)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # the trainer does not count the end token
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[],
            show_progress=False,
        )
        with cutting(split_pattern):
            learner.train_from_iterator(short_runs(sample(texts, SAMPLE)), trainer)
        return cls([" ".join(merge) for merge in json.loads(learner.to_str())["model"]["merges"]], split_pattern)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if not {"merges"} <= set(state) <= {"merges", "split_pattern"}:
            raise wrong_state(cls.kind, state)
        return cls(**state)

    def state(self) -> dict[str, Any]:
        """The merges in order, from which the ids follow, and the pattern where it is not GPT-2's."""
        own = {} if self.split_pattern == GPT2 else {"split_pattern": self.split_pattern}
        return {"merges": self.merges} | own


def pair(merge: str) -> tuple[str, str]:
    """The two tokens of "left right"."""
    left, right = merge.split(" ")
    return left, right


def sample(texts: Iterable[str], size: int) -> list[str]:
    """At most `size` bytes of a stream of any length, in chunks evenly spread over it; all of a shorter stream.

    Every chunk is kept until there are too many. Then every second one is dropped, and from there on only every
    second one is added, and so on. Memory stays bounded, and the same stream gives the same sample.
    """
    kept: list[str] = []
    sizes: list[int] = []
    held, stride, number = 0, 1, 0
    for text in texts:
        for chunk in chunks(text):
            if number % stride == 0:
                kept.append(chunk)
                sizes.append(len(utf8(chunk)))
                held += sizes[-1]
            number += 1
            while held > size and len(kept) > 1:
                kept, sizes = kept[::2], sizes[::2]
                held = sum(sizes)
                stride *= 2
    return kept


def chunks(text: str) -> Iterator[str]:
    """A text in chunks of CHUNK characters plus the rest of a word, at most twice as long."""
    for span in spans(text, CHUNK):
        for start in range(0, len(span), 2 * CHUNK):
            yield span[start : start + 2 * CHUNK]


def short_runs(chunks: Iterable[str]) -> Iterator[str]:
    """The same text, with no run of more than 64 characters without whitespace."""
    for chunk in chunks:
        if LONG_RUN.search(chunk):
            yield from SHORT_RUNS.findall(chunk)
        else:
            yield chunk
