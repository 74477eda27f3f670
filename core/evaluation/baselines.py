"""The loss of n-gram baselines: what is reached without a network.

Interpolated Kneser-Ney smoothing with one discount per order, after Chen and Goodman, "An empirical study of smoothing
techniques for language modeling" (1999), section 2.7. The discount n1 / (n1 + 2 n2) is from Ney, Essen and Kneser (1994).
Everything is counted on the training side, so nothing is tuned on the tokens that are scored.

Legend: N tokens, K different n-grams, V ids. An n-gram is one number: its ids as the digits of base V, the first highest.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Counted at most, from the beginning: 6 seconds and 300 MB for text, 25 seconds and 1,100 MB for random ids.
TRAIN_TOKENS = 5_000_000
VAL_TOKENS = 1_000_000  # scored at most, from the beginning
BLOCK = 1 << 18  # tokens scored at once
LARGEST_KEY = 2**63
LEAST_DISCOUNT = 0.01  # without a discount, an n-gram that is not in train would have probability 0


@dataclass(frozen=True)
class NGramCounts:
    """Counts of n-grams of one length.

    keys: (K,) sorted; counts: (K,); contexts: the different keys // V, sorted; totals: the count of each context;
    followers: how many different ids follow it.
    """

    keys: Array
    counts: Array
    contexts: Array
    totals: Array
    followers: Array
    discount: float
    vocab_size: int

    @classmethod
    def of(cls, keys: Array, counts: Array, vocab_size: int) -> NGramCounts:
        """keys: sorted and different."""
        above = keys // vocab_size
        firsts = np.flatnonzero(np.r_[True, above[1:] != above[:-1]]) if len(keys) else np.zeros(0, np.int64)
        totals = np.add.reduceat(counts, firsts) if len(keys) else counts
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = max(once / max(once + 2 * twice, 1), LEAST_DISCOUNT)
        return cls(keys, counts, above[firsts], totals, np.diff(np.r_[firsts, len(keys)]), discount, vocab_size)

    def probability(self, keys: Array, lower: Array) -> Array:
        """The probability of the last id of each n-gram, given the others. lower: the same from n-grams shorter by one."""
        count = found(self.keys, keys, self.counts)
        total = found(self.contexts, keys // self.vocab_size, self.totals)
        spared = self.discount * found(self.contexts, keys // self.vocab_size, self.followers)
        seen = np.maximum(total, 1)
        probability = np.maximum(count - self.discount, 0) / seen + spared / seen * lower
        return np.where(total > 0, probability, lower)


def found(keys: Array, wanted: Array, values: Array) -> Array:
    """The values of some keys, 0 for keys that are missing. keys: sorted."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


class NGramModel:
    """Counts of n-grams up to a length in the first TRAIN_TOKENS of a training side.

    ids: (N,). targets: (N,) bool, which of them are learnt; None: all. Raises ValueError where V ** order has more than 63 bits.
    """

    def __init__(self, ids: Array, targets: Array | None, vocab_size: int, order: int) -> None:
        if vocab_size**order >= LARGEST_KEY:
            raise ValueError(f"{order}-grams over {vocab_size:,} ids do not fit in 63 bits")
        self.ids, self.vocab_size, self.order = ids[:TRAIN_TOKENS], vocab_size, order
        self.targets = None if targets is None else targets[:TRAIN_TOKENS]

    @functools.cached_property
    def tables(self) -> list[tuple[NGramCounts, NGramCounts]]:
        """For each length, from 1: how often an n-gram occurs in the text, and after how many different ids."""
        tables: list[tuple[NGramCounts, NGramCounts]] = []
        longer = None  # keys that are longer by one
        for length in range(self.order, 0, -1):
            keys, counts = np.unique(self.chosen(length), return_counts=True)
            plain = NGramCounts.of(keys, counts, self.vocab_size)
            if longer is not None:
                keys, counts = np.unique(longer % self.vocab_size**length, return_counts=True)
            tables.append((plain, NGramCounts.of(keys, counts, self.vocab_size)))
            longer = plain.keys
        return tables[::-1]

    def chosen(self, length: int) -> Array:
        """The n-grams that end in a target."""
        keys = keys_of(self.ids, length, self.vocab_size)
        return keys if self.targets is None else keys[self.targets[length - 1 :]]

    def probabilities(self, ids: Array, length: int) -> Array:
        """The probability of each id after the length - 1 ids before it, (N,). Near the beginning there are fewer before it."""
        probability = np.full(len(ids), 1 / self.vocab_size)
        for n in range(1, min(length, len(ids)) + 1):
            table = self.tables[n - 1][0 if n == length else 1]
            keys = keys_of(ids, n, self.vocab_size)
            probability[n - 1 :] = table.probability(keys, probability[n - 1 :])
        return probability

    def loss(self, ids: Array, targets: Array, length: int) -> float:
        """Mean nats per target over the first VAL_TOKENS. targets: (N,) bool. nan if there is no target."""
        nats, count, reach = 0.0, 0, length - 1
        for begin in range(0, min(len(ids), VAL_TOKENS), BLOCK):
            end = min(begin + BLOCK, len(ids), VAL_TOKENS)
            first = max(begin - reach, 0)  # ids before the block are part of its contexts
            wanted = targets[begin:end]
            probability = self.probabilities(ids[first:end], length)[begin - first :]
            nats -= float(np.log(probability[wanted]).sum())
            count += int(wanted.sum())
        return nats / count if count else math.nan


def keys_of(ids: Array, length: int, vocab_size: int) -> Array:
    """Every n-gram of a text as a number, (N - length + 1,)."""
    ids = ids.astype(np.int64)
    places = max(len(ids) - length + 1, 0)
    keys = np.zeros(places, np.int64)
    for offset in range(length):
        keys = keys * vocab_size + ids[offset : offset + places]
    return keys


def lengths(vocab_size: int) -> list[int]:
    """The lengths of useful n-grams: up to 5 for characters, at most 2 or 3 for a large vocabulary."""
    return [n for n in (1, 2, 3, 5) if vocab_size**n < LARGEST_KEY and (n <= 3 or vocab_size <= 1000)]


def baselines(
    train: Array, val: Array, train_targets: Array | None, val_targets: Array, vocab_size: int
) -> dict[str, float]:
    """Nats per target of the validation side by name: "uniform", "unigram", "bigram", "trigram", "5-gram".

    train, val: ids (N,). *_targets: (N,) bool, what the loss is over; None for train: all.
    """
    names = {1: "unigram", 2: "bigram", 3: "trigram"}
    losses = {"uniform": math.log(vocab_size)}
    wanted = lengths(vocab_size)
    ngrams = NGramModel(train, train_targets, vocab_size, max(wanted))
    for length in wanted:
        losses[names.get(length, f"{length}-gram")] = ngrams.loss(val, val_targets, length)
    return losses
