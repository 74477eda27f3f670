"""An experiment as one of its stages has it: settings, data, the run it starts from; and which stages a command means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from core.data.pipeline import is_foreign
from core.errors import UserError, did_you_mean
from core.lab.opened import Opened
from core.roles import role_of
from core.stages import VOCABULARY, Stage, stage_config
from core.tracking.run import read_summary

MODEL = "train.model"


def at_stage(opened: Opened, stage: Stage) -> Opened:
    """The experiment with the settings of a stage, its dataset, its encoder and the weights it starts from.

    Its shape of the model is that of the stage it goes on from. Stages with the same settings of [prepare] share a dataset;
    a later one has the encoder of the first stage, unless it starts with fresh weights and has settings for an encoder.
    """
    assert opened.stage is None  # its dataset_dir is that of the whole experiment
    fixed: dict[str, Any] = {"prepare": places_of_data(opened, stage), "train": {"model": {"init_from": ""}}}
    if stage.origin:
        model = at_stage(opened, named(opened, stage.origin)).config.train.model.model_dump()
        shape = {
            key: value for key, value in model.items() if role_of(f"{MODEL}.{key}") == "model" and value is not None
        }
        start = {"init_from": f"./{stage.origin}", "init_checkpoint": stage.checkpoint}
        fixed["train"]["model"] = shape | start | {"depth": 0}  # it decides the length of the first stage only
    elif "init_from" in stage.settings.values.get("train", {}).get("model", {}) or stage is opened.stages[0]:
        del fixed["train"]["model"]  # the first stage may start from another run
    config, settings = stage_config(opened.experiment.folder, opened.variant, opened.overrides, stage, fixed)
    return replace(opened, config=config, settings=settings, stage=stage)


def places_of_data(opened: Opened, stage: Stage) -> dict[str, str]:
    """dataset_dir and encoder_from of [prepare], as far as the stage does not say them."""
    first, given = opened.stages[0], stage.settings.values.get("prepare", {})
    base = opened.config.prepare.dataset_dir
    if "dataset_dir" in given or is_foreign(opened.experiment.path(base)):
        return {}
    own = prepared_as(opened, stage)
    owner = next(each for each in opened.stages if each is stage or prepared_as(opened, each) == own)
    found = {"dataset_dir": f"{base}/{owner.name}"}
    vocabulary = {key.removeprefix("prepare.") for key in VOCABULARY}
    if owner is not first and not vocabulary & given.keys():
        found["encoder_from"] = at_stage(opened, first).config.prepare.dataset_dir
    return found


def prepared_as(opened: Opened, stage: Stage) -> dict[str, Any]:
    """The settings of [prepare] of a stage."""
    config, _ = stage_config(opened.experiment.folder, opened.variant, opened.overrides, stage, {})
    return config.prepare.model_dump()


def named(opened: Opened, name: str) -> Stage:
    """A stage by its name. Raises UserError for an unknown one."""
    known = [stage.name for stage in opened.stages]
    if name not in known:
        raise UserError(
            f"{opened.experiment.name} has no stage '{name}'",
            place=str(opened.experiment.folder / "config.toml"),
            remedy=did_you_mean(name, known) if known else "Leave it out: its config lists no [[stages]].",
        )
    return opened.stages[known.index(name)]


def split_name(opened: Opened, run: str | None, stage: str) -> tuple[str, str]:
    """The run and the stage that a user means by RUN, RUN/STAGE and a stage. "" means all stages, or the last finished one.

    Raises UserError for an unknown stage, and for two different ones.
    """
    name, slash, own = (run or opened.default_run).partition("/")
    if slash and stage not in ("", own):
        raise UserError(f"'{run}' and stage '{stage}' exclude each other", place="stage", remedy="Name one stage.")
    chosen = own or stage
    if chosen:
        named(opened, chosen)
    return name, chosen


def trained_as(opened: Opened, run: str | None, stage: str = "") -> tuple[Opened, str]:
    """The experiment as a trained stage has it, and the run's name with the stage: the one that is asked for, else the last
    finished one. Without stages both are as they were given. Raises UserError."""
    if not opened.stages:
        if stage:
            named(opened, stage)
        return opened, run or opened.default_run
    name, chosen = split_name(opened, run, stage)
    if not chosen:
        finished = [each.name for each in opened.stages if is_finished(opened.out / name / each.name)]
        chosen = finished[-1] if finished else opened.stages[0].name
    return at_stage(opened, named(opened, chosen)), f"{name}/{chosen}"


def is_finished(folder: Path) -> bool:
    return bool(read_summary(folder).get("status") == "completed")
