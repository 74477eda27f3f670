"""`train_models`: many runs of one experiment from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from core.lab.api import TrainedRun, split_settings
from core.sweeps.plan import plan
from core.sweeps.running import refuse_unfinished, run_sweep
from core.sweeps.space import Space, check_space


def train_models(settings: Mapping[str, Any], *, seeds: Sequence[int], jobs: int = 1) -> list[TrainedRun]:
    """Train one setting with several seeds. Returns a run for each seed, in their order.

    settings: as for `train_model`; "run" is the name of the sweep that the runs belong to. jobs: runs at once, each in a
    process of its own; CPU threads are divided among them. What is finished stays: the same call goes on.

    Raises UserError for what cannot be trained so, RunFailed where a run has failed, and Interrupted after Ctrl-C, when
    all is saved.
    """
    experiment, name = split_settings(settings)
    plain = tuple(int(seed) if isinstance(seed, Integral) else seed for seed in seeds)  # NumPy's numbers, too
    command = f"train_models({dict(settings)!r}, seeds={list(plain)!r}, jobs={jobs})"
    space = check_space(Space(seeds=plain))
    sweep = plan(experiment.opened, space, name=name or "", command=command)
    refuse_unfinished(run_sweep(sweep, jobs))
    return [TrainedRun(experiment.opened, sweep.out / point.run) for point in sweep.points]
