"""Embeddings of the number tokens: their plane of largest variance, and their Fourier spectrum over the numbers.

A model that has understood addition modulo p often holds the numbers on circles: few frequencies have nearly all of the
spectrum, and the plane shows a ring (Nanda et al. 2023, arXiv:2301.05217; Liu et al. 2022, arXiv:2205.10343).
Shapes: N tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from core.encoders.base import Encoder
from core.look.attention import visible

Array = npt.NDArray[np.float64]
LEAST = 3  # numbers that make a picture
MOST = 2_000  # tokens that are shown


@dataclass(frozen=True)
class Embeddings:
    """The rows (N, C) of some tokens. numbers: whether they are the whole numbers of the vocabulary, in order; else its first tokens."""

    labels: Sequence[str]
    rows: Array
    numbers: bool

    @property
    def whole(self) -> bool:
        """Whether the tokens are 0, 1, ..., N - 1: only then is there a spectrum."""
        return self.numbers and list(self.labels) == [str(number) for number in range(len(self.labels))]


def embedding_of(model: nn.Module, vocab_size: int) -> nn.Embedding | None:
    """The first table with one row for each id; None if the model has none."""
    tables = (module for module in model.modules() if isinstance(module, nn.Embedding))
    return next((table for table in tables if table.num_embeddings == vocab_size), None)


def token_embeddings(model: nn.Module, encoder: Encoder) -> Embeddings | None:
    """The embeddings of the tokens that are whole numbers, by their size; of all tokens if fewer than LEAST are numbers.

    None if the model has no table of embeddings for this vocabulary, or too few or many tokens to show.
    """
    table = embedding_of(model, encoder.vocab_size)
    if table is None:
        return None
    rows = table.weight.detach().float().cpu().numpy().astype(np.float64)
    texts = [(token, encoder.decode([token])) for token in range(encoder.vocab_size)]
    numbers = {
        int(text): token
        for token, text in reversed(texts)
        if text.strip().isdecimal() and str(int(text)) == text.strip()
    }
    if len(numbers) >= LEAST:
        chosen = sorted(numbers)[:MOST]
        return Embeddings(
            [str(number) for number in chosen], rows[[numbers[number] for number in chosen]], numbers=True
        )
    if not LEAST <= len(texts) <= MOST:
        return None
    return Embeddings([visible(text) for _, text in texts], rows, numbers=False)


@dataclass(frozen=True)
class Plane:
    """A plane in the space of embeddings. centre: (C,), its origin. axes: (2, C). shares: (2,), of the variance along each axis."""

    centre: Array
    axes: Array
    shares: Array

    def points(self, rows: Array) -> Array:
        """The coordinates (N, 2) of embeddings (N, C), these or those of another step."""
        found: Array = (rows - self.centre) @ self.axes.T
        return found


def fitted_plane(rows: Array) -> Plane:
    """The plane of the two directions of largest variance of (N, C), through their mean: principal component analysis.

    The sign of a direction is such that the first token that is off zero is on its positive side.
    """
    centre = rows.mean(axis=0)
    _, s, directions = np.linalg.svd(rows - centre, full_matrices=False)
    axes, shares = np.zeros((2, rows.shape[1])), np.zeros(2)
    count = min(2, len(s))
    axes[:count] = directions[:count]
    if total := float(np.square(s).sum()):
        shares[:count] = np.square(s[:count]) / total
    points = Plane(centre, axes, shares).points(rows)
    for axis in range(count):
        off = np.flatnonzero(np.abs(points[:, axis]) > 1e-9 * np.abs(points).max(initial=1e-30))
        if len(off) and points[off[0], axis] < 0:
            axes[axis] *= -1
    return Plane(centre, axes, shares)


def principal_plane(rows: Array) -> tuple[Array, Array]:
    """The embeddings (N, C) in their `fitted_plane`: coordinates (N, 2), and the share of the variance of each direction (2,)."""
    plane = fitted_plane(rows)
    return plane.points(rows), plane.shares


def fourier_spectrum(rows: Array) -> Array:
    """The share of each frequency 1 ... N // 2 (periods per N numbers) in the variance of the embeddings (N, C) of 0 ... N - 1.

    The shares sum to 1: every frequency counts with the sine and cosine of all channels (Parseval).
    """
    N = len(rows)
    power: Array = np.square(np.abs(np.fft.rfft(rows - rows.mean(axis=0), axis=0))).sum(axis=1)[1:]
    if N % 2 == 0:
        power[-1] /= 2  # of the highest frequency there is no second half
    total = float(power.sum())
    shares: Array = power / total if total else power
    return shares
