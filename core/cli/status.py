"""The last lines of a terminal: progress, and perhaps a picture. Other lines are written above them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import TextIO

from core.process import noting_size

WIDEST_BAR, NARROWEST_BAR = 30, 8  # columns
REFRESH = 0.25  # seconds
Above = Callable[[int, int], list[str]]  # columns, rows of the terminal -> lines to show above the status line


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can clear a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def may_colour(stream: TextIO) -> bool:
    """Whether to colour text: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


class StatusLine:
    """Progress in one line, below lines of `above`. They never reach the last column, so that no terminal wraps them.

    With lines above it, the cursor waits in an empty line on top of them. So what an experiment prints stands there whole, and
    after a change of size all is still below the cursor, where it can be cleared.
    """

    def __init__(self, stream: TextIO, above: Above | None = None) -> None:
        self.stream, self.above = stream, above
        self.text, self.short, self.done, self.total = "", "", 0.0, 0.0
        self.starts: dict[str, tuple[float, float]] = {}  # a task -> when it began, and what was done then
        self.start, self.at_most = (0.0, 0.0), False
        self.drawn = -REFRESH
        self.lines = [""]
        self.noting = contextlib.ExitStack()
        self.noting.enter_context(noting_size(self.resized))

    def update(
        self, task: str, text: str, done: float, total: float, short: str = "", *, at_most: bool = False
    ) -> None:
        """Show the progress of a task: `done` of `total`, which is 0 if it is unknown. short: the text below other lines.

        at_most: it may end before.
        """
        self.at_most = at_most
        self.start = self.starts.setdefault(task, (time.monotonic(), done))
        self.text, self.short, self.done, self.total = text, short or text, done, total
        if time.monotonic() - self.drawn >= REFRESH:
            self.draw()

    def draw(self) -> None:
        """Write the lines as they are now."""
        self.drawn = time.monotonic()
        columns, rows = size_of(self.stream)
        above = self.above(columns - 1, rows) if self.above else []
        self.lines = [*([""] if above else []), *above, self.line(columns - 1, self.short if above else self.text)]
        self.write()

    def write(self) -> None:
        """Write the lines as they were drawn last."""
        height = len(self.lines) - 1
        back = f"\r\x1b[{height}A" if height else ""
        self.stream.write("\r" + "\x1b[K\n".join(self.lines) + ("\x1b[J" if height else "\x1b[K") + back)
        self.stream.flush()

    def clear(self) -> None:
        """Remove the lines."""
        self.stream.write("\r\x1b[J" if len(self.lines) > 1 else "\r\x1b[K")
        self.stream.flush()

    def resized(self) -> None:
        """Draw again. A signal may come while something is written, which cannot be interrupted; the next row repairs it."""
        with contextlib.suppress(RuntimeError):
            self.draw()

    def end(self) -> None:
        """Remove the lines for good."""
        self.noting.close()
        self.clear()

    def line(self, width: int, text: str | None = None) -> str:
        """The status line in at most `width` columns. The bar gives way to the text, and its last fields to the time."""
        text = self.text if text is None else text
        if self.total <= 0:
            return text[:width]
        share = min(max(self.done / self.total, 0.0), 1.0)
        left = self.left()
        text = f"{fitted(text, width - len(left) - 2 * bool(left))}  {left}".rstrip()
        room = min(WIDEST_BAR, width - len(text) - 3)
        if room < NARROWEST_BAR:
            return text[:width]
        full = round(share * room)
        return f"[{'#' * full}{'.' * (room - full)}] {text}"

    def left(self) -> str:
        """The time that is left, from the time that the task took so far: `1:05 left`."""
        began, before = self.start
        if self.done <= before:
            return ""
        seconds = round((time.monotonic() - began) * (self.total - self.done) / (self.done - before))
        return f"{'at most ' * self.at_most}{seconds // 60}:{seconds % 60:02} left"


def fitted(text: str, width: int, most: int | None = None) -> str:
    """A text without its last fields, as far as it is too wide, and at most so many of them. Two spaces are between fields."""
    for _ in range(text.count("  ") if most is None else most):
        if len(text) > width and "  " in text:
            text = text.rpartition("  ")[0].rstrip()
    return text


def size_of(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of a terminal; 80 and 24 if it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
