"""The run folder: its place, its config.toml and summary.json, and the list of an experiment's runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from core import durable, files, private
from core.errors import UserError, did_you_mean
from core.plugins.discovery import Experiment, Read, stands_beside

if TYPE_CHECKING:
    from core.config import Config

PIPELINE = "pipeline.json"  # in the folder of a run that has stages, each in a folder of its own below
DEFAULT = "default"  # the name of a run if none is given
TEXT, NUMBER, TABLE = "text", "a number", "a dict"
# Every documented field of summary.json and its type; each may also be null. A run may add more.
SUMMARY = {
    "experiment": TEXT, "run": TEXT, "description": TEXT, "status": TEXT, "seed": NUMBER, "steps": NUMBER,
    "tokens": NUMBER, "train_seconds": NUMBER, "wall_seconds": NUMBER, "tokens_per_second": NUMBER,
    "ms_per_step": NUMBER, "flops": NUMBER, "mfu": NUMBER, "peak_flops": NUMBER, "parameters": NUMBER, "device": TEXT,
    "dtype": TEXT, "best_val_loss": NUMBER, "best_step": NUMBER, "final_train_loss": NUMBER, "final_val_loss": NUMBER,
    "side": TEXT, "bits_per_byte": NUMBER, "accuracy": NUMBER, "prompts": NUMBER, "accuracy_by_group": TABLE,
    "prompts_by_group": TABLE, "val_accuracy": NUMBER, "metrics": TABLE, "reached": TABLE, "delay": NUMBER, "stopped_by": TEXT,
    "dataset_fingerprint": TEXT, "data_hash": TEXT, "val_text": TEXT, "held_out": TABLE, "environment": TABLE, "command": TEXT, "started": TEXT, "choices": TABLE,
    "cropped": NUMBER, "padding": NUMBER,
}  # fmt: skip
LATE = ("command", "started", "choices", "held_out", "cropped", "padding")  # fields that a summary may lack
TYPES = {TEXT: (str,), TABLE: (dict,), NUMBER: (int, float)}


@dataclass(frozen=True)
class Run:
    """One training of an experiment, with its settings. Hooks of plugins receive it.

    name: RUN, or RUN/STAGE for a stage of a run.
    """

    experiment: Experiment
    name: str
    config: Config
    description: str = ""

    def __post_init__(self) -> None:
        """Raises UserError for a name that cannot be a visible folder in the out folder."""
        refuse_wrong_name(self.name)

    @property
    def folder(self) -> Path:
        return out_folder(self.experiment, self.config) / self.name

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def title(self) -> str:
        """The name in messages: experiment/run."""
        return f"{self.experiment.name}/{self.name}"

    def write_config(self) -> None:
        """Write config.toml with every key."""
        from core.toml import dump  # imports pydantic, which `list` does not need

        private.write_text(self.folder / "config.toml", dump(self.config.model_dump()))

    def write_summary(self, values: dict[str, Any]) -> dict[str, Any]:
        """Update summary.json with some values. Missing fields are null. Returns the whole summary.

        Raises UserError, and writes nothing, if a field has a type that no command could read.
        """
        summary = {name: None for name in SUMMARY if name not in LATE} | read_summary(self.folder) | values
        check_fields(summary, str(self.folder / "summary.json"))
        private.write_json(self.folder / "summary.json", summary)
        return summary


def refuse_wrong_name(name: str) -> None:
    """Raise UserError for the name of a run, RUN or RUN/STAGE, that cannot be a visible folder in the out folder."""
    parts = name.split("/")
    if len(parts) > 2 or not all(
        part.strip() and not part.startswith(".") and not set("\\\0\n") & set(part) for part in parts
    ):
        raise UserError(
            f"'{name}' is not a valid run name",
            place="run",
            remedy="Use letters, digits, - and _. The run's folder gets this name.",
        )


def out_folder(experiment: Experiment, config: Config) -> Path:
    """The folder that an experiment's runs are in."""
    return experiment.path(config.train.runtime.out_dir)


def name_of(folder: Path) -> str:
    """The name of the run in a folder: RUN, or RUN/STAGE."""
    return f"{folder.parent.name}/{folder.name}" if (folder.parent / PIPELINE).is_file() else folder.name


def out_of(folder: Path) -> Path:
    """The out folder that a run's or a stage's folder is in."""
    return folder.parent.parent if (folder.parent / PIPELINE).is_file() else folder.parent


def lock_file(folder: Path) -> Path:
    """The lock of a run folder. It is next to the folder, so that the folder can be renamed."""
    return folder.parent / f".{folder.name}.lock"


def current_status(folder: Path, summary: Mapping[str, Any]) -> str | None:
    """The status of a run at this moment. A process that trains it holds its lock; a killed one left "interrupted"."""
    status: str | None = summary.get("status")
    return "running" if status == "interrupted" and files.is_locked(lock_file(folder)) else status


def read_summary(folder: Path, read: Read = Path.read_bytes) -> dict[str, Any]:
    """Read summary.json of a run folder; {} if there is none. Raises UserError if it is damaged."""
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    try:
        summary = json.loads(read(path))
    except (ValueError, RecursionError):
        summary = None
    if not isinstance(summary, dict) or not isinstance(summary.get("experiment"), str) or misfits(summary):
        raise UserError(
            "not the summary of a run",
            place=str(path),
            remedy="Move the run folder away, or delete this file and resume the run.",
        )
    return summary


