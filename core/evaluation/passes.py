"""pass@k: the chance that at least one of k answers to a prompt is right."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def pass_at(k: int, samples: int, right: int) -> float:
    """The unbiased estimate for one prompt, of whose `samples` answers `right` were right (arXiv:2107.03374, equation 1).

    It is the share of all choices of k answers that hold a right one. Raises ValueError unless 1 <= k <= samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k = {k} is not from 1 to {samples}")
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def passes(right: Sequence[int], samples: int) -> dict[str, float]:
    """The means over prompts, `pass@1`, `pass@2`, `pass@4`, ... up to all samples. right: of each prompt."""
    ks = [1 << power for power in range(samples.bit_length()) if 1 << power <= samples]
    return {f"pass@{k}": sum(pass_at(k, samples, each) for each in right) / len(right) for k in ks}
