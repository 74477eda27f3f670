"""Count how much of the validation side also occurs in training.

Documents, prompts and windows are compared by 64-bit hashes, so memory grows by at most 16 bytes per document.

The hash of ids x_0 ... x_n-1 is the sum of r(x_i) B^i modulo 2^64, with a fixed random number r for each id and B odd.
B then has an inverse, and the hash of any part of a text is a difference of two running sums (Karp and Rabin, 1987).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.data.dataset import Split

Array = npt.NDArray[Any]
WINDOW = 50  # tokens of running text that are compared at once
WINDOWS = 200_000  # of the validation side at most, evenly spaced
SEARCHED = 100_000_000  # tokens of training text that are searched at most, from the beginning
BLOCK = 1 << 20  # tokens hashed at once
MARK_BITS = 24
BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 2**64)


@dataclass(frozen=True)
class Overlap:
    """Parts of the validation side, and how many of them also occur in train. searched: training tokens that were read."""

    what: str  # "documents", "prompts", "lines" or "windows of 50 tokens"
    parts: int
    in_train: int
    searched: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.in_train / self.parts if self.parts else 0.0


def powers(base: int, count: int) -> Array:
    """1, base, base^2, ... modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


class Hashing:
    """Hashes of parts of a text with ids below `vocab_size`."""

    def __init__(self, vocab_size: int) -> None:
        self.random = np.random.default_rng(0).integers(1, 2**64, vocab_size, np.uint64)
        self.up, self.down = np.ones(1, np.uint64), np.ones(1, np.uint64)

    def parts(self, ids: Array, begins: Array, ends: Array) -> Array:
        """The hash of ids[begin:end] for each part. It includes the length."""
        if len(self.up) <= len(ids):
            self.up, self.down = powers(BASE, len(ids) + 1), powers(INVERSE, len(ids) + 1)
        sums = np.zeros(len(ids) + 1, np.uint64)
        np.cumsum(self.random[ids] * self.up[: len(ids)], out=sums[1:])
        hashes: Array = (sums[ends] - sums[begins]) * self.down[begins]
        hashes += (ends - begins).astype(np.uint64) * np.uint64(INVERSE)
        return hashes


def overlaps(train: Split, val: Split, vocab_size: int, line_break: int | None = None) -> list[Overlap]:
    """The overlap of prompts and of documents, or of windows where there are no documents; and of lines. Texts have no prompts.

    val: a side that is held out. line_break: the id that ends a line; None: lines are not compared.
    """
    hashing = Hashing(vocab_size)
    found = [] if line_break is None else [of_lines(train, val, hashing, line_break)]
    if val.starts is None or train.starts is None:
        return [of_windows(train, val, hashing), *found]
    sides = {split: hashes_of(split, hashing) for split in (train, val)}
    for number, what in ((1, "prompts"), (0, "documents"))[val.texts :]:
        wanted = sides[val][number]
        wanted = np.unique(wanted) if what == "prompts" else wanted
        found.append(Overlap(what, len(wanted), int(np.isin(wanted, sides[train][number]).sum()), train.tokens))
    return found


def hashes_of(split: Split, hashing: Hashing) -> tuple[Array, Array]:
    """The hash of each document and of its prompt, (D,) each. The prompt is everything before the first learnt token."""
    documents, prompts = [], []
    for ids, mask, bounds in blocks(split):
        begins, ends = bounds[:-1], bounds[1:]
        documents.append(hashing.parts(ids, begins, ends))
        learnt = np.append(np.flatnonzero(mask), len(ids)) if mask is not None else begins
        asked = learnt[np.searchsorted(learnt, begins)] if mask is not None else begins
        prompts.append(hashing.parts(ids, begins, np.minimum(asked, ends)))
    return np.concatenate(documents), np.concatenate(prompts)


