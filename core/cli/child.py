"""`python -m core.cli.child PARENT ARGUMENTS...`: the command line, told to save and end when its parent has ended.

A sweep starts its runs so. Killed with SIGKILL it can tell them nothing; on Linux the system does it then. Elsewhere
they go on to their end, and the lock of each tells the next sweep to wait for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from core.cli.main import main

PR_SET_PDEATHSIG = 1  # of prctl(2)


def end_with(parent: int) -> None:
    """Have the system send SIGTERM to this process when its parent ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended just before
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    main()
