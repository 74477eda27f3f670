"""Whether another process of this machine still runs. Linux says so; elsewhere, nothing is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

BOOT = Path("/proc/sys/kernel/random/boot_id")
ENDED = ("Z", "X")  # states of a process that has ended, and that nobody has asked about yet


def started(process: str) -> tuple[str, str] | None:
    """The state of a process, and when it was started; None if it is not there."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


class Whereabouts(NamedTuple):
    """Where a process is. machine: and in which container; "" where the system does not say. start: when it was started."""

    machine: str = ""
    process: str = ""
    start: str = ""

    def __str__(self) -> str:
        return " ".join(self)


def here() -> Whereabouts:
    """Where this process is."""
    own = started("self")
    try:
        machine = f"{BOOT.read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return Whereabouts()
    return Whereabouts(machine, str(os.getpid()), own[1]) if own else Whereabouts()


def has_ended(there: Whereabouts) -> bool:
    """Whether a process has ended. False for one that cannot be seen from here."""
    if not there.machine or there.machine != here().machine:
        return False
    found = started(there.process)
    return found is None or found[0] in ENDED or found[1] != there.start
