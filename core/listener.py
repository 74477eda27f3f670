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


class Silent:
    """A listener that ignores everything."""

    def say(self, text: str) -> None:
        pass

    def row(self, metrics: dict[str, float]) -> None:
        pass

    def progress(self, what: str, done: float, total: float) -> None:
        pass


class Listening(Silent):
    """A listener that calls a function with each row."""

    def __init__(self, on_row: Callable[[dict[str, float]], object]) -> None:
        self.on_row = on_row

    def row(self, metrics: dict[str, float]) -> None:
        self.on_row(metrics)


SILENT = Silent()
