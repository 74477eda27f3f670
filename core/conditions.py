"""Conditions on a row of metrics, such as `val_accuracy >= 0.99`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
# Columns of metrics.csv that every evaluation fills. An accuracy can also be of a group: val_accuracy/3 letters.
METRICS = ("val_loss", "bits_per_byte", "val_accuracy", "train_accuracy")
WRITTEN = re.compile(
    r"\s*(?P<metric>[a-z_]+(?:/.+?)?)\s*(?P<sign>>=|<=|>|<)\s*(?P<limit>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
)


@dataclass(frozen=True)
class Condition:
    """A comparison of a metric with a number. metric: a column of metrics.csv. sign: one of COMPARISONS."""

    metric: str
    sign: str
    limit: float

    def holds(self, row: Mapping[str, float]) -> bool:
        """Whether the row has the metric and it meets the condition."""
        return self.metric in row and COMPARISONS[self.sign](row[self.metric], self.limit)

    @property
    def can_hold(self) -> bool:
        """Whether some value of the metric meets it: an accuracy is from 0 to 1, a loss is not negative."""
        values = (0.0, 1.0) if "accuracy" in self.metric else (0.0, math.inf)
        return any(COMPARISONS[self.sign](value, self.limit) for value in values)


def read_condition(text: str) -> Condition:
    """Parse a condition. Raises ValueError, which says what is wrong."""
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not METRIC >= NUMBER')
    name = found["metric"].partition("/")[0]
    if name not in METRICS or ("/" in found["metric"] and not name.endswith("accuracy")):
        raise ValueError(f'"{found["metric"]}" is not a metric of an evaluation')
    return Condition(found["metric"], found["sign"], float(found["limit"]))
