"""Show a running sweep: a live table on a terminal; elsewhere one line for each run that ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from core.listener import Advice
from core.sweeps.plan import Point
from core.sweeps.state import State
from core.sweeps.workers import Job
from core.tracking.figures import loss_text

if TYPE_CHECKING:
    from rich.console import Group

REFRESH = 0.5  # seconds
MOST_ROWS = 12  # of the table, if no more runs than that are training
Show = Callable[[Sequence[Job]], None]


@dataclass(frozen=True)
class Screen:
    """A terminal for the live table. phrase: replaces Python arguments in a message by command-line options."""

    stream: TextIO
    phrase: Callable[[str], str] = str


@contextlib.contextmanager
def live_table(state: State, screen: Screen) -> Iterator[tuple[Show, Callable[[str], None]]]:
    """Show a live table. Yields a function that updates it, and one that prints a line above it."""
    from rich.console import Console
    from rich.live import Live

    last = -REFRESH
    with Live(console=Console(file=screen.stream), transient=True, auto_refresh=False) as live:

        def show(jobs: Sequence[Job]) -> None:
            nonlocal last
            if time.monotonic() - last > REFRESH:
                last = time.monotonic()
                live.update(drawn(state, jobs), refresh=True)

        def say(text: str) -> None:
            live.console.print(screen.phrase(text), markup=False, highlight=False, soft_wrap=True)

        yield show, say


def drawn(state: State, jobs: Sequence[Job]) -> Group:
    """Draw the table: the running runs and their neighbours, by what tells them apart; the title counts each status."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    statuses = [standing.status for standing in state.standings.values()]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in ("run", "status", "step", "val loss", "seconds"):
        table.add_column(column, justify="left" if column in ("run", "status") else "right", overflow="fold")
    running = {job.point.run: job for job in jobs}
    for point in chosen(state, list(running)):
        job = running.get(point.run)
        rows: list[dict[str, Any]] = job.rows if job else []
        losses = [row["val_loss"] for row in rows if "val_loss" in row]
        step = position(rows[-1]["step"], point) if rows else ""
        loss = losses[-1] if losses else state.loss(point)
        seconds = f"{time.monotonic() - job.began:.0f}" if job else ""
        status = state.standings[point.run].status
        name = point.run.removeprefix(f"sweep-{state.sweep.name}-")  # the title has it; 60 columns hold the rest
        table.add_row(escape(name), status, step, "" if loss is None else loss_text(loss), seconds)
    return Group(Text(f"{state.sweep.title}: {counts}", style="italic"), table)


def position(step: float, point: Point) -> str:
    """`20/1000`; only the step if the run is limited by time."""
    train = point.config.train
    return f"{step}/{train.schedule.max_iters}" if train.runtime.max_minutes is None else str(step)


def chosen(state: State, running: list[str]) -> list[Point]:
    """The points to show: those that are running, and as many around them as fit."""
    points = state.sweep.points
    if len(points) <= MOST_ROWS:
        return list(points)
    at = [index for index, point in enumerate(points) if point.run in running]
    first = max(0, min((at or [0])[0] - MOST_ROWS // 2, len(points) - MOST_ROWS))
    return [point for index, point in enumerate(points) if first <= index < first + MOST_ROWS or index in at]


def sentence(state: State, point: Point, seconds: float) -> str:
    """One line about a run that has ended."""
    standing = state.standings[point.run]
    head = f"[{state.done()}/{len(state.standings)}] {point.run}"
    if standing.status == "failed":
        return Advice(f"{head}: failed: {standing.error}")
    loss = state.loss(point)
    at = f" at step {standing.step}" if standing.step is not None else ""
    return f"{head}: {standing.status}{at}{'' if loss is None else f', val loss {loss_text(loss)}'}, {seconds:.1f} s"
