"""One id per whitespace-separated word, for example for arithmetic in numbers.

A single space between two words is implied. Any other whitespace is one token per character, so that
"1 + 2 = " and "3\\n", encoded apart, join to the original text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from typing_extensions import Self

from core.encoders.base import Encoder, Ids
from core.encoders.text import unknown, utf8, wrong_state

TOKEN = re.compile(r"\S+|(?!(?<=\S) (?=\S))\s")  # a word, or a whitespace character that is not an implied space


class WordsEncoder(Encoder):
    """words: text of each id, a word or a whitespace character."""

    kind = "words"

    def __init__(self, words: Iterable[str], *, end_token: bool = False) -> None:
        """end_token: one more id that ends a document."""
        self.words = list(words)
        self.ids = {word: token for token, word in enumerate(self.words)}
        self.end_token = len(self.words) if end_token else None
        self.vocab_size = len(self.words) + end_token
        self.is_word = [*(not word.isspace() for word in self.words), False]
        self.pieces = [*self.words, ""]

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0, end_token: bool = False) -> Self:
        """Collect the words, sorted. vocab_size is not used: every word gets an id."""
        seen = {" "}  # whole texts may never need it, but a prompt that ends in a space does
        for text in texts:
            utf8(text)
            seen.update(TOKEN.findall(text))
        return cls(sorted(seen), end_token=end_token)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if set(state) != {"words", "end_token"}:
            raise wrong_state(cls.kind, state)
        return cls(state["words"], end_token=state["end_token"])

    def state(self) -> dict[str, Any]:
        """The text of each id, and whether an end token follows them."""
        return {"words": self.words, "end_token": self.end_token is not None}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError that names the first unknown word."""
        tokens = TOKEN.findall(text)
        try:
            return np.fromiter(map(self.ids.__getitem__, tokens), np.uint32, len(tokens))
        except KeyError:
            found = next(match for match in TOKEN.finditer(text) if match[0] not in self.ids)
            what = "whitespace" if found[0].isspace() else "word"
            raise unknown(f"{what} {found[0]!r}", text, found.start()) from None

    def between(self, before: str, after: str) -> str:
        """The implied space between two words."""
        ends_in_word, begins_with_word = (bool(letter) and not letter.isspace() for letter in (before[-1:], after[:1]))
        return " " if ends_in_word and begins_with_word else ""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids. The end token becomes "", with no space implied beside it.

        The text of a continuation is decode(prompt + new)[len(decode(prompt)):], because the space between two words
        belongs to neither.
        """
        tokens = [int(token) for token in ids]
        if not tokens:
            return ""
        parts = [self.pieces[tokens[0]]]
        for before, token in pairwise(tokens):
            if self.is_word[before] and self.is_word[token]:
                parts.append(" ")
            parts.append(self.pieces[token])
        return "".join(parts)
