"""Decide whether a run is new, resumed or finished. No run is ever overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core import durable
from core.config import Config, replaced
from core.data.dataset import Dataset
from core.errors import UserError
from core.private import without_home
from core.roles import RESUMABLE, flat, role_of
from core.toml import completed
from core.tracking.run import Run, owned, read_config, read_summary, rename, set_aside

Kind = Literal["new", "resumed", "finished"]
SAME_ANYWAY = ("place", "shown")  # roles of keys that may differ between tries of the same run


@dataclass(frozen=True)
class Beginning:
    """How a run begins. run: with its earlier choices for "auto". aside: folders to rename, each with its owner if copied.

    Nothing is renamed before `make_way` is called, so a run that cannot start changes nothing.
    """

    kind: Kind
    run: Run
    aside: tuple[tuple[Path, str], ...] = ()

    def make_way(self) -> list[Moved]:
        """Rename the folders in the way."""
        return [
            Moved(folder, set_aside(folder, f"-of-{owner}" if owner else ""), owner) for folder, owner in self.aside
        ]


@dataclass(frozen=True)
class Moved:
    """A run folder that was renamed to make way. owner: the experiment that it was copied from, or ""."""

    folder: Path
    renamed: Path
    owner: str

    def __str__(self) -> str:
        if self.owner:
            return f"{self.folder.name} is a copied run of {self.owner}; it is now {self.renamed.name}."
        return f"The old run {self.folder.name} is now {self.renamed.name}."

    def back(self) -> str:
        """Remove the run that took the place, and give the old one its name back. Returns a sentence about it."""
        durable.remove_tree(self.folder)
        rename(self.renamed, self.folder)
        return f"The new run could not start, so {self.renamed.name} is {self.folder.name} again."


def begin(run: Run, dataset: Dataset, *, resume: bool, fresh: bool) -> Beginning:
    """Find out how a run begins. Changes nothing on disk.

    A run that was copied together with another experiment's folder, or that `fresh` replaces, will be renamed. Raises
    UserError if the folder has a run with other settings or data, and if there is nothing to resume.
    """
    summary = read_summary(run.folder)
    owner = "" if owned(summary, run.experiment) else str(summary["experiment"])
    if not summary or owner or fresh:
        if resume:
            raise UserError(
                f"{run.experiment.name} has no run '{run.name}' to resume",
                place=str(run.folder),
                remedy="Leave out `resume=True` to start a new run.",
            )
        return Beginning("new", run, ((run.folder, owner),) if summary else ())
    stored = flat(completed(read_config(run.folder)))
    differences = changed(stored, flat(run.config.model_dump()))
    if not dataset.is_of(summary):
        known = summary.get("data_hash") or summary.get("dataset_fingerprint")
        differences["the dataset"] = (str(known)[:12], dataset.data_hash[:12])
    if differences and not (resume and all(map(resumable, differences))):
        raise other_run(run, differences)
    run = replace(run, config=adopted(run.config, stored))
    if summary.get("status") == "completed" and not (resume and wants_more(run.config, summary, differences)):
        return Beginning("finished", run)
    return Beginning("resumed", run)


def resumable(key: str) -> bool:
    """Whether a resume may change this key of [train]."""
    return key.startswith("train.") and role_of(key) in RESUMABLE


def wants_more(config: Config, summary: Mapping[str, Any], differences: Mapping[str, Any]) -> bool:
    """Whether a completed run should continue: for more steps, more time, or past the condition that stopped it.

    A run ends a little before or after its time budget, so a small rest of the budget does not count.
    """
    minutes = config.train.runtime.max_minutes
    if summary.get("stopped_by") and "train.runtime.stop_when" not in differences:
        return False
    if minutes is None:
        return config.train.schedule.max_iters > (summary.get("steps") or 0)
    return "train.runtime.max_minutes" in differences and 60 * minutes > (summary.get("wall_seconds") or 0)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of [train] that differ, with both values. "auto" equals anything, and ~ equals the home folder."""
    found = {}
    for key in {**before, **after}:
        if key.startswith("train.") and role_of(key) not in SAME_ANYWAY:
            old, new = (
                without_home(value) if isinstance(value, str) else value for value in (before.get(key), after.get(key))
            )
            if new not in ("auto", old):
                found[key] = (old, new)
    return found


def adopted(config: Config, stored: Mapping[str, Any]) -> Config:
    """The config with the run's earlier choices in place of "auto", because a resume must use the same ones."""
    chosen = {
        key: stored[key]
        for key, value in flat(config.model_dump()).items()
        if value == "auto" and key.startswith("train.") and key in stored
    }
    return replaced(config, chosen)


def listed(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """The first four differences, as text."""
    shown = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in list(differences.items())[:4])
    return f"{shown} ..." if len(differences) > 4 else shown


def other_run(run: Run, differences: Mapping[str, tuple[Any, Any]]) -> UserError:
    """The error for a run of this name with other settings or data."""
    return UserError(
        f"the run '{run.name}' was made with other settings: {listed(differences)}",
        place=str(run.folder),
        remedy="Choose another name with `run=NAME`, or start again with `fresh=True` (the old run is kept under another name).",
    )
