"""What a person sees: sentences, and a progress bar on a terminal or plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

Row = dict[str, float]
LINE_SECONDS = 5.0  # at most one plain line of progress in this time


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
    def training(self, total: int) -> Iterator[Callable[[Row], None]]:
        """Yields a function that shows a row of metrics."""
        if self.quiet:
            yield lambda row: None
        elif self.interactive:
            with self.bar(total) as show:
                yield show
        else:
            yield self.plain(total)

    @contextlib.contextmanager
    def bar(self, total: int) -> Iterator[Callable[[Row], None]]:
        """A progress bar; evaluations stay as lines above it."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(file=self.stream), transient=True) as progress:
            task = progress.add_task("", total=total)

            def show(row: Row) -> None:
                progress.update(task, completed=row["step"], description=f"loss {row['train_loss']:.3f}")
                if "val_loss" in row:
                    progress.print(sentence(row, total), highlight=False)

            yield show

    def plain(self, total: int) -> Callable[[Row], None]:
        """Plain lines: every evaluation, and now and then a row between."""
        last = time.perf_counter()

        def show(row: Row) -> None:
            nonlocal last
            if "val_loss" in row or time.perf_counter() - last > LINE_SECONDS:
                last = time.perf_counter()
                self.say(sentence(row, total))

        return show


def sentence(row: Row, total: int) -> str:
    """A row of metrics in one line."""
    parts = [f"step {row['step']:>{len(str(total))}}/{total}", f"loss {row['train_loss']:.4f}"]
    if "val_loss" in row:
        parts.append(f"val {row['val_loss']:.4f}")
    if "val_accuracy" in row:
        parts.append(f"exact {row['val_accuracy']:.1%}")
    return "  ".join([*parts, f"{row['seconds']:.1f} s", f"{row['tokens_per_second']:,.0f} tokens/s"])
