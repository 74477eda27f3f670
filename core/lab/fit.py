"""Propose a model size for a time budget, from the measured speed of several sizes.

A larger model learns more from each token, a smaller one sees more tokens. For minutes on a laptop, the best size sees
about `TOKENS_PER_PARAMETER` tokens per parameter (docs/LOG.md). For large compute-optimal models it is 20
(arXiv:2203.15556). With repeated data and minutes instead of weeks, it is fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from core.data.batches import batch
from core.data.dataset import Dataset
from core.dial import HEAD_WIDTH
from core.errors import UserError
from core.lab.assemble import never_compiled, temporary_model
from core.lab.opened import Opened, as_overrides, with_overrides
from core.models.build import parameter_count
from core.training.timing import step_speed

MEASURED_SECONDS = 0.6  # per size
WIDTHS = (64, 128, 192, 256, 384, 512, 768, 1024)
TOKENS_PER_PARAMETER = 2.0
FEWEST_STEPS = 100  # with fewer, a learning rate schedule has no effect
STEPPING = 0.95  # share of the budget for steps; evaluations and saves take the rest


@dataclass(frozen=True)
class Fit:
    """A size, and what fits into the budget. seconds: per step. tokens: input tokens in total."""

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
    """Yield sizes from narrow to wide, as they are measured, until one is too slow for the budget (seconds).

    measure(n_embd, n_head) -> parameters, and seconds of an optimizer step with `tokens_per_step` tokens.
    """
    for width in widths:
        heads = width // HEAD_WIDTH
        parameters, seconds = measure(width, heads)
        steps = int(STEPPING * budget / seconds)
        yield Fit(width, heads, parameters, seconds, steps, steps * tokens_per_step)
        if steps < FEWEST_STEPS or steps * tokens_per_step < TOKENS_PER_PARAMETER * parameters / 2:
            return  # wider ones are even slower


def best(found: list[Fit]) -> Fit | None:
    """The size whose tokens per parameter are closest to the optimum, by ratio; None if there is too little time."""
    possible = [fit for fit in found if fit.steps >= FEWEST_STEPS]

    def distance(fit: Fit) -> float:
        ratio = fit.tokens_per_parameter / TOKENS_PER_PARAMETER
        return max(ratio, 1 / ratio)

    return min(possible, key=distance, default=None)


def refuse_other_models(opened: Opened) -> None:
    """Raise UserError if the experiment does not train a model of kind gpt."""
    if opened.config.train.model.kind != "gpt" or hasattr(opened.code, "build_model"):
        raise UserError(
            f"fit only works for models of kind gpt, and {opened.experiment.name} trains another one",
            place="train.model.kind",
            remedy="Measure the model as it is: " + opened.experiment.command.format("bench"),
        )


def stopwatch(opened: Opened, dataset: Dataset, minutes: float) -> Callable[[int, int], tuple[int, float]]:
    """A function that measures a size for a run of `minutes`: (n_embd, n_head) -> parameters, seconds of a step."""

    def measure(n_embd: int, n_head: int) -> tuple[int, float]:
        size = {"train.model.n_embd": n_embd, "train.model.n_head": n_head, "train.runtime.max_minutes": minutes}
        sized = with_overrides(opened, (*opened.overrides, *as_overrides(size)))
        with temporary_model(sized, never_compiled(sized.config), dataset) as fresh:
            train = fresh.settled.config.train
            first = batch(dataset.train, train.data, train.runtime.seed, 0)
            figures = step_speed(fresh.step, train, first, MEASURED_SECONDS)
        return parameter_count(fresh.model), figures["ms_per_step"] / 1000

    return measure
