"""Read a side in epochs: which pieces stand in which row. A pure function of the seed and the number of the row.

A piece is a whole document, or a window of running text. An epoch reads every piece once, in an order of its own. The rows
of all epochs follow each other without a gap, so a step may end one epoch and begin the next.
Legend: R rows, T tokens (block_size), D documents, P pieces of a side, K pieces of a row.
"""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.data.dataset import BLOCK, Split
from core.data.packing import Packed

Array = npt.NDArray[np.int64]
KEPT = 2  # permutations in memory: a step may belong to two epochs


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of a side. size: T. tokens: of the side. count: P. per_row: K, the same in every row but an epoch's last.

    starts: (D,) where documents start; None: windows of running text. firsts: (D,) the number of each document's first piece,
    if documents of more than T + 1 tokens are cut into windows; None: every document is one piece.
    """

    size: int
    tokens: int
    count: int
    per_row: int
    starts: npt.NDArray[Any] | None = None
    firsts: Array | None = None

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return -(-self.count // self.per_row)

    def bounds(self, numbers: Array) -> tuple[Array, Array]:
        """Begin and end of some pieces in the side, each at most T + 1 tokens apart."""
        if self.starts is None:
            begins = numbers * self.size
            return begins, np.minimum(begins + self.size + 1, self.tokens)
        documents = numbers if self.firsts is None else np.searchsorted(self.firsts, numbers, side="right") - 1
        last = len(self.starts) - 1
        begins = self.starts[documents].astype(np.int64)
        following = self.starts[np.minimum(documents + 1, last)].astype(np.int64)
        ends = np.where(documents < last, following, self.tokens)
        if self.firsts is not None:
            begins += (numbers - self.firsts[documents]) * self.size
            ends = np.minimum(begins + self.size + 1, ends)
        return begins, ends


KNOWN: weakref.WeakKeyDictionary[Split, dict[tuple[int, bool], Pieces]] = weakref.WeakKeyDictionary()


def pieces_of(split: Split, size: int, *, in_rows: bool) -> Pieces:
    """The pieces of a side. in_rows: they are documents. Found once for each side: documents are counted in one pass."""
    found = KNOWN.setdefault(split, {})
    if (size, in_rows) not in found:
        found[size, in_rows] = documents_of(split, size) if in_rows else windows_of(split.tokens, size)
    return found[size, in_rows]


def windows_of(tokens: int, size: int) -> Pieces:
    """Consecutive windows: every token but the first is a target of one of them."""
    return Pieces(size, tokens, max(1, -(-(tokens - 1) // size)), 1)


def documents_of(split: Split, size: int) -> Pieces:
    """Whole documents; one of more than T + 1 tokens in windows. As many to a row as always fit, so that all epochs are
    equally long and a row's place is known without the rows before it."""
    assert split.starts is not None
    longest = longest_document(split)
    if longest <= size + 1:
        return Pieces(size, split.tokens, len(split.starts), (size + 1) // max(longest, 1), split.starts)
    windows = [np.maximum(1, -(-(lengths(split, begin) - 1) // size)) for begin in range(0, len(split.starts), BLOCK)]
    counts = np.concatenate(windows)
    firsts = np.cumsum(counts) - counts
    return Pieces(size, split.tokens, int(counts.sum()), 1, split.starts, firsts)


def longest_document(split: Split) -> int:
    """Tokens of the longest document of a side, found in one pass."""
    assert split.starts is not None
    return max(int(lengths(split, begin).max()) for begin in range(0, len(split.starts), BLOCK))


def lengths(split: Split, begin: int) -> Array:
    """Tokens of documents begin, begin + 1, ..., at most BLOCK of them."""
    assert split.starts is not None
    starts = split.starts[begin : begin + BLOCK + 1].astype(np.int64)
    return np.diff(starts if len(starts) > BLOCK else np.append(starts, split.tokens))


@functools.lru_cache(maxsize=KEPT)
def permutation(seed: int, epoch: int, count: int) -> npt.NDArray[Any]:
    """The order of an epoch's pieces, (P,): uniform among all orders."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, 1))))
    order = random.permutation(np.arange(count, dtype=np.uint32 if count < 2**32 else np.uint64))
    order.flags.writeable = False
    return order


def pieces_in_rows(pieces: Pieces, seed: int, first: int, rows: int) -> Array:
    """Numbers of the pieces (R, K) in rows first, first + 1, ...; -1 where an epoch's last row has no more."""
    numbers = first + np.arange(rows)
    epochs, places = np.divmod(numbers, pieces.rows)
    ranks = places[:, None] * pieces.per_row + np.arange(pieces.per_row)  # (R, K)
    found = np.full(ranks.shape, -1, np.int64)
    for epoch in np.unique(epochs):
        here = (epochs == epoch)[:, None] & (ranks < pieces.count)
        found[here] = permutation(seed, int(epoch), pieces.count)[ranks[here]]
    return found


def rows_in_epochs(
    split: Split, size: int, seed: int, first: int, rows: int, *, in_rows: bool, masked: bool
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Rows first, first + 1, ..., as `laid_out`."""
    pieces = pieces_of(split, size, in_rows=in_rows)
    numbers = pieces_in_rows(pieces, seed, first, rows)
    return laid_out(split, size, numbers >= 0, *pieces.bounds(numbers[numbers >= 0]), masked=masked)


def packed_in_epochs(packed: Packed, seed: int, first: int, rows: int) -> Array:
    """Numbers of the packed rows (R,) that stand first, first + 1, ...: each once per epoch, in an order of the epoch's own."""
    epochs, places = np.divmod(first + np.arange(rows), packed.rows)
    found = np.empty(rows, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        found[here] = permutation(seed, int(epoch), packed.rows)[places[here]]
    return found


def rows_of_documents(split: Split, size: int, numbers: Array, *, masked: bool) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Rows of documents (R, K), -1 for none, each cropped to T + 1 tokens, as `laid_out`."""
    there = numbers >= 0
    begins, ends = Pieces(size, split.tokens, len(numbers), 1, split.starts).bounds(numbers[there])
    return laid_out(split, size, there, begins, np.minimum(ends, begins + size + 1), masked=masked)


def laid_out(
    split: Split, size: int, there: npt.NDArray[np.bool_], begins: Array, ends: Array, *, masked: bool
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Ids (R, T + 1) of pieces side by side, and which of them may be targets.

    there (R, K): where there is a piece; begins and ends: of those, row by row. A piece's first token is not a target:
    nothing before it belongs to it. masked: nor is a prompt. Padding after the last piece has id 0.
    """
    rows = len(there)
    held = np.zeros(there.shape, np.int64)  # tokens of each piece
    held[there] = ends - begins
    offsets = np.cumsum(held, axis=1) - held + np.arange(rows)[:, None] * (size + 1)
    counts, targets = held[there], offsets[there]  # in the flat rows
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    sources, places = np.repeat(begins, counts) + steps, np.repeat(targets, counts) + steps
    ids, learnt = np.zeros(rows * (size + 1), np.int64), np.zeros(rows * (size + 1), np.bool_)
    ids[places] = split.ids[sources]
    learnt[places] = split.mask[sources] != 0 if masked and split.mask is not None else True
    learnt[targets[counts > 0]] = False
    return ids.reshape(rows, size + 1), learnt.reshape(rows, size + 1)
