"""Listeners: a terminal, a notebook or a test that receives messages, metrics and progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

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


class Begun(NamedTuple):
    """A run starts to train, or goes on. Its rows follow. may_end_early: at an evaluation that meets a condition."""

    run: str
    may_end_early: bool = False


class AskedPrompt(NamedTuple):
    """A prompt of an evaluation, what the model answered, and the truth."""

    prompt: str
    truth: str
    answer: str
    right: bool


class Answers(NamedTuple):
    """Answers of an evaluation, to the same prompts each time. Its row follows."""

    answers: Sequence[AskedPrompt]


class Ended(NamedTuple):
    """A run of a sweep has ended. figures: its seed, status, error, steps, validation loss and seconds."""

    run: str
    figures: Mapping[str, Any]


News = Begun | Answers | Ended


@runtime_checkable
class Watcher(Listener, Protocol):
    """A listener that also hears what is neither a line nor a figure. Other listeners need not know of it."""

    def hear(self, news: News) -> None:
        """News of a run."""


def tell(listener: Listener, news: News) -> None:
    """Tell a listener the news, if it is a Watcher."""
    if isinstance(listener, Watcher):
        listener.hear(news)


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

    def hear(self, news: News) -> None:
        tell(self.other, news)


SILENT = Silent()
