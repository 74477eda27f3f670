"""Ids without text: a vocabulary of which only the size is known. Text is the ids as numbers, with spaces between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from core.encoders.base import Encoder, Ids
from core.encoders.text import made_elsewhere, wrong_state
from core.errors import UserError


class IdsEncoder(Encoder):
    """For data that was encoded elsewhere: `encode` reads numbers, and `decode` writes them."""

    kind = "ids"
    end_token = None

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0) -> Self:
        """Raises UserError: the ids come with the data."""
        raise made_elsewhere(cls.kind)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if set(state) != {"vocab_size"}:
            raise wrong_state(cls.kind, state)
        return cls(int(state["vocab_size"]))

    def state(self) -> dict[str, Any]:
        """The number of ids."""
        return {"vocab_size": self.vocab_size}

    def encode(self, text: str) -> Ids:
        """The numbers in a text, shape (tokens,). Raises UserError for anything that is no id."""
        ids = numbers(text)
        if not ids:
            raise no_id(repr(text), None)
        if max(ids) >= self.vocab_size:
            raise no_id(str(max(ids)), self.vocab_size)
        return np.array(ids, np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        """The ids as numbers with a space between two."""
        return " ".join(str(int(token)) for token in ids)


def numbers(text: str) -> list[int]:
    """The numbers in a text. Raises UserError for a word that is none."""
    for word in text.split():
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise no_id(repr(word), None)
    return [int(word) for word in text.split()]


def no_id(found: str, vocab_size: int | None) -> UserError:
    most = "" if vocab_size is None else f": the ids are 0 to {vocab_size - 1}"
    return UserError(
        f"{found} is no id of this vocabulary{most}",
        remedy='Its text is not known, so text is written as ids, such as "12 7". A meta.pkl with itos would name them.',
    )
