"""Byte-level BPE learnt from the experiment's own text: pieces of text in, merges and then ids out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE
from typing_extensions import Self

from core.encoders.base import Ids
from core.encoders.bytelevel import ByteLevel, tokenizer
from core.encoders.text import spans, utf8, wrong_state
from core.errors import UserError

# Characters to learn merges from: they take about 5 s on two cores, and counts of pairs in a fiftieth of 1 GB rank
# the same few thousand pairs first as the whole does.
SAMPLE = 20_000_000
CHUNK = 1 << 14  # characters taken or left together; small, so that the sample meets all parts of a long text
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
        """Learn merges from at most SAMPLE characters, evenly spread over the texts.

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
        learner.train_from_iterator(sample(texts, SAMPLE), trainer)
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
    """At most `size` characters of a stream of any length, in chunks evenly spread over it; all of a shorter one.

    Every chunk is kept until there are too many; then every second one goes, and from there on only every second
    one comes in, and so on: memory stays bounded, and the same stream gives the same sample.
    """
    kept: list[str] = []
    held, stride, number = 0, 1, 0
    for text in texts:
        utf8(text)
        for chunk in spans(text, CHUNK):
            if number % stride == 0:
                kept.append(chunk)
                held += len(chunk)
            number += 1
            while held > size and len(kept) > 1:
                kept = kept[::2]
                held = sum(map(len, kept))
                stride *= 2
    return kept
