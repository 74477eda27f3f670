"""The interval of a share of trials, which holds near 0 and 1, too."""

from __future__ import annotations

import math

NORMAL_95 = 1.959964  # the quantile of a 95 % interval


def wilson(share: float, trials: float, quantile: float = NORMAL_95) -> tuple[float, float]:
    """Wilson's interval (1927) of a share, 0 to 1, of so many trials."""
    part = quantile**2 / trials
    middle = (share + part / 2) / (1 + part)
    half = math.sqrt(share * (1 - share) * part + part**2 / 4) / (1 + part)
    return max(0.0, middle - half), min(1.0, middle + half)
