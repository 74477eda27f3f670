"""The protocol of an encoder between text and token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

Ids = npt.NDArray[np.uint32]


class Encoder(Protocol):
    """Text to ids and back, without loss for any text that `encode` accepts.

    Special tokens have their own ids. `encode` never returns one, whatever the text is.
    """

    kind: str
    vocab_size: int  # ids, special ones included
    end_token: int | None  # id that ends a document, where the vocabulary has one

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int) -> Self:
        """Learn the vocabulary from pieces of text, read once. vocab_size: ids at most, for kinds that learn them."""

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild the encoder, as JSON values. Equal encoders have equal states."""

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError that names the first unknown character or word."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text. Kinds that can use several cores override it."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids. Special ids become "", invalid UTF-8 becomes U+FFFD."""


class Frame(NamedTuple):
    """The ids that stand before and behind a document; None where nothing does."""

    begin: int | None = None
    end: int | None = None


def frame_of(encoder: Encoder) -> Frame:
    """What stands around documents without marks of conversations: only encoders of pretrained models say so."""
    return Frame(getattr(encoder, "begin", None), getattr(encoder, "end", None))


def between(encoder: Encoder, before: str, after: str) -> str:
    """What `decode` puts between two texts that were encoded apart, and that is in neither of them.

    An encoder that puts something there says so by a method of this name.
    """
    own = getattr(encoder, "between", None)
    return str(own(before, after)) if own else ""


def changes(encoder: Encoder) -> list[str]:
    """What of a text an encoder does not give back as it was, each in words. Only encoders that change text say so."""
    return list(getattr(encoder, "changes", ()))


def identity(encoder: Encoder) -> str:
    """SHA-256, hexadecimal, of an encoder. It is equal where the same text always gets the same ids."""
    description = {"kind": encoder.kind, **encoder.state()}
    return hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
