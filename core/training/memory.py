"""Detect that memory ran out, and find how many rows of a batch fit."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

# torch raises a plain RuntimeError with these words: its allocator on a CPU, and cuDNN's attention for too many rows at once.
WORDS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "mha_graph.execute")


class NoRoom(Exception):
    """Memory ran out. The cause is the original error."""


@contextlib.contextmanager
def noticing() -> Iterator[None]:
    """Raise NoRoom in place of any error that means memory ran out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if used_up(error):
            raise NoRoom from error
        raise


def used_up(error: BaseException) -> bool:
    """Whether an error means that memory ran out, or that a batch is too large for a kernel: fewer rows help in both cases."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def most_rows(step: Callable[[int], Any], rows: int) -> int | None:
    """The largest proper divisor of `rows` for which step(rows) fits into memory; None if not even one row fits."""
    candidates = [part for part in range(rows // 2, 0, -1) if rows % part == 0]  # 12 -> 6, 4, 3, 2, 1
    low, high = 0, len(candidates)
    while low < high:  # binary search: fewer rows need less memory
        middle = (low + high) // 2
        if fits(step, candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[low] if low < len(candidates) else None


def fits(step: Callable[[int], Any], rows: int) -> bool:
    """Whether a step with this many rows fits into memory."""
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
