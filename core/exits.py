"""Exit codes and final messages for the errors that users see."""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from pathlib import Path

from core import files
from core.durable import FULL
from core.errors import Interrupted, RunFailed, Stopped, UserError

# The system refuses access. This is not a bug, so there is no traceback.
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Exit:
    """The exit code and message that end a program."""

    code: int
    message: str


def exit_of(error: BaseException) -> Exit | None:
    """The exit code and message for an error; None for a bug, which keeps its traceback."""
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
