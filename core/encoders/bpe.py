"""Byte-level BPE learnt from the experiment's own text: pieces of text in, merges and then ids out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE
from typing_extensions import Self

from core.encoders.base import Ids
from core.encoders.bytelevel import ByteLevel, tokenizer
from core.encoders.text import WHITESPACE, spans, utf8, wrong_state
from core.errors import UserError

# Bytes to learn merges from, at most. From 4 instead of 20 MB of source code, 1,024 ids spell other code in 0.2 %
# more tokens and 16,384 ids in 1.2 % more; the trainer needs up to 2 us and 60 bytes for each (random words, DNA).
SAMPLE = 4_000_000
CHUNK = 1 << 14  # characters taken or left together; small, so that the sample meets all parts of a long text
# The trainer's time grows with the square of a run without whitespace: DNA, or Chinese, is learnt in short ones.
LONG_RUN = re.compile(f"[^{WHITESPACE}]{{65}}")
SHORT_RUNS = re.compile(f"[{WHITESPACE}]*[^{WHITESPACE}]{{1,64}}|[{WHITESPACE}]+")
SMALLEST = 257  # ids: the bytes and the end token


class BpeEncoder:
    """merges: pairs of tokens in order of rank, each "left right" in GPT-2's alphabet of bytes."""

    kind = "bpe"

    def __init__(self, merges: Sequence[str]) -> None:
        self.merges = list(merges)
        self.coder = ByteLevel([pair(merge) for merge in merges])
        self.vocab_size, self.end_token = self.coder.vocab_size, self.coder.end_token

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int) -> Self:
        """Learn merges from at most SAMPLE bytes, evenly spread over the texts.

        vocab_size: ids at most, the 256 bytes and the end token included; fewer where no pair occurs twice any
        more. Raises UserError below 257.
        """
        if vocab_size < SMALLEST:
            raise UserError(
                f"vocab_size = {vocab_size} is too small for bpe",
                place="prepare.vocab_size",
                remedy=f"Take {SMALLEST} (bytes alone) or more.",
            )
        learner = tokenizer(BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # the end token is not the trainer's
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[],
            show_progress=False,
        )
        learner.train_from_iterator(short_runs(sample(texts, SAMPLE)), trainer)
        return cls([" ".join(merge) for merge in json.loads(learner.to_str())["model"]["merges"]])

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError where the state is not of this kind."""
        if set(state) != {"merges"}:
            raise wrong_state(cls.kind, state)
        return cls(state["merges"])

    def state(self) -> dict[str, Any]:
        """The merges in order; ids follow from them."""
        return {"merges": self.merges}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError for half a surrogate pair."""
        return self.coder.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text; pieces not met before are merged on all cores."""
        return self.coder.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; the end token becomes "", bytes that are no UTF-8 become U+FFFD."""
        return self.coder.decode(ids)


def pair(merge: str) -> tuple[str, str]:
    """The two tokens of "left right"."""
    left, right = merge.split(" ")
    return left, right


def sample(texts: Iterable[str], size: int) -> list[str]:
    """At most `size` bytes of a stream of any length, in chunks evenly spread over it; all of a shorter one.

    Every chunk is kept until there are too many; then every second one goes, and from there on only every second
    one comes in, and so on: memory stays bounded, and the same stream gives the same sample.
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
    """A text in chunks of CHUNK characters and the rest of a word, of twice as many at most."""
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
