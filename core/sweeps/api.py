"""`train_models`: train several runs of one experiment from Python."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from core.errors import UserError
from core.lab.api import TrainedRun, split_settings
from core.sweeps.launching import HERE
from core.sweeps.plan import Call, plan
from core.sweeps.running import Where, refuse_unfinished, run_sweep
from core.sweeps.space import Space


def train_models(
    settings: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    jobs: int = 1,
    retry: bool = False,
    on: str = HERE,
    address: str = "",
) -> list[TrainedRun]:
    """Train one setting with several seeds. Returns one run for each seed, in their order.

    settings: as for `train_model`, but "run" is the name of the sweep that the runs belong to. jobs: number of runs at a
    time, each in its own process; threads and GPUs are divided among them. retry: train failed runs again. on: where they
    train: "local", or on a cluster: "ray", "slurm". address: of a Ray cluster that is there already.

    Finished runs are not repeated: make the same call again to continue after an interruption or failure.

    Raises UserError for wrong settings or arguments, RunFailed if a run failed, and Interrupted after Ctrl-C, when
    everything is saved.
    """
    experiment, name = split_settings(settings)
    plain = tuple(int(seed) if isinstance(seed, Integral) else seed for seed in seeds)  # NumPy's integers, too
    if not plain:
        raise UserError("there are no seeds", place="seeds", remedy="For example: seeds=[0, 1, 2]")
    seed, times = Counter(map(repr, plain)).most_common(1)[0]
    if times > 1:
        raise UserError(f"seed {seed} is given {times} times", place="seeds", remedy="Give each seed once.")
    given = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in settings.items()}
    command = f"train_models({given!r}, seeds={list(plain)!r}, jobs={jobs}{', retry=True' if retry else ''}"
    command += f"{f', on={on!r}' if on != HERE else ''}{f', address={address!r}' if address else ''})"
    call = Call(command, "run", lambda run, overrides: command)
    sweep = plan(experiment.opened, Space(seeds=plain), name=name or "", call=call)
    refuse_unfinished(run_sweep(sweep, Where(on, jobs, address), retry=retry))
    return [TrainedRun(experiment.opened, point.folders(sweep.out)[-1]) for point in sweep.points]