def blocks(split: Split) -> Iterator[tuple[Array, Array | None, Array]]:
    """Ids and mask of whole documents, about BLOCK tokens at once, and the bounds of the documents in them."""
    assert split.starts is not None
    bounds = np.append(split.starts.astype(np.int64), split.tokens)
    first = 0
    while first < len(bounds) - 1:
        last = int(np.searchsorted(bounds, bounds[first] + BLOCK, side="right")) - 1
        last = max(last, first + 1)
        here = slice(int(bounds[first]), int(bounds[last]))
        mask = None if split.mask is None else split.mask[here]
        yield split.ids[here], mask, bounds[first : last + 1] - bounds[first]
        first = last


def of_windows(train: Split, val: Split, hashing: Hashing) -> Overlap:
    """Consecutive windows of the validation side that occur anywhere in train."""
    size = min(WINDOW, val.tokens)
    begins = np.arange(0, val.tokens - size + 1, size)
    if len(begins) > WINDOWS:
        begins = begins[np.linspace(0, len(begins) - 1, WINDOWS).round().astype(np.int64)]
    groups = [begins[i : i + BLOCK // size] for i in range(0, len(begins), BLOCK // size)]
    zero, end = np.zeros(1, np.int64), np.full(1, size)
    if len(begins) * size < val.tokens - size:  # far apart: each is hashed on its own
        wanted = np.concatenate([hashing.parts(val.ids[b : b + size], zero, end) for b in begins.tolist()])
    else:
        wanted = np.concatenate(
            [hashing.parts(val.ids[g[0] : g[-1] + size], g - g[0], g - g[0] + size) for g in groups]
        )
    different, inverse = np.unique(wanted, return_inverse=True)
    marks, seen = np.zeros(1 << MARK_BITS, bool), np.zeros(len(different), bool)
    marks[different >> np.uint64(64 - MARK_BITS)] = True
    searched = min(train.tokens, SEARCHED)
    for begin in range(0, searched - size + 1, BLOCK):
        ids = train.ids[begin : min(begin + BLOCK + size - 1, searched)]
        places = np.arange(len(ids) - size + 1)
        hashes = hashing.parts(ids, places, places + size)
        hashes = hashes[marks[hashes >> np.uint64(64 - MARK_BITS)]]  # a fast test that drops most
        near = np.minimum(np.searchsorted(different, hashes), len(different) - 1)
        seen[near[different[near] == hashes]] = True
    return Overlap(f"windows of {size} tokens", len(wanted), int(seen[inverse].sum()), searched)


def of_lines(train: Split, val: Split, hashing: Hashing, line_break: int) -> Overlap:
    """Whole lines of the validation side that are also a line of train. Short lines repeat where long windows do not."""
    wanted, known = (lines_of(split, hashing, line_break) for split in (val, train))
    found = int(np.isin(wanted, np.unique(known)).sum())
    return Overlap("lines", len(wanted), found, min(train.tokens, SEARCHED))


def lines_of(split: Split, hashing: Hashing, line_break: int) -> Array:
    """The hash of each line that is not empty and that ends within the first SEARCHED tokens. Those of more than BLOCK are left out."""
    found, begin, stop = [np.zeros(0, np.uint64)], 0, min(split.tokens, SEARCHED)
    whole = True  # whether the block begins where a line does
    while begin < stop:
        ids = split.ids[begin : min(begin + BLOCK, stop)]
        ends = np.flatnonzero(ids == line_break) + 1
        if not len(ends):  # within a line longer than a block, or the rest after the last one
            begin, whole = begin + len(ids), False
            continue
        begins = np.concatenate([[0], ends[:-1]])
        has_text = ends - begins > 1
        has_text[0] &= whole
        whole = True
        found.append(hashing.parts(ids, begins[has_text], ends[has_text]))
        begin += int(ends[-1])
    return np.concatenate(found)


def same_content(train: Split, val: Split) -> bool:
    """Whether both sides hold the same ids."""
    if train.tokens != val.tokens:
        return False
    return all(np.array_equal(train.ids[i : i + BLOCK], val.ids[i : i + BLOCK]) for i in range(0, train.tokens, BLOCK))
