"""A study: several sweeps of one experiment, listed in study.NAME.toml, trained one after the other.

Each is an ordinary sweep with a folder of its own. The study has a page with one row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core import durable
from core.errors import RunFailed, UserError, did_you_mean
from core.lab.opened import Opened, as_overrides, open_folder
from core.listener import Listener
from core.report.document import Cell, Code, Document, PageSection, PageTable, Paragraph, Part
from core.report.run_report import write_document
from core.roles import flat
from core.stages import SECTIONS
from core.sweeps.live import Screen
from core.sweeps.names import short_keys
from core.sweeps.names import shown as value_shown
from core.sweeps.plan import FOLDER, Call, Sweep, plan
from core.sweeps.results import results_of, with_spread
from core.sweeps.running import refuse_unfinished, run_sweep
from core.sweeps.space import Grid, Space, check_space
from core.sweeps.state import State
from core.toml import Settings, read_file
from core.tracking.figures import loss_text, share_text

LIST = "sweeps"
OWN_KEYS = ("name", "description", "variant", "seeds", "grid")
CallOf = Callable[[Opened, str], Call]  # of a sweep: takes its experiment and its description


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


@dataclass(frozen=True)
class Study:
    """name: of the file. sweeps: in their order. command: that starts the study, and continues it."""

    name: str
    sweeps: tuple[Sweep, ...]
    command: str

    @property
    def folder(self) -> Path:
        """Of its page, beside those of its sweeps."""
        return self.sweeps[0].out / FOLDER / f"study-{self.name}"


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
        found.append(read_listed(entry, f"{LIST}.{number}", settings, [listed.name for listed in found]))
    return found


def read_listed(entry: Mapping[str, Any], key: str, settings: Settings, before: Sequence[str]) -> SweepEntry:
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


def plan_study(
    experiment: str, name: str, overrides: Sequence[str], listener: Listener, command: str, call_of: CallOf
) -> Study:
    """Plan all sweeps of a study and check every run. overrides: of all of them, laid over the study's own.

    Raises UserError for the first mistake, with its line in the study, before anything is trained.
    """
    sweeps: list[Sweep] = []
    for listed in read_study(open_folder(experiment, "", overrides).experiment.folder, name):
        try:
            opened = open_folder(experiment, listed.variant, (*listed.overrides, *overrides), listener)
            call = replace(call_of(opened, listed.description), command=command)
            space = check_space(listed.space)
            sweeps.append(plan(opened, space, name=f"{name}-{listed.name}", description=listed.description, call=call))
        except UserError as error:
            raise UserError(error.message, place=place_of(error.place, listed), remedy=error.remedy) from None
    return Study(name, tuple(sweeps), command)


def place_of(place: str, listed: SweepEntry) -> str:
    """Where a mistake is: at the line of the study with the key that the place names, at the variant, or in another file."""
    text = place.removeprefix("`").removeprefix("grid=")
    for key, at in listed.places.items():
        if text.startswith(f"{key.removeprefix('grid.')}="):
            return at
    if place in listed.places:
        return listed.places[place]
    if Path(place).is_dir():
        return listed.places.get("variant", listed.place)
    return place if Path(place.rpartition(":")[0] or place).is_file() else listed.place


def run_study(study: Study, jobs: int, *, retry: bool = False, screen: Screen | None = None) -> list[State]:
    """Train the sweeps of a study in turn and write its page after each. Failed runs do not stop the others.

    Raises Interrupted after a signal, when everything is saved.
    """
    states: list[State] = []
    say = study.sweeps[0].opened.listener.say
    for number, sweep in enumerate(study.sweeps, 1):
        say(f"study {study.name}, sweep {number} of {len(study.sweeps)}: {sweep.description or sweep.name}")
        states.append(run_sweep(sweep, jobs, retry=retry, screen=screen))
        page = write_page(study, states)
    say(f"report: {page}")
    return states


def refuse_failures(states: Sequence[State]) -> None:
    """Raise RunFailed with the runs of all sweeps that have no result."""
    failures = []
    for state in states:
        try:
            refuse_unfinished(state)
        except RunFailed as error:
            failures.append(str(error))
    if failures:
        raise RunFailed("\n".join(failures))


def write_page(study: Study, states: Sequence[State]) -> Path:
    """Write report.html and report.md about the sweeps that have ended so far. Returns the page's path."""
    durable.make_folders(study.folder)
    columns = ("sweep", "question", "runs", "best setting", "exact match", "val loss", "what the runs support")
    left = len(study.sweeps) - len(states)
    head: list[Part] = (
        [Paragraph(f"{left} of {len(study.sweeps)} sweeps have not ended yet.", "notice")] if left else []
    )
    sections = [
        PageSection("Sweeps", [PageTable(columns, [row(study, state) for state in states])]),
        PageSection("Run it again", [Code(study.command)]),
    ]
    return write_document(
        study.folder, "report", Document(f"{study.sweeps[0].experiment.name} / study {study.name}", head, sections)
    )


def row(study: Study, state: State) -> list[Cell]:
    """One sweep: its best setting with mean ± standard deviation over its seeds, and the verdict on the next best."""
    sweep, results = state.sweep, results_of(state)
    done = sum(standing.status == "completed" for standing in state.standings.values())
    best = next((result for result in results if result.best or len(results) == 1), None)
    keys = short_keys(sweep.space.keys)
    figures = ["", "", ""]
    if best is not None:
        setting = ", ".join(f"{keys[key]}={value_shown(value)}" for key, value in best.settings.items())
        figures = [setting, with_spread(best, "accuracy", share_text), with_spread(best, "val_loss", loss_text)]
    return [
        Cell(sweep.name.removeprefix(f"{study.name}-"), link=f"../{sweep.name}/report.html"),
        Cell(sweep.description),
        Cell(f"{done:,}" if done == len(sweep.points) else f"{done:,} of {len(sweep.points):,}"),
        *map(Cell, figures),
        Cell(state.conclusions[0] if state.conclusions else ""),
    ]
