"""Choose which documents are for training and which for validation.

Pure functions of document keys and lengths that return document numbers. A key is a 64-bit hash of a document's prompt.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


def key_of(prompt: str, seed: int) -> int:
    """64 bits that depend on the prompt and the seed only: the same on every machine and in every process."""
    digest = hashlib.blake2b(prompt.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little")


def by_hash(keys: Keys, val_fraction: float) -> tuple[Numbers, Numbers]:
    """Train and validation documents, in order. All copies of a prompt are on one side.

    A prompt stays on its side when documents are added. Exception: a side that would be empty gets the one prompt
    that is nearest to it. With a single prompt, validation is empty.
    """
    limit = np.uint64(min(int(val_fraction * 2.0**64), 2**64 - 1))
    held_out = keys < limit
    if not held_out.any():
        held_out = keys == keys.min()
    if held_out.all():
        held_out = keys != keys.max()
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def tail_cut(length: int, val_fraction: float) -> int:
    """Where text of this length is cut, as in nanoGPT's prepare.py."""
    return int(length * (1 - val_fraction))


def by_tail(lengths: Numbers, val_fraction: float) -> tuple[Numbers, Numbers]:
    """Validation is the last documents, from the one that contains the character at 1 - val_fraction of the text."""
    ends = np.cumsum(lengths)
    first = int(np.searchsorted(ends, tail_cut(int(ends[-1]), val_fraction), side="right"))
    first = min(max(first, 1), len(lengths) - 1)
    return np.arange(first), np.arange(first, len(lengths))


def by_shuffle(lengths: Numbers, val_fraction: float, seed: int) -> tuple[Numbers, Numbers]:
    """`by_tail` after shuffling the documents with this seed."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    train, val = by_tail(lengths[order], val_fraction)
    return order[train], order[val]


def overlap(train_keys: Keys, val_keys: Keys) -> int:
    """How many different validation prompts are also in train."""
    return int(np.isin(np.unique(val_keys), train_keys).sum())