def misfits(summary: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a summary with a wrong type: name -> what the field must be. Null is always allowed."""
    given = {name: kind for name, kind in SUMMARY.items() if summary.get(name) is not None}
    return {name: kind for name, kind in given.items() if type(summary[name]) not in TYPES[kind]}


def check_fields(summary: Mapping[str, Any], place: str) -> None:
    """Raise UserError for the first field of a summary with a wrong type."""
    for name, kind in misfits(summary).items():
        raise UserError(
            f"{name} is {summary[name]!r}, but it must be {kind}",
            place=place,
            remedy=f"Give {kind}, or choose another name for the field.",
        )


def read_config(folder: Path, read: Read = Path.read_bytes) -> dict[str, Any]:
    """Read config.toml of a run folder, as nested values. Raises UserError if it is missing or damaged."""
    path = folder / "config.toml"
    try:
        return tomli.loads(read(path).decode())
    except FileNotFoundError:
        raise UserError(
            "the run has no config.toml", place=str(folder), remedy="Train it again with `fresh=True`."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"not valid TOML: {error}", place=str(path), remedy="Train the run again with `fresh=True`."
        ) from None


def is_own(folder: Path, experiment: Experiment) -> bool:
    """Whether a run folder belongs to this experiment. False if it was copied together with another one's folder."""
    return owned(read_summary(folder), experiment)


def owned(summary: Mapping[str, Any], experiment: Experiment) -> bool:
    """`is_own` for a summary: it names this experiment, or one that is nowhere, because this one had that name before."""
    owner = summary.get("experiment", experiment.name)
    return bool(owner == experiment.name) or not stands_beside(experiment, owner)


def adopt(folder: Path, summary: Mapping[str, Any], experiment: Experiment) -> Path:
    """Write a renamed experiment's new name into its run, so that it keeps it when the old name is used again."""
    if summary["experiment"] != experiment.name:
        with contextlib.suppress(OSError):  # the disk may be read-only
            files.write_json(folder / "summary.json", {**summary, "experiment": experiment.name})
    return folder


def run_folders(experiment: Experiment, out: Path) -> list[Path]:
    """The experiment's own run folders in its out folder, by name. Hidden ones are being removed.

    Runs with a damaged summary.json are left out, so that the others still work; see `damaged_runs`.
    """
    return [
        adopt(folder, found, experiment)
        for folder, found in summaries(out)
        if not isinstance(found, UserError) and owned(found, experiment)
    ]


def damaged_runs(out: Path) -> list[UserError]:
    """The error for each summary.json that cannot be read."""
    return [found for _, found in summaries(out) if isinstance(found, UserError)]


def summaries(out: Path) -> Iterator[tuple[Path, dict[str, Any] | UserError]]:
    """Folders that may be runs, by name, each with its summary or the error from reading it. Stages come in their order of time."""
    found = [
        *out.glob("*/summary.json"),
        *(path for file in out.glob(f"*/{PIPELINE}") for path in stages_in(file.parent)),
    ]
    for path in sorted(found, key=lambda path: path.parent.relative_to(out).parts[0]):
        if not any(part.startswith(".") for part in path.parent.relative_to(out).parts):
            try:
                yield path.parent, read_summary(path.parent)
            except UserError as error:
                yield path.parent, error


def stage_names(folder: Path, read: Read = Path.read_bytes) -> list[str]:
    """The names of a run's stages, in their order, from its pipeline.json; [] if that cannot be read, or holds others."""
    try:
        names = json.loads(read(folder / PIPELINE))["stages"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def stages_in(folder: Path) -> list[Path]:
    """The summary.json of each stage of a run that has begun, in the order of the stages; others after them, by name."""
    begun = [path.parent.name for path in folder.glob("*/summary.json")]
    return [folder / name / "summary.json" for name in in_order(begun, stage_names(folder))]


def in_order(names: Iterable[str], order: list[str]) -> list[str]:
    """Names of stages in the order that pipeline.json says; others after them, by name."""
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def find_run(experiment: Experiment, out: Path, name: str) -> Path:
    """The folder of a named run, RUN or RUN/STAGE; for a run with stages, of the last one that is finished.

    Raises UserError, which suggests existing runs.
    """
    known = {name_of(folder): folder for folder in run_folders(experiment, out)}
    if name in known:
        return known[name]
    if stages := [folder for known_name, folder in known.items() if known_name.startswith(f"{name}/")]:
        finished = [folder for folder in stages if read_summary(folder).get("status") == "completed"]
        return (finished or stages[:1])[-1]
    train = experiment.command.format("train")
    if known:
        remedy = f"{did_you_mean(name, known)} `{experiment.command.format('runs')}` lists them."
    else:
        remedy = f"Train it first: {train}" + ("" if name == DEFAULT else f" `run={name}`")
    if (out / name / "summary.json").is_file():
        owner = read_summary(out / name)["experiment"]
        remedy = f"out/{name} is a copied run of '{owner}'. " + remedy
    raise UserError(f"{experiment.name} has no run '{name}'", place=str(out), remedy=remedy)


def set_aside(folder: Path, suffix: str = "") -> Path:
    """Rename a run folder so that its name is free, such as default -> default-1. Returns the new path."""
    number = 1
    while (target := folder.with_name(f"{folder.name}{suffix}-{number}")).exists():
        number += 1
    rename(folder, target)
    return target


def rename(folder: Path, target: Path) -> None:
    """Rename a run folder, and the run in its summary.json."""
    durable.rename(folder, target)
    durable.sync_path(folder.parent)
    summary = read_summary(target)
    if summary:
        files.write_json(target / "summary.json", summary | {"run": name_of(target)})
    for path in stages_in(target) if (target / PIPELINE).is_file() else ():
        files.write_json(path, read_summary(path.parent) | {"run": name_of(path.parent)})
