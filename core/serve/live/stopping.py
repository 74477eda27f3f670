"""Stop the process that trains a run, as Ctrl-C does, after making sure that it is that process."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from core import files
from core.serve.errors import Refused
from core.tracking.run import lock_file

PROC = Path("/proc")


def stop(folder: Path, title: str) -> int:
    """Ask the process that holds the lock of a run's or a sweep's folder to stop. Returns its number. Raises Refused."""
    lock = lock_file(folder)
    number = holder_of(lock)
    if number is None:
        raise Refused(f"nothing works on {title} now", status=409, code="not_running")
    if number == os.getpid() or not is_holder(number, lock):
        raise Refused(
            f"{title} is in use by process {number}, which may not be the one that trains it. Stop it where it was started.",
            status=409,
            code="not_verified",
        )
    try:
        os.kill(number, stopping_signal(number))
    except OSError as error:
        raise Refused(f"process {number} cannot be stopped: {error.strerror}", status=409, code="not_running") from None
    return number


def holder_of(lock: Path) -> int | None:
    """The process that a held lock names; None if nobody holds it."""
    found = re.match(r"process (\d+) since ", files.read_holder(lock) or "")
    return int(found[1]) if found and files.is_alive(int(found[1])) else None


def is_holder(number: int, lock: Path) -> bool:
    """Whether a process has the lock's file open. Where the system does not say, the name in a lock that is held must do."""
    opened = PROC / str(number) / "fd"
    if not opened.is_dir():
        return not PROC.is_dir()
    try:
        wanted = lock.stat()
        for link in opened.iterdir():
            try:
                found = link.stat()
            except OSError:
                continue
            if (found.st_ino, found.st_dev) == (wanted.st_ino, wanted.st_dev):
                return True
    except OSError:  # of another user
        return False
    return False


def stopping_signal(number: int) -> int:
    """SIGINT, as Ctrl-C sends it; SIGTERM for a process that was started to ignore it, as in the background of a script."""
    try:
        status = (PROC / str(number) / "status").read_text()
    except OSError:
        return signal.SIGINT
    ignored = re.search(r"^SigIgn:\s*([0-9a-f]+)$", status, re.MULTILINE)
    is_ignored = ignored is not None and int(ignored[1], 16) >> (signal.SIGINT - 1) & 1
    return signal.SIGTERM if is_ignored else signal.SIGINT
