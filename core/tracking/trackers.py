"""Open and close a run's trackers, which receive its rows in addition to metrics.csv.

A tracker is what `open(run)` of `register_trackers` returns. It has `log(step, row)` and `close()`, and may have
`end(status)`, which is called before `close()` with how the run ended. `open.check()`, if it exists, raises UserError
for a missing package before the run is created.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from core.errors import UserError
from core.optional import installing
from core.plugins.manager import Plugins

if TYPE_CHECKING:
    from core.tracking.run import Run

KEY = "train.runtime.trackers"
Status = Literal["completed", "interrupted", "failed"]


def find_trackers(names: Sequence[str], plugins: Plugins, place: str = KEY) -> list[Any]:
    """The functions that open trackers. Raises UserError for an unknown name or missing package. place: of the names."""
    openers = [plugins.get("trackers", name, place) for name in names]
    for opener in openers:
        if check := getattr(opener, "check", None):
            check()
    return openers


def open_trackers(run: Run, names: Sequence[str], plugins: Plugins) -> list[Any]:
    """Open the trackers of a run."""
    return [opener(run) for opener in find_trackers(names, plugins)]


def close_trackers(trackers: Sequence[Any], status: Status) -> None:
    """Tell each tracker how the run ended, and close it. If one fails, the others are still closed."""
    with contextlib.ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.close)
            if end := getattr(tracker, "end", None):
                stack.callback(end, status)


def ending(error: type[BaseException] | None) -> Status:
    """The status of a run that ended with this exception type."""
    if error is None:
        return "completed"
    # sys.exit() in a loop is a way to stop it, like Ctrl-C.
    return "interrupted" if issubclass(error, (KeyboardInterrupt, SystemExit)) else "failed"


def need(module: str, extra: str) -> None:
    """Raise UserError if a package is not installed. extra: of terrarium-lab, which installs it. Nothing is imported."""
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        found = False
    if not found:
        raise UserError(
            f'the tracker "{extra}" needs the package {module.partition(".")[0]}, which is not installed',
            place=KEY,
            remedy=f"Install it: {installing(extra)}; or leave it out of the trackers.",
        )
