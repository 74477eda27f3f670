"""Open and close the trackers of a run, which take its rows besides metrics.csv.

A tracker is what `open(run)` of `register_trackers` returns: `log(step, row)` for each row, then `close()`. One that also
has `end(status)` is told there, just before it is closed, how the run ended. `open.check()`, where there is one, raises
UserError for a package that is missing, before anything of the run is made.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from core.errors import UserError
from core.plugins.manager import Plugins

if TYPE_CHECKING:
    from core.tracking.run import Run

KEY = "train.runtime.trackers"
Status = Literal["completed", "interrupted", "failed"]


def find_trackers(names: Sequence[str], plugins: Plugins, place: str = KEY) -> list[Any]:
    """What opens each tracker. Raises UserError for an unknown name or a missing package; place: where the names stand."""
    openers = [plugins.get("trackers", name, place) for name in names]
    for opener in openers:
        if check := getattr(opener, "check", None):
            check()
    return openers


def open_trackers(run: Run, names: Sequence[str], plugins: Plugins) -> list[Any]:
    """The trackers of a run."""
    return [opener(run) for opener in find_trackers(names, plugins)]


def close_trackers(trackers: Sequence[Any], status: Status) -> None:
    """Tell each how the run ended, and close it; one that fails does not keep the others from it."""
    with contextlib.ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.close)
            if end := getattr(tracker, "end", None):
                stack.callback(end, status)


def ending(error: type[BaseException] | None) -> Status:
    """How a run ended that an exception of this type came out of."""
    if error is None:
        return "completed"
    # sys.exit() in a loop is a person's way to stop it, as Ctrl-C is.
    return "interrupted" if issubclass(error, (KeyboardInterrupt, SystemExit)) else "failed"


def need(module: str, extra: str) -> None:
    """Raise UserError unless a package is installed; it is not imported. extra: of terrarium-lab, which brings it."""
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        found = False
    if not found:
        raise UserError(
            f'the tracker "{extra}" needs the package {module.partition(".")[0]}, which is not installed',
            place=KEY,
            remedy=f"pip install 'terrarium-lab[{extra}]', or leave it out of the trackers.",
        )
