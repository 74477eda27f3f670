"""Output on a terminal: lines, progress bars, and messages with command-line options in place of Python arguments."""

from __future__ import annotations

import re
import shlex
import sys
import time
from typing import ClassVar, TextIO

from core.cli.status import StatusLine, is_terminal
from core.listener import SECONDS, STEPS, Advice
from core.tracking.figures import loss_text, share_text
from core.tracking.metrics import speed_text

Row = dict[str, float]
LINE_SECONDS = 5.0  # between plain lines of progress, at least
# Arguments of the Python API -> options of the command line.
OPTIONS = {
    "run": "--run", "stage": "--stage", "name": "--name", "variant": "--variant", "force": "--force", "fresh": "--fresh", "resume": "--resume",
    "exact": "--exact", "start": "--start", "prompt": "--prompt", "output_path": "--out", "seeds": "--seeds", "grid": "--grid", "ranges": "--range",
    "data": "--data", "prompts": "--prompts", "samples": "--samples", "temperature": "--temperature", "draws": "--random", "halving": "--halving", "retry": "--retry", "minutes": "--minutes", "suite": "--suite", "run_code": "--run-code", "on": "--on", "address": "--address", "jobs": "--jobs",
}  # fmt: skip
QUOTED = re.compile(r"`([A-Za-z_][\w.-]*)=([^`]*)`")


def phrased(text: str) -> str:
    """Replace arguments in a message by options: `fresh=True` -> --fresh, `section.key=4` -> -s section.key=4."""

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in OPTIONS:
            return f"-s {shlex.quote(f'{name}={value}')}"
        typed = value if value.startswith('"') else shlex.quote(value)
        return OPTIONS[name] if value == "True" else f"{OPTIONS[name]} {typed}"

    text = re.sub(r"^(error: )`([^`]*)`: ", lambda found: f"{found[1]}{override(found[2])}: ", text)
    text = re.sub(r"^(error: )(\w+): ", lambda found: f"{found[1]}{OPTIONS.get(found[2], found[2])}: ", text)
    return QUOTED.sub(option, text)


def override(place: str) -> str:
    """The option for the place of an error that is an argument or an override."""
    name, equals, value = place.partition("=")
    return f"{OPTIONS[name]} {value}".removesuffix(" True") if equals and name in OPTIONS else f"-s {place}"


class Console:
    """A listener that writes to a terminal, or plain lines to a file or pipe.

    quiet: write nothing. json: write to stderr, because stdout has the JSON. showing: the console with a status line now.
    """

    showing: ClassVar[Console | None] = None

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self.quiet = quiet
        self.stream = sys.stderr if json else sys.stdout
        self.length: float = 0  # of a run, in `unit`
        self.unit = STEPS
        self.last_line = time.monotonic()
        self.status: StatusLine | None = None
        self.tasks: dict[str, tuple[float, float]] = {}  # what -> done, total; the newest is shown
        self.latest = ""  # metrics of the run, for the status line

    @property
    def interactive(self) -> bool:
        """Whether the output is a terminal."""
        return not self.quiet and is_terminal(self.stream)

    def say(self, text: str = "") -> None:
        """Write one line."""
        if self.quiet:
            return
        self.above(phrased(text) if isinstance(text, Advice) else text, self.stream)

    def above(self, text: str, stream: TextIO) -> None:
        """Write a line above the status line, if there is one."""
        if self.status:
            self.status.clear()
        print(text, file=stream, flush=True)
        if self.status:
            self.status.draw()

    def write(self, text: str) -> None:
        """Write part of a line."""
        self.close()
        if not self.quiet:
            print(text, end="", file=self.stream, flush=True)

    def row(self, metrics: Row) -> None:
        """Write a line for every evaluation. Other rows appear in the bar; without a terminal, a line every few seconds."""
        if self.interactive:
            if "val_loss" in metrics:
                self.say(self.sentence(metrics))
            self.latest = f"{self.position(metrics)}  {learning_text(metrics)}  {speed_text(metrics)}"
            self.show()
        elif "val_loss" in metrics or time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            self.say(self.sentence(metrics))

    def progress(self, what: str, done: float, total: float) -> None:
        """Show progress as a bar on a terminal. The bar disappears when the work is done."""
        if what in (STEPS, SECONDS):
            self.unit, self.length = what, total
        if not self.interactive:
            return
        self.tasks[what] = done, total
        if total and done >= total:
            del self.tasks[what]
        self.show()

    def show(self) -> None:
        """Show the newest task in the status line, or remove it if there is none."""
        if not self.tasks:
            self.close()
            return
        if self.status is None:
            self.status, Console.showing = StatusLine(self.stream), self
        what, (done, total) = list(self.tasks.items())[-1]
        self.status.update(what, self.latest if what == self.unit and self.latest else what, done, total)

    def close(self) -> None:
        """Remove the status line."""
        if self.status:
            self.status.clear()
        self.status, self.tasks, self.latest, Console.showing = None, {}, "", None

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
