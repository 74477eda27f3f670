"""Detect that memory ran out, and find how many rows of a batch fit."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# A RuntimeError has these words: of torch's allocator on a CPU, of cuDNN's attention for too many rows at once, of JAX.
WORDS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "mha_graph.execute", "RESOURCE_EXHAUSTED")


PROCESS = Path("/proc/self")


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


@dataclass
class Peak:
    """What was measured, bytes; None if the system does not say.

    most: the most memory in use at once, of the GPU by tensors, of a CPU by this process with all its libraries. rise: how much
    of it came on top of what was in use before, such as the model.
    """

    most: int | None = None
    rise: int | None = None


@contextlib.contextmanager
def measuring(device: torch.device) -> Iterator[Peak]:
    """A context that measures the most memory in use at once. The rise is known on a GPU and on Linux."""
    found = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = int(torch.cuda.memory_allocated(device))
        yield found
        found.most = int(torch.cuda.max_memory_allocated(device))
        found.rise = found.most - before
        return
    give_back()
    forgotten = forget_peak()
    used = process_peak()
    yield found
    found.most = process_peak()
    if forgotten and used is not None and found.most is not None:
        found.rise = found.most - used


def give_back() -> None:
    """Have the C library give freed memory back to Linux: what is kept for later would hide a rise."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> bool:
    """Have Linux count the peak memory of this process anew. Returns whether it does."""
    try:
        (PROCESS / "clear_refs").write_text("5")  # proc(5): the peak becomes what is used now
    except OSError:
        return False
    return True


def process_peak() -> int | None:
    """The peak of resident memory of this process, bytes; None if the system does not say."""
    try:
        lines = (PROCESS / "status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
