"""Output on a terminal: lines, the bar and the picture of a run under them, and rows for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar, TextIO

from core.cli.phrasing import phrased
from core.cli.picture import Learning, picture
from core.cli.status import StatusLine, fitted, is_terminal, may_colour, size_of
from core.files import json_text
from core.listener import SECONDS, STEPS, Advice, Answers, Begun, Ended, News
from core.tracking.figures import loss_text, share_text
from core.tracking.metrics import speed_fields, speed_text

Row = dict[str, float]
LINE_SECONDS = 5.0  # between plain lines of progress, at least


class Console:
    """A listener that writes to a terminal, or plain lines to a file or pipe.

    quiet: write nothing. json: write to stderr, because stdout has the JSON, a line for each row among it.
    """

    showing: ClassVar[Console | None] = None  # the one with a status line now

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self.quiet, self.json = quiet, json
        self.stream = sys.stderr if json else sys.stdout
        self.length: float = 0  # of a run, in `unit`
        self.unit = STEPS
        self.last_line = time.monotonic()
        self.status: StatusLine | None = None
        self.tasks: dict[str, tuple[float, float]] = {}  # what -> done, total; the newest is shown
        self.latest = self.short = ""  # metrics of the run, for the status line, and below a picture
        self.run, self.learning, self.may_end_early = "", Learning(), False

    @property
    def interactive(self) -> bool:
        """Whether the output is a terminal."""
        return not self.quiet and is_terminal(self.stream)

    def say(self, text: str = "") -> None:
        """Write one line."""
        if not self.quiet:
            self.above(phrased(text) if isinstance(text, Advice) else text, self.stream)

    def above(self, text: str, stream: TextIO) -> None:
        """Write a line above the status line, if there is one."""
        if self.status:
            self.status.clear()
        print(text, file=stream, flush=True)
        if self.status:
            self.status.write()

    def write(self, text: str) -> None:
        """Write part of a line."""
        self.close()
        if not self.quiet:
            print(text, end="", file=self.stream, flush=True)

    def row(self, metrics: Row) -> None:
        """Write a line for every evaluation. Other rows appear in the bar; without a terminal, a line every few seconds."""
        self.say_row(metrics)
        self.learning.add(metrics)
        if self.interactive:
            if "val_loss" in metrics:
                self.say(fitted(self.sentence(metrics), size_of(self.stream)[0], most=len(speed_fields(metrics))))
            self.latest = f"{self.position(metrics)}  {learning_text(metrics)}  {speed_text(metrics)}"
            self.short = f"{self.position(metrics)}  {metrics['tokens_per_second']:,.0f} tokens/s"
            self.show()
        elif "val_loss" in metrics or time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            self.say(self.sentence(metrics))

    def hear(self, news: News) -> None:
        """Note what the next rows and the picture are about; write the row of a sweep's run."""
        if isinstance(news, Begun):
            self.run, self.learning, self.may_end_early = news.run, Learning(), news.may_end_early
        elif isinstance(news, Answers):
            self.learning.answers = news.answers
        elif isinstance(news, Ended):
            self.run = news.run
            self.say_row(news.figures)

    def say_row(self, figures: Mapping[str, Any]) -> None:
        """Write a row for programs, if they are to have some."""
        if self.json and not self.quiet:
            self.above(json_text({"run": self.run, "row": figures}), sys.stdout)

    def picture(self, width: int, height: int) -> list[str]:
        """The picture of the run, while it trains."""
        if self.unit not in self.tasks:
            return []
        return picture(self.learning, width, height, self.stream.encoding, colour=may_colour(self.stream))

    def progress(self, what: str, done: float, total: float) -> None:
        """Show progress as a bar on a terminal. It disappears when the work is done."""
        if what in (STEPS, SECONDS):
            self.unit, self.length = what, total
        if not self.interactive:
            return
        self.tasks[what] = done, total
        if over := bool(total) and done >= total:
            del self.tasks[what]
        if over or what != self.unit:  # otherwise a row follows
            self.show()

    def show(self) -> None:
        """Show the newest task in the status line, or remove it if there is none."""
        if not self.tasks:
            self.close()
            return
        if self.status is None:
            self.status, Console.showing = StatusLine(self.stream, self.picture), self
        what, (done, total) = list(self.tasks.items())[-1]
        text, short = (self.latest, self.short) if what == self.unit and self.latest else (what, what)
        self.status.update(what, text, done, total, short, at_most=self.may_end_early and what == self.unit)

    def close(self) -> None:
        """Remove the status line."""
        if self.status:
            self.status.end()
        self.status, self.tasks, self.latest, self.learning, Console.showing = None, {}, "", Learning(), None

    def position(self, metrics: Row) -> str:
        """`step  20/1000`; only the step if the run is limited by time."""
        step = f"{metrics['step']:.0f}"
        return f"step {step:>{len(str(self.length))}}/{self.length}" if self.unit == STEPS else f"step {step}"

    def sentence(self, metrics: Row) -> str:
        """A row of metrics as one line."""
        parts = [self.position(metrics), learning_text(metrics)]
        if "val_loss" in metrics:
            parts.append(f"val {loss_text(metrics['val_loss'])}")
        if "val_accuracy" in metrics:
            parts.append(f"exact {share_text(metrics['val_accuracy']):>6}")
        of_budget = f"{metrics.get('wall_seconds', 0.0):.1f}/{self.length:g} s"
        clock = f"{metrics['seconds']:.1f} s" if self.unit == STEPS else of_budget
        return "  ".join([*parts, clock, speed_text(metrics)])


def learning_text(metrics: Row) -> str:
    """What a row says of learning: the loss; with training by reward the mean reward, because the loss then says little."""
    if "reward" in metrics:
        return f"reward {metrics['reward']:.3f}"
    return f"loss {loss_text(metrics['train_loss'])}"
