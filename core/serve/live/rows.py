"""Rows of the table of runs: what stands in summary.json, and for a run under way the end of its metrics.csv."""

from __future__ import annotations

import functools
import itertools
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.serve.live.catalog import ACTIVE, Entry, read_length, stamp
from core.serve.live.labs import Lab
from core.tracking.metrics import COLUMNS, number

END = 1 << 15  # bytes of metrics.csv that are read for its last rows
SWEEP = re.compile(r"^sweep-(.+)$")
Row = dict[str, Any]


def row_of(entry: Entry) -> Row:
    """The row of a run, but for what takes reading more files: see `whole_row`."""
    summary, notes = entry.summary, entry.notes
    last = last_of(entry) if entry.status in ACTIVE else {}
    return {
        "id": entry.id,
        "lab": entry.lab.name,
        "experiment": entry.experiment.name,
        "run": entry.run,
        "stage": entry.stage,
        "variant": option(summary, "--variant"),
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


def whole_row(entry: Entry, sweeps: Mapping[str, str]) -> Row:
    """The row with its length, progress and time left. sweeps: id of a run -> id of its sweep."""
    row = row_of(entry)
    unit, length = length_of(entry.lab, entry.folder, stamp(entry.folder / "config.toml")) or ("steps", None)
    done = row["step"] if unit == "steps" else row["seconds"]
    progress = min(1.0, done / length) if length and done is not None else None
    left = None
    if entry.status == "running" and progress and row["seconds"]:
        left = round(row["seconds"] * (1 - progress) / progress, 1)
    if entry.status == "completed":
        progress = 1.0
    return row | {
        "length": length,
        "unit": unit,
        "progress": progress,
        "seconds_left": left,
        "sweep": sweeps.get(entry.id),
        "can_chat": has_weights(entry),
    }


def has_weights(entry: Entry) -> bool:
    """Whether a run has a model that can be asked."""
    found = entry.lab.folders(entry.folder / "checkpoints")
    return not entry.problem and ("best" in found or "last" in found)


@functools.lru_cache(maxsize=4096)
def length_of(lab: Lab, folder: Path, at: tuple[int, int]) -> tuple[str, float] | None:
    """`read_length`, once for each state of the file."""
    return read_length(lab, folder)


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


def words_of(summary: Mapping[str, Any]) -> list[str]:
    """The words of the command that started a run; [] if it was not a command line."""
    try:
        return shlex.split(str(summary.get("command") or ""))
    except ValueError:
        return []


def option(summary: Mapping[str, Any], name: str) -> str:
    """The value of an option in the command that started a run; "" without it."""
    words = words_of(summary)
    return next((value for word, value in itertools.pairwise(words) if word == name), "")
