"""Whether a run is new, goes on, or is finished; and what stands in the way. No run is ever overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from core.config import Config
from core.errors import UserError
from core.tracking.run import Run, is_own, read_config, read_summary, set_aside

Beginning = Literal["new", "resumed", "finished"]
# Sections that --resume may change: they steer a run and do not make it another one.
STEERING = ("train.schedule.", "train.runtime.")


def begin(run: Run, fingerprint: str, *, resume: bool, fresh: bool) -> tuple[Beginning, str]:
    """Make the run's folder ready. Returns how it begins, and a sentence for the user ("" if all is as usual).

    A run that was copied along with another experiment's folder, or that `fresh` replaces, is renamed.
    Choices that the run made for "auto" are taken over into run.config. Raises UserError where the
    folder holds a run of other settings or data, and where there is nothing to resume.
    """
    said = ""
    if run.folder.exists() and not is_own(run.folder, run.experiment):
        owner = read_summary(run.folder)["experiment"]
        said = f"{run.name} was copied along from {owner}; it is now {set_aside(run.folder, f'-of-{owner}').name}."
    summary = read_summary(run.folder)
    if fresh and summary:
        said = f"The former run {run.name} is now {set_aside(run.folder).name}."
        summary = {}
    if not summary:
        if resume:
            raise UserError(
                f"{run.experiment.name} has no run '{run.name}' to resume",
                place=str(run.folder),
                remedy="Leave out --resume to start it.",
            )
        return "new", said

    stored = flat(read_config(run.folder))
    differences = changed(stored, flat(run.config.model_dump()))
    trained_on = summary.get("dataset_fingerprint")
    if trained_on != fingerprint:
        differences["the dataset"] = (str(trained_on)[:12], fingerprint[:12])
    steering = resume and all(key.startswith(STEERING) for key in differences)
    if differences and not steering:
        raise other_run(run, differences)
    adopt(run.config, stored)
    if summary.get("status") == "completed" and not (resume and wants_more(run.config, summary, differences)):
        return "finished", said
    return "resumed", said


def wants_more(config: Config, summary: Mapping[str, Any], differences: Mapping[str, Any]) -> bool:
    """Whether a completed run is to go on: for more steps, or for more time than it has had.

    A run ends a little before or behind its budget, so what a budget leaves over is nothing to go on with.
    """
    minutes = config.train.runtime.max_minutes
    if minutes is None:
        return config.train.schedule.max_iters > (summary.get("steps") or 0)
    return "train.runtime.max_minutes" in differences and 60 * minutes > (summary.get("wall_seconds") or 0)


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of [train] that differ, with both values; "auto" differs from nothing."""
    skipped = ("train.runtime.out_dir", "train.runtime.trackers")
    return {
        key: (before.get(key), after.get(key))
        for key in before | after
        if key.startswith("train.") and key not in skipped and after.get(key) not in ("auto", before.get(key))
    }


def adopt(config: Config, stored: dict[str, Any]) -> None:
    """Put the run's former choices where the config says "auto": a resume must go on with the same ones."""
    for key, value in flat(config.model_dump()).items():
        if value == "auto" and key.startswith("train.") and key in stored:
            *path, name = key.split(".")
            section: Any = config
            for part in path:
                section = getattr(section, part)
            setattr(section, name, stored[key])


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict with dotted keys; None is left out, as TOML has none."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            result[f"{prefix}{key}"] = value
    return result


def other_run(run: Run, differences: dict[str, tuple[Any, Any]]) -> UserError:
    """The run of this name is another one."""
    listed = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in list(differences.items())[:4])
    return UserError(
        f"the run '{run.name}' was made with other settings: {listed}{' ...' if len(differences) > 4 else ''}",
        place=str(run.folder),
        remedy="Give this one another name with --run NAME, or start again with --fresh (the old run is kept under another name).",
    )
