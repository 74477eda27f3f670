"""Every run of some labs, with its summary and notes, kept up to date by looking at the times of folders.

Nothing here raises for what stands in a run folder: a run whose files are damaged has a `problem`.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import is_locked
from core.lab.places import places
from core.plugins.discovery import Experiment
from core.serve.live.labs import Lab
from core.tracking.notes import read_notes
from core.tracking.run import PIPELINE, current_status, in_order, lock_file, owned, read_summary, stage_names

SWEEPS, SWEEP = "sweeps", "sweep.json"  # as core.sweeps writes them; this page also works without it
YOUNG = 2_000_000_000  # nanoseconds in which a folder may change again without another time
THOROUGH = 10.0  # seconds after which experiments are looked for again
SOURCES = ("config.toml", "prepare.py", "Readme.md", ".")  # what an experiment is described from
UNREADABLE = "as they cannot be read"
ACTIVE = ("running", "interrupted")  # what summary.json of a run that has not ended says


@dataclass(frozen=True)
class Entry:
    """A run, or a stage of one. time: of its folder, when it was read. problem: what is wrong with its files, or "".

    written: size and time of metrics.csv, and the time of the folder of checkpoints.
    """

    lab: Lab
    experiment: Experiment
    folder: Path
    run: str
    stage: str | None
    time: int
    summary: Mapping[str, Any]
    notes: Mapping[str, Any]
    status: str
    problem: str = ""
    written: tuple[int, int, int] = (0, 0, 0)

    @property
    def id(self) -> str:
        """LAB/EXPERIMENT/RUN or LAB/EXPERIMENT/RUN/STAGE."""
        return "/".join(filter(None, (self.lab.name, self.experiment.name, self.run, self.stage)))

    @property
    def name(self) -> str:
        """RUN or RUN/STAGE, as commands call it."""
        return f"{self.run}/{self.stage}" if self.stage else self.run

    @property
    def started(self) -> str:
        """When it was started, in ISO 8601; "" if that is not known."""
        return str(self.summary.get("started") or "")

    @property
    def description(self) -> str:
        """What it is for: the note, else what it was started with."""
        return str(self.notes.get("description", self.summary.get("description") or ""))


@dataclass
class Place:
    """An experiment's folder of runs. times: of the folders that were listed to find them. found: folder, run and stage of each.

    others: what else is told of: the ids of its sweeps and of its runs with stages, with the stamps of their files. odd, closed,
    unread: the names of folders that are left out: no text, found to be closed, or not to be read as a run. problem: why something
    in it is not shown, or "".
    """

    lab: Lab
    experiment: Experiment
    out: Path
    times: dict[Path, int] = field(default_factory=dict)
    found: list[tuple[Path, str, str | None]] = field(default_factory=list)
    others: dict[str, Path] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int, bool]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def head(self) -> str:
        """What the ids of its runs begin with."""
        return f"{self.lab.name}/{self.experiment.name}"

    def left_out(self) -> str:
        """Which folders of runs are not shown, and why."""
        told = (("as their names are no text", self.odd), (UNREADABLE, [*self.closed, *self.unread]))
        return "; ".join(f"left out, {why}: {', '.join(names[:5])}" for why, names in told if names)


class Catalog:
    """The runs of all labs, by id. `update` may be called from any thread; `entries` is replaced as a whole."""

    def __init__(self, labs: Callable[[], list[Lab]]) -> None:
        self.find_labs = labs
        self.labs: list[Lab] = []
        self.problems: dict[str, str] = {}  # name of a lab -> why it is not shown
        self.sources: dict[Path, tuple[tuple[int, int], ...]] = {}  # the stamps of each experiment's own files
        self.places: dict[Path, Place] = {}
        self.entries: dict[str, Entry] = {}
        self.turn = threading.Lock()
        self.updated = self.searched = -THOROUGH
        self.version = 0
        self.changes: deque[tuple[int, set[str]]] = deque(maxlen=1000)

    @property
    def experiments(self) -> list[tuple[Lab, Experiment]]:
        """All experiments with their labs."""
        return [(place.lab, place.experiment) for place in self.places.values()]

    def model_name(self, id: str) -> str:
        """What the model of a run is called by the server: its id, without the lab where there is one only."""
        return id if len(self.labs) > 1 else id.partition("/")[2]

    def changed_since(self, version: int) -> set[str]:
        """The ids of runs that were added, changed or removed after a version."""
        return set().union(*(ids for at, ids in list(self.changes) if at > version))

    def are_unchanged(self, ids: Iterable[str], version: int) -> bool:
        """Whether these runs are as they were at a version. False where that is too long ago to be known."""
        recorded = list(self.changes)
        if len(recorded) == self.changes.maxlen and recorded[0][0] > version:
            return False
        return self.changed_since(version).isdisjoint(ids)

    def tell(self, id: str) -> None:
        """Note that something was changed that is not looked for: the notes of a sweep, or of a run with stages."""
        with self.turn:
            self.version += 1
            self.changes.append((self.version, {id}))

    def is_fresh(self, seconds: float) -> bool:
        """Whether it was updated within the last seconds."""
        return time.monotonic() - self.updated < seconds

    def update(self, older: float = 0.0, *, thorough: bool = False) -> None:
        """Look for what has changed, unless that was done within the last seconds. thorough: also for new experiments."""
        if self.is_fresh(older) and not thorough:
            return
        with self.turn:
            if self.is_fresh(older) and not thorough:  # another thread has done it meanwhile
                return
            now = time.monotonic()
            if thorough or now - self.searched >= THOROUGH:
                self.search()
                self.searched = now
            former, changed = self.entries, set[str]()
            entries: dict[str, Entry] = {}
            for place in self.places.values():
                former_problem = place.problem
                entries |= self.entries_of(place)
                changed |= changed_files(place) | ({place.head} if place.problem != former_problem else set())
            self.entries, self.updated = entries, time.monotonic()
            changed |= {id for id in former.keys() | entries.keys() if former.get(id) is not entries.get(id)}
            if changed:
                self.version += 1
                self.changes.append((self.version, changed))

    def search(self) -> None:
        """Find the labs, their experiments and the folders of their runs. What cannot be read has a problem; the others are found."""
        problems: dict[str, str] = {}
        try:
            self.labs = self.find_labs()
        except OSError as error:
            problems = {lab.name: str(error) for lab in self.labs} or {"": str(error)}
        found: dict[Path, Place] = {}
        for lab in self.labs:
            try:
                experiments = lab.experiments()
            except OSError as error:
                problems[lab.name] = f"{lab.folder} cannot be read: {error.strerror}"
                continue
            if closed := [name for name in lab.folders(lab.folder) if not time_of(lab.folder / name)]:
                problems[lab.name] = f"left out, {UNREADABLE}: {', '.join(closed[:5])}"
            for experiment in experiments:
                out = out_of(lab, experiment)
                place = self.places.get(experiment.folder)
                same = place is not None and place.out == out
                found[experiment.folder] = place if place and same else Place(lab, experiment, out)
        sources = {folder: tuple(stamp(folder / name) for name in SOURCES) for folder in found}
        self.version += (sources, problems) != (self.sources, self.problems)
        self.places, self.sources, self.problems = found, sources, problems

    def entries_of(self, place: Place) -> dict[str, Entry]:
        """The runs of an experiment by id. Where something fails, they are as they were: a stranger's folder may hold anything."""
        try:
            found = {entry.id: entry for entry in self.runs_of(place)}
        except Exception as error:
            place.problem = f"its runs cannot be read: {error}"
            return {id: entry for id, entry in self.entries.items() if id.startswith(f"{place.head}/")}
        place.problem = place.left_out()
        return found

    def runs_of(self, place: Place) -> Iterator[Entry]:
        """The runs of an experiment; those that have not changed as they were. One that cannot be read is left out."""
        if any(time_of(folder) != seen or is_young(seen) for folder, seen in place.times.items()) or not place.times:
            list_runs(place)
        place.unread = []
        for folder, run, stage in place.found:
            try:
                entry = self.run_in(place, folder, run, stage)
            except OSError:
                place.unread.append(f"{run}/{stage}" if stage else run)
            else:
                if entry is not None:
                    yield entry

    def run_in(self, place: Place, folder: Path, run: str, stage: str | None) -> Entry | None:
        """A run, as it was if it has not changed. None if it is gone, or another experiment's. Raises OSError if it is closed."""
        at = time_of(folder)
        if not at:
            if folder.exists():
                raise OSError(errno.EACCES, "it cannot be read", str(folder))
            return None
        former = self.entries.get("/".join(filter(None, (place.head, run, stage))))
        if former is not None and former.time == at and former.folder == folder and is_settled(former):
            return former
        entry = read_entry(place, folder, run, stage, at)
        return former if former == entry else entry


