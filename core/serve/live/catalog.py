"""Every run of some labs, with its summary and notes, kept up to date by looking at the times of folders.

Nothing here raises for what stands in a run folder: a run whose files are damaged has a `problem`.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UserError
from core.lab.places import places
from core.plugins.discovery import Experiment
from core.serve.live.labs import Lab
from core.tracking.notes import read_notes
from core.tracking.run import PIPELINE, current_status, owned, read_summary, stages_in

LARGEST = 4 << 20  # bytes of a summary.json or config.toml that is read: a run's own have some thousands
YOUNG = 2_000_000_000  # nanoseconds in which a folder may change again without another time
THOROUGH = 10.0  # seconds after which experiments are looked for again
ACTIVE = ("running", "interrupted")  # what summary.json of a run that has not ended says


@dataclass(frozen=True)
class Entry:
    """A run, or a stage of one. time: of its folder, when it was read. problem: what is wrong with its files, or ""."""

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
    written: tuple[int, int] = (0, 0)  # of metrics.csv: its size and its time

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
    """An experiment's folder of runs. times: of it and of the runs with stages in it, when they were listed."""

    lab: Lab
    experiment: Experiment
    out: Path
    times: dict[Path, int] = field(default_factory=dict)
    found: list[tuple[Path, str, str | None]] = field(default_factory=list)


class Catalog:
    """The runs of all labs, by id. `update` may be called from any thread; `entries` is replaced as a whole."""

    def __init__(self, labs: Callable[[], list[Lab]]) -> None:
        self.find_labs = labs
        self.labs: list[Lab] = []
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

    def changed_since(self, version: int) -> set[str]:
        """The ids of runs that were added, changed or removed after a version."""
        return set().union(*(ids for at, ids in list(self.changes) if at > version))

    def are_unchanged(self, ids: Iterable[str], version: int) -> bool:
        """Whether these runs are as they were at a version. False where that is too long ago to be known."""
        recorded = list(self.changes)
        if len(recorded) == self.changes.maxlen and recorded[0][0] > version:
            return False
        return self.changed_since(version).isdisjoint(ids)

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
            former = self.entries
            entries = {entry.id: entry for place in self.places.values() for entry in self.entries_of(place)}
            self.entries, self.updated = entries, time.monotonic()
            if changed := {id for id in former.keys() | entries.keys() if former.get(id) is not entries.get(id)}:
                self.version += 1
                self.changes.append((self.version, changed))

    def search(self) -> None:
        """Find the labs, their experiments and the folders of their runs."""
        self.labs = self.find_labs()
        former, found = set(self.places), {}
        for lab in self.labs:
            for experiment in lab.experiments():
                out = out_of(lab, experiment)
                place = self.places.get(experiment.folder)
                same = place is not None and place.out == out
                found[experiment.folder] = place if place and same else Place(lab, experiment, out)
        self.places = found
        self.version += former != set(found)

    def entries_of(self, place: Place) -> Iterator[Entry]:
        """The runs of an experiment; those that have not changed as they were."""
        if any(time_of(folder) != seen or is_young(seen) for folder, seen in place.times.items()) or not place.times:
            list_runs(place)
        for folder, run, stage in place.found:
            id = "/".join(filter(None, (place.lab.name, place.experiment.name, run, stage)))
            former = self.entries.get(id)
            at = time_of(folder)
            if not at:
                continue
            if former is not None and former.time == at and former.folder == folder and is_settled(former):
                yield former
            elif (entry := read_entry(place, folder, run, stage, at)) is not None:
                yield former if former == entry else entry


def is_settled(entry: Entry) -> bool:
    """Whether a run whose folder has its old time is as it was: one that has not ended writes metrics, and may have been killed."""
    if is_young(entry.time):
        return False
    return entry.status not in ACTIVE or (
        entry.written == stamp(entry.folder / "metrics.csv")
        and entry.status == current_status(entry.folder, entry.summary)
    )


def read_entry(place: Place, folder: Path, run: str, stage: str | None, at: int) -> Entry | None:
    """A run from its files. None if it is a copy of another experiment's run."""
    summary, problem = read_safely(folder)
    if summary and not owned(summary, place.experiment):
        return None
    status = "damaged" if problem else str(current_status(folder, summary))
    written = stamp(folder / "metrics.csv")
    return Entry(
        place.lab, place.experiment, folder, run, stage, at, summary, read_notes(folder), status, problem, written
    )


def read_safely(folder: Path) -> tuple[dict[str, Any], str]:
    """summary.json of a run folder, and what is wrong with it."""
    try:
        if (folder / "summary.json").stat().st_size > LARGEST:
            return {}, f"summary.json has more than {LARGEST:,} bytes"
        return read_summary(folder), ""
    except UserError as error:
        return {}, f"summary.json is {error.message}"
    except OSError as error:
        return {}, f"summary.json cannot be read: {error.strerror}"


def list_runs(place: Place) -> None:
    """List the run folders of an experiment. Hidden ones are being removed; links are not followed where a lab was given."""
    place.times, place.found = {place.out: time_of(place.out)}, []
    try:
        inner = sorted((entry.name, entry.is_symlink()) for entry in os.scandir(place.out) if entry.is_dir())
    except OSError:
        return
    for name, is_link in inner:
        folder = place.out / name
        if name.startswith(".") or (is_link and place.lab.is_given):
            continue
        if (folder / PIPELINE).is_file():
            place.times[folder] = time_of(folder)
            place.found += [(path.parent, name, path.parent.name) for path in stages_in(folder)]
        elif (folder / "summary.json").is_file():
            place.found.append((folder, name, None))
        else:
            place.times[folder] = time_of(folder)  # a run that begins, perhaps


def out_of(lab: Lab, experiment: Experiment) -> Path:
    """The folder of an experiment's runs; its usual one if config.toml does not say, or leads out of a lab that was given."""
    usual = experiment.folder / "out"
    try:
        out = places(experiment)[1]
    except Exception:  # whatever is in config.toml: the other experiments are shown
        return usual
    is_inside = not lab.is_given or out.resolve().is_relative_to(lab.folder.resolve())
    return out if is_inside else usual


def time_of(folder: Path) -> int:
    """When a folder was changed, in nanoseconds; 0 if it is not there."""
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - a third of the time of Path.stat
    except OSError:
        return 0


def is_young(at: int) -> bool:
    """Whether a folder was changed so lately that it may change again within the same tick of the disk's clock."""
    return time.time_ns() - at < YOUNG


def open_file(path: Path) -> BinaryIO:
    """Open a file of a run folder to read it. Raises OSError for a link, and for what is no file, such as a pipe without end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return os.fdopen(descriptor, "rb")


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros if it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
