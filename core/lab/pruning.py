"""List an experiment's runs, choose those to remove, and remove them."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import durable, files
from core.errors import UserError
from core.plugins.discovery import Experiment
from core.tracking.figures import read_figures
from core.tracking.run import DEFAULT, PIPELINE, lock_file, name_of, run_folders

KEPT = DEFAULT  # other runs are compared with it, in EXPERIMENT_LOG.md too


@dataclass(frozen=True)
class Listed:
    """A run's folder and summary."""

    folder: Path
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        return name_of(self.folder)

    @property
    def started(self) -> str:
        """Local time in ISO 8601; "" if unknown, which counts as old."""
        return str(self.summary.get("started") or "")


@dataclass(frozen=True)
class Condemned:
    """A run to remove. why: the reason. size: of its files, bytes."""

    run: Listed
    why: str
    size: int


def listed_runs(experiment: Experiment, out: Path) -> list[Listed]:
    """The experiment's runs, newest last."""
    found = [Listed(folder, read_figures(folder)) for folder in run_folders(experiment, out)]
    return sorted(found, key=lambda run: run.started)


def chosen(runs: Sequence[Listed], older_than: float | None, keep: int | None) -> list[tuple[Listed, str]]:
    """The runs to remove, each with the reason: failed runs, and old ones.

    older_than: days. keep: the number of newest runs to keep. The run `default` is always kept.
    """
    others = [run for run in runs if run.name.split("/")[0] != KEPT]
    whole = [run for run in others if run.summary.get("status") != "failed"]
    newest = whole[len(whole) - min(keep or 0, len(whole)) :]
    before = None if older_than is None else (datetime.datetime.now() - datetime.timedelta(days=older_than)).isoformat()

    def reason(run: Listed) -> str:
        if run not in whole:
            return "failed"
        if run in newest or (before is None and keep is None):
            return ""
        if before is None:
            return f"not among the {keep} newest"
        return f"older than {older_than:g} days" if run.started < before else ""

    return [(run, why) for run in others if (why := reason(run))]


def condemn(runs: Sequence[tuple[Listed, str]]) -> tuple[list[Condemned], list[str]]:
    """The runs that are not in use, and a sentence about each run that is, or cannot be locked."""
    free, kept = [], []
    for run, why in runs:
        try:
            with locked(run.folder):
                free.append(Condemned(run, why, size_of(run.folder)))
        except UserError as error:
            kept.append(error.message)
    return free, kept


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def remove(folder: Path) -> None:
    """Remove a run, or a stage of one: with the last stage goes what is about all of them.

    If it is interrupted, the run is intact, or a hidden folder that `files.tidy` removes.
    """
    with locked(folder), contextlib.ExitStack() as others:
        gone = folder.parent if is_last_stage(folder, others) else folder
        hidden = files.temporary_name(gone)
        durable.rename(gone, hidden)
        durable.sync_path(gone.parent)
        durable.remove_tree(hidden)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run, and of a stage's run with all stages, which may be at work on another. Raises UserError."""
    name = name_of(folder)
    with contextlib.ExitStack() as stack:
        for each in [folder.parent, folder] if is_stage(folder) else [folder]:
            stack.enter_context(files.lock(lock_file(each), f"run {name}"))
        yield


def is_stage(folder: Path) -> bool:
    return (folder.parent / PIPELINE).is_file()


def is_last_stage(folder: Path, locks: contextlib.ExitStack) -> bool:
    """Whether a run folder is the only stage that is left of a run, and none begins. locks: gets those of the stages that were there."""
    whole = folder.parent
    if (
        not is_stage(folder) or whole.is_symlink() or os.name == "nt"
    ):  # there a folder with an open file cannot be renamed
        return False
    stages = {path.parent for path in whole.glob("*/summary.json") if not path.parent.name.startswith(".")}
    if stages - {folder}:
        return False
    try:
        for path in whole.glob(".*.lock"):
            if path != lock_file(folder):
                locks.enter_context(files.lock(path, f"run {name_of(folder)}"))
    except UserError:
        return False
    return True
