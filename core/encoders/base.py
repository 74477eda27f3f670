"""The shape of an encoder: text in, token ids out, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

Ids = npt.NDArray[np.uint32]


class Encoder(Protocol):
    """Text to ids and back, without loss for any text that `encode` accepts.

    Special tokens have ids outside those of text: `encode` never returns one, whatever the text spells.
    """

    kind: str
    vocab_size: int  # ids, special ones included
    end_token: int | None  # id that ends a document, where the vocabulary has one

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int) -> Self:
        """Learn the vocabulary from pieces of text, read once. vocab_size: ids at most, for kinds that learn them."""

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError where the state is not of this kind."""

    def state(self) -> dict[str, Any]:
        """All that rebuilds the encoder, as JSON values; equal encoders have equal states."""

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError that names the first unknown character or word."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, on several cores where the kind can."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special ids become "". Bytes that are no UTF-8 become U+FFFD."""


def identity(encoder: Encoder) -> str:
    """SHA-256, hexadecimal, of all that an encoder is: equal where the same text always gets the same ids."""
    description = {"kind": encoder.kind, **encoder.state()}
    return hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
