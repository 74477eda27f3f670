"""Learning rates by step: in go a step and [train.schedule], out comes a fraction of the peak rate. No state."""

from __future__ import annotations

import math

from core import config


def fraction(step: int, schedule: config.Schedule, peak: float) -> float:
    """The share of its peak at which a rate stands in optimizer step `step` (the first is 0).

    peak: the rate that min_lr is the end of (train.optim.learning_rate); other rates fall by the same fraction.
    Expects a resolved schedule. Warm-up and cosine are nanoGPT's `get_lr`.
    """
    assert schedule.warmup_iters is not None and schedule.lr_decay_iters is not None and schedule.min_lr is not None
    warmup, end = schedule.warmup_iters, schedule.lr_decay_iters
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.decay == "constant":
        return 1.0
    start = warmup if schedule.decay == "cosine" else max(warmup, end - round(schedule.decay_fraction * end))
    lowest = schedule.min_lr / peak
    if step >= end:
        return lowest
    if step <= start:
        return 1.0
    progress = (step - start) / (end - start)  # 0 at start, 1 at end
    fallen = (1 - math.cos(math.pi * progress)) / 2 if schedule.decay == "cosine" else progress
    return 1 - fallen * (1 - lowest)
