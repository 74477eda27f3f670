"""Choose which documents are for training, for validation and for the test.

Pure functions of document keys and lengths that return the document numbers of each side. A key is a 64-bit hash of a document's prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Sides = dict[str, Numbers]  # train and val; test, if it is not empty
GIVEN = ("column", "lines")  # kinds of splits that come with the data
TEST_FRACTION = 0.1  # where prepare.test_fraction is not given and the split is by hash


def key_of(prompt: str, seed: int) -> int:
    """64 bits that depend on the prompt and the seed only: the same on every machine and in every process."""
    digest = hashlib.blake2b(prompt.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little")


def by_hash(keys: Keys, val_fraction: float, test_fraction: float = 0.0) -> Sides:
    """The documents of each side, in order. All copies of a prompt are on one side.

    A prompt stays on its side when documents are added, and on the validation side whatever the test fraction is.
    Exception: a side that would be empty gets the one prompt that is nearest to it. With a single prompt, validation is
    empty; with two, there is no test side.
    """
    held_out = keys < limit_of(val_fraction)
    if not held_out.any():
        held_out = keys == keys.min()
    if held_out.all():
        held_out = keys != keys.max()
    rest = keys[~held_out]
    tested = np.zeros(len(keys), bool)
    if test_fraction and len(rest) and rest.min() < rest.max():
        tested = ~held_out & (keys < limit_of(val_fraction + test_fraction))
        if not tested.any():
            tested = keys == rest.min()
        if tested.sum() == len(rest):
            tested &= keys != rest.max()
    return named(~held_out & ~tested, held_out, tested)


def of_groups(groups: Iterable[str], seed: int, val_fraction: float, test_fraction: float = 0.0) -> dict[str, str]:
    """The side of each group of documents that belong together, such as the speeches of a session: `by_hash` of its name.

    So a group stays on its side when others are added.
    """
    different = list(dict.fromkeys(groups))
    keys = np.array([key_of(group, seed) for group in different], np.uint64)
    sides = by_hash(keys, val_fraction, test_fraction) if different else {}
    return {different[number]: side for side, numbers in sides.items() for number in numbers.tolist()}


def limit_of(fraction: float) -> np.uint64:
    """The key below which this fraction of all keys lies."""
    return np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))


def named(*chosen: npt.NDArray[np.bool_]) -> Sides:
    """Document numbers by side, from which documents are chosen for train, validation and test."""
    train, val, test = map(np.flatnonzero, chosen)
    return {"train": train, "val": val} | ({"test": test} if len(test) else {})


def tail_cut(length: int, val_fraction: float) -> int:
    """Where text of this length is cut, as in nanoGPT's prepare.py."""
    return int(length * (1 - val_fraction))


def by_tail(lengths: Numbers, val_fraction: float, test_fraction: float = 0.0) -> Sides:
    """Training documents, then validation, then the test: each side begins with the document that contains its first character.

    With fewer than three documents there is no test side.
    """
    ends, count = np.cumsum(lengths), len(lengths)

    def first(fraction: float) -> int:
        return int(np.searchsorted(ends, tail_cut(int(ends[-1]), fraction), side="right"))

    last = count
    if test_fraction and count > 2:
        last = min(max(first(test_fraction), 2), count - 1)
    begin = min(max(first(val_fraction + test_fraction), 1), last - 1)
    numbers = np.arange(count)
    return named(numbers < begin, (numbers >= begin) & (numbers < last), numbers >= last)


def by_shuffle(lengths: Numbers, val_fraction: float, test_fraction: float, seed: int) -> Sides:
    """`by_tail` after shuffling the documents with this seed."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    return {side: order[numbers] for side, numbers in by_tail(lengths[order], val_fraction, test_fraction).items()}


def overlap(train_keys: Keys, held_out_keys: Keys) -> int:
    """How many different held-out prompts are also in train."""
    return int(np.isin(np.unique(held_out_keys), train_keys).sum())
