"""Whether an error means that memory is used up, and how many rows of a batch fit."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

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


def divisors(number: int) -> list[int]:
    """The smaller parts into which a number can be divided evenly, the largest first: 12 -> 6, 4, 3, 2, 1."""
    return [part for part in range(number // 2, 0, -1) if number % part == 0]


def most_rows(step: Callable[[int], Any], rows: int) -> int | None:
    """The largest divisor of `rows` for which step(rows) does not run out of memory; None where not even one row fits."""
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
