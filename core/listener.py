"""Whoever wants to hear how the work goes: a terminal, a notebook or a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# What the progress of training is counted in, as `what` of `progress`.
STEPS, SECONDS = "training, steps", "training, seconds"


class Listener(Protocol):
    """Is told what happens. Nothing in core prints."""

    def say(self, text: str) -> None:
        """One line for the user."""

    def row(self, metrics: dict[str, float]) -> None:
        """A row of metrics was measured: the columns of metrics.csv, and `wall_seconds`, `ms_per_step`, `mfu`."""

    def progress(self, what: str, done: float, total: float) -> None:
        """So much of some work is done. total: 0 where nobody knows."""


class Silent:
    """A listener that hears nothing."""

    def say(self, text: str) -> None:
        pass

    def row(self, metrics: dict[str, float]) -> None:
        pass

    def progress(self, what: str, done: float, total: float) -> None:
        pass


class Listening(Silent):
    """A listener that hands each row to a function."""

    def __init__(self, on_row: Callable[[dict[str, float]], object]) -> None:
        self.on_row = on_row

    def row(self, metrics: dict[str, float]) -> None:
        self.on_row(metrics)


SILENT = Silent()
