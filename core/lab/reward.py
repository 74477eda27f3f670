"""Before training by reward: whether the weights that a run starts from give answers that can be told apart."""

from __future__ import annotations

import dataclasses
from typing import Any

from core.data.dataset import Dataset
from core.errors import UserError
from core.lab.assemble import responding, throwaway
from core.lab.opened import Opened
from core.lab.own import scoring_of
from core.lab.training import origin_folder, start_from
from core.reward.collect import collector
from core.reward.outlook import outlook_of
from core.tracking.run import Run
from core.training import checkpoints


def has_weights(run: Run, origin: str) -> bool:
    """Whether the run that train.model.init_from names has a checkpoint, whole or damaged."""
    try:
        _, folder = origin_folder(run, origin)
    except UserError:
        return False
    return bool(checkpoints.candidates(folder / "checkpoints", run.config.train.model.init_checkpoint))


def reward_outlook(opened: Opened, dataset: Dataset) -> dict[str, Any] | None:
    """The fields of an Outlook; {"missing": why} if the weights are not there yet; None for another objective.

    In a pipeline, the weights are those of the default run. Raises UserError for data that has nothing to score, and for weights
    that are damaged or do not fit.
    """
    if opened.config.train.objective.kind != "reward":
        return None
    with throwaway(opened, dataset, compiling=False) as (run, parts):
        if origin := opened.config.train.model.init_from:
            stage = "" if opened.stage is None else f"/{opened.stage.name}"
            own = Run(opened.experiment, f"{opened.default_run}{stage}", opened.config)
            if not has_weights(own, origin):
                return {"missing": f"{origin.removeprefix('./')} has no weights yet: train it first"}
            start_from(own, origin, parts.model, dataset)
        found = collector(
            parts.model, None, dataset, run.config.train, parts.machine, scoring_of(opened), responding(opened, dataset)
        )
        return dataclasses.asdict(outlook_of(found))
