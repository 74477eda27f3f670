"""The interval of a difference of two shares, such as exact match. It holds near 0 and 1, where Student's t does not.

Each group has Wilson's interval (1927). Seeds differ by more than prompts would by chance, so a group counts as fewer
prompts than it has: as many as give the spread over seeds that both groups show, and at most those that there are. The
quantile is that of Student's t, as in surveys (Korn and Graubard 1998, Survey Methodology 24; Dean and Pagano 2015, Journal
of Survey Statistics and Methodology 3). The two intervals are then added in squares (Newcombe 1998, Statistics in Medicine
17). docs/LOG.md has the false alarms in simulations, before and since.
"""

from __future__ import annotations

import math

import numpy as np

from core.evaluation.intervals import of_difference, wilson
from core.report.bootstrap import Sides, Values, t_quantile

LEAST_SEEDS = 3  # of each group: seeds that either learn a task or fail agree by chance in one of eight pairs of two


def interval_of_shares(sides: Sides, prompts: tuple[int | None, int | None]) -> tuple[float, float]:
    """The 95 % interval of the difference of two mean shares. prompts: how many each share of a group is measured on.

    Needs two seeds of each, and prompts where no seed differs from the others of its group.
    """
    groups = (sides.a, sides.b)
    spread = sum(float(np.square(group - group.mean()).sum()) for group in groups)
    chance = sum((len(group) - 1) * float(group.mean() * (1 - group.mean())) for group in groups)
    per_seed = chance / spread if spread else math.inf
    quantile = t_quantile(float(sum(sides.seeds) - 2))
    trials = [
        len(group) * min(per_seed, math.inf if count is None else count)
        for group, count in zip(groups, prompts, strict=True)
    ]
    a, b = float(sides.a.mean()), float(sides.b.mean())
    return of_difference((a, b), (wilson(a, trials[0], quantile), wilson(b, trials[1], quantile)))


def interval_of_share(values: Values, prompts: int | None) -> tuple[float, float] | None:
    """The interval of one mean share over two seeds or more, by the same rule; None where neither seeds nor prompts tell."""
    mean, spread = float(values.mean()), float(np.square(values - values.mean()).sum())
    per_seed = (len(values) - 1) * mean * (1 - mean) / spread if spread else math.inf
    trials = len(values) * min(per_seed, prompts or math.inf)
    return wilson(mean, trials, t_quantile(float(len(values) - 1))) if 0 < trials < math.inf else None


def chance_alone(sides: Sides, prompts: tuple[int | None, int | None]) -> float:
    """The variance of the difference of two seeds if only chance decided about each prompt; without prompts: 0."""
    pairs = zip((sides.a, sides.b), prompts, strict=True)
    return sum(float(group.mean() * (1 - group.mean())) / count for group, count in pairs if count)
