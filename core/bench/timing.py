"""Time something again and again: a function goes in, the median of its seconds comes out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from core.training.peak import synchronise

CPU = torch.device("cpu")
GPU_WINDOW = 10  # calls between two waits for a GPU, which works ahead of Python while it trains


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median, and the range of `repeats` measurements."""

    median: float
    fastest: float
    slowest: float
    repeats: int


def timed(
    call: Callable[[], Any], *, seconds: float = 1.0, least: int = 3, most: int = 200, warmup: int = 2,
    device: torch.device = CPU,
) -> Timing:  # fmt: skip
    """Call for about that many seconds, `least` to `most` times, after `warmup` calls that do not count."""
    window = 1 if device.type == "cpu" else GPU_WINDOW
    for _ in range(warmup):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (len(times) < most and time.perf_counter() < end):
        synchronise(device)
        begin = time.perf_counter()
        for _ in range(window):
            call()
        synchronise(device)
        times.append((time.perf_counter() - begin) / window)
    return Timing(statistics.median(times), min(times), max(times), len(times))
