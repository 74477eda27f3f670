"""Learning rate schedules: the fraction of the peak rate, by step or by time. Pure functions without state."""

from __future__ import annotations

import math

from core import config


def fraction(step: int, schedule: config.Schedule, peak: float, gone: float | None = None) -> float:
    """The share of its peak at which a rate stands in optimizer step `step` (the first is 0).

    peak: the rate that min_lr is the end of (train.optim.learning_rate); other rates fall by the same fraction.
    gone: the share of a budget in time that is used, 0 to 1; the fall then follows it instead of the step. A warm-up
    that lasts into the fall is cut off by it: the lower of the two counts.
    Expects a resolved schedule. Warm-up and cosine are nanoGPT's `get_lr`.
    """
    assert schedule.warmup_iters is not None and schedule.min_lr is not None
    rise = min(1.0, (step + 1) / (schedule.warmup_iters + 1))
    fallen = fallen_by_step(step, schedule) if gone is None else fallen_by_time(gone, schedule)
    return min(rise, fall(fallen, schedule, schedule.min_lr / peak))


def fallen_by_step(step: int, schedule: config.Schedule) -> float:
    """How far the fall is in a step, from 0 where it begins to 1 where it ends; a long warm-up pushes its beginning back."""
    assert schedule.warmup_iters is not None and schedule.lr_decay_iters is not None
    warmup, end = schedule.warmup_iters, schedule.lr_decay_iters
    start = warmup if schedule.decay == "cosine" else max(warmup, end - round(schedule.decay_fraction * end))
    if step >= end:
        return 1.0
    return (step - start) / (end - start) if step > start else 0.0


def fallen_by_time(gone: float, schedule: config.Schedule) -> float:
    """The same by the share of a budget in time that is gone; a cosine takes all of it."""
    part = 1.0 if schedule.decay == "cosine" else schedule.decay_fraction
    return max(0.0, 1 - (1 - gone) / part)


def fall(fallen: float, schedule: config.Schedule, lowest: float) -> float:
    """The shape of the fall: 1 at its beginning (0), `lowest` at its end (1)."""
    if schedule.decay == "constant" or fallen <= 0:
        return 1.0
    if fallen >= 1:
        return lowest
    lost = (1 - math.cos(math.pi * fallen)) / 2 if schedule.decay == "cosine" else fallen
    return 1 - lost * (1 - lowest)
