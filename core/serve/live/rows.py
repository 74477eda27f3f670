"""Rows of the table of runs: what stands in summary.json, and for a run under way the end of its metrics.csv."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from core.serve.live.catalog import ACTIVE, Entry, stamp
from core.serve.live.labs import Lab
from core.tracking.metrics import COLUMNS, number

END = 1 << 15  # bytes of metrics.csv that are read for its last rows
SECTION = re.compile(r"^\[([\w.]+)\]\s*$")
STEPS, MINUTES, VARIANT = "train.schedule.max_iters", "train.runtime.max_minutes", "prepare.variant"
Row = dict[str, Any]


class Plan(NamedTuple):
    """What a run is to be. length: in steps or seconds, as unit says; None if that is not known. variant: "" without one."""

    unit: str = "steps"
    length: float | None = None
    variant: str = ""


def row_of(entry: Entry) -> Row:
    """The row of a run, but for what takes reading more files: see `whole_row`.

    Its figures are of the best evaluation. A run under way has its latest ones, and so has one that was killed.
    """
    summary, notes = entry.summary, entry.notes
    has_best = entry.status != "running" and summary.get("best_val_loss") is not None
    last = last_of(entry) if entry.status in ACTIVE and not has_best else {}
    return {
        "id": entry.id,
        "lab": entry.lab.name,
        "experiment": entry.experiment.name,
        "run": entry.run,
        "stage": entry.stage,
        "status": entry.status,
        "step": last.get("step", plain(summary.get("steps"))),
        "seconds": last.get("seconds", plain(summary.get("train_seconds"))),
        "train_loss": last.get("train_loss", plain(summary.get("final_train_loss"))),
        "val_loss": last.get("val_loss", plain(summary.get("best_val_loss"))),
        "val_accuracy": last.get("val_accuracy", plain(summary.get("val_accuracy"))),
        "accuracy": plain(summary.get("accuracy")),
        "tokens_per_second": last.get("tokens_per_second", plain(summary.get("tokens_per_second"))),
        "started": entry.started,
        "seed": plain(summary.get("seed")),
        "commit": commit_of(summary),
        "starred": bool(notes.get("starred")),
        "tags": list(notes.get("tags", ())),
        "description": entry.description,
        "hidden": bool(notes.get("hidden")),
        "problem": entry.problem,
        "parent": entry.id.rpartition("/")[0] if entry.stage else None,
        "pipeline": entry.stage is not None,
    }


def whole_row(entry: Entry) -> Row:
    """The row of a run with its length, progress and time left, its variant, and whether it can be asked."""
    row, (unit, length, variant) = row_of(entry), plan_of(entry)
    done = row["step"] if unit == "steps" else row["seconds"]
    progress = min(1.0, done / length) if length and done is not None else None
    left = None
    if entry.status == "running" and progress and row["seconds"]:
        left = round(row["seconds"] * (1 - progress) / progress, 1)
    if entry.status == "completed":
        progress = 1.0
    return row | {
        "variant": variant,
        "length": length,
        "unit": unit,
        "progress": progress,
        "seconds_left": left,
        "can_chat": has_weights(entry),
    }


def has_weights(entry: Entry) -> bool:
    """Whether a run has a model that can be asked."""
    found = entry.lab.folders(entry.folder / "checkpoints")
    return not entry.problem and ("best" in found or "last" in found)


def plan_of(entry: Entry) -> Plan:
    """What its config.toml says of a run. A variant that its experiment does not have any more counts as none."""
    plan = read_plan(entry.lab, entry.folder / "config.toml", stamp(entry.folder / "config.toml"))
    name = f"config.{plan.variant}.toml"
    is_there = plan.variant and Path(name).name == name and (entry.experiment.folder / name).is_file()
    return plan if is_there else plan._replace(variant="")


@functools.lru_cache(maxsize=4096)
def read_plan(lab: Lab, path: Path, at: tuple[int, int]) -> Plan:
    """`plan_of`, once for each state of the file. Only these keys are read, as it is fast."""
    found: dict[str, Any] = {}
    section = ""
    try:
        for line in lab.read(path).decode("utf-8", "replace").splitlines():
            if match := SECTION.match(line):
                section = match[1]
            key, _, value = line.partition(" = ")
            if (full := f"{section}.{key}") in (STEPS, MINUTES, VARIANT):
                found[full] = str(json.loads(value)) if full == VARIANT else float(value)
    except (OSError, ValueError, RecursionError):
        return Plan()
    variant = found.get(VARIANT, "")
    return (
        Plan("seconds", 60 * found[MINUTES], variant) if MINUTES in found else Plan("steps", found.get(STEPS), variant)
    )


def last_of(entry: Entry) -> dict[str, float]:
    """The latest value of each column of a run under way, as far as the end of its metrics.csv has it."""
    return dict(last_values(entry.lab, entry.folder / "metrics.csv", entry.written))


@functools.lru_cache(maxsize=512)
def last_values(lab: Lab, path: Path, at: tuple[int, int, int]) -> tuple[tuple[str, float], ...]:
    """`last_of`, once for each state of the file. Values that are no finite numbers are left out."""
    try:
        with lab.open(path) as file:
            columns = file.readline(END).decode("utf-8", "replace").rstrip("\n").split(",")
            file.seek(max(file.tell(), at[0] - END))
            lines = file.read(END).decode("utf-8", "replace").split("\n")[:-1]
    except OSError:
        return ()
    found: dict[str, float] = {}
    for line in lines:
        cells = line.split(",")
        if len(cells) != len(columns):  # the first one, cut off
            continue
        for column, cell in zip(columns, cells, strict=True):
            if (value := finite_number(cell)) is not None and column in (*COLUMNS, "val_accuracy"):
                found[column] = value
    return tuple(found.items())


def finite_number(text: str) -> float | int | None:
    """The number that a cell holds; None for anything else."""
    try:
        value = number(text)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """A figure of summary.json as JSON can hold it; None for what is not finite."""
    return value if isinstance(value, (int, float)) and abs(value) <= 1e300 else None


def commit_of(summary: Mapping[str, Any]) -> str | None:
    """The commit that a run was trained with; with + where the tree differed from it."""
    found = (summary.get("environment") or {}).get("git_commit")
    return found if isinstance(found, str) else None
