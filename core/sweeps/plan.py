"""Plan a sweep: give every point of its space a run name and a checked config."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import UserError
from core.lab.opened import Opened, with_overrides
from core.lab.stages import at_stage
from core.plugins.discovery import Experiment
from core.private import hidden, without_home
from core.sweeps import names
from core.sweeps.space import SEED_KEY, Space, Values
from core.toml import STAGES, toml_value
from core.tracking.run import out_folder

FOLDER = "sweeps"  # in the out folder; not taken for a run, because it has no summary.json


@dataclass(frozen=True)
class Point:
    """One run. settings: the varied values, without the home folder. seed: None for the config's. overrides: all, in order.

    stages: the names of its stages, () without any. config: of the run, or of its last stage.
    """

    run: str
    settings: Values
    seed: int | None
    overrides: tuple[str, ...]
    config: Config
    stages: tuple[str, ...] = ()

    def folders(self, out: Path) -> list[Path]:
        """The run folder, or those of the stages. The last one has the figures of the run."""
        return [out / self.run / stage for stage in self.stages] or [out / self.run]


@dataclass(frozen=True)
class Call:
    """How a sweep was started.

    command: the command line or Python call; repeated, it continues the sweep. naming: the argument that names a sweep.
    of_run: takes a run's name and overrides, returns the command that is recorded with the run.
    """

    command: str = ""
    naming: str = "name"
    of_run: Callable[[str, Sequence[str]], str] = lambda run, overrides: ""

    def another_name(self) -> str:
        """The argument for another name, as it appears in messages."""
        return f"`{self.naming}=NAME`"


UNKNOWN = Call()


@dataclass(frozen=True)
class Sweep:
    """A planned sweep. halving: stop the worse runs early."""

    opened: Opened
    name: str
    space: Space
    points: tuple[Point, ...]
    halving: bool = False
    description: str = ""
    call: Call = UNKNOWN

    @property
    def experiment(self) -> Experiment:
        """The experiment's folder and its name."""
        return self.opened.experiment

    @property
    def out(self) -> Path:
        """The folder of the runs."""
        return out_folder(self.experiment, self.points[0].config)

    @property
    def folder(self) -> Path:
        """The sweep's own folder, next to the runs, where users look for results."""
        return self.out / FOLDER / self.name

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.experiment.name}/{FOLDER}/{self.name}"


def plan(
    opened: Opened, space: Space, *, name: str = "", halving: bool = False, description: str = "", call: Call = UNKNOWN
) -> Sweep:
    """Plan a sweep and check every point. Raises UserError for the first wrong point, and for an invalid name."""
    experiment, variant, overrides = opened.experiment, opened.variant, opened.overrides
    name = name or default_name(space, variant, halving)
    if name != names.safe(name) or name.startswith(".") or len(name) > names.LONGEST:
        raise UserError(
            f"'{name}' is not a valid name of a sweep", place=call.naming, remedy="Use letters, digits, - and _; it becomes the name of a folder."
        )  # fmt: skip
    if halving and opened.stages:
        raise UserError(
            f"halving stops single runs early, and {experiment.name} has stages",
            place="halving",
            remedy="Leave out `halving=True`, or give stages that should end early a train.runtime.stop_when.",
        )
    found = {repr((hidden(settings), seed)): (settings, seed) for settings, seed in space.points()}.values()
    runs = names.run_names(name, [(hidden(settings), seed) for settings, seed in found])
    datasets = own_datasets(opened.config.prepare.dataset_dir, space)
    points = []
    for run, (settings, seed) in zip(runs, found, strict=True):
        given = tuple(f"{key}={toml_value(value)}" for key, value in settings.items())
        seeded = () if seed is None else (f"{SEED_KEY}={seed}",)
        together = (*overrides, *given, *seeded)
        if dataset := datasets.get(prepared_by(settings)):
            together = (*together, f"prepare.dataset_dir={toml_value(dataset)}")
        stages = tuple(stage.name for stage in opened.stages)
        points.append(Point(run, hidden(settings), seed, together, checked(opened, together, space), stages))
    return Sweep(opened, name, space, tuple(points), halving, without_home(description), call)


def default_name(space: Space, variant: str, halving: bool) -> str:
    """Name a sweep after what it varies: `lr-n_layer`, `seeds`."""
    keys = names.short_keys(space.keys)
    parts = [variant if variant != "basic" else "", "halving" if halving else "", "random" if space.draws else ""]
    parts += [names.SHORT.get(key, key) for key in keys.values()] or ["seeds"]
    name = names.safe("-".join(filter(None, parts)))
    return name if len(name) <= names.LONGEST else f"{name[:60]}-{names.digest(name)}"


def checked(opened: Opened, overrides: Sequence[str], space: Space) -> Config:
    """The config of a point, of its last stage if there are any. Raises UserError, which names the argument with the mistake."""
    try:
        point = with_overrides(opened, overrides)
        return [point, *(at_stage(point, stage) for stage in opened.stages)][-1].config
    except UserError as error:
        key, _, value = error.place.strip("`").partition("=")
        if error.place.startswith("`") and key in space.keys:
            argument = "grid" if key in [grid.key for grid in space.grids] else "ranges"
            raise UserError(error.message, place=f"`{argument}={key}={value}`", remedy=error.remedy) from None
        raise


def prepared_by(settings: Values) -> str:
    """The settings that decide which dataset is used, as a text for comparison."""
    return repr(sorted((key, value) for key, value in settings.items() if is_of_data(key)))


def is_of_data(key: str) -> bool:
    """Whether a key is of [prepare], perhaps of one stage."""
    return key.startswith("prepare.") or (key.startswith(f"{STAGES}.") and key.split(".")[2:3] == ["prepare"])


def own_datasets(shared: str, space: Space) -> dict[str, str]:
    """Map `prepared_by` of each setting to a dataset folder, named after `shared`. Empty if no key of [prepare] varies.

    In a shared folder, runs would replace each other's datasets.
    """
    keys = [key for key in space.keys if is_of_data(key)]
    if not keys or "prepare.dataset_dir" in keys:
        return {}
    short = names.short_keys(keys)
    found: dict[str, str] = {}
    for settings in space.settings():
        part = {key: hidden(value) for key, value in settings.items() if key in keys}
        found[prepared_by(settings)] = f"{shared}-{names.label(part, short)}"
    return found


def plain(value: Any) -> Any:
    """A setting without the home folder, as a TOML text if JSON cannot hold it."""
    value = hidden(value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return toml_value(value)
    return value