def is_settled(entry: Entry) -> bool:
    """Whether a run whose folder has its old time is as it was: one that has not ended writes metrics, and may have been killed."""
    if is_young(entry.time):
        return False
    return entry.status not in ACTIVE or (
        entry.written == written(entry.folder) and entry.status == current_status(entry.folder, entry.summary)
    )


def read_entry(place: Place, folder: Path, run: str, stage: str | None, at: int) -> Entry | None:
    """A run from its files. None if it is a copy of another experiment's run."""
    summary, problem = read_safely(place.lab, folder)
    if summary and not owned(summary, place.experiment):
        return None
    status = "damaged" if problem else str(current_status(folder, summary))
    return Entry(
        place.lab,
        place.experiment,
        folder,
        run,
        stage,
        at,
        summary,
        read_notes(folder, place.lab.read),
        status,
        problem,
        written(folder),
    )


def read_safely(lab: Lab, folder: Path) -> tuple[dict[str, Any], str]:
    """summary.json of a run folder, and what is wrong with it."""
    try:
        return read_summary(folder, lab.read), ""
    except UserError as error:
        return {}, f"summary.json is {error.message}"
    except OSError as error:
        return {}, f"summary.json cannot be read: {error.strerror}"


def list_runs(place: Place) -> None:
    """List the run folders of an experiment. Hidden ones are being removed."""
    lab, sweeps = place.lab, place.out / SWEEPS
    shut = [folder for folder in (place.out, sweeps) if is_closed(folder)]
    times = {folder: 0 if folder in shut else time_of(folder) for folder in (place.out, sweeps)}
    others = {f"{place.head}/{SWEEPS}/{name}": sweeps / name / SWEEP for name in lab.folders(sweeps)}
    found: list[tuple[Path, str, str | None]] = []
    closed = [folder.name for folder in shut]
    for name in lab.folders(place.out):
        folder = place.out / name
        if not (at := time_of(folder)):
            times[folder] = 0  # differs from its time when it is opened
            closed += [name] if folder not in shut else []
        elif is_file(folder / PIPELINE):
            times[folder] = at
            others[f"{place.head}/{name}"] = folder / PIPELINE
            stages = lab.folders(folder)
            times |= {folder / stage: 0 for stage in stages if not time_of(folder / stage)}
            closed += [f"{name}/{stage}" for stage in stages if folder / stage in times]
            begun = [stage for stage in stages if is_file(folder / stage / "summary.json")]
            found += [(folder / stage, name, stage) for stage in in_order(begun, stage_names(folder, lab.read))]
        elif is_file(folder / "summary.json"):
            found.append((folder, name, None))
        else:
            times.setdefault(folder, at)  # a run that begins, perhaps
    place.times, place.found, place.others = times, found, others
    place.odd, place.closed = lab.left_out(place.out), closed


