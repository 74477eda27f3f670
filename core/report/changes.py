"""How a figure changed between two stages, and whether by more than chance: figures of the same validation data in, a verdict out.

All intervals are 95 %. They say how much other held-out data would change a figure; how much another seed would, only several
runs can tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.evaluation.intervals import Interval, correlation_of, of_difference, wilson
from core.report.after_stage import OnData
from core.report.bootstrap import t_quantile

LEAST_PARTS = 3  # of a validation side: fewer say nothing about their spread
BETTER, WORSE, UNCLEAR, UNKNOWN = "better", "worse", "no clear change", "changed, without an interval"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """A figure before and after. interval: of after - before; None if it is not known. up: whether more is better."""

    before: float
    after: float
    interval: Interval | None
    up: bool

    @property
    def verdict(self) -> str:
        """One of BETTER, WORSE, UNCLEAR and UNKNOWN."""
        if self.interval is None:
            return UNCLEAR if self.after == self.before else UNKNOWN
        low, high = self.interval
        if low <= 0 <= high:
            return UNCLEAR
        return BETTER if (low > 0) == self.up else WORSE


def loss_interval(loss: float, on: OnData) -> Interval | None:
    """The interval of a mean loss, from the parts of its validation side; None if there are too few."""
    half = half_width(np.array(on.nats), np.array(on.targets, float))
    return None if half is None else (loss - half, loss + half)


def loss_change(before: float, after: float, first: OnData, second: OnData) -> Change:
    """The change of a mean loss. Both are of the same data, so the parts are compared one by one."""
    half = None
    if first.targets == second.targets:
        half = half_width(np.array(second.nats) - np.array(first.nats), np.array(first.targets, float))
    difference = after - before
    return Change(before, after, None if half is None else (difference - half, difference + half), up=False)


def half_width(sums: Array, weights: Array) -> float | None:
    """Half the interval of sum(sums) / sum(weights), a ratio, over K independent parts, with Student's t; None for few parts.

    Cochran, Sampling Techniques (1977), section 6.4.
    """
    parts = len(sums)
    if parts < LEAST_PARTS or not weights.sum():
        return None
    rest = sums - sums.sum() / weights.sum() * weights
    error = math.sqrt(parts / (parts - 1) * float(np.square(rest).sum())) / float(weights.sum())
    return t_quantile(parts - 1) * error


def share_change(
    before: float, after: float, prompts: tuple[float | None, float | None], right: tuple[str, str] = ("", "")
) -> Change:
    """The change of a share of prompts. prompts: of how many. right: "1" or "0" for each prompt, where that is known.

    Where both shares are of the same prompts, the interval knows that; otherwise it is wider than it need be.
    """
    if not all(prompts):
        return Change(before, after, None, up=True)
    first, second = (wilson(share, float(count or 0)) for share, count in zip((before, after), prompts, strict=True))
    same = len(right[0]) == len(right[1]) == prompts[0] == prompts[1]
    correlation = correlation_of(*map(outcomes, right)) if same else 0.0
    return Change(before, after, of_difference((before, after), (first, second), correlation), up=True)


def outcomes(right: str) -> Sequence[bool]:
    """Whether each prompt was answered right."""
    return [mark == "1" for mark in right]
