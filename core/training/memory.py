"""Memory: how much there is, whether an error means that it is used up, and how many rows of a batch fit."""

from __future__ import annotations

import contextlib
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

CGROUP = Path("/sys/fs/cgroup")  # version 2, as a container sees its own
# torch raises a plain RuntimeError on a CPU; these words are its allocator's.
CPU_ALLOCATOR = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")


class NoRoom(Exception):
    """There is no memory left; the cause is what torch raised."""


@contextlib.contextmanager
def noticing() -> Iterator[None]:
    """Raise NoRoom for every error that says that memory is used up."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if used_up(error):
            raise NoRoom from error
        raise


def used_up(error: BaseException) -> bool:
    """Whether an error says that there is no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_ALLOCATOR)


def available_bytes() -> int | None:
    """What this process may still take of main memory and swap, its container's limit included; None where Linux does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    free = 1024 * (kilobytes.get("MemAvailable", 0) + kilobytes.get("SwapFree", 0))
    try:
        most, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    # Files that were read are kept in memory for as long as nobody needs it.
    given_back = sum(int(kept.get(name, 0)) for name in ("inactive_file", "active_file", "slab_reclaimable"))
    return free if most == "max" else max(0, min(free, int(most) - int(used) + given_back))


def refuse_more_than_there_is() -> None:
    """Have an allocation fail that this machine has no memory for.

    Linux promises more than it has and, when that is touched, kills a process without a word: no message, no advice.
    """
    available = available_bytes()
    if sys.platform != "linux" or available is None:
        return
    import resource

    fields = (line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    taken = next((1024 * int(field[1]) for field in fields), 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = taken + available
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def divisors(number: int) -> list[int]:
    """The smaller parts into which a number can be divided evenly, the largest first: 12 -> 6, 4, 3, 2, 1."""
    return [part for part in range(number // 2, 0, -1) if number % part == 0]


def most_rows(step: Callable[[int], Any], rows: int) -> int | None:
    """The largest divisor of `rows` with which step(rows) does not run out of memory, found by trying; None where one row does."""
    low, candidates = 0, divisors(rows)
    high = len(candidates)
    while low < high:  # what fits with many rows fits with fewer
        middle = (low + high) // 2
        if fits(step, candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[low] if low < len(candidates) else None


def fits(step: Callable[[int], Any], rows: int) -> bool:
    """Whether a step with so many rows finds the memory that it needs."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        with noticing():
            step(rows)
    except NoRoom as error:
        traceback.clear_frames(error.__traceback__)
        return False
    return True
