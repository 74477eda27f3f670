"""Read study.NAME.toml: several sweeps of one experiment, each with what it varies and its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError, did_you_mean
from core.lab.opened import as_overrides
from core.roles import flat
from core.stages import SECTIONS
from core.sweeps.space import Grid, Space
from core.toml import Settings, read_file

LIST = "sweeps"
OWN_KEYS = ("name", "description", "variant", "seeds", "grid")


@dataclass(frozen=True)
class SweepEntry:
    """One sweep of a study. place: of its table; places: of its dotted keys. overrides: of all its runs."""

    name: str
    description: str
    variant: str
    overrides: tuple[str, ...]
    space: Space
    place: str
    places: Mapping[str, str]


def read_study(folder: Path, name: str) -> list[SweepEntry]:
    """The sweeps that an experiment's study.<name>.toml lists. Raises UserError with the line of a mistake."""
    path = folder / f"study.{name}.toml"
    if Path(name).name != name or not path.is_file():
        known = [file.name[len("study.") : -len(".toml")] for file in sorted(folder.glob("study.*.toml"))]
        raise UserError(
            f"no study '{name}'",
            place=str(folder),
            remedy=f"{did_you_mean(name, known)} A study is a file {path.name} that lists [[{LIST}]].".strip(),
        )
    settings = read_file(path)
    entries = settings.values.get(LIST)
    for key in settings.values:
        if key != LIST:
            raise UserError(
                f"unknown key '{key}'",
                place=settings.place_of(key) or str(path),
                remedy=f"Write it below one [[{LIST}]], for all runs of that sweep.",
            )
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError("it lists no sweeps", place=str(path), remedy=f"Write [[{LIST}]] above each sweep.")
    found: list[SweepEntry] = []
    for number, entry in enumerate(entries):
        found.append(read_entry(entry, f"{LIST}.{number}", settings, [before.name for before in found]))
    return found


def read_entry(entry: Mapping[str, Any], key: str, settings: Settings, before: Sequence[str]) -> SweepEntry:
    """One table of the list. before: the names of those above it. Raises UserError."""
    place = settings.place_of(key)
    places = {known.removeprefix(f"{key}."): at for known, at in settings.places.items() if known.startswith(f"{key}.")}

    def refuse(name: str, message: str, remedy: str) -> UserError:
        at = next((at for known, at in places.items() if known == name or known.startswith(f"{name}.")), place)
        return UserError(message, place=at, remedy=remedy)

    for other in entry:
        if other not in (*OWN_KEYS, *SECTIONS):
            raise refuse(
                other,
                f"unknown key '{other}' of a sweep",
                f"{did_you_mean(other, OWN_KEYS)} A sweep has {', '.join(OWN_KEYS)}, and keys of the config with their "
                "section, such as train.schedule.max_iters.",
            )
    name, description, variant = (entry.get(part, "") for part in ("name", "description", "variant"))
    for part, value in (("name", name), ("description", description), ("variant", variant)):
        if not isinstance(value, str) or (part == "name" and not value):
            raise refuse(part, f"{part} = {value!r} is no text", f'For example: {part} = "width"')
    if name in before:
        raise refuse("name", f"two sweeps are called '{name}'", "Rename one of them.")
    seeds = entry.get("seeds", [])
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise refuse("seeds", f"seeds = {seeds!r} is no list of seeds", "For example: seeds = [0, 1, 2]")
    grids = entry.get("grid", {})
    if not isinstance(grids, dict):
        raise refuse("grid", f"grid = {grids!r} names no key", "For example: grid.train.model.n_layer = [1, 2, 3]")
    for swept, values in flat(grids).items():
        if not isinstance(values, list) or not values:
            raise refuse(f"grid.{swept}", f"grid.{swept} = {values!r} is no list of values", "For example: [1, 2, 3]")
    if not seeds and not grids:
        raise refuse("", f"'{name}' has nothing to sweep over", "Give it seeds = [0, 1, 2], or a grid of values.")
    space = Space(
        tuple(dict.fromkeys(seeds)), tuple(Grid(swept, tuple(values)) for swept, values in flat(grids).items())
    )
    overrides = as_overrides({section: entry[section] for section in SECTIONS if section in entry})
    return SweepEntry(name, description, variant, overrides, space, place, places)
