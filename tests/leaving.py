"""How a forked process ends: with its exit code, and without the clean-up of the process that it was forked from."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def leave_after(work: Callable[[], object]) -> NoReturn:
    """Do what this process was forked for, and end it: 0 if that returns, the code of sys.exit, 1 for an error, which is printed."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
