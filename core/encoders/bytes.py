"""One id per byte of UTF-8: ids 0 to 255, and 256 to end a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from core.encoders.base import Encoder, Ids
from core.encoders.text import utf8, wrong_state


class BytesEncoder(Encoder):
    """Encodes any text without learning anything."""

    kind = "bytes"
    vocab_size = 257
    end_token = 256

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0) -> Self:
        """Nothing to learn: neither argument is used."""
        return cls()

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if state:
            raise wrong_state(cls.kind, state)
        return cls()

    def state(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (bytes,). Raises UserError for half a surrogate pair."""
        return np.frombuffer(utf8(text), np.uint8).astype(np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; the end token becomes "", invalid UTF-8 becomes U+FFFD."""
        return bytes(token for token in ids if token < 256).decode(errors="replace")
