"""The ladder: at which steps a run keeps its weights, dense at the beginning, where learning changes fast; and what it has kept.

The first rung is the beginning, before any step, and the last one the end. Between them each rung is later than the one before it
by the same factor, from FIRST of the run on. So a run that ends early has most of its rungs, too.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

MANIFEST = "state.json"  # of a checkpoint; written last
KEPT = re.compile(r"step-(\d{6,})")  # the name of the checkpoint of a kept step
FIRST = 0.01  # share of a run's length


def shares(count: int) -> tuple[float, ...]:
    """The rungs as shares of a run's length, 0 to 1, ascending. A single one is the end."""
    if count < 2:
        return (1.0,) * count
    between = count - 2
    return (0.0, *(FIRST ** (left / max(1, between)) for left in range(between, -1, -1)))


def steps(length: int, count: int) -> tuple[int, ...]:
    """The rungs as steps, 0 to `length`, ascending and different. Fewer than `count` if there are not so many steps."""
    found = list[int]()
    for share in shares(count):
        step = round(share * length)
        found.append(min(length, max(step, found[-1] + 1) if found else step))
    return tuple(dict.fromkeys(found))


def passed(rungs: Sequence[float], gone: float) -> int:
    """How many rungs a run has passed. gone: the share of its length that is over."""
    return bisect_right(rungs, gone)


def kept_name(step: int) -> str:
    """The name of the checkpoint that a run keeps of a step."""
    return f"step-{step:06}"


def moment_of_writing(parent: Path, step: int) -> int:
    """When a kept step was written, nanoseconds: this tells its weights from others that had its number. 0 if it is not there."""
    try:
        return (parent / kept_name(step) / MANIFEST).stat().st_mtime_ns
    except OSError:
        return 0


def kept_steps(parent: Path) -> list[int]:
    """The steps whose weights lie in a run's folder of checkpoints, ascending."""
    found = (KEPT.fullmatch(path.name) for path in parent.glob("step-*") if (path / MANIFEST).is_file())
    return sorted(int(match[1]) for match in found if match)
