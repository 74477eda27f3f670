"""How a program ends: the exit code and the last words for each error that users see."""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from pathlib import Path

from core import files
from core.durable import FULL
from core.errors import Interrupted, RunFailed, Stopped, UserError

# The machine refuses: no bug of ours, so no traceback.
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Exit:
    """How a program ends: its exit code, and what it says."""

    code: int
    message: str


def exit_of(error: BaseException) -> Exit | None:
    """How a program ends that an error came out of; None for a bug, which keeps its traceback."""
    if isinstance(error, UserError):
        return Exit(2, f"error: {error}")
    if isinstance(error, RunFailed):
        return Exit(1, f"failed: {error}")
    if isinstance(error, Interrupted):
        return Exit(128 + error.number, f"interrupted, and saved. {error.remedy}".strip())
    if isinstance(error, Stopped):
        said = "interrupted. What was saved before is whole; the same command goes on from there."
        return Exit(128 + error.number, said)
    if isinstance(error, KeyboardInterrupt):
        return Exit(128 + signal.SIGINT, "interrupted")
    if isinstance(error, OSError) and error.errno in (*REFUSALS, *FULL):
        place = error.filename or "a file"
        reason = files.disk_full(error, Path(place)).strerror if error.errno in FULL else error.strerror
        return Exit(1, f"failed: {place}: {reason}. What was there before is whole.")
    return None
