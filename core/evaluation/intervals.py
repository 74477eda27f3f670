"""The intervals of a share of trials, and of the difference of two shares, which hold near 0 and 1, too."""

from __future__ import annotations

import math
from collections.abc import Sequence

Interval = tuple[float, float]
NORMAL_95 = 1.959964  # the quantile of a 95 % interval


def wilson(share: float, trials: float, quantile: float = NORMAL_95) -> Interval:
    """Wilson's interval (1927) of a share, 0 to 1, of so many trials."""
    part = quantile**2 / trials
    middle = (share + part / 2) / (1 + part)
    half = math.sqrt(share * (1 - share) * part + part**2 / 4) / (1 + part)
    return max(0.0, middle - half), min(1.0, middle + half)


def of_difference(
    shares: tuple[float, float], intervals: tuple[Interval, Interval], correlation: float = 0.0
) -> Interval:
    """The interval of the second share minus the first, from the interval of each.

    The distances from each share to its ends are added in squares (Newcombe 1998, Statistics in Medicine 17, 873-890).
    correlation: of the outcomes, where both shares are of the same trials (Newcombe 1998, the same volume, 2635-2650).
    """
    (first, second), ((low_1, high_1), (low_2, high_2)) = shares, intervals

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    difference = second - first
    return difference - distance(second - low_2, high_1 - first), difference + distance(high_2 - second, first - low_1)


def correlation_of(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The correlation of the outcomes of the same trials, towards 0 by Newcombe's correction; 0 if one side has one outcome only."""
    both = sum(one and other for one, other in zip(first, second, strict=True))
    n, a, b = len(first), sum(first), sum(second)
    size = math.sqrt(float(a * (n - a)) * float(b * (n - b)))
    if not size:
        return 0.0
    product = both * (n - a - b + both) - (a - both) * (b - both)
    return (max(0.0, product - n / 2) if product > 0 else float(product)) / size
