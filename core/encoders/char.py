"""One id per character, in the order of code points, as in nanoGPT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from core.encoders.base import Encoder, Ids
from core.encoders.text import END, code_points, unknown, wrong_state
from core.errors import UserError

UNKNOWN = 0xFFFFFFFF  # in the table: no id
UNICODE = 0x110000  # code points


class CharEncoder(Encoder):
    """entries: text of each id. A single character stands for itself; "<...>" is a special token."""

    kind = "char"

    def __init__(self, entries: Sequence[str], *, end_token: bool = False) -> None:
        """end_token: one more id that ends a document, unless the entries have it."""
        self.entries = [*entries, END] if end_token and END not in entries else list(entries)
        self.vocab_size = len(self.entries)
        self.end_token = self.entries.index(END) if END in self.entries else None
        self.pieces = [entry if len(entry) == 1 else "" for entry in self.entries]
        points = {ord(piece): token for token, piece in enumerate(self.pieces) if piece}
        # One slot after the last known code point stays UNKNOWN: `take` clips all higher ones to it.
        self.table = np.full(max(points, default=-1) + 2, UNKNOWN, np.uint32)
        self.table[list(points)] = list(points.values())

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0, end_token: bool = False) -> Self:
        """Collect the characters. vocab_size is not used: every character gets an id."""
        seen = np.zeros(UNICODE, np.bool_)
        for text in texts:
            seen[np.frombuffer(code_points(text), np.uint32)] = True
        return cls([chr(point) for point in np.flatnonzero(seen)], end_token=end_token)

    @classmethod
    def from_vocabulary(cls, itos: Mapping[int, str]) -> Self:
        """From `itos` of nanoGPT's meta.pkl. Raises UserError if it is not a vocabulary of characters."""
        if sorted(itos) != list(range(len(itos))):
            raise not_characters(f"its ids are not 0 to {len(itos) - 1}")
        entries = [itos[token] for token in range(len(itos))]
        numbers: dict[str, int] = {}
        for token, entry in enumerate(entries):
            if not isinstance(entry, str) or not (len(entry) == 1 or (entry[:1] == "<" and entry[-1:] == ">")):
                raise not_characters(f"id {token} is {entry!r}")
            if numbers.setdefault(entry, token) != token:
                raise not_characters(f"ids {numbers[entry]} and {token} are both {entry!r}")
        return cls(entries)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if set(state) != {"itos"}:
            raise wrong_state(cls.kind, state)
        return cls.from_vocabulary(dict(enumerate(state["itos"])))

    def state(self) -> dict[str, Any]:
        """The text of each id."""
        return {"itos": self.entries}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (characters,). Raises UserError that names the first unknown character."""
        points = np.frombuffer(code_points(text), np.uint32)
        ids: Ids = self.table.take(points, mode="clip")
        if len(ids) and ids.max() == UNKNOWN:
            position = int((ids == UNKNOWN).argmax())
            raise unknown(f"character {text[position]!r}", text, position)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special ids become ""."""
        return "".join(map(self.pieces.__getitem__, ids))


def not_characters(found: str) -> UserError:
    """The error for an `itos` that is not a vocabulary of characters."""
    return UserError(
        f"this is not a vocabulary of characters: {found}",
        remedy="Each id must stand for one character, or for a special token such as '<|end|>'.",
    )
