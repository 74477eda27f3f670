"""A task and the answers to its items -> its accuracy, with an interval, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.encoders.base import Encoder
from core.evaluation.intervals import wilson
from core.evaluation.suites.rows import Row, numbers_asked, rows_of
from core.evaluation.suites.scoring import Score, score
from core.evaluation.suites.task import Item, Task, chance
from core.training.machine import Machine

ITEMS = 256  # whose rows are in memory at once
AT_CHANCE, ABOVE, BELOW = "at chance", "above chance", "below chance"


@dataclass(frozen=True)
class TaskResult:
    """right: of the items that were asked. cut: prompts of them that the model saw only the end of. shots: before each."""

    task: Task
    asked: Sequence[Item]
    right: int
    shots: int
    cut: int

    @property
    def items(self) -> int:
        """How many were asked."""
        return len(self.asked)

    @property
    def chance(self) -> tuple[float, float]:
        """What needs no knowledge, on the items that were asked: a sample has other shares of answers than the whole task."""
        return chance(self.asked, self.task.baseline)

    @property
    def accuracy(self) -> float:
        return self.right / self.items

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.accuracy, self.items)

    @property
    def centered(self) -> float:
        """The accuracy on a scale from 0, the baseline, to 1."""
        return (self.accuracy - self.task.baseline) / (1 - self.task.baseline)

    @property
    def verdict(self) -> str:
        """At chance if the interval holds any accuracy of `chance`, from its lowest to its highest."""
        (low, high), (lowest, highest) = self.interval, self.chance
        if low > highest:
            return ABOVE
        return BELOW if high < lowest else AT_CHANCE

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.task.kind,
            "shots": self.shots,
            "items": self.items,
            "right": self.right,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "baseline": self.task.baseline,
            "chance": list(self.chance),
            "centered": self.centered,
            "verdict": self.verdict,
            "cut": self.cut,
        }


def measure_task(
    model: torch.nn.Module,
    task: Task,
    encoder: Encoder,
    machine: Machine,
    most: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
    *,
    begin: int | None = None,
) -> TaskResult:
    """Ask a model at most `most` items of a task; 0: all. progress: told how many of how many are asked. begin: as of `rows_of`.

    With options, the one whose continuation has the lowest loss per token is chosen, the first of equal ones. A single
    continuation must be what greedy decoding writes. Raises UserError for an item that cannot be encoded.
    """
    asked = numbers_asked(task, most)
    block_size = int(model.block_size)  # type: ignore[arg-type]
    right = cut = 0
    for first in range(0, len(asked), ITEMS):
        numbers = asked[first : first + ITEMS]
        rows = [rows_of(task, number, encoder, block_size, begin) for number in numbers]
        scores = iter(score(model, [row for options in rows for row in options], machine, encoder.vocab_size))
        for number, options in zip(numbers, rows, strict=True):
            right += is_right(task.items[number], options, [next(scores) for _ in options])
            cut += any(row.cut for row in options)
        progress(first + len(numbers), len(asked))
    return TaskResult(task, [task.items[number] for number in asked], right, min(task.shots, len(task.items) - 1), cut)


def is_right(item: Item, rows: Sequence[Row], scores: Sequence[Score]) -> bool:
    """Whether a model's answer to an item is right. rows, scores: of its options.

    A continuation that does not fit into the context was not measured in whole, so it cannot count as written.
    """
    if len(rows) == 1:
        return rows[0].whole and scores[0].greedy
    return min(range(len(scores)), key=lambda number: scores[number].loss) == item.gold


def mean_centered(results: Sequence[TaskResult]) -> float:
    """The mean of the tasks' centered accuracies: the figure of a suite, as CORE is."""
    return sum(result.centered for result in results) / len(results)
