"""Rows of tokens that begin and end at any time: the last token of each in, the logits of what follows out.

`Together` computes all rows in one call of the model. `Apart` calls it for each row, where a model cannot do that.
Shapes: B rows, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from core.models.slots import FEWEST


class Rows(Protocol):
    """What stands before the last token of each row is known to the model; `step` makes the last token known too."""

    def begin(self, *rows: Sequence[int]) -> None:
        """Add rows. Each is given by all of its ids but the last one; perhaps none."""

    def again(self, row: int, ids: Sequence[int]) -> None:
        """Replace what is known of a row, as by `begin`."""

    def end(self, row: int) -> None:
        """Remove a row. The last row takes its place."""

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Logits (B, V) after the last token of each row."""


def rows_of(model: nn.Module, at_most: int) -> Rows:
    """Room for so many rows of a model."""
    slots = model.new_slots(at_most) if hasattr(model, "new_slots") else None  # type: ignore[operator]
    return Apart(model) if slots is None else Together(model, slots)


class Together:
    """Rows of a model with slots: all of them in one call of the model. read: the ids that were read last -> a cache of them."""

    def __init__(self, model: nn.Module, slots: Any) -> None:
        self.model, self.slots = model, slots
        self.read: dict[tuple[int, ...], Any] = {}

    def begin(self, *rows: Sequence[int]) -> None:
        self.fill([(self.slots.begin(), ids) for ids in rows])

    def again(self, row: int, ids: Sequence[int]) -> None:
        self.fill([(self.slots.again(row), ids)])

    def fill(self, wanted: Sequence[tuple[Any, Sequence[int]]]) -> None:
        """Make ids known in empty views. Those of many views are read once, those of one length together."""
        texts = [(view, tuple(ids)) for view, ids in wanted if ids]
        known = {ids: self.read[ids] for _, ids in texts if ids in self.read}
        new = sorted({ids for _, ids in texts if ids not in known}, key=len)
        self.read = known if texts else self.read
        for size, group in groupby(new, key=len):
            same = list(group)
            # As many at once as have the bits of one alone: fewer than FEWEST tokens are summed in another way.
            for part in [same] if size >= FEWEST else [[ids] for ids in same]:
                self.read |= zip(part, self.slots.caches_of(self.model, placed(self.model, part)), strict=True)
        for view, ids in texts:
            view.take(self.read[ids])

    def end(self, row: int) -> None:
        self.slots.end(row)

    def step(self, tokens: Sequence[int]) -> Tensor:
        logits: Tensor = self.model(placed(self.model, [[token] for token in tokens]), self.slots)
        return logits[: len(tokens), -1]


class Apart:
    """Rows of any model, one call for each: with a cache if the model has one, else with all of the row's tokens."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.known: list[list[int]] = []
        self.caches: list[Any] = []

    def begin(self, *rows: Sequence[int]) -> None:
        for ids in rows:
            self.known.append([])
            self.caches.append(None)
            self.again(len(self.known) - 1, ids)

    def again(self, row: int, ids: Sequence[int]) -> None:
        self.known[row] = list(ids)
        self.caches[row] = self.model.new_cache(1) if hasattr(self.model, "new_cache") else None  # type: ignore[operator]
        if ids and self.caches[row] is not None:
            self.model(placed(self.model, [ids]), self.caches[row])

    def end(self, row: int) -> None:
        for rows in (self.known, self.caches):
            last = rows.pop()
            if row < len(rows):
                rows[row] = last

    def step(self, tokens: Sequence[int]) -> Tensor:
        logits = []
        for known, cache, token in zip(self.known, self.caches, tokens, strict=True):
            known.append(token)
            given = (placed(self.model, [known]),) if cache is None else (placed(self.model, [[token]]), cache)
            logits.append(self.model(*given)[:, -1])
        return torch.cat(logits)


def placed(model: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Ids (B, T), where the model is."""
    return torch.tensor(rows, device=next(model.parameters()).device)
