"""Which model fits a budget in time: measured speeds of several sizes go in, a proposal comes out.

A larger model learns more from a token, a smaller one sees more tokens: for minutes on a laptop the best one sees about
`TOKENS_PER_PARAMETER` of them (docs/LOG.md). Compute-optimal models of large runs see 20 (arXiv:2203.15556); with data
that repeats and minutes instead of weeks, it is fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

WIDTHS = (64, 128, 192, 256, 384, 512, 768, 1024)
HEAD_WIDTH = 64
TOKENS_PER_PARAMETER = 1.5
FEWEST_STEPS = 100  # with fewer, even a good schedule has no time to act
STEPPING = 0.95  # share of a budget that steps have; evaluations and saves take the rest


@dataclass(frozen=True)
class Fit:
    """A size and what a budget is enough for. seconds: of a step; tokens: input tokens seen in all."""

    n_embd: int
    n_head: int
    parameters: int
    seconds: float
    steps: int
    tokens: int

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters


def fits(
    budget: float,
    tokens_per_step: int,
    measure: Callable[[int, int], tuple[int, float]],
    widths: Iterable[int] = WIDTHS,
) -> Iterator[Fit]:
    """Sizes from narrow to wide, each as soon as it is measured, until one is too slow for the budget (seconds).

    measure(n_embd, n_head) -> parameters, and seconds of an optimizer step of `tokens_per_step` tokens.
    """
    for width in widths:
        heads = width // HEAD_WIDTH
        parameters, seconds = measure(width, heads)
        steps = int(STEPPING * budget / seconds)
        yield Fit(width, heads, parameters, seconds, steps, steps * tokens_per_step)
        if steps < FEWEST_STEPS or steps * tokens_per_step < TOKENS_PER_PARAMETER * parameters / 2:
            return  # wider ones are slower still


def best(found: list[Fit]) -> Fit | None:
    """The size whose tokens per parameter are nearest to the best, by ratio; None where there is time for none."""
    possible = [fit for fit in found if fit.steps >= FEWEST_STEPS]

    def distance(fit: Fit) -> float:
        ratio = fit.tokens_per_parameter / TOKENS_PER_PARAMETER
        return max(ratio, 1 / ratio)

    return min(possible, key=distance, default=None)
