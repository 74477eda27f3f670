"""Time a function or the step of a run, by repeating it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from core.config import Train
from core.models.recorded import REHEARSALS
from core.training.peak import synchronise
from core.training.speed import Speed
from core.training.step import Array, Step

CPU = torch.device("cpu")
GPU_WINDOW = 10  # calls between two waits for a GPU, which runs asynchronously while training


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median and the range of `repeats` measurements."""

    median: float
    fastest: float
    slowest: float
    repeats: int


def timed(
    call: Callable[[], Any], *, seconds: float = 1.0, least: int = 3, most: int = 200, warmup: int = 2,
    device: torch.device = CPU,
) -> Timing:  # fmt: skip
    """Time a function for about `seconds`, `least` to `most` times, after `warmup` calls that do not count."""
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


def step_speed(step: Step, config: Train, batch: tuple[Array, Array], seconds: float = 1.0) -> dict[str, Any]:
    """Time a step for about `seconds`. batch: inputs and targets (G, B, T).

    Returns ms_per_step with its range, tokens_per_second, mfu (None if the peak is not known), batch_size and dtype.
    """
    step.model.train()
    warmup = 2 + (REHEARSALS if step.machine.cuda_graphs else 0)
    timing = timed(lambda: step(*batch), seconds=seconds, warmup=warmup, device=step.machine.device)
    pace = config.data.tokens_per_step / timing.median
    return {
        "ms_per_step": 1000 * timing.median,
        "fastest_ms": 1000 * timing.fastest,
        "slowest_ms": 1000 * timing.slowest,
        "tokens_per_second": pace,
        "mfu": Speed.of(config, step.machine, step.model).mfu(pace),
        "batch_size": config.data.batch_size,
        "dtype": step.machine.dtype_name,
    }
