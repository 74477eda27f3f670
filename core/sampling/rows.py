"""Rows of tokens that begin and end at any time: the last token of each in, the logits of what follows out.

`Together` computes all rows in one call of the model. `Apart` calls it for each row, where a model cannot do that.
Shapes: B rows, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Rows(Protocol):
    """What stands before the last token of each row is known to the model; `step` makes the last token known too."""

    def begin(self, ids: Sequence[int]) -> None:
        """Add a row. ids: all but its last token; perhaps none."""

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
    """Rows of a model with slots: all of them in one call of the model. filled: the ids that were made known last, and how."""

    def __init__(self, model: nn.Module, slots: Any) -> None:
        self.model, self.slots = model, slots
        self.filled: tuple[list[int], Any] = ([], None)

    def begin(self, ids: Sequence[int]) -> None:
        self.fill(self.slots.begin(), ids)

    def again(self, row: int, ids: Sequence[int]) -> None:
        self.fill(self.slots.again(row), ids)

    def fill(self, view: Any, ids: Sequence[int]) -> None:
        """Make ids known to the model, in an empty view. Those of the last time are copied: many answers to one prompt."""
        if not ids:
            return
        known, copy = self.filled
        if list(ids) == known:
            view.take(copy)
            return
        self.model(column(self.model, ids).T, view)
        self.filled = list(ids), view.copied()

    def end(self, row: int) -> None:
        self.slots.end(row)

    def step(self, tokens: Sequence[int]) -> Tensor:
        logits: Tensor = self.model(column(self.model, tokens), self.slots)
        return logits[: len(tokens), -1]


class Apart:
    """Rows of any model, one call for each: with a cache if the model has one, else with all of the row's tokens."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.known: list[list[int]] = []
        self.caches: list[Any] = []

    def begin(self, ids: Sequence[int]) -> None:
        self.known.append([])
        self.caches.append(None)
        self.again(len(self.known) - 1, ids)

    def again(self, row: int, ids: Sequence[int]) -> None:
        self.known[row] = list(ids)
        self.caches[row] = self.model.new_cache(1) if hasattr(self.model, "new_cache") else None  # type: ignore[operator]
        if ids and self.caches[row] is not None:
            self.model(column(self.model, ids).T, self.caches[row])

    def end(self, row: int) -> None:
        for rows in (self.known, self.caches):
            last = rows.pop()
            if row < len(rows):
                rows[row] = last

    def step(self, tokens: Sequence[int]) -> Tensor:
        logits = []
        for known, cache, token in zip(self.known, self.caches, tokens, strict=True):
            known.append(token)
            given = (column(self.model, known).T,) if cache is None else (column(self.model, [token]), cache)
            logits.append(self.model(*given)[:, -1])
        return torch.cat(logits)


def column(model: nn.Module, ids: Sequence[int]) -> Tensor:
    """Ids as (B, 1), where the model is."""
    return torch.tensor(list(ids), device=next(model.parameters()).device)[:, None]
