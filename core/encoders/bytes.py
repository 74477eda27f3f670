"""One id per byte of UTF-8: any text in, ids 0 to 255 out; 256 ends a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from core.encoders.base import Ids
from core.encoders.text import utf8, wrong_state


class BytesEncoder:
    """Knows every text and learns nothing."""

    kind = "bytes"
    vocab_size = 257
    end_token = 256

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0) -> Self:
        """Nothing to learn: neither argument is used."""
        return cls()

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError where the state is not of this kind."""
        if state:
            raise wrong_state(cls.kind, state)
        return cls()

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (bytes,). Raises UserError for half a surrogate pair."""
        return np.frombuffer(utf8(text), np.uint8).astype(np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; the end token becomes "", bytes that are no UTF-8 become U+FFFD."""
        return bytes(token for token in ids if token < 256).decode(errors="replace")
