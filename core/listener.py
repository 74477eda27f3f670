"""Listeners: a terminal, a notebook or a test that receives messages, metrics and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# The units of the progress of training: `what` in `progress`.
STEPS, SECONDS = "training, steps", "training, seconds"


class Listener(Protocol):
    """Receives messages, metrics and progress. Nothing in core prints."""

    def say(self, text: str) -> None:
        """One line for the user."""

    def row(self, metrics: dict[str, float]) -> None:
        """A row of metrics: the columns of metrics.csv, plus `wall_seconds`, `ms_per_step` and `mfu`."""

    def progress(self, what: str, done: float, total: float) -> None:
        """How much of some work is done. total: 0 if unknown."""


class Advice(str):
    """A line that names arguments of the Python API in backticks. The command line shows its options instead."""


class Silent:
    """A listener that ignores everything."""

    def say(self, text: str) -> None:
        pass

    def row(self, metrics: dict[str, float]) -> None:
        pass

    def progress(self, what: str, done: float, total: float) -> None:
        pass


class Listening:
    """A listener that hands each row to a function, and everything to another listener."""

    def __init__(self, on_row: Callable[[dict[str, float]], object], other: Listener) -> None:
        self.on_row, self.other = on_row, other

    def say(self, text: str) -> None:
        self.other.say(text)

    def row(self, metrics: dict[str, float]) -> None:
        self.other.row(metrics)
        self.on_row(metrics)

    def progress(self, what: str, done: float, total: float) -> None:
        self.other.progress(what, done, total)


SILENT = Silent()
