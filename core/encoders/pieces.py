"""One id per piece of text, from a list of pieces that was made elsewhere, such as the itos of a meta.pkl."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from core.encoders.base import Encoder, Ids
from core.encoders.text import made_elsewhere, unknown, utf8, wrong_state


class PiecesEncoder(Encoder):
    """pieces: text of each id. The longest piece that fits is taken at each place; whoever made the data may have cut otherwise."""

    kind = "pieces"
    end_token = None

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = list(pieces)
        self.vocab_size = len(self.pieces)
        self.ids: dict[str, int] = {}
        for number, piece in enumerate(self.pieces):
            self.ids.setdefault(piece, number)
        longest_first = sorted(filter(None, self.ids), key=len, reverse=True)
        self.pattern = re.compile("|".join([*map(re.escape, longest_first), "."]), re.DOTALL)

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0) -> Self:
        """Raises UserError: the pieces come with the data."""
        raise made_elsewhere(cls.kind)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if set(state) != {"pieces"}:
            raise wrong_state(cls.kind, state)
        return cls(state["pieces"])

    def state(self) -> dict[str, Any]:
        """The text of each id."""
        return {"pieces": self.pieces}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError that names the first character that begins no piece."""
        utf8(text)
        found = list(self.pattern.finditer(text))
        for match in found:
            if match[0] not in self.ids:
                raise unknown(f"character {match[0]!r}", text, match.start())
        return np.array([self.ids[match[0]] for match in found], np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        """The pieces of ids, joined."""
        return "".join([self.pieces[int(token)] for token in ids])
