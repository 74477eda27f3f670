"""Whether a run is new, goes on, or is finished. No run is ever overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.config import Config, replaced
from core.errors import UserError
from core.private import without_home
from core.roles import RESUMABLE, flat, role_of
from core.toml import completed
from core.tracking.run import Run, is_own, read_config, read_summary, set_aside

Kind = Literal["new", "resumed", "finished"]
SAME_ANYWAY = ("place", "shown")  # roles of keys that make no run another one, except what init_from names


@dataclass(frozen=True)
class Beginning:
    """How a run begins. run: with the choices that it made for "auto". aside: former runs to rename, and why.

    Nothing is renamed before `make_way` is called: a run that cannot start leaves everything as it was.
    """

    kind: Kind
    run: Run
    aside: tuple[tuple[Path, str], ...] = ()

    def make_way(self) -> list[str]:
        """Rename the former runs. Returns a sentence about each."""
        said = []
        for folder, owner in self.aside:
            if owner:
                said.append(
                    f"{folder.name} was copied along from {owner}; it is now {set_aside(folder, f'-of-{owner}').name}."
                )
            else:
                said.append(f"The former run {folder.name} is now {set_aside(folder).name}.")
        return said


def begin(run: Run, fingerprint: str, *, resume: bool, fresh: bool) -> Beginning:
    """Find out how a run begins; nothing is changed on disk.

    A run that was copied along with another experiment's folder, or that `fresh` replaces, is to be renamed. Raises
    UserError where the folder holds a run of other settings or data, and where there is nothing to resume.
    """
    summary = read_summary(run.folder)
    owner = "" if not summary or is_own(run.folder, run.experiment) else str(summary["experiment"])
    if not summary or owner or fresh:
        if resume:
            raise UserError(
                f"{run.experiment.name} has no run '{run.name}' to resume",
                place=str(run.folder),
                remedy="Leave out `resume=True` to start it.",
            )
        return Beginning("new", run, ((run.folder, owner),) if summary else ())
    stored = flat(completed(read_config(run.folder)))
    differences = changed(stored, flat(run.config.model_dump()))
    trained_on = summary.get("dataset_fingerprint")
    if trained_on != fingerprint:
        differences["the dataset"] = (str(trained_on)[:12], fingerprint[:12])
    if differences and not (resume and all(map(resumable, differences))):
        raise other_run(run, differences)
    run = replace(run, config=adopted(run.config, stored))
    if summary.get("status") == "completed" and not (resume and wants_more(run.config, summary, differences)):
        return Beginning("finished", run)
    return Beginning("resumed", run)


def resumable(key: str) -> bool:
    """Whether a resume may change this key of [train]: the run stays the same run."""
    return key.startswith("train.") and role_of(key) in RESUMABLE


def wants_more(config: Config, summary: Mapping[str, Any], differences: Mapping[str, Any]) -> bool:
    """Whether a completed run is to go on: for more steps, for more time, or past the condition that stopped it.

    A run ends a little before or after its budget in time, so what is left of a budget is no reason to go on.
    """
    minutes = config.train.runtime.max_minutes
    if summary.get("stopped_by") and "train.runtime.stop_when" not in differences:
        return False
    if minutes is None:
        return config.train.schedule.max_iters > (summary.get("steps") or 0)
    return "train.runtime.max_minutes" in differences and 60 * minutes > (summary.get("wall_seconds") or 0)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of [train] that differ, with both values. "auto" differs from nothing, nor does ~ from the home folder."""
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
    """The config with the run's former choices where it says "auto": a resume must go on with the same ones."""
    chosen = {
        key: stored[key]
        for key, value in flat(config.model_dump()).items()
        if value == "auto" and key.startswith("train.") and key in stored
    }
    return replaced(config, chosen)


def listed(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """The first differences, as text."""
    shown = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in list(differences.items())[:4])
    return f"{shown} ..." if len(differences) > 4 else shown


def other_run(run: Run, differences: Mapping[str, tuple[Any, Any]]) -> UserError:
    """The run of this name has other settings or data."""
    return UserError(
        f"the run '{run.name}' was made with other settings: {listed(differences)}",
        place=str(run.folder),
        remedy="Give this one another name with `run=NAME`, or start again with `fresh=True` (the old run is kept under another name).",
    )