def changed_files(place: Place) -> set[str]:
    """The ids of sweeps and of runs with stages whose files have changed since the last call."""
    former, place.stamps = place.stamps, {id: told_by(path) for id, path in place.others.items()}
    return {id for id in former.keys() | place.stamps.keys() if former.get(id) != place.stamps.get(id)}


def told_by(path: Path) -> tuple[int, int, bool]:
    """What changes of a sweep or a run with stages: its file, and whether a process works on it."""
    try:
        is_worked_on = is_locked(lock_file(path.parent))
    except OSError:
        is_worked_on = False
    return (*stamp(path), is_worked_on)


def out_of(lab: Lab, experiment: Experiment) -> Path:
    """The folder of an experiment's runs; its usual one if config.toml does not say, or leads out of a lab that was given."""
    usual = experiment.folder / "out"
    try:
        out = Path(os.path.abspath(places(experiment, lab.read_source)[1]))  # noqa: PTH100 - resolve would follow links
    except Exception:  # whatever is in config.toml: the other experiments are shown
        return usual
    return usual if lab.is_given and not out.is_relative_to(lab.folder) else out


def time_of(folder: Path) -> int:
    """When a folder was changed, in nanoseconds; 0 if it is not there, or may not be looked into."""
    try:
        return os.stat(f"{folder}/.").st_mtime_ns  # noqa: PTH116 - a third of the time of Path.stat
    except OSError:
        return 0


def is_closed(folder: Path) -> bool:
    """Whether a folder is there, and its names may not be read."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return os.path.lexists(folder)
    return False


def is_file(path: Path) -> bool:
    """Whether there is a file. Not where that cannot be found out."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_young(at: int) -> bool:
    """Whether a folder was changed so lately that it may change again within the same tick of the disk's clock."""
    return time.time_ns() - at < YOUNG


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros if it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def written(folder: Path) -> tuple[int, int, int]:
    """What changes while a run trains, besides its folder."""
    return (*stamp(folder / "metrics.csv"), time_of(folder / "checkpoints"))
