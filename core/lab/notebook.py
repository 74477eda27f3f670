"""Show progress in a notebook: one live display instead of many lines."""

from __future__ import annotations

import html
import sys
import time
from typing import Any

from core.listener import SILENT, Listener

REFRESH = 0.5  # seconds
SHOWN_MESSAGES, SHOWN_ROWS = 3, 6
COLUMNS = ("step", "train_loss", "val_loss", "val_accuracy", "seconds", "tokens_per_second")


def listener_here() -> Listener:
    """A live display in a notebook, else a silent listener."""
    return LiveDisplay() if in_notebook() else SILENT


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel. Does not import IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class LiveDisplay:
    """A listener that updates one output of a notebook cell: the last lines, a progress bar, the last evaluations."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.rows: list[dict[str, float]] = []
        self.bar = ""
        self.handle: Any = None
        self.shown = 0.0

    def say(self, text: str) -> None:
        """Show a message, with the line breaks of a table."""
        self.said = [*self.said, text][-SHOWN_MESSAGES:]
        self.show(now=True)

    def row(self, metrics: dict[str, float]) -> None:
        """Show a row of metrics. Evaluations stay; other rows are replaced by the next row."""
        if self.rows and "val_loss" not in self.rows[-1]:
            self.rows.pop()
        self.rows = [*self.rows, metrics][-SHOWN_ROWS:]
        self.show(now="val_loss" in metrics)

    def progress(self, what: str, done: float, total: float) -> None:
        """Show how much is done."""
        share = (
            f'<progress value="{done}" max="{total}"></progress> {done:,.0f}/{total:,.0f}' if total else f"{done:,.0f}"
        )
        self.bar = f"{html.escape(what)} {share}"
        self.show(now=bool(total) and done >= total)

    def show(self, *, now: bool) -> None:
        """Update the display, at most every REFRESH seconds unless `now`."""
        if not now and time.monotonic() - self.shown < REFRESH:
            return
        from IPython.display import HTML, display

        self.shown = time.monotonic()
        page = HTML(self.page())  # type: ignore[no-untyped-call, unused-ignore]
        if self.handle is None:
            self.handle = display(page, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            self.handle.update(page)

    def page(self) -> str:
        """The display as HTML."""
        said = html.escape("\n".join(self.said))
        columns = [name for name in COLUMNS if any(name in row for row in self.rows)]
        head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{figure(row.get(name))}</td>' for name in columns)}</tr>" for row in self.rows
        )
        table = f"<table><tr>{head}</tr>{body}</table>" if self.rows else ""
        return f"<pre>{said}</pre><div>{self.bar}</div>{table}"


def figure(value: float | None) -> str:
    """A number in a cell."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
