"""Pack documents into rows by best fit: which documents stand in which row, and what is lost. A pure function of the data.

Every row starts where a document starts, and no document goes on in another row: one that is longer than a row is cropped.
A document has the same neighbours in all epochs and runs; the order of the rows is drawn.
Legend: T tokens (block_size), R rows, D documents.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from core.data.dataset import BLOCK, Split

Array = npt.NDArray[np.int64]
AT_ONCE = 1 << 13  # documents that are packed together: enough that nearly every row is filled


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of documents. documents: numbers, row by row; row r has those from offsets[r] up to offsets[r + 1].

    cropped: share of the side's tokens that no row has: ends of documents longer than T + 1, and documents without a target
    in their first T + 1 tokens. padding: share of the rows' places that are empty.
    """

    documents: Array
    offsets: Array
    cropped: float
    padding: float

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def lost(self) -> dict[str, float]:
        """The shares that are cropped and empty, by name."""
        return {"cropped": self.cropped, "padding": self.padding}

    def numbers(self, rows: Array) -> Array:
        """Documents (R, most of a row) of some rows, -1 behind the last one."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        places = self.offsets[rows][:, None] + np.arange(max(int(counts.max(initial=1)), 1))
        there = places < self.offsets[rows + 1][:, None]
        return np.where(there, self.documents[np.minimum(places, len(self.documents) - 1)], -1)


KNOWN: weakref.WeakKeyDictionary[Split, dict[tuple[int, bool], Packed]] = weakref.WeakKeyDictionary()


def packed_rows(split: Split, size: int, *, masked: bool) -> Packed:
    """The rows of a side for T = size. masked: prompts are no targets. Found once for each side.

    A document without a target within a row is left out, so that every row has one.
    """
    found = KNOWN.setdefault(split, {})
    if (size, masked) not in found:
        found[size, masked] = pack(split, size, masked=masked)
    return found[size, masked]


def pack(split: Split, size: int, *, masked: bool) -> Packed:
    """`packed_rows`, worked out."""
    held = held_lengths(split, size, masked=masked)  # (D,)
    random = np.random.Generator(np.random.Philox(0))  # neighbours in the data need not be neighbours in a row
    order = random.permutation(np.flatnonzero(held))
    documents, counts = [np.zeros(0, np.int64)], [np.zeros(1, np.int64)]
    for begin in range(0, len(order), AT_ONCE):  # arrays at once: lists of all rows take ten times their memory
        rows = best_fit(order[begin : begin + AT_ONCE], held, size + 1)
        documents.append(np.fromiter(chain.from_iterable(rows), np.int64))
        counts.append(np.fromiter(map(len, rows), np.int64))
    offsets = np.cumsum(np.concatenate(counts))
    kept, places = int(held.sum()), (len(offsets) - 1) * (size + 1)
    return Packed(np.concatenate(documents), offsets, 1 - kept / split.tokens, 1 - kept / places if places else 0.0)


def held_lengths(split: Split, size: int, *, masked: bool) -> Array:
    """Tokens of each document that a row of size + 1 can hold, (D,); 0 if none of them is a target."""
    assert split.starts is not None
    starts = split.starts.astype(np.int64)
    held = np.minimum(np.diff(np.append(starts, split.tokens)), size + 1)
    learnable = held > 1 if not masked or split.mask is None else with_targets(split.mask, starts, held)
    return np.where(learnable, held, 0)


def with_targets(mask: npt.NDArray[Any], starts: Array, held: Array) -> npt.NDArray[np.bool_]:
    """Which documents have a target among the tokens that are held (D,); their first one is none.

    Reads BLOCK tokens at once: a mask may be larger than memory.
    """
    found = np.zeros(len(starts), np.bool_)
    for begin in range(0, len(mask), BLOCK):
        some = slice(*np.searchsorted(starts, (begin, begin + BLOCK)))  # documents that start here
        if some.start == some.stop:
            continue
        firsts = starts[some] - starts[some.start]
        ends = firsts + held[some]
        learnt = np.cumsum(np.append(0, mask[starts[some.start] :][: ends[-1]] != 0))  # of the tokens before each
        found[some] = learnt[ends] > learnt[np.minimum(firsts + 1, ends)]
    return found


def best_fit(order: Array, held: Array, room: int) -> list[list[int]]:
    """Rows of documents, the longest first, each where it leaves the least space; in rows of `room` tokens."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(room + 1)]  # by the space that is left
    spaces = 0  # a bit for each space that some row has
    lengths = held[order]
    for place in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[place])
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[space].pop()
            if not open_rows[space]:
                spaces &= ~(1 << space)
        else:
            space, row = room, len(rows)
            rows.append([])
        rows[row].append(int(order[place]))
        if space > length:
            open_rows[space - length].append(row)
            spaces |= 1 << (space - length)
    return rows
