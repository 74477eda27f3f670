"""What a person sees: sentences, and a progress bar on a terminal or plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.progress import TaskID

Row = dict[str, float]
Show = Callable[[Row, float], None]  # takes a row of metrics, and the wall seconds of the run
SpeedText = Callable[[float], str]  # takes tokens per second
LINE_SECONDS = 5.0  # at most one plain line of progress in this time


@dataclass(frozen=True)
class Length:
    """How long a run is: in optimizer steps, or in seconds where it has a budget in time."""

    total: float
    unit: Literal["steps", "seconds"]


def tokens_alone(tokens_per_second: float) -> str:
    """A speed of which nothing else is known."""
    return f"{tokens_per_second:,.0f} tokens/s"


class Console:
    """Where messages go. quiet: nowhere; json: to stderr, because stdout then belongs to the machine-readable output."""

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self.quiet = quiet
        self.stream = sys.stderr if json else sys.stdout

    def say(self, text: str = "") -> None:
        """One line."""
        if not self.quiet:
            print(text, file=self.stream, flush=True)

    def write(self, text: str) -> None:
        """Part of a line, as it comes."""
        if not self.quiet:
            print(text, end="", file=self.stream, flush=True)

    @property
    def interactive(self) -> bool:
        """Whether a person is watching."""
        return not self.quiet and self.stream.isatty()

    @contextlib.contextmanager
    def preparing(self) -> Iterator[Callable[[str, int, int], None]]:
        """Yields a function that shows what is being done, how much of it is done, and of how much (0: unknown)."""
        if not self.interactive:
            yield lambda what, done, total: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=RichConsole(file=self.stream), transient=True) as progress:
            tasks: dict[str, TaskID] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=total or None)
                progress.update(tasks[what], completed=done)

            yield show

    @contextlib.contextmanager
    def training(self, length: Length, speed: SpeedText = tokens_alone) -> Iterator[Show]:
        """Yields a function that shows a row of metrics. speed: words for tokens per second."""
        if self.quiet:
            yield lambda row, wall: None
        elif self.interactive:
            with self.bar(length, speed) as show:
                yield show
        else:
            yield self.plain(length, speed)

    @contextlib.contextmanager
    def bar(self, length: Length, speed: SpeedText) -> Iterator[Show]:
        """A progress bar; evaluations stay as lines above it."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(file=self.stream), transient=True) as progress:
            task = progress.add_task(position(0, length), total=length.total)

            def show(row: Row, wall: float) -> None:
                done = row["step"] if length.unit == "steps" else wall
                pace = speed(row["tokens_per_second"])
                description = f"{position(row['step'], length)}  loss {row['train_loss']:.3f}  {pace}"
                progress.update(task, completed=done, description=description)
                if "val_loss" in row:
                    progress.print(sentence(row, wall, length, speed), highlight=False)

            yield show

    def plain(self, length: Length, speed: SpeedText) -> Show:
        """Plain lines: every evaluation, and now and then a row between."""
        last = time.perf_counter()

        def show(row: Row, wall: float) -> None:
            nonlocal last
            if "val_loss" in row or time.perf_counter() - last > LINE_SECONDS:
                last = time.perf_counter()
                self.say(sentence(row, wall, length, speed))

        return show


def position(step: float, length: Length) -> str:
    """`step  20/1000`; the number alone where nobody knows how many there will be."""
    return f"step {step:>{len(str(length.total))}}/{length.total}" if length.unit == "steps" else f"step {step}"


def sentence(row: Row, wall: float, length: Length, speed: SpeedText = tokens_alone) -> str:
    """A row of metrics in one line."""
    parts = [position(row["step"], length), f"loss {row['train_loss']:.4f}"]
    if "val_loss" in row:
        parts.append(f"val {row['val_loss']:.4f}")
    if "val_accuracy" in row:
        parts.append(f"exact {row['val_accuracy']:.1%}")
    clock = f"{row['seconds']:.1f} s" if length.unit == "steps" else f"{wall:.1f}/{length.total:g} s"
    return "  ".join([*parts, clock, speed(row["tokens_per_second"])])
