"""The last line of a terminal, which shows progress. Other lines are written above it."""

from __future__ import annotations

import os
import time
from typing import TextIO

WIDEST_BAR, NARROWEST_BAR = 30, 8  # columns
REFRESH = 0.1  # seconds


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can clear a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def may_colour(stream: TextIO) -> bool:
    """Whether to colour text: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


class StatusLine:
    """One line of progress. It never reaches the last column, so that no terminal wraps it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text, self.done, self.total = "", 0.0, 0.0
        self.starts: dict[str, tuple[float, float]] = {}  # a task -> when it began, and what was done then
        self.start = 0.0, 0.0
        self.drawn = -REFRESH

    def update(self, task: str, text: str, done: float, total: float) -> None:
        """Show the progress of a task: `done` of `total`, which is 0 if it is unknown."""
        self.start = self.starts.setdefault(task, (time.monotonic(), done))
        self.text, self.done, self.total = text, done, total
        if time.monotonic() - self.drawn >= REFRESH:
            self.draw()

    def draw(self) -> None:
        """Write the line."""
        self.drawn = time.monotonic()
        self.stream.write(f"\r{self.line(width_of(self.stream) - 1)}\x1b[K")
        self.stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        self.stream.write("\r\x1b[K")
        self.stream.flush()

    def line(self, width: int) -> str:
        """The line in at most `width` columns. The bar gives way to the text."""
        if self.total <= 0:
            return self.text[:width]
        share = min(max(self.done / self.total, 0.0), 1.0)
        text = f"{self.text}  {self.left()}".rstrip()
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
        return f"{seconds // 60}:{seconds % 60:02} left"


def width_of(stream: TextIO) -> int:
    """Columns of a terminal; 80 if it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
