"""Plan a sweep: every point of its space is a run with a name and a checked config."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import UserError
from core.lab.opened import Opened
from core.plugins.discovery import Experiment
from core.private import hidden, without_home
from core.sweeps import names
from core.sweeps.space import SEED_KEY, Settings, Space
from core.toml import load_config, toml_value
from core.tracking.run import out_folder

FOLDER = "sweeps"  # in the out folder: a run has a summary.json there, and a sweep has none


@dataclass(frozen=True)
class Point:
    """One run: its name, what it varies (without the home folder), its seed (None: the config's), its overrides in order, and
    its config."""

    run: str
    settings: Settings
    seed: int | None
    overrides: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class Sweep:
    """opened: the experiment. halving: stop runs early that are behind. command: how it was started; it goes on with it."""

    opened: Opened
    name: str
    space: Space
    points: tuple[Point, ...]
    halving: bool = False
    description: str = ""
    command: str = ""

    @property
    def experiment(self) -> Experiment:
        """The folder."""
        return self.opened.experiment

    @property
    def out(self) -> Path:
        """The folder of the runs."""
        return out_folder(self.experiment, self.points[0].config)

    @property
    def folder(self) -> Path:
        """The sweep's own folder. It stands among the runs, where a user looks for results."""
        return self.out / FOLDER / self.name

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"{self.experiment.name}/{FOLDER}/{self.name}"


def plan(
    opened: Opened, space: Space, *, name: str = "", halving: bool = False, description: str = "", command: str = ""
) -> Sweep:
    """Every point, checked. Raises UserError for the first that is wrong, and for a name that is none."""
    experiment, variant, overrides = opened.experiment, opened.variant, opened.overrides
    name = name or default_name(space, variant, halving)
    if name != names.safe(name) or name.startswith(".") or len(name) > names.LONGEST:
        raise UserError(
            f"'{name}' is not a valid name of a sweep", place="name", remedy="Use letters, digits, - and _; it becomes the name of a folder."
        )  # fmt: skip
    found = {repr((hidden(settings), seed)): (settings, seed) for settings, seed in space.points()}.values()
    runs = names.run_names(name, [(hidden(settings), seed) for settings, seed in found])
    datasets = own_datasets(experiment, variant, overrides, space)
    points = []
    for run, (settings, seed) in zip(runs, found, strict=True):
        given = tuple(f"{key}={toml_value(value)}" for key, value in settings.items())
        seeded = () if seed is None else (f"{SEED_KEY}={seed}",)
        together = (*overrides, *given, *seeded)
        if dataset := datasets.get(prepared_by(settings)):
            together = (*together, f"prepare.dataset_dir={toml_value(dataset)}")
        points.append(Point(run, hidden(settings), seed, together, checked(experiment, variant, together, space)))
    return Sweep(opened, name, space, tuple(points), halving, without_home(description), command)


def default_name(space: Space, variant: str, halving: bool) -> str:
    """What is varied: `lr-n_layer`, `seeds`."""
    keys = names.short_keys(space.keys)
    parts = [variant if variant != "basic" else "", "halving" if halving else "", "random" if space.draws else ""]
    parts += [names.SHORT.get(key, key) for key in keys.values()] or ["seeds"]
    name = names.safe("-".join(filter(None, parts)))
    return name if len(name) <= names.LONGEST else f"{name[:60]}-{names.digest(name)}"


def checked(experiment: Experiment, variant: str, overrides: Sequence[str], space: Space) -> Config:
    """The config of a point. Raises UserError that names the argument at fault."""
    try:
        return load_config(experiment.folder, variant, overrides)[0]
    except UserError as error:
        key, _, value = error.place.strip("`").partition("=")
        if error.place.startswith("`") and key in space.keys:
            argument = "grid" if key in [grid.key for grid in space.grids] else "ranges"
            raise UserError(error.message, place=f"`{argument}={key}={value}`", remedy=error.remedy) from None
        raise


def prepared_by(settings: Settings) -> str:
    """The part of the settings that decides what the dataset is, as a key."""
    return repr(sorted((key, value) for key, value in settings.items() if key.startswith("prepare.")))


def own_datasets(experiment: Experiment, variant: str, overrides: Sequence[str], space: Space) -> dict[str, str]:
    """prepared_by -> dataset folder, where points vary [prepare]: else each would make the other's dataset again."""
    keys = [key for key in space.keys if key.startswith("prepare.")]
    if not keys or "prepare.dataset_dir" in keys:
        return {}
    base, _ = load_config(experiment.folder, variant, overrides)
    short = names.short_keys(keys)
    found: dict[str, str] = {}
    for settings in space.settings():
        part = {key: hidden(value) for key, value in settings.items() if key in keys}
        found[prepared_by(settings)] = f"{base.prepare.dataset_dir}-{names.label(part, short)}"
    return found


def plain(value: Any) -> Any:
    """A setting as JSON can hold it, without the home folder."""
    value = hidden(value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return toml_value(value)
    return value
