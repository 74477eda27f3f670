"""A study: several sweeps of one experiment, listed in study.NAME.toml, trained one after the other.

Each is an ordinary sweep with a folder of its own. The study has a page with one row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core import durable
from core.errors import RunFailed, UserError
from core.lab.opened import Opened, open_folder
from core.listener import Listener
from core.report.document import Cell, Code, Document, PageSection, PageTable, Paragraph, Part
from core.report.run_report import write_document
from core.sweeps.live import Screen
from core.sweeps.names import short_keys
from core.sweeps.names import shown as value_shown
from core.sweeps.plan import FOLDER, Call, Sweep, plan
from core.sweeps.results import results_of, with_spread
from core.sweeps.running import Where, refuse_unfinished, run_sweep
from core.sweeps.space import check_space
from core.sweeps.state import State
from core.sweeps.study_file import SweepEntry, read_study
from core.tracking.figures import loss_text, share_text

CallOf = Callable[[Opened, str], Call]  # of a sweep: takes its experiment and its description


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


def plan_study(
    experiment: str, name: str, overrides: Sequence[str], listener: Listener, command: str, call_of: CallOf
) -> Study:
    """Plan all sweeps of a study and check every run. overrides: of all of them, laid over the study's own.

    Raises UserError for the first mistake, with its line in the study, before anything is trained.
    """
    sweeps: list[Sweep] = []
    for entry in read_study(open_folder(experiment, "", overrides).experiment.folder, name):
        try:
            opened = open_folder(experiment, entry.variant, (*entry.overrides, *overrides), listener)
            call = replace(call_of(opened, entry.description), command=command)
            space = check_space(entry.space)
            sweeps.append(plan(opened, space, name=f"{name}-{entry.name}", description=entry.description, call=call))
        except UserError as error:
            raise UserError(error.message, place=place_of(error.place, entry), remedy=error.remedy) from None
    return Study(name, tuple(sweeps), command)


def place_of(place: str, entry: SweepEntry) -> str:
    """Where a mistake is: at the line of the study with the key that the place names, at the variant, or in another file."""
    text = place.removeprefix("`").removeprefix("grid=")
    for key, at in entry.places.items():
        if text.startswith(f"{key.removeprefix('grid.')}="):
            return at
    if place in entry.places:
        return entry.places[place]
    if Path(place).is_dir():
        return entry.places.get("variant", entry.place)
    return place if Path(place.rpartition(":")[0] or place).is_file() else entry.place


def run_study(study: Study, where: Where, *, retry: bool = False, screen: Screen | None = None) -> list[State]:
    """Train the sweeps of a study in turn and write its page after each. Failed runs do not stop the others.

    Raises Interrupted after a signal, when everything is saved.
    """
    states: list[State] = []
    say = study.sweeps[0].opened.listener.say
    for number, sweep in enumerate(study.sweeps, 1):
        say(f"study {study.name}, sweep {number} of {len(study.sweeps)}: {sweep.description or sweep.name}")
        states.append(run_sweep(sweep, where, retry=retry, screen=screen))
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
