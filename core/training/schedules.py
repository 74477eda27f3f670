"""Learning rate schedules: the fraction of the peak rate by step or by time. Pure functions.

All but "plateau" depend on step and time alone. What "plateau" knows of the run is a `Plateau`, which checkpoints keep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from core import config

LOWER = 1e-4  # by how much of itself a val_loss must fall to count as lower, as in torch's ReduceLROnPlateau


@dataclass(frozen=True)
class Plateau:
    """lowest: the lowest val_loss so far. waited: evaluations since then or since the last fall. falls: of the rate."""

    lowest: float | None = None
    waited: int = 0
    falls: int = 0


def after_evaluation(plateau: Plateau, val_loss: float, schedule: config.Schedule) -> Plateau:
    """What is known after one more evaluation. The rate falls where `patience` evaluations were waited for in vain."""
    if plateau.lowest is None or val_loss < plateau.lowest - LOWER * abs(plateau.lowest):
        return replace(plateau, lowest=val_loss, waited=0)
    if plateau.waited < schedule.patience:
        return replace(plateau, waited=plateau.waited + 1)
    return replace(plateau, waited=0, falls=plateau.falls + 1)


def fraction(
    step: int, schedule: config.Schedule, peak: float, gone: float | None = None, plateau: Plateau | None = None
) -> float:
    """The fraction of its peak that a rate has in optimizer step `step` (the first is 0).

    peak: train.optim.learning_rate, the rate that falls to min_lr; other rates fall by the same fraction.
    gone: share of a time budget that is used, 0 to 1. The decay then follows it instead of the step. If warm-up and
    decay overlap, the lower of the two counts. plateau: what the evaluations so far have shown.
    Expects a resolved schedule. Warm-up and cosine are as in nanoGPT's `get_lr`.
    """
    assert schedule.warmup_iters is not None and schedule.min_lr is not None
    rise = min(1.0, (step + 1) / (schedule.warmup_iters + 1))
    lowest = schedule.min_lr / peak
    if schedule.decay == "step":
        assert schedule.interval is not None
        return min(rise, max(lowest, schedule.factor ** (step // schedule.interval)))
    if schedule.decay == "plateau":
        return min(rise, max(lowest, schedule.factor ** (plateau.falls if plateau else 0)))
    fallen = fallen_by_step(step, schedule) if gone is None else fallen_by_time(gone, schedule)
    return min(rise, fall(fallen, schedule, lowest))


def fallen_by_step(step: int, schedule: config.Schedule) -> float:
    """How far the decay is in a step, from 0 (start) to 1 (end). It starts after the warm-up at the earliest."""
    assert schedule.warmup_iters is not None and schedule.lr_decay_iters is not None
    assert schedule.decay_fraction is not None
    warmup, end = schedule.warmup_iters, schedule.lr_decay_iters
    start = warmup if schedule.decay == "cosine" else max(warmup, end - round(schedule.decay_fraction * end))
    if step >= end:
        return 1.0
    return (step - start) / (end - start) if step > start else 0.0


def fallen_by_time(gone: float, schedule: config.Schedule) -> float:
    """How far the decay is by the used share of a time budget. A cosine takes the whole budget."""
    assert schedule.decay_fraction is not None
    part = 1.0 if schedule.decay == "cosine" else schedule.decay_fraction
    return max(0.0, 1 - (1 - gone) / part)


def fall(fallen: float, schedule: config.Schedule, lowest: float) -> float:
    """The shape of the decay: from 1 at its start (fallen = 0) to `lowest` at its end (fallen = 1)."""
    if schedule.decay == "constant" or fallen <= 0:
        return 1.0
    if fallen >= 1:
        return lowest
    if schedule.decay == "wsd":  # the annealing of arXiv:2404.06395: the rate halves in equal times
        return float(lowest**fallen)
    lost = (1 - math.cos(math.pi * fallen)) / 2 if schedule.decay == "cosine" else fallen
    return 1 - lost * (1 - lowest)
